/**
 * Frames: the outer header in the clear, its hash, the body, the hash of it all. Layout: format.ts and docs/FORMAT.md §3.
 *
 * `sealFrame` and `openFrame` are the hot path. A 256 KiB block of binaries is opened in about 350 µs: zstd 250, BLAKE3 of the
 * plaintext 48, ChaCha20-Poly1305 45, the fixed costs of the native calls 10.
 */
import { corrupt, RozenError } from '../errors.ts';
import { type CodecSpec, compressBound, compressInto, decompress, decompressPart } from './codec/index.ts';
import { openAeadInto, randomNonce, sealAeadInto } from './crypto/aead.ts';
import { blake3 } from './crypto/blake3.ts';
import {
  AEND_BODY_SIZE,
  ARCHIVE_ID_SIZE,
  BLOCK_SIZE,
  CODEC_NONE,
  FRAME_OVERHEAD,
  FRAME_TYPES,
  type FrameType,
  HASH_SIZE,
  INNER_HEADER_SIZE,
  INNER_OFFSETS,
  MAX_BODY,
  MAX_CBOR_HEADER,
  MAX_INDEX_BODY,
  MAX_PAGE,
  NO_RECORD,
  NONCE_SIZE,
  OUTER_HEADER_SIZE,
  OUTER_OFFSETS,
  TAG_SIZE,
} from './format.ts';

/** What binds a frame to its archive. Plain bytes: it can be sent to a worker. */
export interface SealContext {
  archiveId: Uint8Array;
  /** The key that seals this type of frame: the block key, or the chunk index key for CIDX. */
  key: Uint8Array;
  /** BLAKE3 of the AHDR frame. */
  headerHash: Uint8Array;
}

export interface OuterHeader {
  /** One of FRAME_TYPES, or an unknown ancillary type (its first letter is lower-case). */
  type: FrameType | string;
  archiveId: Buffer;
  sequence: number;
  /** Bytes of the body. */
  bodyLength: number;
  cborLength: number;
  nonce: Buffer;
  /** Where the body begins in the frame: after the fixed part, the CBOR header and the header hash. */
  bodyOffset: number;
  /** Bytes of the whole frame. */
  frameLength: number;
}

const SEAL_OVERHEAD = INNER_HEADER_SIZE + TAG_SIZE;
const MAX_SEQUENCE = 0xffff_ffff;

/** The largest plaintext that a frame of this type may hold. */
export function maxPlain(type: string): number {
  if (type === 'DATA') return BLOCK_SIZE;
  if (type === 'PAGE') return MAX_PAGE;
  if (type === 'CIDX' || type === 'ROOT' || type === 'BIDX') return MAX_INDEX_BODY - SEAL_OVERHEAD;
  return MAX_BODY - SEAL_OVERHEAD;
}

function maxBodyLength(type: string): number {
  if (type === 'AHDR') return 0;
  if (type === 'AEND') return AEND_BODY_SIZE;
  return maxPlain(type) + SEAL_OVERHEAD;
}

/** The longest frame that this type can have, whatever it says: no reader needs more bytes than this for one. */
export function maxFrameLength(type: string, plainLength: number = maxPlain(type)): number {
  return FRAME_OVERHEAD + MAX_CBOR_HEADER + SEAL_OVERHEAD + plainLength;
}

/** Length of a frame with a sealed body of `stored` bytes (after compression). */
export function sealedFrameLength(stored: number, cborLength = 0): number {
  return FRAME_OVERHEAD + cborLength + SEAL_OVERHEAD + stored;
}

export interface SealOptions {
  type: FrameType;
  sequence: number;
  plaintext: Uint8Array;
  codec: CodecSpec;
  /** DATA: readers will want parts of it; see `UnsealedFrame`. */
  parts?: boolean;
  /** DATA: where in this block the first record begins; none by default. Other types: left out. */
  firstRecord?: number;
  /** Structure only, never content: it stands in the clear. */
  cborHeader?: Uint8Array;
  /** Where the frame is written (shared memory will do): at least `sealedFrameLength(plaintext.length, …)` bytes. A new buffer by default. */
  target?: Uint8Array;
}

/** Inner header and compressed plaintext, joined before they are encrypted in one call. One for each thread, as everything here. */
let scratch = Buffer.alloc(0);
const shortAad = Buffer.alloc(HASH_SIZE + OUTER_HEADER_SIZE);

/** One whole sealed frame. Pure but for its random nonce; callable in any worker. */
export function sealFrame(context: SealContext, options: SealOptions): Buffer {
  const { type, sequence, plaintext, cborHeader } = options;
  if (plaintext.length > maxPlain(type)) {
    throw new RozenError('internal', `${plaintext.length} bytes do not fit into one ${type} frame`);
  }
  const room = INNER_HEADER_SIZE + compressBound(plaintext.length);
  if (scratch.length < room) scratch = Buffer.alloc(room);
  const packed = compressInto(options.codec, plaintext, scratch.subarray(INNER_HEADER_SIZE, room), options.parts);
  const inner = scratch.subarray(0, INNER_HEADER_SIZE + packed.length);
  inner.fill(0, 0, INNER_HEADER_SIZE);
  inner[INNER_OFFSETS.codec] = packed.codec;
  inner.writeUInt32LE(plaintext.length, INNER_OFFSETS.plainLength);
  inner.writeUInt32LE(type === 'DATA' ? (options.firstRecord ?? NO_RECORD) : 0, INNER_OFFSETS.firstRecord);
  inner.set(blake3(plaintext), INNER_OFFSETS.plainHash);
  return sealInner(context, { type, sequence, inner, cborHeader, target: options.target });
}

/** Seals an inner header with the compressed plaintext behind it. */
function sealInner(
  context: SealContext,
  options: Pick<SealOptions, 'type' | 'sequence'> & {
    inner: Uint8Array;
    cborHeader: Uint8Array | undefined;
    target?: Uint8Array | undefined;
  },
): Buffer {
  const { type, sequence, inner, cborHeader } = options;
  const cborLength = cborHeader?.length ?? 0;
  const length = sealedFrameLength(inner.length - INNER_HEADER_SIZE, cborLength);
  const frame = frameBuffer(length, options.target);
  const nonce = randomNonce();
  const bodyLength = inner.length + TAG_SIZE;
  const bodyOffset = writeOuterHeader(frame, {
    type,
    archiveId: context.archiveId,
    sequence,
    bodyLength,
    nonce,
    cborHeader,
  });
  sealAeadInto({
    key: context.key,
    nonce,
    aad: additionalData(context.headerHash, frame.subarray(0, OUTER_HEADER_SIZE + cborLength)),
    plain: inner,
    target: frame.subarray(bodyOffset, bodyOffset + bodyLength),
  });
  frame.set(blake3(frame.subarray(0, length - HASH_SIZE)), length - HASH_SIZE);
  return frame;
}

/**
 * A block of one archive as a block of another: opened and checked as by `openFrame`, then sealed under the other key with a new
 * nonce. What was compressed stays as it is.
 */
export function resealFrame(
  from: SealContext,
  frame: Uint8Array,
  expect: OpenExpect,
  to: { context: SealContext; sequence: number },
): OpenedFrame & { frame: Buffer } {
  const { packed, ...opened } = openSealed(from, frame, expect);
  const { sequence, context } = to;
  const inner = Buffer.concat(packed);
  return { ...opened, frame: sealInner(context, { type: expect.type, sequence, inner, cborHeader: undefined }) };
}

/** A frame whose body (if any) is not sealed: AHDR, AEND. */
export function plainFrame(options: {
  type: FrameType;
  archiveId: Uint8Array;
  sequence: number;
  cborHeader?: Uint8Array;
  body?: Uint8Array;
}): Buffer {
  const { type, archiveId, sequence, cborHeader, body = new Uint8Array(0) } = options;
  const length = FRAME_OVERHEAD + (cborHeader?.length ?? 0) + body.length;
  const frame = frameBuffer(length);
  const nonce = new Uint8Array(NONCE_SIZE);
  const bodyOffset = writeOuterHeader(frame, { type, archiveId, sequence, bodyLength: body.length, nonce, cborHeader });
  frame.set(body, bodyOffset);
  frame.set(blake3(frame.subarray(0, length - HASH_SIZE)), length - HASH_SIZE);
  return frame;
}

function frameBuffer(length: number, target?: Uint8Array): Buffer {
  if (target === undefined) return Buffer.allocUnsafeSlow(length);
  if (target.length < length)
    throw new RozenError('internal', `a target of ${target.length} bytes for a frame of ${length}`);
  return Buffer.from(target.buffer, target.byteOffset, length);
}

interface OuterFields {
  type: FrameType;
  archiveId: Uint8Array;
  sequence: number;
  bodyLength: number;
  nonce: Uint8Array;
  cborHeader: Uint8Array | undefined;
}

/** Writes outer header, CBOR header and header hash; returns where the body begins. */
function writeOuterHeader(frame: Buffer, fields: OuterFields): number {
  const { archiveId, sequence, cborHeader } = fields;
  const cborLength = cborHeader?.length ?? 0;
  if (archiveId.length !== ARCHIVE_ID_SIZE || sequence > MAX_SEQUENCE || cborLength > MAX_CBOR_HEADER) {
    throw new RozenError(
      'internal',
      `no frame can hold this header (${fields.type}, sequence ${sequence}, CBOR ${cborLength})`,
    );
  }
  frame.write(fields.type, OUTER_OFFSETS.type, 'latin1');
  frame.set(archiveId, OUTER_OFFSETS.archiveId);
  frame.writeUInt32LE(sequence, OUTER_OFFSETS.sequence);
  frame.writeUInt32LE(fields.bodyLength, OUTER_OFFSETS.bodyLength);
  frame.writeUInt32LE(cborLength, OUTER_OFFSETS.cborLength);
  frame.set(fields.nonce, OUTER_OFFSETS.nonce);
  if (cborHeader !== undefined) frame.set(cborHeader, OUTER_HEADER_SIZE);
  const end = OUTER_HEADER_SIZE + cborLength;
  frame.set(blake3(frame.subarray(0, end)), end);
  return end + HASH_SIZE;
}

function additionalData(headerHash: Uint8Array, outer: Uint8Array): Buffer {
  const aad = outer.length === OUTER_HEADER_SIZE ? shortAad : Buffer.alloc(HASH_SIZE + outer.length);
  aad.set(headerHash, 0);
  aad.set(outer, HASH_SIZE);
  return aad;
}

/** A known frame type, or an ancillary one (first letter lower-case) that may be skipped. */
function isFrameType(bytes: Uint8Array, at: number): boolean {
  const first = bytes[at]!;
  if (first >= 0x61 && first <= 0x7a) {
    for (let i = 1; i < 4; i++) {
      const letter = bytes[at + i]!;
      if (!((letter >= 0x41 && letter <= 0x5a) || letter === 0x5f || (letter >= 0x30 && letter <= 0x39))) return false;
    }
    return true;
  }
  const name = String.fromCharCode(first, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!);
  return (FRAME_TYPES as readonly string[]).includes(name);
}

/**
 * Reads and checks an outer header at the front of `bytes` (which may end anywhere after its header hash). Needs no key:
 * the header hash finds accidents, the seal of the body finds forgery.
 */
export function parseOuterHeader(bytes: Uint8Array, expect: { archiveId?: Uint8Array } = {}): OuterHeader {
  const header = readOuterHeader(bytes);
  if (typeof header === 'string') throw corrupt(`frame header: ${header}`);
  if (expect.archiveId !== undefined && !header.archiveId.equals(expect.archiveId)) {
    throw corrupt(`frame header: of archive ${header.archiveId.toString('hex')}, not ${hex(expect.archiveId)}`);
  }
  return header;
}

/** As `parseOuterHeader`, but says what is wrong instead of throwing: a scan tries many places. */
export function readOuterHeader(source: Uint8Array): OuterHeader | string {
  const bytes = asBuffer(source);
  const header = outerFields(bytes);
  if (typeof header === 'string') return header;
  const end = header.bodyOffset - HASH_SIZE;
  return blake3(bytes.subarray(0, end)).compare(bytes, end, end + HASH_SIZE) === 0 ? header : 'its hash does not match';
}

/** An outer header whose lengths are possible, but whose hash was not looked at. */
function outerFields(bytes: Buffer): OuterHeader | string {
  if (bytes.length < OUTER_HEADER_SIZE + HASH_SIZE) return 'cut off';
  if (!isFrameType(bytes, OUTER_OFFSETS.type)) return 'unknown frame type';
  const type = bytes.toString('latin1', 0, 4);
  const cborLength = bytes.readUInt32LE(OUTER_OFFSETS.cborLength);
  if (cborLength > MAX_CBOR_HEADER) return `a CBOR header of ${cborLength} bytes`;
  const bodyLength = bytes.readUInt32LE(OUTER_OFFSETS.bodyLength);
  if (bodyLength > maxBodyLength(type)) return `a body of ${bodyLength} bytes`;
  const end = OUTER_HEADER_SIZE + cborLength;
  if (bytes.length < end + HASH_SIZE) return 'cut off';
  return {
    type,
    archiveId: bytes.subarray(OUTER_OFFSETS.archiveId, OUTER_OFFSETS.archiveId + ARCHIVE_ID_SIZE),
    sequence: bytes.readUInt32LE(OUTER_OFFSETS.sequence),
    bodyLength,
    cborLength,
    nonce: bytes.subarray(OUTER_OFFSETS.nonce, OUTER_OFFSETS.nonce + NONCE_SIZE),
    bodyOffset: end + HASH_SIZE,
    frameLength: end + HASH_SIZE + bodyLength + HASH_SIZE,
  };
}

/** The CBOR header of a frame, after `parseOuterHeader`. */
export function cborHeaderOf(frame: Uint8Array, header: OuterHeader): Buffer {
  return asBuffer(frame).subarray(OUTER_HEADER_SIZE, OUTER_HEADER_SIZE + header.cborLength);
}

/** The body of an unsealed frame, after `parseOuterHeader` and `checkBlockHash`. */
export function plainBodyOf(frame: Uint8Array, header: OuterHeader): Buffer {
  return asBuffer(frame).subarray(header.bodyOffset, header.bodyOffset + header.bodyLength);
}

/** The last 32 bytes of a whole frame. */
export function blockHash(frame: Uint8Array): Buffer {
  return asBuffer(frame).subarray(frame.length - HASH_SIZE);
}

/** True if the block hash of a whole frame fits its bytes. Finds accidents without any key. */
export function checkBlockHash(frame: Uint8Array): boolean {
  if (frame.length < FRAME_OVERHEAD) return false;
  return blake3(frame.subarray(0, frame.length - HASH_SIZE)).equals(blockHash(frame));
}

export interface OpenExpect {
  type: FrameType;
  /** A frame that says another sequence is refused: no block can be passed off as another one. */
  sequence?: number;
  /**
   * Leaves out the hashes of header and plaintext: the tag has proved that these are the bytes that were sealed under this header. The
   * hash of the plaintext adds a check of the decompressor alone, at 14 % of the time of a block. The mount reads so; verify and
   * restore do not.
   */
  tagOnly?: boolean;
}

export interface OpenedFrame {
  header: OuterHeader;
  plaintext: Buffer;
  /** DATA: where in the block the first record begins, NO_RECORD if none does. */
  firstRecord: number;
}

/**
 * Opens a whole sealed frame: header hash, archive, type, sequence, tag, lengths and the hash of the plaintext are checked
 * (the block hash is not: the tag says more). With `target` the plaintext is written to its front and the result is a view
 * of it; after an error the bytes of `target` are undefined.
 */
export function openFrame(context: SealContext, frame: Uint8Array, expect: OpenExpect, target?: Uint8Array): Buffer {
  return openSealed(context, frame, expect, target).plaintext;
}

/** As `openFrame`, with the header and the place of the first record. */
export function openFrameHeader(
  context: SealContext,
  frame: Uint8Array,
  expect: OpenExpect,
  target?: Uint8Array,
): OpenedFrame {
  return openSealed(context, frame, expect, target);
}

/**
 * A DATA frame that is authenticated and deciphered, but not yet decoded. Valid until this thread opens the next frame. Checked as by
 * `openFrame` with `tagOnly`.
 */
export class UnsealedFrame {
  readonly #unsealed: Unsealed;
  readonly #fail: (why: string, cause?: unknown) => RozenError;

  constructor(context: SealContext, frame: Uint8Array, sequence: number) {
    const expect = { type: 'DATA', sequence, tagOnly: true } as const;
    this.#unsealed = unseal(context, frame, expect);
    this.#fail = failure(context, expect);
  }

  /** The bytes `from` … `to` of the plaintext, decoded into `memory`; null when all of it must be decoded for them, or they do not fit. */
  part(from: number, to: number, memory: Buffer): Buffer | null {
    const { stored, codec, plainLength } = this.#unsealed;
    if (to > plainLength) throw this.#fail(`it ends at ${plainLength}, content goes on to ${to}`);
    if (codec === CODEC_NONE && stored.length !== plainLength) return null;
    return decoding(this.#fail, () => decompressPart(codec, stored, { from, to }, memory));
  }

  /** Decodes all of it to the front of `target`; returns its length. */
  whole(target: Uint8Array): number {
    const { stored, codec, plainLength } = this.#unsealed;
    if (target.length < plainLength) throw this.#fail(`a plaintext of ${plainLength} bytes`);
    return decoding(this.#fail, () => decompress(codec, stored, plainLength, target)).length;
  }
}

/** What a codec throws names neither archive nor frame. */
function decoding<T>(fail: (why: string, cause?: unknown) => RozenError, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw fail(cause instanceof Error ? cause.message : 'it cannot be decompressed', cause);
  }
}

function failure(context: SealContext, { type, sequence }: OpenExpect): (why: string, cause?: unknown) => RozenError {
  return (why, cause) =>
    corrupt(`archive ${hex(context.archiveId)}: ${type} frame${sequence === undefined ? '' : ` ${sequence}`}: ${why}`, {
      cause,
    });
}

interface Unsealed {
  header: OuterHeader;
  /** Both valid until this thread opens the next frame. */
  inner: Buffer;
  /** In `target`, where the plaintext is stored as it is and fits. */
  stored: Buffer;
  codec: number;
  plainLength: number;
}

const innerHeader = Buffer.alloc(INNER_HEADER_SIZE);
/** For stored bytes. Index frames may be larger. */
const storedScratch = Buffer.allocUnsafeSlow(MAX_BODY);

function unseal(context: SealContext, bytes: Uint8Array, expect: OpenExpect, target?: Uint8Array): Unsealed {
  const frame = asBuffer(bytes);
  const fail = failure(context, expect);
  const header = expect.tagOnly === true ? outerFields(frame) : readOuterHeader(frame);
  if (typeof header === 'string') throw fail(header);
  if (header.frameLength !== frame.length) throw fail(`${frame.length} bytes instead of ${header.frameLength}`);
  if (!header.archiveId.equals(context.archiveId)) throw fail(`it belongs to archive ${hex(header.archiveId)}`);
  if (header.type !== expect.type) throw fail(`it is of type ${header.type}`);
  if (expect.sequence !== undefined && header.sequence !== expect.sequence)
    throw fail(`it has sequence ${header.sequence}`);
  if (header.bodyLength < SEAL_OVERHEAD) throw fail(`a body of ${header.bodyLength} bytes`);

  const aad = additionalData(context.headerHash, frame.subarray(0, OUTER_HEADER_SIZE + header.cborLength));
  const sealed = frame.subarray(header.bodyOffset, header.bodyOffset + header.bodyLength);
  const inner = innerHeader;
  const length = sealed.length - SEAL_OVERHEAD;
  let stored: Buffer | undefined;
  const rest = (): Buffer => {
    const asIs = inner[INNER_OFFSETS.codec] === CODEC_NONE && inner.readUInt32LE(INNER_OFFSETS.plainLength) === length;
    const own = asIs && target !== undefined && target.length >= length;
    if (own) stored = Buffer.from(target.buffer, target.byteOffset, length);
    else stored = length <= storedScratch.length ? storedScratch.subarray(0, length) : Buffer.allocUnsafeSlow(length);
    return stored;
  };
  try {
    openAeadInto({ key: context.key, nonce: header.nonce, aad, sealed, head: inner, rest });
  } catch (cause) {
    throw fail('authentication failed', cause);
  }
  const codec = inner[INNER_OFFSETS.codec]!;
  if (inner[1] !== 0 || inner[2] !== 0 || inner[3] !== 0) throw fail('reserved bytes of the inner header are set');
  const plainLength = inner.readUInt32LE(INNER_OFFSETS.plainLength);
  if (plainLength > maxPlain(header.type)) throw fail(`a plaintext of ${plainLength} bytes`);
  return { header, inner, stored: stored!, codec, plainLength };
}

function openSealed(
  context: SealContext,
  bytes: Uint8Array,
  expect: OpenExpect,
  target?: Uint8Array,
): OpenedFrame & { packed: [inner: Buffer, stored: Buffer] } {
  const fail = failure(context, expect);
  const { header, inner, stored, codec, plainLength } = unseal(context, bytes, expect, target);
  const firstRecord = inner.readUInt32LE(INNER_OFFSETS.firstRecord);
  let plaintext: Buffer;
  if (target !== undefined && stored.buffer === target.buffer) {
    plaintext = stored;
  } else {
    if (target !== undefined && target.length < plainLength) throw fail(`a plaintext of ${plainLength} bytes`);
    plaintext = decoding(fail, () => decompress(codec, stored, plainLength, target));
  }
  if (expect.tagOnly !== true) {
    const plainHash = inner.subarray(INNER_OFFSETS.plainHash, INNER_HEADER_SIZE);
    if (!blake3(plaintext).equals(plainHash)) throw fail('the hash of its plaintext does not match');
  }
  return { header, plaintext, firstRecord, packed: [inner, stored] };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function hex(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}
