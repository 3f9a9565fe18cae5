import type { HistoryStep } from '../../snapshot/worm/history.ts';
import type { Context } from '../context.ts';
import { formatSize, formatTime, isoTime, jsonName, typeName } from '../display.ts';
import { pathForOutput } from '../entry-line.ts';
import { Places } from '../places.ts';
import { selectSnapshots } from '../selection.ts';
import { splitSetPath } from '../worm-set.ts';

export async function run(context: Context, args: string[]): Promise<undefined> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const all = await selectSnapshots(context, repository);
  const { set, path } = splitSetPath(args[0] as string, [...new Set(all.map((snapshot) => snapshot.set))]);
  const { historyOf } = await import('../../snapshot/worm/history.ts');
  const snapshots = all.filter((snapshot) => snapshot.set === set);
  const steps = await historyOf({ snapshots, opener: await places.opener(), path });
  places.close();
  const { out } = context;
  if (out.json) out.document({ set, inode: steps[0]?.attributes.inode, steps: steps.map(asJson) });
  else for (const step of steps) print(context, step);
}

/** One line a snapshot; the second and further names of a file stand below the first. */
function print({ out }: Context, { events, snapshot, names, attributes }: HistoryStep): void {
  const facts = `${formatTime(snapshot.timeSec)}  ${snapshot.id.slice(0, 8)}  ${events.join(', ').padEnd(10)}  ${formatSize(attributes.size).padStart(9)} of ${formatTime(attributes.mtimeSec)}  `;
  out.write(facts);
  if (names.length === 0) out.line('-');
  for (const [i, name] of names.entries()) {
    if (i > 0) out.write(' '.repeat(facts.length));
    out.line(pathForOutput(out, name));
  }
}

function asJson({ events, snapshot, names, attributes, contentId }: HistoryStep): Record<string, unknown> {
  const { size, mtimeSec, mtimeNs, version, mode } = attributes;
  return {
    time: isoTime(snapshot.timeSec, snapshot.timeNs),
    snapshot: snapshot.id,
    events,
    ...(names[0] === undefined ? { path: null } : jsonName('path', names[0])),
    ...(names.length > 1 ? { otherPaths: names.slice(1).map((name) => jsonName('path', name)) } : {}),
    type: typeName(mode),
    size,
    mtime: isoTime(mtimeSec, mtimeNs),
    version,
    contentId: contentId?.toString('hex') ?? null,
  };
}
