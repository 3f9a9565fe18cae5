/** Which data archives hold what is asked for, by the trees of a snapshot alone: those are never frozen. */
import { BLOCK_SIZE } from '../../archive/format.ts';
import { EXTENT } from '../../archive/tree/schema.ts';
import { MAX_GAP } from '../../cache/ranges.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { dataName } from '../../repository/names.ts';
import { leavesOf, loadNode } from '../diff/page-nodes.ts';
import { forEachContent } from '../view/file-contents.ts';
import type { OpenPlace } from '../view/place.ts';
import { inParallel } from './parallel.ts';

/** A data archive, as far as it is needed. */
export interface NeededPack {
  /** Archive id, 32 hexadecimal digits. */
  id: string;
  /** In the trees of the snapshot that it was found by. */
  row: number;
  /** Name of the object. */
  object: string;
  /** Of the whole object, bytes. */
  size: number;
  /** Its blocks that hold something of it. */
  blocks: BlockSet;
}

/** Numbers of blocks of one archive: a bit each, 4 KiB for the largest archive. */
export class BlockSet {
  #bits = new Uint8Array(64);
  #end = 0;

  /** The blocks of a range of the stream. */
  addRange(streamOffset: number, length: number): void {
    if (length === 0) return;
    const last = Math.floor((streamOffset + length - 1) / BLOCK_SIZE);
    while (last >= this.#bits.length * 8) {
      const wider = new Uint8Array(this.#bits.length * 2);
      wider.set(this.#bits);
      this.#bits = wider;
    }
    for (let block = Math.floor(streamOffset / BLOCK_SIZE); block <= last; block++)
      this.#bits[block >>> 3]! |= 1 << (block & 7);
    this.#end = Math.max(this.#end, last + 1);
  }

  *[Symbol.iterator](): Generator<number> {
    for (let block = 0; block < this.#end; block++) if (this.#bits[block >>> 3]! & (1 << (block & 7))) yield block;
  }
}

/** By row of the snapshot's `archives` tree. */
type Uses = Map<number, BlockSet>;

function use(uses: Uses, row: number, streamOffset: number, length: number): void {
  if (row === 0) return;
  let blocks = uses.get(row);
  if (blocks === undefined) {
    blocks = new BlockSet();
    uses.set(row, blocks);
  }
  blocks.addRange(streamOffset, length);
}

/**
 * The archives that the content of a place lies in, in order of their ids. With `everything`, and for the root of a snapshot: also
 * what a WORM set keeps of old contents and of deleted files.
 */
export async function neededPacks(
  { reader, inode, attributes, path }: OpenPlace,
  everything = false,
): Promise<NeededPack[]> {
  const uses: Uses = new Map();
  if (everything && path.length === 0) await useAll(reader, uses);
  else {
    await forEachContent(reader, { inode, attributes }, (extents) => {
      for (const { row, streamOffset, length } of extents) use(uses, row, streamOffset, length);
    });
  }
  const packs: NeededPack[] = [];
  for (const [row, blocks] of uses) {
    const { id, size } = await reader.archives.facts(row);
    packs.push({ id: id.toString('hex'), row, object: dataName(id), size, blocks });
  }
  return packs.sort((a, b) => (a.id < b.id ? -1 : 1));
}

async function useAll(reader: SnapshotReader, uses: Uses): Promise<void> {
  for (const leaf of await leavesOf(reader, 'extents')) {
    const page = await loadNode(reader, 'extents', leaf);
    for (let i = 0; i < page.count; i++)
      use(uses, page.num(EXTENT.row, i), page.num(EXTENT.streamOffset, i), page.num(EXTENT.length, i));
  }
}

/** What reading the blocks of a pack takes, as the fetcher asks for them. */
export interface Download {
  /** Sealed bytes. */
  bytes: number;
  requests: number;
}

/** A GET is no longer, whoever asks. */
const LONGEST_GET = 8 * 1024 * 1024;

/** Looks into the (hot) index of each pack for the places of its blocks. By archive id. */
export async function downloads(
  reader: SnapshotReader,
  packs: readonly NeededPack[],
  signal?: AbortSignal,
): Promise<Map<string, Download>> {
  const found = new Map<string, Download>();
  await inParallel(
    packs,
    async ({ id, row, blocks }) => {
      const { blockOffsets, blockLengths } = await reader.archives.open(row);
      const download: Download = { bytes: 0, requests: 0 };
      let from = 0;
      let to = Number.NEGATIVE_INFINITY;
      for (const block of blocks) {
        const offset = blockOffsets![block];
        // Content beyond the archive is damage that reading it tells of.
        if (offset === undefined) break;
        const length = blockLengths![block]!;
        download.bytes += length;
        if (offset - to > MAX_GAP || offset + length - from > LONGEST_GET) {
          download.requests++;
          from = offset;
        }
        to = offset + length;
      }
      found.set(id, download);
    },
    signal,
  );
  return found;
}
