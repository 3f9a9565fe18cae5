import { KIND_DATA } from '../../archive/format.ts';
import type { Page } from '../../archive/tree/page.ts';
import { ARCHIVE, EXTENT } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import { leavesOf, loadNode, type PageNode } from '../diff/page-nodes.ts';
import { type InodeSums, type LeafSums, sumLeaf, sumSnapshot } from './inode-sums.ts';

export interface SnapshotStatistics extends InodeSums {
  /** What a WORM set keeps that was deleted from it, with all that was in folders that were; nothing for other sets. */
  deleted: InodeSums;
  /** Bytes that only stand for zeros. */
  holeBytes: number;
  /**
   * Different bytes that the files need: what is left after deduplication, before compression. Of a WORM set older versions
   * and what was deleted count too.
   */
  uniqueBytes: number;
  /** Data archives that the files lie in, and their whole sealed size. */
  archives: number;
  archiveBytes: number;
}

export interface StoreStatistics {
  objects: number;
  bytes: number;
  /** By first part of the name: data, index, tree, snapshots, … */
  areas: Record<string, { objects: number; bytes: number }>;
}

/** What the store holds; needs no key. */
export async function storeStatistics(store: ObjectStore): Promise<StoreStatistics> {
  const result: StoreStatistics = { objects: 0, bytes: 0, areas: {} };
  for await (const { name, size } of store.list('')) {
    const slash = name.indexOf('/');
    const key = slash < 0 ? 'genesis' : name.slice(0, slash);
    result.areas[key] ??= { objects: 0, bytes: 0 };
    const area = result.areas[key];
    area.objects++;
    area.bytes += size;
    result.objects++;
    result.bytes += size;
  }
  return result;
}

/** The extents of one leaf as columns: archive number (0: hole), first byte of the stream, length. */
type ExtentColumns = Float64Array;

/**
 * Counts snapshots one after another. Leaves that several snapshots share are read once, so that a hundred snapshots of
 * one lineage cost little more than one.
 */
export class StatisticsCollector {
  readonly #inodes = new Map<string, LeafSums>();
  readonly #extents = new Map<string, ExtentColumns>();
  /** Archive id → number from 1 and size, over all lineages. */
  readonly #archives = new Map<string, { number: number; size: number }>();

  async add(reader: SnapshotReader): Promise<SnapshotStatistics> {
    const leaves: LeafSums[] = [];
    const pageId = pageIds(reader);
    for (const leaf of await leavesOf(reader, 'inodes')) {
      const key = pageId(leaf);
      let part = this.#inodes.get(key);
      if (part === undefined) {
        part = sumLeaf(await loadNode(reader, 'inodes', leaf));
        this.#inodes.set(key, part);
      }
      leaves.push(part);
    }
    const { current, deleted } = sumSnapshot(leaves);
    const columns = await this.#extentsOf(reader);
    return { ...current, deleted, ...this.#weigh(columns) };
  }

  /** Over all snapshots that were added: different bytes, and the archives that hold them. */
  total(): Pick<SnapshotStatistics, 'uniqueBytes' | 'archives' | 'archiveBytes'> {
    const { uniqueBytes, archives, archiveBytes } = this.#weigh([...this.#extents.values()]);
    return { uniqueBytes, archives, archiveBytes };
  }

  async #extentsOf(reader: SnapshotReader): Promise<ExtentColumns[]> {
    const columns: ExtentColumns[] = [];
    const pageId = pageIds(reader);
    let rows: Map<number, number> | null = null;
    for (const leaf of await leavesOf(reader, 'extents')) {
      const key = pageId(leaf);
      let part = this.#extents.get(key);
      if (part === undefined) {
        rows ??= await this.#numberArchives(reader);
        part = extentColumns(await loadNode(reader, 'extents', leaf), rows);
        this.#extents.set(key, part);
      }
      columns.push(part);
    }
    return columns;
  }

  /** Archive row → number. */
  async #numberArchives(reader: SnapshotReader): Promise<Map<number, number>> {
    const rows = new Map<number, number>();
    for (const leaf of await leavesOf(reader, 'archives')) {
      const page = await loadNode(reader, 'archives', leaf);
      for (let i = 0; i < page.count; i++) {
        if (page.num(ARCHIVE.kind, i) !== KIND_DATA) continue;
        const id = page.slice(ARCHIVE.id, i).toString('hex');
        let known = this.#archives.get(id);
        if (known === undefined) {
          known = { number: this.#archives.size + 1, size: page.num(ARCHIVE.size, i) };
          this.#archives.set(id, known);
        }
        rows.set(page.num(ARCHIVE.row, i), known.number);
      }
    }
    return rows;
  }

  #weigh(
    parts: readonly ExtentColumns[],
  ): Pick<SnapshotStatistics, 'holeBytes' | 'uniqueBytes' | 'archives' | 'archiveBytes'> {
    const byArchive = new Map<number, { starts: number[]; ends: number[] }>();
    let holeBytes = 0;
    for (const part of parts) {
      for (let i = 0; i < part.length; i += 3) {
        const archive = part[i] as number;
        const start = part[i + 1] as number;
        const length = part[i + 2] as number;
        if (archive === 0) {
          holeBytes += length;
          continue;
        }
        let ranges = byArchive.get(archive);
        if (ranges === undefined) {
          ranges = { starts: [], ends: [] };
          byArchive.set(archive, ranges);
        }
        ranges.starts.push(start);
        ranges.ends.push(start + length);
      }
    }
    let uniqueBytes = 0;
    for (const { starts, ends } of byArchive.values()) uniqueBytes += unionLength(starts, ends);
    let archiveBytes = 0;
    for (const { number, size } of this.#archives.values()) if (byArchive.has(number)) archiveBytes += size;
    return { holeBytes, uniqueBytes, archives: byArchive.size, archiveBytes };
  }
}

/** A name for a page that holds over all snapshots: rows are counted anew in each lineage, archive ids are not. */
function pageIds({ root, record }: SnapshotReader): (node: PageNode) => string {
  const ids = new Map(root.archives.map(({ row, id }) => [row, id.toString('hex')]));
  ids.set(root.row, record.tree.id.toString('hex'));
  return ({ row, offset }) => `${ids.get(row)}:${offset}`;
}

function extentColumns(page: Page, rows: ReadonlyMap<number, number>): ExtentColumns {
  const columns = new Float64Array(page.count * 3);
  for (let i = 0; i < page.count; i++) {
    const row = page.num(EXTENT.row, i);
    // A row that is unknown counts as a hole here: verify is who complains.
    columns[i * 3] = row === 0 ? 0 : (rows.get(row) ?? 0);
    columns[i * 3 + 1] = page.num(EXTENT.streamOffset, i);
    columns[i * 3 + 2] = page.num(EXTENT.length, i);
  }
  return columns;
}

/** Bytes that at least one of the ranges covers. Starts and ends may be sorted apart: only how many are open counts. */
export function unionLength(starts: readonly number[], ends: readonly number[]): number {
  const begin = Float64Array.from(starts).sort();
  const end = Float64Array.from(ends).sort();
  let covered = 0;
  let open = 0;
  let since = 0;
  for (let i = 0, j = 0; j < end.length; ) {
    if (i < begin.length && (begin[i] as number) <= (end[j] as number)) {
      if (open++ === 0) since = begin[i] as number;
      i++;
    } else {
      if (--open === 0) covered += (end[j] as number) - since;
      j++;
    }
  }
  return covered;
}
