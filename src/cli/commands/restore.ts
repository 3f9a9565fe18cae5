import { isAbsolute, resolve } from 'node:path';
import { RozenError } from '../../errors.ts';
import type { RestoreClass, RestoreCounts, RestoreReport } from '../../snapshot/restore/types.ts';
import { argumentBytes } from '../argument-bytes.ts';
import type { Context } from '../context.ts';
import { formatCount, formatElapsed, formatSize, isoTime, jsonName, plural, printableName } from '../display.ts';
import { EXIT } from '../exit.ts';
import { packsOf, requireHot } from '../frozen.ts';
import { Places } from '../places.ts';
import type { ProgressState } from '../progress.ts';
import { outcomeAsJson, refuseThawOptions, type ThawOptions, thawPacks, thawWish } from '../thaw-request.ts';

interface Options extends ThawOptions {
  target?: string;
  verify?: boolean;
  dryRun?: boolean;
  thaw?: boolean;
}

const MARKS: Readonly<Record<RestoreClass, string>> = { new: '+', replaced: 'M', kept: ' ' };

export async function run(context: Context, args: string[], options: Options): Promise<number> {
  if (options.target === undefined || options.target === '') {
    throw new RozenError('usage', 'restore needs a place to restore to', { hint: 'add --target DIR' });
  }
  const named = argumentBytes(options.target);
  const target = isAbsolute(options.target) ? named : Buffer.concat([Buffer.from(`${resolve('.')}/`), named]);
  const dryRun = options.dryRun ?? false;
  if (!options.thaw) refuseThawOptions(options);
  const wish = { ...thawWish(options, { dryRun, wait: true }), prices: options.prices };
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const progress = context.progress('restore');
  const { out } = context;
  try {
    const place = await places.openToRead(args[0]!);
    let thawed: Record<string, unknown> | null = null;
    if (options.thaw) {
      const needed = await packsOf([place]);
      thawed = outcomeAsJson(await thawPacks(context, { place: repository, needed, what: args[0]! }, wish), wish);
    } else if (!dryRun) await requireHot(context, repository, [place]);
    const { restore } = await import('../../snapshot/restore/restore.ts');
    const listEntries = dryRun && !out.json && !out.quiet;
    const report = await restore(
      { place, target, verify: options.verify ?? false, dryRun, signal: context.signal },
      {
        progress: (state) => {
          const shown: ProgressState = { files: state.filesDone, bytes: state.bytesDone, errors: state.problems };
          if (state.totalsKnown) {
            shown.totalFiles = state.filesTotal;
            shown.totalBytes = state.bytesTotal;
          }
          progress.update(shown);
        },
        problem: (problem) => out.warning(`${printableName(problem.path)}: ${problem.message}`),
        ...(listEntries
          ? {
              entry: (path: Buffer, what: RestoreClass) => {
                if (what !== 'kept' || context.options.verbose) out.line(`${MARKS[what]} ${printableName(path)}`);
              },
            }
          : {}),
      },
    );
    progress.stop();
    for (const notice of report.notices) out.warning(`${plural(notice.count, 'entry')}: ${notice.message}`);
    await out.flush();
    if (out.json) out.document({ ...reportAsJson(report), ...(thawed === null ? {} : { thaw: thawed }) });
    else for (const line of reportLines(report)) out.line(line);
    return exitCode(report);
  } finally {
    progress.stop();
    places.close();
  }
}

/** What an unprivileged user cannot keep is no failure; what root cannot keep is one. */
function exitCode(report: RestoreReport): number {
  if (report.problems.some(({ kind }) => kind === 'corrupt')) return EXIT.corrupt;
  if (report.problems.length > 0) return EXIT.incomplete;
  return report.notices.length > 0 && process.geteuid?.() === 0 ? EXIT.incomplete : EXIT.done;
}

const total = ({ files, folders, others }: RestoreCounts): number => files + folders + others;

function reportLines(report: RestoreReport): string[] {
  const { classes } = report;
  const elapsed = formatElapsed((report.finishedAt - report.startedAt) / 1000);
  const written = classes.new.files + classes.replaced.files;
  const words = (['new', 'replaced', 'kept'] as const)
    .filter((name) => total(classes[name]) > 0)
    .map((name) => `${formatCount(total(classes[name]))} ${name}`);
  const size = formatSize(report.bytesRestored);
  const lines = [
    report.dryRun
      ? `nothing was written (--dry-run): ${plural(written, 'file')}, ${size} to restore`
      : `${report.snapshotId.slice(0, 8)} ${report.set}: ${plural(written, 'file')}, ${size} restored in ${elapsed}${report.verified ? ' and verified' : ''}`,
  ];
  if (words.length > 0) lines.push(`entries: ${words.join(', ')}`);
  if (report.problems.length > 0) lines.push(`${plural(report.problems.length, 'problem')}: see above`);
  return lines;
}

function reportAsJson(report: RestoreReport): Record<string, unknown> {
  const { startedAt, finishedAt, problems, target, ...rest } = report;
  return {
    ...rest,
    ...jsonName('target', target),
    startedAt: isoTime(Math.floor(startedAt / 1000), (startedAt % 1000) * 1e6),
    finishedAt: isoTime(Math.floor(finishedAt / 1000), (finishedAt % 1000) * 1e6),
    problems: problems.map(({ path, kind, message }) => ({ ...jsonName('path', path), kind, message })),
  };
}
