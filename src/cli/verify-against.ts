import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Repository } from '../repository/repository.ts';
import type { AgainstReport, Divergence, DivergenceKind } from '../snapshot/verify/against-types.ts';
import type { SnapshotInfo } from '../snapshot/view/listing.ts';
import type { OpenPlace } from '../snapshot/view/place.ts';
import { argumentBytes } from './argument-bytes.ts';
import type { Context } from './context.ts';
import { formatCount, formatElapsed, formatSize, isoTime, jsonName, printableName } from './display.ts';
import { pathForOutput } from './entry-line.ts';
import { EXIT } from './exit.ts';
import { requireHot } from './frozen.ts';
import { Places } from './places.ts';
import { selectSnapshots, snapshotTitle } from './selection.ts';
import { afterAgainst, printRepairs, type Repairs, repairsAsJson } from './verify-repair.ts';

const MARKS: Readonly<Record<DivergenceKind, string>> = {
  missing: '-',
  extra: '+',
  moved: 'R',
  type: 'T',
  content: 'M',
  metadata: 'U',
  unreadable: '!',
};

/** What a person would have to restore or back up anew; extra, moved and metadata lose nothing. */
const DIVERGED: ReadonlySet<DivergenceKind> = new Set(['missing', 'type', 'content']);

export interface AgainstRun {
  folder: string;
  /** Also read the archived content. */
  readData: boolean;
  repair: 'local' | 'archive' | null;
  /** A snapshot was named. */
  isNamed: boolean;
  keep: boolean;
}

/**
 * `verify --against DIR`. Exit code 4 when content diverged, 3 when local files could not be read, 5 when the archive is
 * damaged; what was repaired does not count.
 */
export async function runAgainst(context: Context, snapshot: string | undefined, run: AgainstRun): Promise<number> {
  const { folder } = run;
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const place =
    snapshot === undefined
      ? await places.openIn(await snapshotOf(context, { places, repository, folder }), null)
      : await places.open(snapshot);
  if (run.readData) await requireHot(context, repository, [place]);
  const { against } = await import('../snapshot/verify/against.ts');
  const progress = context.progress('verify');
  let report: AgainstReport;
  try {
    report = await against(
      { place, folder: argumentBytes(folder), repository, signal: context.signal },
      { progress: ({ files, bytes, current }) => progress.update({ files, bytes, current: printableName(current) }) },
    );
    progress.stop();
    const repairs = await afterAgainst(context, { places, place, repository, report, run });
    return print(context, { report, place, folder, repairs });
  } finally {
    progress.stop();
    places.close();
  }
}

function print(
  context: Context,
  it: { report: AgainstReport; place: OpenPlace; folder: string; repairs: Repairs },
): number {
  const { report, place, folder, repairs } = it;
  const { out } = context;
  if (out.json) out.document({ ...reportAsJson(report), ...repairsAsJson(repairs) });
  else {
    out.message(
      `- only in ${snapshotTitle(place.snapshot)}, + only in ${folder}, M content, T type, U metadata, R moved`,
    );
    for (const divergence of report.divergences) printDivergence(context, divergence);
    const seconds = (report.finishedAt - report.startedAt) / 1000;
    out.message(
      `${differencesText(report.divergences)}, ${formatCount(report.equal)} equal; ${formatSize(report.bytes)} read in ${formatElapsed(seconds)}`,
    );
  }
  if (!out.json) printRepairs(out, repairs);
  if (repairs.damage > 0) return EXIT.corrupt;
  const kinds = report.divergences.filter((divergence) => !repairs.done.has(divergence)).map(({ kind }) => kind);
  if (kinds.some((kind) => DIVERGED.has(kind))) return EXIT.diverged;
  return kinds.includes('unreadable') ? EXIT.incomplete : EXIT.done;
}

/** Apart, what the exit code tells, and what it does not. */
function differencesText(divergences: readonly Divergence[]): string {
  const lost = divergences.filter(({ kind }) => DIVERGED.has(kind)).length;
  const unreadable = divergences.filter(({ kind }) => kind === 'unreadable').length;
  const harmless = divergences.length - lost - unreadable;
  const parts: string[] = [];
  if (lost > 0) parts.push(`${formatCount(lost)} missing or changed`);
  if (unreadable > 0) parts.push(`${formatCount(unreadable)} unreadable`);
  if (harmless > 0) parts.push(`${formatCount(harmless)} only here, moved or with other metadata`);
  return parts.length === 0 ? 'no differences' : parts.join(', ');
}

/** The newest snapshot of this folder; the newest of all when there is none. */
async function snapshotOf(
  context: Context,
  { places, repository, folder }: { places: Places; repository: Repository; folder: string },
): Promise<SnapshotInfo> {
  const names = [Buffer.from(resolve(folder))];
  try {
    names.push(realpathSync(argumentBytes(folder), { encoding: 'buffer' }));
  } catch {
    // It does not exist, which the comparison tells.
  }
  const fits = ({ paths: [path, second] }: SnapshotInfo): boolean =>
    path !== undefined && second === undefined && names.some((name) => name.equals(path));
  const { snapshot: latest } = await places.choose('latest');
  if (fits(latest)) return latest;
  const found = (await selectSnapshots(context, repository)).filter(fits).at(-1);
  if (found === undefined) context.out.message(`no snapshot is of ${folder} alone: comparing with the newest of all`);
  else context.out.message(`comparing with ${snapshotTitle(found)}, the newest snapshot of ${folder}`);
  return found ?? latest;
}

function printDivergence({ out }: Context, { kind, path, from, message }: Divergence): void {
  out.write(`${MARKS[kind]} `);
  if (from !== undefined) {
    out.write(pathForOutput(out, from));
    out.write(' -> ');
  }
  out.write(pathForOutput(out, path.length === 0 ? Buffer.from('.') : path));
  if (kind === 'content' || kind === 'metadata' || kind === 'unreadable')
    out.write(` (${printableName(Buffer.from(message))})`);
  out.write('\n');
}

function reportAsJson(report: AgainstReport): Record<string, unknown> {
  const { divergences, folder, startedAt, finishedAt, ...rest } = report;
  return {
    ...rest,
    ...jsonName('folder', folder),
    startedAt: isoTime(Math.floor(startedAt / 1000), (startedAt % 1000) * 1e6),
    finishedAt: isoTime(Math.floor(finishedAt / 1000), (finishedAt % 1000) * 1e6),
    divergences: divergences.map(({ kind, path, from, message, decayed }) => ({
      kind,
      ...jsonName('path', path),
      ...(from === undefined ? {} : jsonName('from', from)),
      message,
      ...(decayed === true ? { decayed } : {}),
    })),
  };
}
