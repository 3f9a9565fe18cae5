import { corrupt, RozenError } from '../../errors.ts';
import { CODEC_LZ4, CODEC_NONE, CODEC_ZSTD } from '../format.ts';
import { compressLz4, decompressLz4, lz4Bound } from './lz4.ts';
import { decompressNone } from './none.ts';
import {
  compressZstd,
  compressZstdParts,
  decompressZstd,
  decompressZstdPart,
  ZSTD_DEFAULT_LEVEL,
  ZSTD_MAX_LEVEL,
  zstdBound,
} from './zstd.ts';

export interface CodecSpec {
  codec: 'none' | 'lz4' | 'zstd';
  /** zstd only: 1 to 22, 3 if not given. */
  level?: number;
}

export const DEFAULT_CODEC: CodecSpec = { codec: 'zstd', level: ZSTD_DEFAULT_LEVEL };

/** Compression that saves less than this part is not worth the time of every later read. */
const MIN_SAVING = 0.03;

/**
 * Content that is dense already (photos, films, archives) is told by zstd's fastest level, before a slower one is tried in vain:
 * samples first, all of it only if they agree. Measured at level 6, a block of 256 KiB: wheels 0.74 ms without and 0.30 with it, gzip
 * 0.16 and 0.09; other content pays 1 %.
 */
const QUICK_TRY_FROM = 64 * 1024;
const SAMPLE = 8 * 1024;
const QUICK_LEVEL = 1;

/** `target` holds `zstdBound(plain.length)` bytes. */
function isDense(plain: Uint8Array, target: Uint8Array): boolean {
  if (plain.length < QUICK_TRY_FROM) return false;
  const last = plain.length - SAMPLE;
  for (const at of [0, last >>> 1, last]) {
    if (compressZstd(plain.subarray(at, at + SAMPLE), target, QUICK_LEVEL) <= limitOf(SAMPLE)) return false;
  }
  return compressZstd(plain, target, QUICK_LEVEL) > limitOf(plain.length);
}

/** Longer results of a compression are not worth it. */
function limitOf(length: number): number {
  return Math.floor(length * (1 - MIN_SAVING));
}

/** Parses `none`, `lz4`, `zstd` or `zstd:LEVEL`. */
export function parseCodec(text: string): CodecSpec {
  const match = /^(none|lz4|zstd)(?::(\d{1,2}))?$/.exec(text);
  const name = match?.[1] as CodecSpec['codec'] | undefined;
  const level = match?.[2] === undefined ? undefined : Number(match[2]);
  if (name === undefined || (level !== undefined && (name !== 'zstd' || level < 1 || level > ZSTD_MAX_LEVEL))) {
    throw new RozenError('usage', `unknown codec ${JSON.stringify(text)}`, {
      hint: `use none, lz4, zstd or zstd:LEVEL with a level from 1 to ${ZSTD_MAX_LEVEL}`,
    });
  }
  return level === undefined ? { codec: name } : { codec: name, level };
}

/** Room that `compressInto` needs for `length` bytes, whatever the codec. */
export function compressBound(length: number): number {
  return Math.max(zstdBound(length), lz4Bound(length));
}

/**
 * Compresses `plain` into `target` (at least `compressBound(plain.length)` bytes). Returns what lies there: the codec number
 * and the length. Falls back to a plain copy when less than 3 % are saved. With `parts`, a reader may decode a part alone
 * (`decompressPart`) where the codec can do that.
 */
export function compressInto(
  spec: CodecSpec,
  plain: Uint8Array,
  target: Uint8Array,
  parts = false,
): { codec: number; length: number } {
  const limit = limitOf(plain.length);
  if (spec.codec === 'zstd') {
    const level = spec.level ?? ZSTD_DEFAULT_LEVEL;
    if (level <= QUICK_LEVEL || !isDense(plain, target)) {
      const length = parts ? compressZstdParts(plain, target, level) : compressZstd(plain, target, level);
      if (length <= limit) return { codec: CODEC_ZSTD, length };
    }
  } else if (spec.codec === 'lz4') {
    const length = compressLz4(plain, target);
    if (length <= limit) return { codec: CODEC_LZ4, length };
  }
  target.set(plain);
  return { codec: CODEC_NONE, length: plain.length };
}

/** As `compressInto`, into bytes of its own. */
export function compress(spec: CodecSpec, plain: Uint8Array): { codec: number; bytes: Buffer } {
  const target = Buffer.allocUnsafe(compressBound(plain.length));
  const { codec, length } = compressInto(spec, plain, target);
  return { codec, bytes: target.subarray(0, length) };
}

/**
 * Restores exactly `plainLength` bytes, into the front of `target` if given (it must be long enough; shared memory will do).
 * The caller has checked `plainLength` against its limit. 'corrupt' if the bytes do not decode to exactly that length.
 */
export function decompress(codec: number, bytes: Uint8Array, plainLength: number, target?: Uint8Array): Buffer {
  if (target !== undefined && target.length < plainLength) {
    throw new RozenError('internal', `a target of ${target.length} bytes for ${plainLength}`);
  }
  const plain =
    target === undefined
      ? Buffer.allocUnsafeSlow(plainLength)
      : Buffer.from(target.buffer, target.byteOffset, plainLength);
  if (codec === CODEC_ZSTD) decompressZstd(bytes, plain);
  else if (codec === CODEC_LZ4) decompressLz4(bytes, plain);
  else if (codec === CODEC_NONE) decompressNone(bytes, plain);
  else throw corrupt(`unknown codec ${codec}`);
  return plain;
}

/**
 * The bytes `from` … `to` of a plaintext, in `memory`, if less than all of it must be decoded for them and that fits; null otherwise.
 * 'corrupt' as `decompress`.
 */
export function decompressPart(
  codec: number,
  bytes: Buffer,
  { from, to }: { from: number; to: number },
  memory: Buffer,
): Buffer | null {
  if (codec === CODEC_ZSTD) return decompressZstdPart(bytes, from, to, memory);
  if (codec !== CODEC_NONE || to - from > memory.length) return null;
  memory.set(bytes.subarray(from, to));
  return memory.subarray(0, to - from);
}
