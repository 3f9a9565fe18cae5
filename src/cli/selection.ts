import { RozenError } from '../errors.ts';
import type { Repository } from '../repository/repository.ts';
import type { SnapshotInfo } from '../snapshot/view/listing.ts';
import type { Context } from './context.ts';
import { formatTime, isoTime, jsonName, printableName } from './display.ts';

export interface FilterOptions {
  set?: string;
  host?: string;
  tag?: string[];
}

/** All snapshots that the filters let through, oldest first; damaged records are told on stderr and by the exit code. */
export async function selectSnapshots(
  context: Context,
  repository: Repository,
  filters: FilterOptions = {},
): Promise<SnapshotInfo[]> {
  const { listSnapshots } = await import('../snapshot/view/listing.ts');
  const all = await listSnapshots(repository, (error) => context.tellDamage(error.message));
  const { set, host, tag = [] } = filters;
  const chosen = all.filter(
    (snapshot) =>
      (set === undefined || snapshot.set === set) &&
      (host === undefined || snapshot.host === host) &&
      tag.every((word) => snapshot.tags.includes(word)),
  );
  if (set !== undefined && !all.some((snapshot) => snapshot.set === set)) {
    const { nearest } = await import('./values.ts');
    const sets = [...new Set(all.map((snapshot) => snapshot.set))].sort();
    const near = nearest(set, sets);
    throw new RozenError('not-found', `no snapshot of a set '${set}'`, {
      hint:
        near !== undefined
          ? `did you mean ${near}?`
          : sets.length > 0
            ? `there are ${sets.join(', ')}`
            : 'make one with rozen backup',
    });
  }
  return chosen;
}

/** The backed-up folders, fit for a terminal. */
export function pathsText(paths: readonly Buffer[]): string {
  return paths.map(printableName).join(', ');
}

/** One line that tells a person which snapshot this is. */
export function snapshotTitle(snapshot: SnapshotInfo): string {
  return `${snapshot.id.slice(0, 8)} ${snapshot.set} ${formatTime(snapshot.timeSec)}`;
}

export function snapshotAsJson(snapshot: SnapshotInfo): Record<string, unknown> {
  const { id, set, mode, host, user, tags, paths, stats, sequence, lineage, confirmed, timeSec, timeNs } = snapshot;
  return {
    id,
    set,
    mode,
    time: isoTime(timeSec, timeNs),
    confirmed: confirmed === null ? null : isoTime(confirmed.timeSec, confirmed.timeNs),
    host,
    user,
    paths: paths.map((path) => jsonName('path', path).path),
    tags,
    sequence,
    lineage,
    stats,
  };
}
