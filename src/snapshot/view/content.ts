import { BLOCK_SIZE } from '../../archive/format.ts';
import { openFrame } from '../../archive/frame.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { EXTENT, TREES } from '../../archive/tree/schema.ts';
import { sealContext } from '../../cache/blocks.ts';
import { type ArchiveAccess, placeInStream, readFrame } from '../../cache/frames.ts';
import { missArchive } from '../../cache/miss.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt } from '../../errors.ts';
import type { Attributes } from './attributes.ts';

/** Trees that say where content lies: of a snapshot, or of a backup's local state. */
export interface ContentTrees extends Pick<SnapshotReader, 'source' | 'roots'> {
  archives: Pick<SnapshotReader['archives'], 'facts' | 'retry'>;
}

/** A piece of a file. `row` 0: a hole. */
export interface Extent {
  offset: number;
  length: number;
  row: number;
  streamOffset: number;
}

const ZEROS = Buffer.alloc(BLOCK_SIZE);

/** The extents of a file's content in order. Throws `corrupt` when they do not cover its size without gap or overlap. */
export async function fileExtents(
  reader: ContentTrees,
  file: Pick<Attributes, 'inode' | 'version' | 'size'>,
): Promise<Extent[]> {
  const { inode, version, size } = file;
  const extents: Extent[] = [];
  const cursor = new Cursor(reader.source, TREES.extents, reader.roots.extents);
  let end = 0;
  let on = await reader.archives.retry(() => cursor.seek(inode, version, 0));
  while (on) {
    const { page, index } = cursor;
    if (page === null || page.num(EXTENT.inode, index) !== inode || page.num(EXTENT.version, index) !== version) break;
    const extent: Extent = {
      offset: page.num(EXTENT.offset, index),
      length: page.num(EXTENT.length, index),
      row: page.num(EXTENT.row, index),
      streamOffset: page.num(EXTENT.streamOffset, index),
    };
    if (extent.offset !== end) throw corrupt(`inode ${inode}: its extents have a gap at ${end}`);
    end += extent.length;
    extents.push(extent);
    on = await reader.archives.retry(() => cursor.next());
  }
  if (end !== size) throw corrupt(`inode ${inode}: its extents end at ${end}, its size is ${size}`);
  return extents;
}

/**
 * Reads file content for a command that goes through files one after another: the last block is kept, so that small
 * files that lie side by side are decoded once.
 */
export class ContentReader {
  readonly #reader: SnapshotReader;
  #block: { handle: number; number: number; bytes: Buffer } | null = null;

  constructor(reader: SnapshotReader) {
    this.#reader = reader;
  }

  /** The content of a regular file, or a range of it, in order, in pieces of at most a block. A piece is valid until the next one is asked for. */
  async *read(
    file: Pick<Attributes, 'inode' | 'version' | 'size'>,
    range: { from: number; to: number } = { from: 0, to: Number.POSITIVE_INFINITY },
  ): AsyncGenerator<Buffer, void, undefined> {
    for (const whole of await fileExtents(this.#reader, file)) {
      const extent = within(whole, range);
      if (extent.length <= 0) continue;
      if (extent.row === 0) yield* zeros(extent.length);
      else yield* this.#range(extent);
    }
  }

  async *#range({ row, streamOffset, length }: Extent): AsyncGenerator<Buffer, void, undefined> {
    const { archives, scope } = this.#reader;
    await archives.open(row);
    for (let done = 0; done < length; ) {
      // In one go: a frame is valid until the next one is read, by whomever. And the archive may be merged into another one meanwhile.
      const piece = await retrying(this.#reader, () => {
        const access = archives.get(row);
        if (access === undefined) throw missArchive(scope, row);
        const at = placeInStream(access, streamOffset, length) + done;
        const start = at - (at % BLOCK_SIZE);
        const upTo = Math.min(at + length - done - start, BLOCK_SIZE);
        return { bytes: this.#decode(access, start / BLOCK_SIZE, upTo), from: at - start, upTo };
      });
      yield piece.bytes.subarray(piece.from, piece.upTo);
      done += piece.upTo - piece.from;
    }
  }

  /** The plaintext of a block, at least `upTo` bytes. Throws Miss. */
  #decode(access: ArchiveAccess, number: number, upTo: number): Buffer {
    const kept = this.#block;
    let bytes = kept !== null && kept.handle === access.handle && kept.number === number ? kept.bytes : null;
    if (bytes === null) {
      const offset = access.blockOffsets?.[number];
      const length = access.blockLengths?.[number];
      if (offset === undefined || length === undefined) throw corrupt(`${access.object}: it has no block ${number}`);
      const expected = { type: 'DATA', sequence: number + 1 } as const;
      bytes = openFrame(sealContext(access), readFrame(access, offset, length), expected);
      this.#block = { handle: access.handle, number, bytes };
    }
    if (bytes.length < upTo)
      throw corrupt(`${access.object}: block ${number} ends at ${bytes.length}, content goes on to ${upTo}`);
    return bytes;
  }
}

/** The part of an extent that lies in a range of the file. */
function within({ offset, length, row, streamOffset }: Extent, range: { from: number; to: number }): Extent {
  const skip = Math.max(0, range.from - offset);
  const end = Math.min(length, range.to - offset);
  return { offset: offset + skip, length: end - skip, row, streamOffset: streamOffset + skip };
}

function* zeros(length: number): Generator<Buffer, void, undefined> {
  for (let left = length; left > 0; left -= ZEROS.length) yield left >= ZEROS.length ? ZEROS : ZEROS.subarray(0, left);
}
