/** Which data archives hold what is asked for, by trees and indexes alone: those are never frozen. */
import { EXTENT } from '../../archive/tree/schema.ts';
import { blocksOf } from '../../cache/blocks.ts';
import type { ArchiveAccess } from '../../cache/frames.ts';
import { MAX_GAP } from '../../cache/ranges.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import { dataName } from '../../repository/names.ts';
import { leavesOf, loadNode } from '../diff/page-nodes.ts';
import type { Extent } from '../view/content.ts';
import { forEachContent } from '../view/file-contents.ts';
import type { OpenPlace } from '../view/place.ts';

/** A data archive, as far as it is needed. */
export interface NeededPack {
  /** Archive id, 32 hexadecimal digits. */
  id: string;
  /** Name of the object. */
  object: string;
  /** Of the whole object, bytes. */
  size: number;
  /** Its blocks that hold something of it. */
  blocks: BlockSet;
  /** Null when its index is lost: then only the archive itself can tell where its blocks lie. */
  archive: ArchiveAccess | null;
}

/** Numbers of blocks of one archive: a bit each, 4 KiB for the largest archive. */
export class BlockSet {
  #bits = new Uint8Array(64);
  #end = 0;

  add(block: number): void {
    while (block >= this.#bits.length * 8) {
      const wider = new Uint8Array(this.#bits.length * 2);
      wider.set(this.#bits);
      this.#bits = wider;
    }
    this.#bits[block >>> 3]! |= 1 << (block & 7);
    this.#end = Math.max(this.#end, block + 1);
  }

  *[Symbol.iterator](): Generator<number> {
    for (let block = 0; block < this.#end; block++) if (this.#bits[block >>> 3]! & (1 << (block & 7))) yield block;
  }
}

/**
 * The archives that the content of a place lies in, in order of their ids. With `everything`, and for the root of a snapshot: also
 * what a WORM set keeps of old contents and of deleted files. Opens the index of each.
 */
export async function neededPacks(place: OpenPlace, everything = false): Promise<NeededPack[]> {
  const { reader, content = reader, inode, attributes, path, snapshot } = place;
  const uses = new Uses(content);
  // Of a set of snapshots the tree holds what the snapshot shows, and nothing else.
  if (path.length === 0 && (everything || snapshot.mode === 'snapshot')) await useAll(content, uses);
  else {
    await forEachContent(reader, { inode, attributes, content }, async (extents) => {
      for (const extent of extents) await uses.add(extent);
    });
  }
  return uses.packs();
}

async function useAll(reader: SnapshotReader, uses: Uses): Promise<void> {
  for (const leaf of await leavesOf(reader, 'extents')) {
    const page = await loadNode(reader, 'extents', leaf);
    for (let i = 0; i < page.count; i++) {
      const row = page.num(EXTENT.row, i);
      const added = uses.add({
        row,
        streamOffset: page.num(EXTENT.streamOffset, i),
        length: page.num(EXTENT.length, i),
      });
      if (added !== undefined) await added;
    }
  }
}

class Uses {
  readonly #reader: SnapshotReader;
  /** Rows of archives that were merged lead to one pack, each to a part of its stream. */
  readonly #byRow = new Map<number, { pack: NeededPack; archive: ArchiveAccess | null }>();
  readonly #byId = new Map<string, NeededPack>();

  constructor(reader: SnapshotReader) {
    this.#reader = reader;
  }

  /** A promise only when an archive is met for the first time. */
  add(extent: Omit<Extent, 'offset'>): undefined | Promise<void> {
    const { row, streamOffset, length } = extent;
    if (row === 0 || length === 0) return undefined;
    const found = this.#byRow.get(row);
    if (found === undefined) return this.#open(row).then(() => this.add(extent));
    const { pack, archive } = found;
    if (archive !== null) for (const block of blocksOf(archive, streamOffset, length)) pack.blocks.add(block);
    return undefined;
  }

  packs(): NeededPack[] {
    return [...this.#byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  async #open(row: number): Promise<void> {
    const found = await this.#find(row);
    const pack = this.#byId.get(found.id) ?? found;
    this.#byId.set(found.id, pack);
    this.#byRow.set(row, { pack, archive: found.archive });
  }

  async #find(row: number): Promise<NeededPack> {
    const blocks = new BlockSet();
    const { archives } = this.#reader;
    try {
      const archive = await archives.open(row);
      const { id, object, size } = archive;
      return { id: Buffer.from(id).toString('hex'), object, size, blocks, archive };
    } catch (error) {
      if (!(error instanceof RozenError) || !INDEX_LOST.has(error.code)) throw error;
      const { id, size } = await archives.facts(row);
      return { id: id.toString('hex'), object: dataName(id), size, blocks, archive: null };
    }
  }
}

/** Also when the archive itself, asked for what its index would say, is frozen. */
const INDEX_LOST: ReadonlySet<string> = new Set(['not-found', 'corrupt', 'frozen']);

/** What reading the blocks of a pack takes, as the fetcher asks for them. */
export interface Download {
  /** Sealed bytes. */
  bytes: number;
  requests: number;
}

/** A GET is no longer, whoever asks. */
const LONGEST_GET = 8 * 1024 * 1024;

export function downloadOf({ archive, blocks, size }: NeededPack): Download {
  if (archive === null) return { bytes: size, requests: Math.ceil(size / LONGEST_GET) };
  const { blockOffsets, blockLengths } = archive;
  const download: Download = { bytes: 0, requests: 0 };
  let from = 0;
  let to = Number.NEGATIVE_INFINITY;
  for (const block of blocks) {
    const offset = blockOffsets?.[block];
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
  return download;
}
