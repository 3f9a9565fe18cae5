/**
 * CIDX: the chunks of a data archive, for deduplication and verification, never needed to read. Plaintext:
 *
 *   offset  size  field
 *        0     4  count n
 *        4     4  reserved, zero
 *        8    4n  gap between the end of the chunk before (0 for the first) and this one, in four byte planes
 *     8+4n    4n  length, in four byte planes
 *     8+8n    4n  ordinal, in four byte planes (0 unless two contents ever shared an id)
 *    8+12n   32n  content ids
 *
 * In the order of their stream offsets. Sealed under the chunk index key, which write-only machines can derive too.
 */
import { corrupt, RozenError } from '../errors.ts';
import { readPlanes, writePlanes } from './columns.ts';
import { HASH_SIZE, MAX_CHUNK, MAX_CHUNKS, MAX_STREAM } from './format.ts';

const FIXED_SIZE = 8;

export interface Chunk {
  /** Content id: keyed BLAKE3-256 of the content. */
  id: Buffer;
  ordinal: number;
  /** Where its bytes begin in the stream. */
  offset: number;
  length: number;
}

/** Columns of a chunk table; ids lie 32 bytes apart. */
export interface ChunkTable {
  count: number;
  ids: Buffer;
  ordinals: Uint32Array;
  offsets: Float64Array;
  lengths: Uint32Array;
}

/** The chunks of an archive, as a list or as columns (a million of them take 48 MB as columns, four times that as objects). */
export type Chunks = readonly Chunk[] | ChunkTable;

export function encodeChunkTable(chunks: Chunks): Buffer {
  const count = 'count' in chunks ? chunks.count : chunks.length;
  if (count > MAX_CHUNKS) throw new RozenError('internal', `${count} chunks in one archive, at most ${MAX_CHUNKS}`);
  const bytes = Buffer.alloc(FIXED_SIZE + count * (12 + HASH_SIZE));
  const gaps = new Uint32Array(count);
  const lengths = new Uint32Array(count);
  const ordinals = new Uint32Array(count);
  const ids = FIXED_SIZE + 12 * count;
  let end = 0;
  for (let i = 0; i < count; i++) {
    const chunk = 'count' in chunks ? chunkAt(chunks, i) : chunks[i]!;
    const gap = chunk.offset - end;
    if (gap < 0 || gap > 0xffff_ffff) throw new RozenError('internal', `chunk ${i} at ${chunk.offset}, after ${end}`);
    gaps[i] = gap;
    lengths[i] = chunk.length;
    ordinals[i] = chunk.ordinal;
    bytes.set(chunk.id, ids + i * HASH_SIZE);
    end = chunk.offset + chunk.length;
  }
  bytes.writeUInt32LE(count, 0);
  writePlanes(bytes, writePlanes(bytes, writePlanes(bytes, FIXED_SIZE, gaps), lengths), ordinals);
  return bytes;
}

/** Decodes the plaintext of CIDX; no chunk may end beyond `streamLength` (MAX_STREAM where it is not known). */
export function decodeChunkTable(bytes: Buffer, streamLength: number = MAX_STREAM): ChunkTable {
  if (bytes.length < FIXED_SIZE) throw corrupt(`CIDX: ${bytes.length} bytes`);
  const count = bytes.readUInt32LE(0);
  if (count > MAX_CHUNKS || bytes.length !== FIXED_SIZE + count * (12 + HASH_SIZE) || bytes.readUInt32LE(4) !== 0) {
    throw corrupt(`CIDX: ${bytes.length} bytes for ${count} chunks`);
  }
  const offsets = new Float64Array(count);
  const lengths = new Uint32Array(count);
  const ordinals = new Uint32Array(count);
  const gaps = new Uint32Array(count);
  const ids = readPlanes(bytes, readPlanes(bytes, readPlanes(bytes, FIXED_SIZE, gaps), lengths), ordinals);
  let at = 0;
  for (let i = 0; i < count; i++) {
    at += gaps[i]!;
    offsets[i] = at;
    if (lengths[i]! > MAX_CHUNK) throw corrupt(`CIDX: chunk ${i} has ${lengths[i]} bytes`);
    at += lengths[i]!;
    if (at > streamLength) throw corrupt(`CIDX: chunk ${i} ends at ${at}, the stream at ${streamLength}`);
  }
  return { count, ids: bytes.subarray(ids), ordinals, offsets, lengths };
}

/** One row of a decoded table; its id is a view. */
export function chunkAt(table: ChunkTable, index: number): Chunk {
  return {
    id: table.ids.subarray(index * HASH_SIZE, (index + 1) * HASH_SIZE),
    ordinal: table.ordinals[index]!,
    offset: table.offsets[index]!,
    length: table.lengths[index]!,
  };
}
