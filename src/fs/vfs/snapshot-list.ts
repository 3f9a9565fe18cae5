/**
 * All snapshots of a repository from its heads alone: the newest snapshot of each lineage lists the ones before it, with
 * the keys to open them. Records of older snapshots are read only where a lineage began anew and its history does not
 * know what was before.
 */
import { asMap, decodeCbor, field } from '../../archive/cbor.ts';
import { ROOT_INODE } from '../../archive/format.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { ARCHIVE, HISTORY, TREES } from '../../archive/tree/schema.ts';
import type { OpenArchives } from '../../cache/archives.ts';
import type { PageCache } from '../../cache/pages.ts';
import {
  type SnapshotFacts as OpenFacts,
  openSnapshot,
  retrying,
  type SnapshotReader,
} from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import { isRemote, type ObjectStore } from '../../store/object-store.ts';
import type { SnapshotFacts } from './catalogue.ts';

export interface SnapshotListOptions {
  store: ObjectStore;
  repository: Repository;
  archives: OpenArchives;
  pages: PageCache;
  /** Told of records and trees that are damaged; the others are listed all the same. */
  report: (message: string) => void;
}

export interface Usage {
  bytes: number;
  files: number;
}

/** A snapshot that can be opened, and the tree archive to do it with. */
interface Listed {
  facts: SnapshotFacts;
  /** Null for the snapshots of a history until its `archives` tree is asked. */
  open: OpenFacts | null;
  /** The snapshot whose history lists it, and its tree archive's row there. */
  by: SnapshotReader | null;
  treeRow: number;
}

/** So long a mount of what is cached waits for the store to say what is new. */
const PATIENCE_MS = 5_000;

/** What leaves the other snapshots readable. */
const DAMAGE: ReadonlySet<string> = new Set(['corrupt', 'not-found', 'unsupported']);

export class SnapshotList {
  readonly #options: SnapshotListOptions;
  readonly #listed = new Map<string, Listed>();
  readonly #readers = new Map<string, Promise<SnapshotReader>>();
  /** Ids of the heads that were taken in. */
  readonly #heads = new Map<string, string>();
  #usage: Usage | null = null;

  constructor(options: SnapshotListOptions) {
    this.#options = options;
  }

  /** What is known, in no order. */
  get snapshots(): SnapshotFacts[] {
    return [...this.#listed.values()].map((listed) => listed.facts);
  }

  /** Bytes of the archives and number of inodes of the newest snapshot of each lineage. Reads all their `archives` trees. */
  async usage(): Promise<Usage> {
    this.#usage ??= await this.#measure();
    return this.#usage;
  }

  /**
   * Looks for new snapshots. True when there are any. The first call opens the newest snapshot of each lineage, later ones
   * cost a listing when nothing is new. Throws when the repository cannot be trusted.
   */
  async refresh(): Promise<boolean> {
    const heads = await this.#findHeads();
    const fresh = heads.filter((head) => this.#heads.get(head.tag) !== hex(head.id));
    await Promise.all(fresh.map((head) => this.#takeHead(head)));
    if (fresh.length > 0) this.#usage = null;
    return fresh.length > 0;
  }

  /** At the start, a store that cannot be reached shows what this machine has seen: most of it may be in the cache. */
  async #findHeads(): Promise<SnapshotRecord[]> {
    const { repository, report, store } = this.#options;
    const asked = repository.heads((error) => report(error.message));
    if (this.#heads.size > 0 || !isRemote(store)) return asked;
    let why = `${store.location}: no answer within ${PATIENCE_MS / 1000} s`;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(resolve, PATIENCE_MS, null);
    });
    try {
      const heads = await Promise.race([asked, late]);
      if (heads !== null) return heads;
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'io') throw error;
      why = error.message;
    } finally {
      clearTimeout(timer);
    }
    const heads = await repository.rememberedHeads().catch(() => []);
    if (heads.length === 0) return asked;
    // The store tries on for a while; the next look at it tells what is new.
    asked.catch(() => {});
    report(`${why}: shown is what this machine has seen before`);
    return heads;
  }

  /** The open snapshot; opened at most once. */
  open(id: string): Promise<SnapshotReader> {
    let reader = this.#readers.get(id);
    if (reader === undefined) {
      reader = this.#open(id);
      this.#readers.set(id, reader);
      reader.catch(() => this.#readers.delete(id));
    }
    return reader;
  }

  /** The reader of an open snapshot, by the scope that a Miss names. */
  opened(scope: string): Promise<SnapshotReader> | undefined {
    return this.#readers.get(scope);
  }

  async #open(id: string): Promise<SnapshotReader> {
    const { store, repository, archives, pages } = this.#options;
    const listed = this.#listed.get(id);
    if (listed === undefined) throw new RozenError('not-found', `there is no snapshot ${id}`);
    listed.open ??= await this.#factsFromHistory(listed);
    return openSnapshot({ store, repository, record: listed.open, archives, pages });
  }

  async #factsFromHistory({ facts, by, treeRow }: Listed): Promise<OpenFacts> {
    const { id, size, headerHash, merkleRoot, envelope } = await by!.archives.facts(treeRow);
    const tree = { row: treeRow, id, size, headerHash, merkleRoot, envelope };
    return { id: Buffer.from(facts.id, 'hex'), tag: facts.lineage, sequence: facts.sequence, tree };
  }

  /** A head, and everything before it; when it is damaged, that is told and the snapshot before it stands in. */
  async #takeHead(head: SnapshotRecord): Promise<void> {
    for (let record: SnapshotRecord | null = head; record !== null; ) {
      try {
        const first = await this.#takeRecord(record);
        if (first > 1) await this.#takeOlder(record, first);
        break;
      } catch (error) {
        if (!(error instanceof RozenError) || !DAMAGE.has(error.code)) throw error;
        this.#options.report(error.message);
        record = (await this.#recordsBefore(head.tag, record.sequence))[0] ?? null;
      }
    }
    this.#heads.set(head.tag, hex(head.id));
  }

  /** What the history of a snapshot does not know: a lineage that began anew, or a snapshot that refers to no other. */
  async #takeOlder(newer: SnapshotRecord, sequence: number): Promise<void> {
    const { set, worm = false } = this.#listed.get(hex(newer.id))!.facts;
    for (const record of await this.#recordsBefore(newer.tag, sequence)) {
      const id = hex(record.id);
      if (this.#listed.has(id)) continue;
      const { tag, timeSec, timeNs } = record;
      const facts = { id, set, worm, lineage: tag, sequence: record.sequence, timeSec, timeNs };
      this.#listed.set(id, { facts, open: record, by: null, treeRow: record.tree.row });
    }
  }

  /** Lists a snapshot and its history; returns the lowest sequence that it knows. */
  async #takeRecord(record: SnapshotRecord): Promise<number> {
    const id = hex(record.id);
    const known = this.#listed.get(id);
    const { timeSec, timeNs, sequence, tag } = record;
    const facts: SnapshotFacts = known?.facts ?? { id, set: '', lineage: tag, sequence, timeSec, timeNs };
    const listed: Listed = { facts, open: record, by: null, treeRow: record.tree.row };
    this.#listed.set(id, listed);
    try {
      const reader = await this.open(id);
      const history = await this.#history(reader);
      const info = history.info ?? (await this.#options.repository.openBody(record));
      facts.set = info.set;
      facts.worm = info.mode === 'worm';
      facts.host = info.host;
      facts.repaired = info.stats.repaired ?? 0;
      for (const older of history.rows) {
        if (this.#listed.has(older.id)) continue;
        const { id: olderId, treeRow, ...when } = older;
        const olderFacts = { id: olderId, set: facts.set, worm: facts.worm, lineage: tag, ...when };
        this.#listed.set(olderId, { facts: olderFacts, open: null, by: reader, treeRow });
      }
      return Math.min(sequence, ...history.rows.slice(0, 1).map((row) => row.sequence));
    } catch (error) {
      if (facts.set === '') this.#listed.delete(id);
      throw error;
    }
  }

  /** The rows of the history in order, and the name of the set as the newest of them tells it. */
  async #history(reader: SnapshotReader) {
    const rows: { id: string; treeRow: number; sequence: number; timeSec: number; timeNs: number }[] = [];
    let info: Buffer | null = null;
    const cursor = new Cursor(reader.source, TREES.history, reader.roots.history);
    await retrying(reader, () => {
      rows.length = 0;
      for (let on = cursor.seek(0); on; on = cursor.next()) {
        const page = cursor.page!;
        const i = cursor.index;
        rows.push({
          id: page.slice(HISTORY.snapshotId, i).toString('hex'),
          treeRow: page.num(HISTORY.treeRow, i),
          sequence: page.num(HISTORY.sequence, i),
          timeSec: page.num(HISTORY.timeSec, i),
          timeNs: page.num(HISTORY.timeNs, i),
        });
        info = page.slice(HISTORY.info, i);
      }
    });
    return { rows, info: info === null ? null : infoOf(info) };
  }

  /** The snapshots of a lineage below a sequence, newest first. */
  async #recordsBefore(tag: string, sequence: number): Promise<SnapshotRecord[]> {
    const records = await this.#options.repository.records((error) => this.#options.report(error.message));
    return records
      .filter((record) => record.kind === 'snapshot')
      .filter((record) => record.tag === tag && record.sequence < sequence)
      .sort((a, b) => b.sequence - a.sequence);
  }

  async #measure(): Promise<Usage> {
    let bytes = 0;
    let files = 0;
    for (const id of this.#heads.values()) {
      if (!this.#listed.has(id)) continue;
      const reader = await this.open(id);
      files += reader.roots.inodes.count;
      const cursor = new Cursor(reader.source, TREES.archives, reader.roots.archives);
      bytes += await retrying(reader, () => {
        let sum = reader.archives.get(reader.root.row)?.size ?? 0;
        for (let on = cursor.seek(ROOT_INODE); on; on = cursor.next())
          sum += cursor.page!.num(ARCHIVE.size, cursor.index);
        return sum;
      });
    }
    return { bytes, files };
  }
}

/** What the info of a history row says of the set; null when it does not say. */
function infoOf(
  info: Buffer,
): { set: string; mode: string; host: string; stats: { repaired?: number | undefined } } | null {
  const map = asMap(decodeCbor(info, { what: 'history' }), 'history');
  if (map.set === undefined) return null;
  return {
    set: field.text(map, 'set'),
    mode: map.mode === 'worm' ? 'worm' : 'snapshot',
    host: typeof map.host === 'string' ? map.host : '',
    stats: { repaired: repairedOf(map.stats) },
  };
}

function repairedOf(stats: unknown): number | undefined {
  if (typeof stats !== 'object' || stats === null || !('repaired' in stats)) return undefined;
  return typeof stats.repaired === 'number' ? stats.repaired : undefined;
}

function hex(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}
