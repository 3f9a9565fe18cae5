import { hostname } from 'node:os';
import { RozenError } from '../../errors.ts';
import type { BackupOptions, BackupReport, ClassCounts, EntryClass, WormReport } from '../../snapshot/backup/backup.ts';
import { KEPT_REASON } from '../../snapshot/backup/kept-files.ts';
import { argumentBytes } from '../argument-bytes.ts';
import type { SetConfig } from '../config.ts';
import type { Context } from '../context.ts';
import { formatCount, formatElapsed, formatSize, isoTime, jsonName, plural, printableName } from '../display.ts';
import { EXIT } from '../exit.ts';
import type { ProgressState } from '../progress.ts';
import { useStorageClass } from '../storage-class.ts';
import { userName } from '../user-name.ts';
import { nearest, parsePercent, parseSize, parseStorageClass } from '../values.ts';
import { printWormReport, wormAsJson } from '../worm-report.ts';
import { type PolicyOptions, policyOf } from '../worm-set.ts';

interface Options extends PolicyOptions {
  set?: string;
  mode?: 'snapshot' | 'worm';
  exclude?: string[];
  excludeFile?: string[];
  excludeCaches?: boolean;
  oneFileSystem?: boolean;
  dryRun?: boolean;
  force?: boolean;
  wait?: boolean;
  tag?: string[];
  selfContained?: boolean;
  codec?: string;
  archiveSize?: string;
  rehash?: string;
  keep: boolean;
  storageClass?: string;
}

const MARKS: Readonly<Record<EntryClass, string>> = {
  new: '+',
  changed: 'M',
  metadata: 'U',
  moved: 'R',
  unchanged: ' ',
  deleted: '-',
  copied: 'C',
  returned: 'R',
  diverged: '!',
  restored: '<',
  refused: 'x',
};

export async function run(context: Context, args: string[], options: Options): Promise<number> {
  const config = await context.config();
  const set = options.set ?? onlySet(Object.keys(config.sets), args);
  const configured: SetConfig = (Object.hasOwn(config.sets, set) ? config.sets[set] : undefined) ?? {};
  const paths = args.length > 0 ? args.map(argumentBytes) : (configured.paths ?? []).map((path) => Buffer.from(path));
  if (paths.length === 0) {
    const near = nearest(set, Object.keys(config.sets));
    throw new RozenError('usage', `nothing to back up into set '${set}'`, {
      hint:
        near !== undefined && near !== set
          ? `did you mean set ${near}?`
          : 'name files or folders, or give the set paths in the configuration',
    });
  }
  const { parseCodec } = await import('../../archive/codec/index.ts');
  const codec = options.codec ?? configured.codec ?? config.defaults.codec;
  const archiveSize = options.archiveSize ?? configured.archiveSize ?? config.defaults.archiveSize;
  const storageClass = parseStorageClass(
    options.storageClass ?? configured.storageClass ?? config.defaults.storageClass,
  );
  const mode = options.mode ?? configured.mode;
  if (mode !== undefined && mode !== 'snapshot' && mode !== 'worm') {
    throw new RozenError('usage', `set '${set}': unknown mode '${mode}'`, { hint: 'it is snapshot or worm' });
  }
  const settings: Omit<BackupOptions, 'repository' | 'stateDir'> = {
    set,
    ...(mode === undefined ? {} : { mode }),
    ...wormOptions(options, configured),
    paths,
    exclude: [...(configured.exclude ?? []), ...(options.exclude ?? [])],
    excludeFiles: [...(configured.excludeFile ?? []), ...(options.excludeFile ?? [])],
    excludeCaches: options.excludeCaches ?? configured.excludeCaches ?? false,
    oneFileSystem: options.oneFileSystem ?? configured.oneFileSystem ?? false,
    dryRun: options.dryRun ?? false,
    force: options.force ?? false,
    waitForLock: options.wait ?? false,
    selfContained: options.selfContained ?? false,
    tags: [...(configured.tag ?? []), ...(options.tag ?? [])],
    host: hostname(),
    user: userName(),
    signal: context.signal,
    ...(codec === undefined ? {} : { codec: parseCodec(codec) }),
    ...(archiveSize === undefined ? {} : { archiveSize: parseSize(archiveSize, '--archive-size') }),
  };
  const { asks, ...credentials } = await context.credentials(configured.repository);
  settings.readArchive = asks !== true && Object.keys(credentials).length > 0;
  const repository = await context.open('write', configured.repository);
  if (storageClass !== undefined) await useStorageClass(repository, storageClass);
  const { repositoryStateDir } = await import('../../repository/paths.ts');
  const { backup } = await import('../../snapshot/backup/backup.ts');
  const { out } = context;
  const progress = context.progress('backup');
  const listEntries = !out.json && !out.quiet && (settings.dryRun === true || context.options.verbose === true);
  try {
    const report = await backup(
      { ...settings, repository, stateDir: repositoryStateDir(repository.id) },
      {
        progress: (state) => {
          const shown: ProgressState = {
            files: state.filesDone,
            totalFiles: state.filesTotal,
            bytes: state.bytesDone,
            errors: state.problems,
            current: state.current === null ? state.phase : printableName(state.current),
          };
          if (state.totalsKnown) shown.totalBytes = state.bytesTotal;
          progress.update(shown);
        },
        problem: (problem) => out.warning(`${printableName(problem.path)}: ${problem.message}`),
        ...(context.options.verbose
          ? { skipped: (path: Buffer, reason: string) => out.message(`${printableName(path)}: skipped, ${reason}`) }
          : {}),
        ...(listEntries
          ? { entry: (path: Buffer, what: EntryClass) => out.line(`${MARKS[what]} ${printableName(path)}`) }
          : {}),
      },
    );
    progress.stop();
    await out.flush();
    if (out.json) out.document(reportAsJson(report));
    else {
      if (report.worm !== null)
        printWormReport(out, report.worm, { verbose: context.options.verbose === true, listed: listEntries });
      for (const line of reportLines(report)) out.line(line);
    }
    if (report.lostArchives.length > 0) {
      const { lostArchives: lost } = report;
      const which = lost.length === 1 ? lost[0]! : `${lost[0]!} and ${lost.length - 1} more`;
      out.warning(
        `the repository is damaged: ${which} ${lost.length === 1 ? 'is' : 'are'} gone, cut or altered; files that this run read are stored again, for all others see rozen verify`,
      );
      return EXIT.corrupt;
    }
    if (report.worm !== null && leftAsItWas(report.worm)) return EXIT.diverged;
    return report.problems.length > 0 ? EXIT.incomplete : EXIT.done;
  } finally {
    progress.stop();
  }
}

/** What holds for WORM sets; for others nothing of it may be given. */
function wormOptions(options: Options, configured: SetConfig): Partial<BackupOptions> {
  const { keep } = options;
  const rehash = options.rehash ?? configured.rehash;
  const policy = policyOf(options);
  return {
    ...(Object.keys(policy).length === 0 ? {} : { policy }),
    ...(rehash === undefined ? {} : { rehash: parsePercent(rehash, '--rehash') }),
    keepDiverged: keep,
  };
}

/** True when something diverged or was refused that somebody should look at. */
function leftAsItWas({ openCount, refusedCount }: WormReport): boolean {
  return openCount > 0 || refusedCount > 0;
}

/** Without --set: the one set of the configuration, when there is exactly one and no paths are given. */
function onlySet(sets: readonly string[], args: readonly string[]): string {
  if (args.length === 0 && sets.length === 1) return sets[0] as string;
  throw new RozenError('usage', 'backup needs the name of a set', {
    hint:
      sets.length === 0
        ? 'add --set NAME, such as --set documents'
        : `add --set NAME; the configuration has ${sets.join(', ')}`,
  });
}

/** In the order of the report. */
const CLASSES = [
  'new',
  'copied',
  'changed',
  'diverged',
  'restored',
  'metadata',
  'moved',
  'returned',
  'deleted',
  'refused',
  'unchanged',
] as const;

const total = (counts: ClassCounts): number => counts.files + counts.folders + counts.others;

function reportLines(report: BackupReport): string[] {
  const { classes } = report;
  const words: string[] = [];
  for (const name of CLASSES) {
    const counts = classes[name];
    const count = counts === undefined ? 0 : total(counts);
    if (count > 0) words.push(`${formatCount(count)} ${name === 'metadata' ? 'with other attributes' : name}`);
  }
  const seconds = (report.finishedAt - report.startedAt) / 1000;
  const lines = [
    `${report.set}: ${plural(report.totalFiles, 'file')}, ${formatSize(report.totalBytes)}${words.length === 0 ? '' : ` (entries: ${words.join(', ')})`}`,
  ];
  const volume = `${formatSize(report.bytesRead)} ${report.dryRun ? 'to read' : 'read'}, ${formatSize(report.bytesNew)} new, ${formatSize(report.bytesStored)} stored`;
  if (report.dryRun) lines.push(`nothing was written (--dry-run): ${formatSize(report.bytesRead)} to read`);
  else lines.push(`${volume} in ${formatElapsed(seconds)}`);
  if (report.stateNotice !== null) lines.push(`note: ${report.stateNotice}`);
  const kept = report.skipped.filter(({ reason }) => reason === KEPT_REASON).length;
  const skipped = report.skipped.length - kept;
  if (skipped > 0) lines.push(`${plural(skipped, 'entry')} skipped (sockets and the like)`);
  if (kept > 0)
    lines.push(`${plural(kept, 'file')} kept beside restored ones (NAME.rozen-diverged-TIME) not backed up`);
  if (report.problems.length > 0) lines.push(`${plural(report.problems.length, 'problem')}: see above`);
  if (report.unchanged) lines.push('nothing changed: no new snapshot');
  else if (report.snapshotId !== null) lines.push(`snapshot ${report.snapshotId.slice(0, 8)} saved`);
  return lines;
}

function reportAsJson(report: BackupReport): Record<string, unknown> {
  const { startedAt, finishedAt, problems, skipped, worm, ...rest } = report;
  return {
    ...rest,
    ...(worm === null ? {} : { worm: wormAsJson(worm) }),
    startedAt: isoTime(Math.floor(startedAt / 1000), (startedAt % 1000) * 1e6),
    finishedAt: isoTime(Math.floor(finishedAt / 1000), (finishedAt % 1000) * 1e6),
    skipped: skipped.map(({ path, reason }) => ({ ...jsonName('path', path), reason })),
    problems: problems.map(({ path, kind, message }) => ({ ...jsonName('path', path), kind, message })),
  };
}
