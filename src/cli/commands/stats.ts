import type { SnapshotInfo } from '../../snapshot/view/listing.ts';
import type { SnapshotStatistics } from '../../snapshot/view/statistics.ts';
import type { Context } from '../context.ts';
import { formatCount, formatSize, plural } from '../display.ts';
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
  places.close();
  const sum = (field: 'bytes' | 'holeBytes'): number =>
    counted.reduce((all, { statistics }) => all + statistics[field], 0);
  const total = { ...collector.total(), bytes: sum('bytes'), holeBytes: sum('holeBytes') };
  // Holes cost nothing anywhere: counting them would flatter.
  const stored = total.bytes - total.holeBytes;
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
    });
    return;
  }
  for (const { snapshot, statistics } of counted.length > 1 ? counted.slice(-1) : counted) {
    const { files, folders, symlinks, others, bytes, holeBytes, uniqueBytes } = statistics;
    out.line(`${counted.length > 1 ? 'newest: ' : ''}snapshot ${snapshotTitle(snapshot)}`);
    out.line(
      `  ${plural(files, 'file')}, ${plural(folders, 'folder')}, ${plural(symlinks, 'symlink')}, ${plural(others, 'other')}`,
    );
    out.line(
      `  ${formatSize(bytes)}${holeBytes > 0 ? `, of which ${formatSize(holeBytes)} are holes` : ''}; ${formatSize(uniqueBytes)} different`,
    );
  }
  out.line(`${plural(counted.length, 'snapshot')} together`);
  out.line(`  content        ${formatSize(stored)}`);
  out.line(`  deduplicated   ${formatSize(total.uniqueBytes)}${times(stored, total.uniqueBytes)}`);
  out.line(
    `  archives       ${formatSize(total.archiveBytes)} in ${formatCount(total.archives)}${times(total.uniqueBytes, total.archiveBytes)}`,
  );
  out.line(`store ${repository.store.location}`);
  for (const [name, { objects, bytes }] of Object.entries(store.areas)) {
    out.line(`  ${name.padEnd(13)}  ${formatSize(bytes)} in ${plural(objects, 'object')}`);
  }
  out.line(`  ${'all'.padEnd(13)}  ${formatSize(store.bytes)} in ${plural(store.objects, 'object')}`);
}

function ratio(before: number, after: number): number | null {
  return after === 0 ? null : Math.round((before / after) * 1000) / 1000;
}

function times(before: number, after: number): string {
  const value = ratio(before, after);
  return value === null ? '' : ` (${value.toFixed(2)} ×)`;
}
