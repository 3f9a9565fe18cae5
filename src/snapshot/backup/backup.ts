/**
 * The run of a backup: lock, local state, walk and compare while the data side reads already, then trees and the commit.
 * Whatever ends it early leaves objects that nothing refers to and a spool from which the next run goes on.
 */
import { dirname } from 'node:path';
import { setImmediate as breathe } from 'node:timers/promises';
import type { PageSource } from '../../archive/tree/read.ts';
import { RozenError } from '../../errors.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { lstat } from '../../posix/stat.ts';
import { GENESIS_NAME } from '../../repository/names.ts';
import { setInfo } from '../worm/set-info.ts';
import type { WormSide } from '../worm/worm-side.ts';
import type { BackupListener, BackupOptions, BackupReport } from './backup-types.ts';
import { type Committed, commitSnapshot } from './commit.ts';
import { Comparison } from './compare.ts';
import { DataSide } from './data-side.ts';
import { type Lineage, openLineage } from './lineage.ts';
import { localPages } from './local-pages.ts';
import { StateDamaged } from './local-state.ts';
import type { OldTrees } from './mutations.ts';
import { FIELD, Plan, STATE } from './plan.ts';
import { selection } from './select.ts';
import { layOutSources } from './sources.ts';
import { describe, snapshotClasses, Tally } from './tally.ts';
import { type Untouchable, walk, walkFolders } from './walk.ts';

export type * from './backup-types.ts';

/** The walk holds the thread for so long at most, so that the workers' answers are taken in. */
const SLICE_MS = 8;

/**
 * Backs up `options.paths` into the set and commits a snapshot, or an "unchanged" record when nothing differs.
 * One failing file never stops the run: it is in `report.problems`. Throws RozenError: 'usage' (paths, patterns),
 * 'not-found' (none of the paths exists), 'locked' (another backup of this set runs), 'interrupted' (signal),
 * 'exists' (this writer's state is in use twice), 'untrusted', 'io', 'corrupt'.
 */
export async function backup(options: BackupOptions, listener: BackupListener = {}): Promise<BackupReport> {
  for (let attempt = 1; ; attempt++) {
    const run = new Run(options, listener);
    try {
      return await run.run();
    } catch (error) {
      // The state is thrown away by then, and the second attempt builds it from the store.
      if (!(error instanceof StateDamaged) || attempt > 1) throw error;
    }
  }
}

/** What a run has come to. */
interface Found {
  comparison: Comparison;
  data: DataSide;
  /** Null when nothing changed, and in a dry run. */
  committed: Committed | null;
}

class Run {
  readonly #options: BackupOptions;
  readonly #tally: Tally;
  #plan = new Plan();
  #mode: 'snapshot' | 'worm' = 'snapshot';
  #worm: WormSide | null = null;
  readonly #startedAt = Date.now();
  /** The time of the snapshot. Not before the lock is ours: snapshots of a set follow each other in time. */
  #walkedAt = 0;

  constructor(options: BackupOptions, listener: BackupListener) {
    this.#options = options;
    this.#tally = new Tally(listener);
  }

  /** Single entries are looked at, instead of a walk. */
  get #partial(): boolean {
    return this.#options.decisions !== undefined || this.#options.repairs !== undefined;
  }

  async run(): Promise<BackupReport> {
    const options = this.#options;
    const { repository, stateDir, set, signal } = options;
    this.#tally.phase('prepare');
    checkSignal(signal);
    const sources = layOutSources(options.paths);
    const selected = selection({ patterns: options.exclude ?? [], files: options.excludeFiles ?? [] });
    makeFolders(stateDir);
    const lineage = await openLineage({ repository, stateDir, set, wait: options.waitForLock ?? false, signal });
    this.#walkedAt = Date.now();
    let data: DataSide | null = null;
    try {
      const { state, local } = lineage;
      const source = localPages(local);
      const base = state === null ? null : { source, roots: state.roots, walkedAt: state.walkedAt };
      this.#mode = modeOf(options, base, lineage.wasWorm);
      if (lineage.wasWorm) await this.#refuseFrozen();
      this.#plan = new Plan(this.#mode === 'worm', sources.paths);
      const old = options.selfContained ? null : base;
      const { repairs } = options;
      if (repairs !== undefined && state?.snapshotId.equals(repairs.base) !== true) {
        throw new RozenError('usage', `the newest snapshot of set '${set}' that this machine has made is another one`, {
          hint: 'a set is repaired by the machine that backs it up; if that is this one, run the command again',
        });
      }
      // What is repaired must not refer to the archives that hold it already.
      const dataOptions = repairs === undefined ? options : { ...options, selfContained: true };
      data = new DataSide({ options: dataOptions, lineage, plan: this.#plan, tally: this.#tally, old });
      if (this.#mode === 'worm') {
        const { WormSide } = await import('../worm/worm-side.ts');
        const pump = () => this.#pump(data);
        this.#worm = await WormSide.open({
          options,
          lineage,
          plan: this.#plan,
          tally: this.#tally,
          base,
          walkedAt: this.#walkedAt,
          pump,
        });
      }
      const comparison = new Comparison({
        base,
        partial: this.#partial,
        worm: this.#worm?.rules ?? null,
        plan: this.#plan,
        nextInode: state?.nextInode ?? 2,
        version: lineage.slot.sequence,
        fromNothing: options.selfContained ?? false,
        events: {
          problem: (kind, path, error) => this.#tally.problem({ kind, path, message: describe(error) }),
          skipped: (path, reason) => this.#tally.skip(path, reason),
          classified: (folder, name, what) => this.#tally.classified(folder.path, name, what),
        },
      });
      this.#tally.phase('walk');
      const walking = {
        sources,
        selection: selected,
        excludeCaches: options.excludeCaches ?? false,
        oneFileSystem: options.oneFileSystem ?? false,
        untouchable: ownFolders(options),
        handler: comparison,
      };
      const folders = this.#partial ? await this.#worm?.lookAtDecided(comparison) : undefined;
      const walker = folders === undefined ? walk(walking) : walkFolders(walking, comparison.andPostponed(folders));
      await this.#walk(walker, { comparison, data });
      const found: Found = { comparison, data, committed: null };
      await this.#worm?.judge(comparison);
      if (options.dryRun) {
        this.#classifyUnread();
        await this.#worm?.settle(comparison);
        return this.#report(lineage, found);
      }
      this.#tally.phase('store');
      this.#pump(data);
      await data.finish();
      checkSignal(signal);
      await this.#worm?.settle(comparison);
      found.committed = await this.#commit(lineage, { ...found, sources: sources.paths, old, source });
      this.#tally.phase('done');
      return this.#report(lineage, found);
    } catch (error) {
      await data?.abort();
      if (error instanceof StateDamaged) await lineage.local.destroy();
      // Whichever part noticed the signal first: one message for all.
      if (error instanceof RozenError && error.code === 'interrupted') checkSignal(signal);
      throw error;
    } finally {
      await data?.close();
      this.#worm?.close();
      await lineage.close();
    }
  }

  async #refuseFrozen(): Promise<void> {
    const { repository, set, policy } = this.#options;
    if (policy?.acceptNew === true) return;
    const { frozenBy } = await import('../worm/other-machines.ts');
    const host = await frozenBy({ repository, set });
    if (host === null) return;
    throw new RozenError('usage', `set '${set}' is frozen (by ${host}), and this machine has no snapshot of it`, {
      hint: 'add --accept-new yes to begin with what is here now, or use another name',
    });
  }

  /** Walks to the end; the data side reads meanwhile. */
  async #walk(
    walker: Generator<void>,
    { comparison, data }: { comparison: Comparison; data: DataSide },
  ): Promise<void> {
    const { dryRun, signal } = this.#options;
    const spooled = data.hasSpool;
    try {
      for (;;) {
        const over = this.#walkOn(walker, comparison);
        checkSignal(signal);
        if (!dryRun && (spooled || this.#plan.reading.length > 0)) data.pump();
        if (over) break;
        await breathe();
      }
    } finally {
      walker.return(undefined);
    }
    if (this.#worm === null) comparison.finish();
    this.#tally.progress.totalsKnown = true;
  }

  /** The data side is opened with the first file that is to be read. */
  #pump(data: DataSide | null): void {
    if (!this.#options.dryRun && this.#plan.reading.length > 0) data?.pump();
  }

  /** What a dry run can say of files without reading them. */
  #classifyUnread(): void {
    const { records, names, folders, reading } = this.#plan;
    for (const record of reading) {
      const at = records.get(record, FIELD.nameAt);
      const name = names.arena.string(at, records.get(record, FIELD.nameLength));
      this.#tally.classified(folders[records.get(record, FIELD.folder)]!, name, {
        class: records.is(record, STATE.fresh) ? 'new' : 'changed',
        mode: records.get(record, FIELD.mode),
        size: records.get(record, FIELD.size),
      });
    }
  }

  /** A slice of the walk; true when it is over. */
  #walkOn(walker: Generator<void>, comparison: Comparison): boolean {
    const until = performance.now() + SLICE_MS;
    let over: boolean;
    do over = walker.next().done === true;
    while (!over && performance.now() < until);
    const { progress } = this.#tally;
    progress.entriesSeen = comparison.entriesSeen;
    progress.filesTotal = this.#plan.reading.length;
    progress.bytesTotal = comparison.readingBytes;
    this.#tally.tick();
    return over;
  }

  async #commit(
    lineage: Lineage,
    run: Found & { sources: Buffer[]; old: OldTrees | null; source: PageSource },
  ): Promise<Committed | null> {
    const { repository, force, selfContained, signal } = this.#options;
    const { slot, state, local } = lineage;
    const walkedAt = this.#walkedAt;
    const time = { timeSec: Math.floor(walkedAt / 1000), timeNs: (walkedAt % 1000) * 1e6 };
    if (state !== null && !force && !selfContained && this.#plan.empty) {
      this.#tally.phase('commit');
      await repository.commit({ kind: 'unchanged', slot, ...time });
      local.confirm({ ...state, walkedAt: this.#partial ? state.walkedAt : walkedAt });
      this.#worm?.saveProofs();
      return null;
    }
    this.#tally.phase('trees');
    const { data, comparison } = run;
    const committed = await commitSnapshot({
      repository,
      lineage,
      source: run.source,
      old: run.old,
      plan: this.#plan,
      rows: data.rows,
      facts: (number) => data.facts(number),
      nextInode: comparison.nextInode,
      emptyId: this.#worm?.emptyId ?? NO_ID,
      // Files that were not looked at were last seen by the walk before.
      walkedAt: this.#partial ? (state?.walkedAt ?? walkedAt) : walkedAt,
      ...time,
      body: {
        set: this.#options.set,
        mode: this.#mode,
        ...(this.#worm === null ? {} : { policy: this.#worm.kept }),
        host: this.#options.host ?? '',
        user: this.#options.user ?? '',
        paths: run.sources,
        tags: [...(this.#options.tags ?? [])],
        stats: this.#stats(run),
      },
      signal,
      onCommit: () => this.#tally.phase('commit'),
    });
    this.#worm?.saveProofs();
    return committed;
  }

  #stats({ comparison, data, old }: Found & { old: OldTrees | null }): Record<string, number> {
    if (this.#partial && old !== null && this.#worm !== null) return this.#worm.statsAfterDecisions(old);
    return {
      ...this.#totals(comparison),
      bytesRead: data.bytesRead,
      bytesNew: data.bytesNew,
      problems: this.#tally.progress.problems,
      ...(this.#worm === null ? {} : this.#worm.stats()),
    };
  }

  /** Files of the snapshot, by their names. */
  #totals({ totalFiles, totalBytes }: Comparison): { files: number; bytes: number } {
    const left = this.#plan.leftOut();
    return { files: totalFiles - left.files, bytes: totalBytes - left.bytes + (this.#worm?.staysBytes ?? 0) };
  }

  #report(lineage: Lineage, { comparison, data, committed }: Found): BackupReport {
    const dryRun = this.#options.dryRun ?? false;
    const totals = this.#totals(comparison);
    let bytesStored = committed?.record.tree.size ?? 0;
    for (const { archive } of data.archives) bytesStored += archive.size + (archive.hotIndex?.length ?? 0);
    return {
      set: this.#options.set,
      mode: this.#mode,
      snapshotId: committed?.record.id.toString('hex') ?? null,
      sequence: committed?.record.sequence ?? null,
      parentId: lineage.state?.snapshotId.toString('hex') ?? null,
      unchanged: committed === null && !dryRun,
      dryRun,
      startedAt: this.#startedAt,
      finishedAt: Date.now(),
      classes: this.#worm === null ? snapshotClasses(this.#tally.classes) : this.#tally.classes,
      worm: this.#worm?.report() ?? null,
      totalFiles: totals.files,
      totalBytes: totals.bytes,
      bytesRead: (dryRun ? comparison.readingBytes : data.bytesRead) + (this.#worm?.bytesRead ?? 0),
      bytesNew: data.bytesNew,
      bytesStored,
      archives: data.archives.length,
      lostArchives: data.lostArchives,
      stateNotice: lineage.notice,
      skipped: this.#tally.skipped,
      problems: this.#tally.problems,
    };
  }
}

const NO_ID = Buffer.alloc(0);

/** A set keeps its mode. */
function modeOf(options: BackupOptions, base: OldTrees | null, wasWorm: boolean): 'snapshot' | 'worm' {
  const begun = wasWorm ? 'worm' : (options.mode ?? 'snapshot');
  const mode = base === null ? begun : setInfo(base).mode;
  if (options.mode !== undefined && options.mode !== mode) {
    throw new RozenError('usage', `set '${options.set}' is of mode ${mode}`, {
      hint: `a set keeps its mode: leave out --mode, or use another name for a set of mode ${options.mode}`,
    });
  }
  if (mode === 'worm' && options.selfContained) {
    throw new RozenError('usage', 'a snapshot of a WORM set cannot be self-contained', {
      hint: 'its old contents and deletions lie in older archives',
    });
  }
  if (mode === 'snapshot' && (options.policy !== undefined || options.rehash !== undefined)) {
    throw new RozenError('usage', `set '${options.set}' is no WORM set`, {
      hint: '--on-change, --on-delete, --accept-new and --rehash are for --mode worm',
    });
  }
  return mode;
}

function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw new RozenError('interrupted', 'the backup was interrupted', {
    hint: 'run it again: it goes on where it stopped',
  });
}

/** Folders that would grow while they are read: the repository, and Rozen's state for it. */
function ownFolders(options: BackupOptions): Untouchable[] {
  const places: Untouchable[] = [];
  const add = (path: string, reason: string): void => {
    try {
      const { dev, ino } = lstat(path);
      places.push({ dev, ino, reason });
    } catch {
      // It is not there: nothing to keep out of.
    }
  };
  const genesis = options.repository.store.localPath(GENESIS_NAME);
  if (genesis !== null) add(dirname(genesis), 'the repository itself');
  add(options.stateDir, "Rozen's own state");
  return places;
}
