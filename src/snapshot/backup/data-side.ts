/** Everything that reads and stores file contents in one run; opened in the background once the first file must be read. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDamaged } from '../../cache/lmdb.ts';
import { RozenError } from '../../errors.ts';
import type { DataWriter } from '../data/data-writer.ts';
import type { DedupIndex } from '../data/index.ts';
import type { StoredArchive } from '../data/types.ts';
import { type ArchiveFacts, ArchiveRows } from './archive-rows.ts';
import type { BackupOptions } from './backup-types.ts';
import { Feed } from './feed.ts';
import type { Lineage } from './lineage.ts';
import type { OldTrees } from './mutations.ts';
import type { Plan } from './plan.ts';
import type { Tally } from './tally.ts';

export interface DataSideOptions {
  options: BackupOptions;
  lineage: Lineage;
  plan: Plan;
  tally: Tally;
  /** Trees to compare contents with; null when they begin empty. */
  old: OldTrees | null;
}

interface Opened {
  index: DedupIndex;
  writer: DataWriter;
  rows: ArchiveRows;
  feed: Feed;
}

export class DataSide {
  /** Sealed and stored by this run. */
  archives: StoredArchive[] = [];
  /** Names of archives, or of their indexes, that are gone, cut or damaged. What they held is stored again where it is met. */
  lostArchives: string[] = [];
  readonly #options: DataSideOptions;
  #opening: Promise<Opened> | null = null;
  #opened: Opened | null = null;
  #failure: unknown = null;

  constructor(options: DataSideOptions) {
    this.#options = options;
  }

  get bytesRead(): number {
    return this.#opened?.feed.bytesRead ?? 0;
  }

  get bytesNew(): number {
    return this.#opened?.feed.bytesNew ?? 0;
  }

  /** Archive rows that this run gave out; null when no file had to be read. */
  get rows(): ArchiveRows | null {
    return this.#opened?.rows ?? null;
  }

  /** What an `archives` row says about an archive of the deduplication index. */
  facts(number: number): ArchiveFacts {
    const facts = this.archives.find((it) => it.number === number)?.archive ?? this.#opened?.index.archive(number);
    if (facts === undefined) throw new RozenError('internal', `archive ${number} was never sealed`);
    return facts;
  }

  /** True when a run that died left sealed blocks: they are taken up even if no file must be read. */
  get hasSpool(): boolean {
    const folder = this.#spoolFolder;
    return existsSync(folder) && readdirSync(folder).length > 0;
  }

  /** Hands over what the data side takes without waiting, opening it first if need be. Throws what has failed meanwhile. */
  pump(): void {
    if (this.#failure !== null) throw this.#failure;
    this.#opening ??= this.#open().then(
      (opened) => {
        this.#opened = opened;
        return opened;
      },
      (error) => {
        this.#failure = error;
        throw error;
      },
    );
    this.#opening.catch(() => {});
    this.#opened?.feed.pump();
  }

  /** After the walk: reads and stores all the rest. Does nothing when nothing was ever pumped. */
  async finish(): Promise<void> {
    if (this.#opening === null) return;
    const { feed, writer } = await this.#opening;
    const { tally } = this.#options;
    const ticking = setInterval(() => tally.tick(), 100);
    try {
      await feed.drain();
      this.archives = (await writer.finish()).archives;
    } finally {
      clearInterval(ticking);
    }
  }

  /** Stops what still runs; the spool stays for the next run. Safe at any time. */
  async abort(): Promise<void> {
    const opened = await this.#opening?.catch(() => null);
    await opened?.writer.abort();
  }

  async close(): Promise<void> {
    const opened = await this.#opening?.catch(() => null);
    await opened?.index.close();
  }

  get #spoolFolder(): string {
    return join(this.#options.lineage.folder, 'spool');
  }

  async #open(): Promise<Opened> {
    const { options, lineage, plan, tally, old } = this.#options;
    const { repository, stateDir, signal, codec, archiveSize, archiveOverrun, threads, selfContained } = options;
    const [{ DataWriter }, { DedupIndex }] = await Promise.all([
      import('../data/data-writer.ts'),
      import('../data/index.ts'),
    ]);
    const path = join(stateDir, 'dedup');
    const openIndex = () => DedupIndex.open({ repository, path });
    const index = await openIndex().catch((error) => {
      if (!isDamaged(error)) throw error;
      // It holds nothing that `sync` does not find in the store.
      rmSync(path, { recursive: true, force: true });
      return openIndex();
    });
    try {
      const { lost, ignored } = await index.sync();
      // One that vanished meanwhile was merged; one of a newer format is no damage.
      const damaged = ignored.filter(({ error }) => error.code === 'corrupt' || error.code === 'untrusted');
      this.lostArchives = [...lost, ...damaged.map(({ name }) => name)];
      const writer = await DataWriter.open({
        repository,
        index,
        spoolDir: this.#spoolFolder,
        ...(codec === undefined ? {} : { codec }),
        ...(archiveSize === undefined ? {} : { archiveSize }),
        ...(archiveOverrun === undefined ? {} : { overrun: archiveOverrun }),
        ...(selfContained === undefined ? {} : { selfContained }),
        ...(threads === undefined ? {} : { workers: threads }),
        ...(signal === undefined ? {} : { signal }),
      });
      const rows = new ArchiveRows({
        old: old === null ? null : { source: old.source, root: old.roots.archives },
        nextRow: lineage.state?.nextRow ?? 1,
        archive: (number) => index.archive(number),
        merged: (id) => repository.forwards.known(id),
      });
      const feed = new Feed({ plan, tally, writer, rows, old, version: lineage.slot.sequence });
      return { index, writer, rows, feed };
    } catch (error) {
      await index.close();
      throw error;
    }
  }
}
