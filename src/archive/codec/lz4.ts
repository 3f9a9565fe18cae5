/**
 * LZ4 block format, raw: the length that the package puts in front (4 bytes) is cut off on the way out and put back from
 * the inner header on the way in, so that no length is believed twice.
 */
import { createRequire } from 'node:module';
import { corrupt } from '../../errors.ts';

type Lz4 = typeof import('lz4-napi');

const SIZE_PREFIX = 4;
const require = createRequire(import.meta.url);
let lz4: Lz4 | null = null;
let scratch = Buffer.alloc(0);

function load(): Lz4 {
  lz4 ??= require('lz4-napi') as Lz4;
  return lz4;
}

/** Longest output for `length` bytes (lz4's own bound). */
export function lz4Bound(length: number): number {
  return length + Math.floor(length / 255) + 16;
}

/** Compresses into `target`, which holds `lz4Bound(plain.length)` bytes at least; returns the length used. */
export function compressLz4(plain: Uint8Array, target: Uint8Array): number {
  const packed = load().compressSync(asBuffer(plain));
  target.set(packed.subarray(SIZE_PREFIX));
  return packed.length - SIZE_PREFIX;
}

/** Fills `target` exactly. */
export function decompressLz4(bytes: Uint8Array, target: Uint8Array): void {
  if (scratch.length < bytes.length + SIZE_PREFIX) scratch = Buffer.alloc((bytes.length + SIZE_PREFIX) * 2);
  const packed = scratch.subarray(0, bytes.length + SIZE_PREFIX);
  packed.writeUInt32LE(target.length, 0);
  packed.set(bytes, SIZE_PREFIX);
  let plain: Buffer;
  try {
    plain = load().uncompressSync(packed);
  } catch (cause) {
    throw corrupt(`lz4 cannot decode ${bytes.length} bytes`, { cause });
  }
  if (plain.length !== target.length) throw corrupt(`lz4 made ${plain.length} bytes instead of ${target.length}`);
  target.set(plain);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
