/**
 * BIDX: where each block lies. Plaintext:
 *
 *   offset  size  field
 *        0     4  count n of blocks
 *        4     4  reserved, zero
 *        8     8  length of the stream (data archives; 0 in tree archives)
 *       16    4n  gap between the end of the block before (AHDR for the first) and this one, in four byte planes
 *   16+4n    4n  length of the frame, in four byte planes
 *
 * Entry n is the frame with sequence n + 1: block n of the stream, or page frame n. Gaps are 0 in this version.
 */
import { corrupt } from '../errors.ts';
import { readPlanes, readUint53, writePlanes, writeUint53 } from './columns.ts';
import { BLOCK_SIZE, FRAME_OVERHEAD, MAX_ARCHIVE_SIZE, MAX_STREAM } from './format.ts';
import { maxFrameLength } from './frame.ts';

const FIXED_SIZE = 16;

/** Offsets and lengths on shared memory, so that every thread can have them without a copy. */
export class BlockTable {
  readonly count: number;
  /** Plaintext bytes of all blocks together; 0 in a tree archive. */
  readonly streamLength: number;
  /** File offset of each frame. */
  readonly offsets: Float64Array;
  /** Bytes of each frame. */
  readonly lengths: Uint32Array;

  constructor(streamLength: number, offsets: Float64Array, lengths: Uint32Array) {
    this.count = lengths.length;
    this.streamLength = streamLength;
    this.offsets = offsets;
    this.lengths = lengths;
  }

  offset(block: number): number {
    return this.offsets[block]!;
  }

  length(block: number): number {
    return this.lengths[block]!;
  }

  /** Plaintext bytes of a block of the stream: BLOCK_SIZE but for the last. */
  plainLength(block: number): number {
    return Math.min(BLOCK_SIZE, this.streamLength - block * BLOCK_SIZE);
  }
}

/** A table from frame places, `begin` being the end of AHDR. */
export function encodeBlockTable(options: {
  begin: number;
  streamLength: number;
  offsets: readonly number[];
  lengths: readonly number[];
}): Buffer {
  const { offsets, lengths } = options;
  const count = lengths.length;
  const gaps = new Uint32Array(count);
  let end = options.begin;
  for (let i = 0; i < count; i++) {
    gaps[i] = offsets[i]! - end;
    end = offsets[i]! + lengths[i]!;
  }
  const bytes = Buffer.alloc(FIXED_SIZE + 8 * count);
  bytes.writeUInt32LE(count, 0);
  writeUint53(bytes, options.streamLength, 8);
  writePlanes(bytes, writePlanes(bytes, FIXED_SIZE, gaps), Uint32Array.from(lengths));
  return bytes;
}

/** Decodes the plaintext of BIDX. `begin` is the end of AHDR; no block may end beyond `end` (the first index frame). */
export function decodeBlockTable(
  bytes: Buffer,
  options: { begin: number; end: number; hasStream: boolean },
): BlockTable {
  if (bytes.length < FIXED_SIZE) throw corrupt(`BIDX: ${bytes.length} bytes`);
  const count = bytes.readUInt32LE(0);
  const streamLength = readUint53(bytes, 8);
  if (bytes.length !== FIXED_SIZE + 8 * count) throw corrupt(`BIDX: ${bytes.length} bytes for ${count} blocks`);
  const inStream = options.hasStream
    ? streamLength <= MAX_STREAM && Math.ceil(streamLength / BLOCK_SIZE) === count
    : streamLength === 0;
  if (!inStream || bytes.readUInt32LE(4) !== 0)
    throw corrupt(`BIDX: ${count} blocks for a stream of ${streamLength} bytes`);
  const offsets = new Float64Array(new SharedArrayBuffer(count * 8));
  const lengths = new Uint32Array(new SharedArrayBuffer(count * 4));
  const gaps = new Uint32Array(count);
  readPlanes(bytes, readPlanes(bytes, FIXED_SIZE, gaps), lengths);
  let at = options.begin;
  // Whoever fetches a block asks for as many bytes as stand here.
  const longest = maxFrameLength(options.hasStream ? 'DATA' : 'PAGE');
  const limit = Math.min(options.end, MAX_ARCHIVE_SIZE);
  for (let i = 0; i < count; i++) {
    at += gaps[i]!;
    offsets[i] = at;
    if (lengths[i]! < FRAME_OVERHEAD || lengths[i]! > longest)
      throw corrupt(`BIDX: block ${i} has ${lengths[i]} bytes`);
    at += lengths[i]!;
    if (at > limit) throw corrupt(`BIDX: block ${i} ends at ${at}, beyond ${limit}`);
  }
  return new BlockTable(streamLength, offsets, lengths);
}
