/** Ranges of objects: the frames in them, and which of them come together. */
import { readOuterHeader } from '../archive/frame.ts';
import type { RangeSource } from '../archive/reader.ts';
import type { ArchiveAccess } from './frames.ts';

/** Frames that lie no further apart come in one GET, with what lies between them. */
export const MAX_GAP = 256 * 1024;

/** From … to (exclusive), bytes of an object. */
export interface Range {
  from: number;
  to: number;
}

/** A source that has the end of an object in memory. */
export function tailSource(
  { bytes, size }: { bytes: Buffer; size: number },
  read: (offset: number, length: number) => Promise<Buffer>,
): RangeSource {
  const begin = size - bytes.length;
  return {
    read: async (offset, length) =>
      offset >= begin && offset + length <= size
        ? bytes.subarray(offset - begin, offset - begin + length)
        : read(offset, length),
    suffix: async (length) => ({ bytes: bytes.subarray(Math.max(0, bytes.length - length)), size }),
  };
}

/** The whole frames in bytes that begin with a frame: by the block table, or by their own headers. */
export function* framesIn(
  { id, blockOffsets, blockLengths }: Pick<ArchiveAccess, 'id' | 'blockOffsets' | 'blockLengths'>,
  from: number,
  bytes: Buffer,
): Generator<{ offset: number; length: number }> {
  if (blockOffsets !== null && blockLengths !== null) {
    for (let block = firstAt(blockOffsets, from); block < blockOffsets.length; block++) {
      const offset = blockOffsets[block]!;
      const length = blockLengths[block]!;
      if (offset + length > from + bytes.length) return;
      yield { offset, length };
    }
    return;
  }
  for (let at = 0; at < bytes.length; ) {
    const header = readOuterHeader(bytes.subarray(at));
    if (typeof header === 'string' || !header.archiveId.equals(id)) return;
    if (at + header.frameLength > bytes.length) return;
    yield { offset: from + at, length: header.frameLength };
    at += header.frameLength;
  }
}

/** The first block that begins at or after an offset. */
export function firstAt(offsets: Float64Array, offset: number): number {
  let low = 0;
  let high = offsets.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (offsets[middle]! < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Ranges in order, those that lie close together as one. */
export function mergeRanges(ranges: readonly Range[]): Range[] {
  const merged: Range[] = [];
  for (const range of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1);
    if (last !== undefined && range.from - last.to <= MAX_GAP) last.to = Math.max(last.to, range.to);
    else merged.push({ ...range });
  }
  return merged;
}
