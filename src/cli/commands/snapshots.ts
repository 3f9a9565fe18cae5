import type { SnapshotInfo } from '../../snapshot/view/listing.ts';
import type { Context } from '../context.ts';
import { formatSize, formatTable, formatTime, plural } from '../display.ts';
import { type FilterOptions, pathsText, selectSnapshots, snapshotAsJson } from '../selection.ts';

export async function run(context: Context, _args: string[], options: FilterOptions): Promise<undefined> {
  const repository = await context.open('read');
  const snapshots = await selectSnapshots(context, repository, options);
  repository.close();
  const { out } = context;
  if (out.json) {
    out.document(snapshots.map(snapshotAsJson));
    return;
  }
  if (snapshots.length === 0) {
    out.message('no snapshots');
    return;
  }
  for (const line of formatTable(['ID', 'SET', 'TIME', 'HOST', '>SIZE', 'TAGS', 'PATHS'], snapshots.map(row)))
    out.line(line);
  out.message(plural(snapshots.length, 'snapshot'));
}

function row(snapshot: SnapshotInfo): string[] {
  const { id, set, timeSec, host, tags, paths, stats } = snapshot;
  const size = stats.bytes;
  return [
    id.slice(0, 8),
    set,
    formatTime(timeSec),
    host,
    size === undefined ? '' : formatSize(size),
    tags.join(','),
    pathsText(paths),
  ];
}
