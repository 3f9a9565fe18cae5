/**
 * The run of a compaction. It may be killed at any moment, run beside backups, readers and other compactions, and end early:
 * snapshots go on naming the archives that were merged, and the forward records lead from there (docs/FORMAT-REPOSITORY.md §8).
 */
import { join } from 'node:path';
import type { ArchiveFacts } from '../../cache/archives.ts';
import { RozenError } from '../../errors.ts';
import { lockFile } from '../../posix/lock.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { storedArchives } from '../../repository/archive-listing.ts';
import { dataName } from '../../repository/names.ts';
import { putMissingIndexes } from './complete.ts';
import { mergeArchives, SourceDamaged } from './merge.ts';
import { type Plan, planMerges, smallArchives } from './plan.ts';
import { removeMerged } from './remove.ts';
import { deliverMerged, recoverMerges } from './spool.ts';
import { namedArchives, plainArchives } from './survey.ts';
import type { CompactListener, CompactOptions, CompactReport } from './types.ts';

export type * from './types.ts';

const GOAL = 1024 ** 3;

/**
 * Merges small data archives and removes those that were merged `graceMs` ago. Throws RozenError: 'no-key' (nobody but an
 * owner can), 'locked' (another one runs on this machine), 'untrusted', 'interrupted', 'io'. An archive that is damaged is left
 * where it is, and told in `problems`.
 */
export async function compact(options: CompactOptions, listener: CompactListener = {}): Promise<CompactReport> {
  const { stateDir } = options;
  const folder = join(stateDir, 'compact');
  makeFolders(folder);
  const release = await lockFile(join(folder, 'lock')).catch((error) => {
    if (!(error instanceof RozenError) || error.code !== 'locked') throw error;
    throw new RozenError('locked', `another compaction runs: ${error.message}`, { hint: 'let it end', cause: error });
  });
  try {
    return await new Run(options, listener, join(folder, 'spool')).run();
  } finally {
    release();
  }
}

class Run {
  readonly #options: CompactOptions;
  readonly #listener: CompactListener;
  readonly #folder: string;
  readonly #report: CompactReport;
  readonly #goal: number;
  #bytesDone = 0;

  constructor(options: CompactOptions, listener: CompactListener, folder: string) {
    this.#options = options;
    this.#listener = listener;
    this.#folder = folder;
    this.#goal = Math.max(1, options.archiveSize ?? GOAL);
    const now = this.#now();
    this.#report = {
      dryRun: options.dryRun ?? false,
      startedAt: now,
      finishedAt: now,
      small: amountOf([]),
      kept: amountOf([]),
      planned: [],
      merged: [],
      completed: amountOf([]),
      removed: amountOf([]),
      waiting: { ...amountOf([]), until: null },
      locked: { ...amountOf([]), until: null },
      problems: [],
    };
  }

  async run(): Promise<CompactReport> {
    const { repository, signal, dryRun, graceMs } = this.#options;
    const report = this.#report;
    this.#tell('looking', 0);
    repository.keepSmall(this.#goal);
    // Damaged records are told with the rest of them.
    await repository.heads(() => {});
    await repository.forwards.refresh();
    if (!dryRun) {
      for (const { target, sources } of await recoverMerges(repository, this.#folder, signal)) {
        const { archives, bytes } = amountOf(sources);
        report.merged.push({ id: target.id.toString('hex'), archives, bytes, size: target.size });
      }
      report.completed = amountOf(await putMissingIndexes({ repository, signal, problem: this.#problem }));
    }
    const plan = await this.#plan();
    report.small = amountOf(plan.small);
    report.kept = amountOf(plan.kept);
    report.planned = plan.merges.map(amountOf);
    if (!dryRun) await this.#merge(plan);
    this.#tell('removing', 0);
    const stored = await storedArchives(repository);
    const problem = this.#problem;
    const removal = { repository, stored, graceMs, now: this.#now(), dryRun: dryRun ?? false, signal, problem };
    Object.assign(report, await removeMerged(removal));
    report.finishedAt = this.#now();
    return report;
  }

  async #plan(): Promise<Plan> {
    const { repository } = this.#options;
    const { forwards } = repository;
    // The store is listed first: what is named and not in the list was stored since, or is gone.
    const stored = await storedArchives(repository);
    const named = await namedArchives(repository, this.#problem);
    const small = smallArchives(named, stored, { goal: this.#goal, forwards });
    return planMerges(await plainArchives(repository, small, stored), this.#goal);
  }

  async #merge({ merges }: Plan): Promise<void> {
    const bytesTotal = merges.flat().reduce((sum, { size }) => sum + size, 0);
    for (let queue = [...merges]; queue.length > 0; ) {
      const sources = queue.shift()!;
      if (sources.length < 2) continue;
      this.#tell('merging', bytesTotal);
      const left = await this.#mergeOne(sources, bytesTotal);
      if (left.length > 0) queue = [left, ...queue];
    }
  }

  /** Answers what is to be tried again: what did not fit, or all but what is damaged. */
  async #mergeOne(sources: readonly ArchiveFacts[], bytesTotal: number): Promise<ArchiveFacts[]> {
    const { repository, signal } = this.#options;
    const before = this.#bytesDone;
    const advance = (bytes: number): void => {
      this.#bytesDone += bytes;
      this.#tell('merging', bytesTotal);
    };
    try {
      const merged = await mergeArchives({ repository, folder: this.#folder, sources, signal, advance });
      const { target, sources: taken } = merged.merge;
      if (await deliverMerged(repository, this.#folder, { merged, signal })) {
        const { archives, bytes } = amountOf(taken);
        this.#report.merged.push({ id: target.id.toString('hex'), archives, bytes, size: target.size });
      }
      return merged.left;
    } catch (error) {
      if (!(error instanceof SourceDamaged)) throw error;
      this.#bytesDone = before;
      // What vanished was merged by somebody else; all else is damage.
      await repository.forwards.refresh();
      if (repository.forwards.known(error.source.id) === null) this.#problem(dataName(error.source.id), error.cause);
      return sources.filter(({ id }) => repository.forwards.known(id) === null && id !== error.source.id);
    }
  }

  readonly #problem = (object: string, error: unknown): void => {
    const message = error instanceof Error ? error.message : String(error);
    this.#report.problems.push({ object, message });
    this.#listener.problem?.(object, message);
  };

  #tell(phase: string, bytesTotal: number): void {
    this.#listener.progress?.({ phase, bytesDone: this.#bytesDone, bytesTotal });
  }

  #now(): number {
    return this.#options.now?.() ?? Date.now();
  }
}

function amountOf(archives: readonly { size: number }[]): { archives: number; bytes: number } {
  return { archives: archives.length, bytes: archives.reduce((sum, { size }) => sum + size, 0) };
}
