import type { Repository } from '../../repository/repository.ts';
import type { SnapshotInfo } from '../../snapshot/view/listing.ts';
import type { SnapshotStatistics } from '../../snapshot/view/statistics.ts';
import type { Context } from '../context.ts';
import { formatCount, formatSize, formatTime, isoTime, plural } from '../display.ts';
import { Places } from '../places.ts';
import { type FilterOptions, selectSnapshots, snapshotTitle } from '../selection.ts';

interface Counted {
  snapshot: SnapshotInfo;
  statistics: SnapshotStatistics;
}

export async function run(context: Context, args: string[], options: FilterOptions): Promise<undefined> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const snapshots: SnapshotInfo[] = [];
  if (args.length === 0) snapshots.push(...(await selectSnapshots(context, repository, options)));
  else for (const text of args) snapshots.push((await places.choose(text)).snapshot);
  const { StatisticsCollector, storeStatistics } = await import('../../snapshot/view/statistics.ts');
  const opener = await places.opener();
  const collector = new StatisticsCollector();
  const counted: Counted[] = [];
  const progress = context.progress('stats');
  for (const [done, snapshot] of snapshots.entries()) {
    progress.update({ files: done, totalFiles: snapshots.length, current: snapshotTitle(snapshot) });
    counted.push({ snapshot, statistics: await collector.add(await opener.open(snapshot)) });
  }
  const store = await storeStatistics(repository.store);
  progress.stop();
  const proofs = await oldestProofs(repository, snapshots);
  places.close();
  const sum = (field: 'bytes' | 'holeBytes'): number =>
    counted.reduce((all, { statistics }) => all + statistics[field], 0);
  const deletedBytes = counted.reduce((all, { statistics }) => all + statistics.deleted.bytes, 0);
  const total = { ...collector.total(), bytes: sum('bytes'), deletedBytes, holeBytes: sum('holeBytes') };
  // Holes cost nothing anywhere: counting them would flatter.
  const stored = total.bytes + total.deletedBytes - total.holeBytes;
  const { out } = context;
  if (out.json) {
    out.document({
      snapshots: counted.map(({ snapshot, statistics }) => ({ id: snapshot.id, set: snapshot.set, ...statistics })),
      total: {
        ...total,
        deduplication: ratio(stored, total.uniqueBytes),
        compression: ratio(total.uniqueBytes, total.archiveBytes),
      },
      store,
      ...(proofs.size === 0
        ? {}
        : { oldestProofs: Object.fromEntries([...proofs].map(([set, time]) => [set, isoTime(time)])) }),
    });
    return;
  }
  for (const { snapshot, statistics } of counted.length > 1 ? counted.slice(-1) : counted) {
    const { files, folders, symlinks, others, bytes, holeBytes, uniqueBytes, deleted } = statistics;
    out.line(`${counted.length > 1 ? 'newest: ' : ''}snapshot ${snapshotTitle(snapshot)}`);
    out.line(
      `  ${plural(files, 'file')}, ${plural(folders, 'folder')}, ${plural(symlinks, 'symlink')}, ${plural(others, 'other')}`,
    );
    out.line(
      `  ${formatSize(bytes)}${holeBytes > 0 ? `, of which ${formatSize(holeBytes)} are holes` : ''}; ${formatSize(uniqueBytes)} different${snapshot.mode === 'worm' ? ', with older versions and what was deleted' : ''}`,
    );
    if (deleted.files + deleted.folders + deleted.symlinks + deleted.others > 0) {
      out.line(
        `  deleted and kept: ${plural(deleted.files, 'file')}, ${plural(deleted.folders, 'folder')}, ${formatSize(deleted.bytes)}`,
      );
    }
  }
  out.line(`${plural(counted.length, 'snapshot')} together`);
  out.line(`  content        ${formatSize(stored)}`);
  out.line(`  deduplicated   ${formatSize(total.uniqueBytes)}${times(stored, total.uniqueBytes)}`);
  out.line(
    `  archives       ${formatSize(total.archiveBytes)} in ${formatCount(total.archives)}${times(total.uniqueBytes, total.archiveBytes)}`,
  );
  for (const [set, time] of proofs) out.line(`oldest proof of a content of ${set}: ${formatTime(time)}`);
  out.line(`store ${repository.store.location}`);
  for (const [name, { objects, bytes }] of Object.entries(store.areas)) {
    out.line(`  ${name.padEnd(13)}  ${formatSize(bytes)} in ${plural(objects, 'object')}`);
  }
  out.line(`  ${'all'.padEnd(13)}  ${formatSize(store.bytes)} in ${plural(store.objects, 'object')}`);
}

/** Of the WORM sets that this machine backs up: when the file that was not read for the longest time was last read. */
async function oldestProofs(repository: Repository, snapshots: readonly SnapshotInfo[]): Promise<Map<string, number>> {
  const sets = new Set(snapshots.filter(({ mode }) => mode === 'worm').map(({ set }) => set));
  const found = new Map<string, number>();
  if (sets.size === 0) return found;
  const { ownOldestProof } = await import('../../snapshot/worm/set-trees.ts');
  for (const set of sets) {
    const oldest = await ownOldestProof(repository, set);
    if (oldest !== null) found.set(set, oldest);
  }
  return found;
}

function ratio(before: number, after: number): number | null {
  return after === 0 ? null : Math.round((before / after) * 1000) / 1000;
}

function times(before: number, after: number): string {
  const value = ratio(before, after);
  return value === null ? '' : ` (${value.toFixed(2)} ×)`;
}
