import type { OpenCase, SetStatus } from '../../snapshot/worm/status.ts';
import type { Context } from '../context.ts';
import { formatTime, isoTime, jsonName, plural } from '../display.ts';
import { pathForOutput } from '../entry-line.ts';
import { EXIT } from '../exit.ts';
import { differenceOf } from '../worm-report.ts';
import { openForStatus, policyLine } from '../worm-set.ts';

export async function run(context: Context, args: string[]): Promise<number> {
  const [set] = args as [string];
  const repository = await openForStatus(context);
  const { setStatus } = await import('../../snapshot/worm/status.ts');
  let status: SetStatus;
  try {
    status = await setStatus(repository, set);
  } finally {
    repository.close();
  }
  const { out } = context;
  if (out.json) out.document(statusAsJson(status));
  else print(context, status);
  return status.cases.length > 0 ? EXIT.diverged : EXIT.done;
}

function print({ out }: Context, status: SetStatus): void {
  const { set, policy, timeSec, cases, deleted, oldestProof } = status;
  for (const it of cases) {
    out.write(`! ${it.kind.padEnd(9)} `);
    out.line(pathForOutput(out, it.path));
    out.line(`    ${differenceOf({ ...it, exact: true })}; since ${formatTime(it.sinceSec)}`);
  }
  out.line(`${set}: as of ${formatTime(timeSec)}; ${policyLine(policy)}`);
  out.line(cases.length === 0 ? 'nothing has diverged' : `${plural(cases.length, 'file')} diverged: see rozen review`);
  if (deleted > 0) out.line(`${plural(deleted, 'deletion')} recorded`);
  if (oldestProof !== null) out.line(`the oldest proof is of ${formatTime(oldestProof)}`);
}

function statusAsJson({
  cases,
  timeSec,
  timeNs,
  paths,
  oldestProof,
  record: _,
  ...rest
}: SetStatus): Record<string, unknown> {
  return {
    ...rest,
    time: isoTime(timeSec, timeNs),
    paths: paths.map((path) => jsonName('path', path).path),
    oldestProof: oldestProof === null ? null : isoTime(oldestProof),
    diverged: cases.map(caseAsJson),
  };
}

function caseAsJson({ path, kind, archived, local, differsAt, since, sinceSec, inode }: OpenCase) {
  const facts = ({ size, mtimeSec, mtimeNs }: OpenCase['local']) => ({ size, mtime: isoTime(mtimeSec, mtimeNs) });
  return {
    ...jsonName('path', path),
    inode,
    kind,
    archived: facts(archived),
    local: facts(local),
    differsAt,
    since,
    sinceTime: isoTime(sinceSec),
  };
}
