import { hostname } from 'node:os';
import { RozenError } from '../../errors.ts';
import type { Repository } from '../../repository/repository.ts';
import type { CompactReport } from '../../snapshot/compact/compact.ts';
import type { Context } from '../context.ts';
import { formatElapsed, formatSize, formatTime, isoTime, plural } from '../display.ts';
import { EXIT } from '../exit.ts';
import { useStorageClass } from '../storage-class.ts';
import { parseAge, parseSize, parseStorageClass } from '../values.ts';

interface Options {
  grace?: string;
  archiveSize?: string;
  storageClass?: string;
  dryRun?: boolean;
}

/** So long a mount or a restore may run that has an archive open which was merged since. */
const GRACE = '7d';

export async function run(context: Context, _args: string[], options: Options): Promise<number> {
  const { defaults } = await context.config();
  const graceMs = parseAge(options.grace ?? GRACE, '--grace');
  const archiveSize = options.archiveSize ?? defaults.archiveSize;
  const storageClass = parseStorageClass(options.storageClass ?? defaults.storageClass);
  const { dryRun = false } = options;
  const repository = await context.open('owner');
  const { out } = context;
  const progress = context.progress('compact');
  try {
    if (!dryRun) await becomeWriter(repository);
    if (storageClass !== undefined) await useStorageClass(repository, storageClass);
    const { compact } = await import('../../snapshot/compact/compact.ts');
    const report = await compact(
      {
        repository,
        stateDir: repository.stateDir,
        graceMs,
        dryRun,
        signal: context.signal,
        ...(archiveSize === undefined ? {} : { archiveSize: parseSize(archiveSize, '--archive-size') }),
      },
      {
        progress: ({ phase, bytesDone, bytesTotal }) =>
          progress.update({
            bytes: bytesDone,
            ...(bytesTotal === 0 ? {} : { totalBytes: bytesTotal }),
            current: phase,
          }),
        problem: (object, message) => out.warning(message.startsWith(object) ? message : `${object}: ${message}`),
      },
    );
    progress.stop();
    if (out.json) out.document(reportAsJson(report));
    else for (const line of reportLines(report)) out.line(line);
    return report.problems.length > 0 ? EXIT.corrupt : EXIT.done;
  } finally {
    progress.stop();
    repository.close();
  }
}

/** Merged archives are signed like those of a backup. */
async function becomeWriter(repository: Repository): Promise<void> {
  if (repository.writer !== null) return;
  if (repository.bundle?.rootSecret == null) throw new RozenError('internal', 'an owner without the root key');
  const { enrollHere } = await import('../../repository/enroll.ts');
  await enrollHere(repository, hostname());
}

function reportLines(report: CompactReport): string[] {
  const { dryRun, small, kept, planned, merged, completed, removed, waiting, locked } = report;
  const packs = ({ archives, bytes }: { archives: number; bytes: number }): string =>
    `${plural(archives, 'archive')} of ${formatSize(bytes)}`;
  const lines: string[] = [];
  for (const one of dryRun ? planned : merged) {
    const to = 'size' in one ? `one of ${formatSize(one.size as number)}` : 'one';
    lines.push(`${packs(one)} ${dryRun ? 'would become' : 'became'} ${to}`);
  }
  if (dryRun && planned.length > 0) {
    const all = planned.reduce((sum, { archives }) => sum + archives, 0);
    lines.push(`saves ${plural(2 * (all - planned.length), 'object')}; reads and writes what is merged once`);
  }
  if (completed.archives > 0)
    lines.push(`${packs(completed)}, merged before, got the index that a killed run owed them`);
  if (kept.archives > 0) lines.push(`${packs(kept)} stay small: merging them would write more than it is worth`);
  if (small.archives === 0 && merged.length === 0) lines.push('there are no small archives');
  if (removed.archives > 0) lines.push(`${packs(removed)}, merged before, ${dryRun ? 'would be removed' : 'removed'}`);
  const until = (time: number | null): string => formatTime((time ?? 0) / 1000);
  if (waiting.archives > 0)
    lines.push(`${packs(waiting)}, merged, stay until ${until(waiting.until)}: run compact again after that`);
  if (locked.archives > 0)
    lines.push(
      `${packs(locked)}, merged, are locked${Number.isFinite(locked.until) ? ` until ${until(locked.until)}` : ''}: the store keeps them`,
    );
  lines.push(
    dryRun
      ? 'nothing was written (--dry-run)'
      : `done in ${formatElapsed((report.finishedAt - report.startedAt) / 1000)}`,
  );
  return lines;
}

function reportAsJson({ startedAt, finishedAt, waiting, locked, ...rest }: CompactReport): Record<string, unknown> {
  const time = (ms: number | null): string | null =>
    ms === null || !Number.isFinite(ms) ? null : isoTime(Math.floor(ms / 1000), Math.floor(ms % 1000) * 1e6);
  return {
    ...rest,
    waiting: { ...waiting, until: time(waiting.until) },
    locked: { ...locked, until: time(locked.until) },
    startedAt: time(startedAt),
    finishedAt: time(finishedAt),
  };
}
