/** What a run of a WORM set tells: for a person, and for a program. */
import type { DivergedFile, WormReport } from '../snapshot/backup/backup-types.ts';
import { formatCount, formatSize, formatTime, isoTime, jsonName, plural, printableName } from './display.ts';
import { pathForOutput } from './entry-line.ts';
import type { Output } from './output.ts';

/** Files and moves that are shown without --verbose. */
const SHOWN = 20;

const ACTIONS: Readonly<Record<DivergedFile['action'], string>> = {
  kept: 'the archived content stays current',
  accepted: 'accepted as a new version',
  restored: 'the archived content was put back',
};

function printDiverged(out: Output, file: DivergedFile): void {
  out.write(`! ${file.kind.padEnd(9)} `);
  out.line(pathForOutput(out, file.path));
  out.line(`    ${differenceOf(file)}; ${ACTIONS[file.action]}`);
  if (file.keptAs !== null) out.line(`    what was there is kept as ${printableName(file.keptAs)}`);
}

/** `archived 1.2 MiB of 2026-11-01 10:00:00, here 1.1 MiB of …, first difference at byte 1,024`. */
export function differenceOf(file: Pick<DivergedFile, 'archived' | 'local' | 'differsAt' | 'exact'>): string {
  const { archived, local, differsAt, exact } = file;
  const side = (it: DivergedFile['archived']): string => `${formatSize(it.size)} of ${formatTime(it.mtimeSec)}`;
  const where =
    differsAt === null
      ? 'something of another kind'
      : `first difference ${exact ? 'at' : 'not before'} byte ${formatCount(differsAt)}`;
  return `archived ${side(archived)}, here ${side(local)}, ${where}`;
}

/** `listed`: every entry that is not unchanged was printed already. */
export function printWormReport(
  out: Output,
  report: WormReport,
  { verbose, listed }: { verbose: boolean; listed: boolean },
): void {
  const limit = verbose ? Number.POSITIVE_INFINITY : SHOWN;
  for (const { from, to } of report.moves.slice(0, limit)) {
    out.write('R ');
    if (from !== null) {
      out.write(pathForOutput(out, from));
      out.write(' -> ');
    }
    out.line(pathForOutput(out, to));
  }
  more(out, report.moves.length, limit, 'move');
  for (const { path, host } of report.conflicts.slice(0, limit)) {
    out.write('= ');
    out.write(pathForOutput(out, path));
    out.line(`: ${host} has another content under this name; both are kept`);
  }
  more(out, report.conflicts.length, limit, 'name');
  if (report.uncompared.length > 0) {
    const machines = report.uncompared.map((name) => printableName(Buffer.from(name))).join(', ');
    out.line(`new names were not compared with those of ${machines}: that takes a key (rozen diff)`);
  }
  if (!listed) {
    for (const path of report.refused.slice(0, limit)) {
      out.write('x ');
      out.line(pathForOutput(out, path));
    }
    more(out, report.refusedCount, limit, 'entry');
  }
  for (const file of report.diverged) printDiverged(out, file);
  if (report.divergedCount > report.diverged.length)
    out.line(`  … and ${formatCount(report.divergedCount - report.diverged.length)} more`);
  const { proven, oldestProof } = report;
  if (proven.files > 0) out.line(`${plural(proven.files, 'file')} (${formatSize(proven.bytes)}) read again and proven`);
  if (oldestProof !== null) out.line(`the oldest proof is of ${formatTime(oldestProof)}`);
  if (report.refusedCount > 0) out.line(`${plural(report.refusedCount, 'entry')} not taken: the set is frozen`);
  if (report.openCount > 0)
    out.line(`${plural(report.openCount, 'file')} diverged from the archive: see rozen status, rozen review`);
}

function more(out: Output, count: number, limit: number, noun: string): void {
  if (count > limit) out.line(`  … and ${plural(count - limit, noun)} more (--verbose)`);
}

export function wormAsJson(report: WormReport): Record<string, unknown> {
  const { diverged, moves, refused, oldestProof, conflicts, ...rest } = report;
  return {
    ...rest,
    oldestProof: oldestProof === null ? null : isoTime(oldestProof),
    diverged: diverged.map(divergedAsJson),
    moves: moves.map(({ from, to }) => ({ ...(from === null ? {} : jsonName('from', from)), ...jsonName('to', to) })),
    conflicts: conflicts.map(({ path, host, snapshotId }) => ({ ...jsonName('path', path), host, snapshotId })),
    refused: refused.map((path) => jsonName('path', path)),
  };
}

function divergedAsJson(file: DivergedFile): Record<string, unknown> {
  const { path, archived, local, keptAs, ...rest } = file;
  const facts = ({ size, mtimeSec, mtimeNs }: DivergedFile['archived']) => ({
    size,
    mtime: isoTime(mtimeSec, mtimeNs),
  });
  return {
    ...jsonName('path', path),
    ...rest,
    archived: facts(archived),
    local: facts(local),
    ...(keptAs === null ? {} : jsonName('keptAs', keptAs)),
  };
}
