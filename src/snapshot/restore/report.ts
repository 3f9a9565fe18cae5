/** The report of a restore, and problems in words. */
import { RozenError } from '../../errors.ts';
import { EDQUOT, ENOSPC, EROFS } from '../../posix/errno.ts';
import { reasonOf } from '../../posix/reason.ts';
import { Occupied } from './occupied.ts';
import type { RestoreCounts, RestoreOptions, RestoreProblem, RestoreReport } from './types.ts';

export function emptyReport({ place, target, dryRun = false, verify = false }: RestoreOptions): RestoreReport {
  const counts = (): RestoreCounts => ({ files: 0, folders: 0, others: 0 });
  return {
    snapshotId: place.snapshot.id,
    set: place.snapshot.set,
    target,
    dryRun,
    verified: verify && !dryRun,
    startedAt: Date.now(),
    finishedAt: 0,
    classes: { new: counts(), replaced: counts(), kept: counts() },
    bytesRestored: 0,
    bytesKept: 0,
    notices: [],
    problems: [],
  };
}

/** A problem as people read it. */
export function describe(error: unknown): Pick<RestoreProblem, 'kind' | 'message'> {
  const system = error instanceof Error && 'syscall' in error;
  const message = system ? reasonOf(error) : error instanceof Error ? error.message : String(error);
  if (error instanceof Occupied) return { kind: 'occupied', message };
  return { kind: isDamage(error) ? 'corrupt' : 'failed', message };
}

/** Failures of the target that every further entry would meet too. */
export function isFatal(error: unknown): boolean {
  const errno = -((error as NodeJS.ErrnoException | null)?.errno ?? 0);
  return errno === ENOSPC || errno === EDQUOT || errno === EROFS;
}

/** What is not found while a snapshot is read is an object that it names. */
const DAMAGE: ReadonlySet<string> = new Set(['corrupt', 'untrusted', 'not-found']);

export function isDamage(error: unknown): boolean {
  return error instanceof RozenError && DAMAGE.has(error.code);
}
