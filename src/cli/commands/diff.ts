import type { Change, ChangeKind } from '../../snapshot/diff/diff.ts';
import type { Context } from '../context.ts';
import { formatSize, jsonName, plural, typeName } from '../display.ts';
import { pathForOutput } from '../entry-line.ts';
import { Places } from '../places.ts';
import { snapshotTitle } from '../selection.ts';

const MARKS: Readonly<Record<ChangeKind, string>> = {
  added: '+',
  removed: '-',
  moved: 'R',
  type: 'T',
  content: 'M',
  metadata: 'U',
};

export async function run(context: Context, args: string[], options: { metadata: boolean }): Promise<undefined> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const older = await places.open(args[0] as string);
  const newer = await places.open(args[1] as string);
  const { diff } = await import('../../snapshot/diff/diff.ts');
  const changes = (await diff(older, newer)).filter((change) => options.metadata || change.kind !== 'metadata');
  places.close();
  const { out } = context;
  if (!out.json) out.message(`from ${snapshotTitle(older.snapshot)} to ${snapshotTitle(newer.snapshot)}`);
  for (const change of changes) {
    if (out.json) out.object(changeAsJson(change));
    else printChange(context, change);
    if (out.full) await out.flush();
  }
  if (!out.json) out.message(summary(changes));
}

function printChange({ out }: Context, change: Change): void {
  const slash = (change.mode & 0o170000) === 0o040000 ? '/' : '';
  out.write(`${MARKS[change.kind]} `);
  if (change.from !== undefined) {
    out.write(pathForOutput(out, change.from));
    out.write(`${slash} -> `);
  }
  out.write(pathForOutput(out, change.path.length === 0 ? Buffer.from('.') : change.path));
  out.write(slash);
  if (change.kind === 'metadata' && change.fields !== undefined) out.write(` (${change.fields.join(', ')})`);
  out.write('\n');
}

function changeAsJson({ kind, path, from, mode, fields, olderSize, newerSize }: Change): Record<string, unknown> {
  return {
    kind,
    ...jsonName('path', path),
    ...(from === undefined ? {} : jsonName('from', from)),
    type: typeName(mode),
    ...(fields === undefined || fields.length === 0 ? {} : { fields }),
    olderSize,
    newerSize,
  };
}

function summary(changes: readonly Change[]): string {
  if (changes.length === 0) return 'no difference';
  const counts = new Map<ChangeKind, number>();
  let more = 0;
  let less = 0;
  for (const { kind, olderSize, newerSize } of changes) {
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
    const growth = (newerSize ?? 0) - (olderSize ?? 0);
    if (growth > 0) more += growth;
    else less -= growth;
  }
  const words = (Object.keys(MARKS) as ChangeKind[]).flatMap((kind) => {
    const count = counts.get(kind) ?? 0;
    return count === 0 ? [] : [`${count} ${kind}`];
  });
  return `${plural(changes.length, 'difference')}: ${words.join(', ')}; +${formatSize(more)}, -${formatSize(less)}`;
}
