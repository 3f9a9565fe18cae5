import { RozenError } from '../../errors.ts';
import type { Finding, VerifyListener, VerifyReport } from '../../snapshot/verify/types.ts';
import type { Context } from '../context.ts';
import { formatCount, formatElapsed, formatSize, isoTime, jsonName, plural, printableName } from '../display.ts';
import { EXIT } from '../exit.ts';
import { frozenContent, thawCommand } from '../frozen.ts';
import { Places } from '../places.ts';
import { parsePercent } from '../values.ts';

interface Options {
  readData?: boolean;
  sample?: string;
  key: boolean;
  against?: string;
  repair?: 'local' | 'archive';
  keep: boolean;
}

/** Files that are shown of one finding; --verbose and --json give more. */
const SHOWN_FILES = 10;

export async function run(context: Context, args: string[], options: Options): Promise<number> {
  checkOptions(args, options);
  if (options.against !== undefined) {
    const { runAgainst } = await import('../verify-against.ts');
    const { readData = false, repair = null, keep } = options;
    return runAgainst(context, args[0], {
      folder: options.against,
      readData,
      repair,
      keep,
      isNamed: args.length > 0,
    });
  }
  const readData = options.sample !== undefined ? parsePercent(options.sample, '--sample') : options.readData ? 100 : 0;
  const progress = context.progress('verify');
  const { out } = context;
  const listener: VerifyListener = {
    progress: ({ phase, bytesDone, bytesTotal, findings }) =>
      progress.update({ bytes: bytesDone, totalBytes: bytesTotal, errors: findings, current: phase }),
    finding: (finding) => {
      if (!out.json) out.message(`${finding.object}: ${finding.message}`);
    },
  };
  let report: VerifyReport;
  try {
    report = options.key ? await withKey(context, args, { readData, listener }) : await scrubbed(context, listener);
  } finally {
    progress.stop();
  }
  if (out.json) out.document(reportAsJson(report));
  else printReport(context, report);
  if (report.findings.length > 0) return EXIT.corrupt;
  // Without a key all bytes are looked at: what could not be is not checked at all.
  return report.mode === 'scrub' && report.frozen > 0 ? EXIT.frozen : EXIT.done;
}

function checkOptions(args: readonly string[], options: Options): void {
  const usage = (message: string, hint: string) => new RozenError('usage', message, { hint });
  if (!options.key && (options.readData || options.sample !== undefined || options.against !== undefined))
    throw usage('--no-key cannot open blocks', 'leave out --read-data, --sample and --against');
  if (!options.key && args.length > 0)
    throw usage('--no-key looks at all objects', 'what belongs to one snapshot is sealed: leave out its name');
  if (options.readData && options.sample !== undefined)
    throw usage('--read-data reads all blocks, --sample some', 'give one of them');
  if (options.against !== undefined && options.sample !== undefined)
    throw usage('--against compares with local files', 'add --read-data to read the archive too');
  if (options.repair !== undefined && options.against === undefined)
    throw usage('--repair needs local files to compare with', 'add --against DIR');
  if (options.against !== undefined && args.length > 1)
    throw usage('--against compares with one snapshot', 'name one of them');
}

async function scrubbed(context: Context, listener: VerifyListener, cause?: RozenError): Promise<VerifyReport> {
  const store = await context.store();
  const { scrub } = await import('../../snapshot/verify/scrub.ts');
  if (cause === undefined && (await store.stat('rozen.cbor')) === null && !(await hasConfigs(context)))
    await context.open('none');
  return scrub({ store, signal: context.signal, ...(cause === undefined ? {} : { cause }) }, listener);
}

async function withKey(
  context: Context,
  args: string[],
  { readData, listener }: { readData: number; listener: VerifyListener },
): Promise<VerifyReport> {
  let repository: Awaited<ReturnType<Context['open']>>;
  try {
    repository = await context.open('read');
  } catch (error) {
    // A repository that is too damaged to open is a result; the scrub tells what else is.
    if (!(error instanceof RozenError) || !(await isDamage(context, error))) throw error;
    context.out.warning(`${error.message}; checking what can be checked without a key`);
    return scrubbed(context, listener, error);
  }
  try {
    let snapshots: Set<string> | undefined;
    if (args.length > 0) {
      const places = new Places(context, repository);
      snapshots = new Set();
      for (const text of args) snapshots.add((await places.choose(text)).snapshot.id);
    }
    const { verify } = await import('../../snapshot/verify/verify.ts');
    const chosen = snapshots === undefined ? {} : { snapshots };
    return await verify({ repository, readData, signal: context.signal, ...chosen }, listener).catch((error) => {
      if (!(error instanceof RozenError) || error.code !== 'frozen') throw error;
      const ids = [...(snapshots ?? [])].map((id) => id.slice(0, 8));
      throw frozenContent(error.message, thawCommand(context, ids.length === 0 ? ['--all'] : ids));
    });
  } finally {
    repository.close();
  }
}

async function isDamage(context: Context, error: RozenError): Promise<boolean> {
  if (error.code === 'corrupt' || error.code === 'untrusted') return true;
  return error.code === 'not-repository' && (await hasConfigs(context));
}

/** A folder that holds configs was a repository, whatever became of its genesis. */
async function hasConfigs(context: Context): Promise<boolean> {
  const store = await context.store();
  for await (const _ of store.list('config/')) return true;
  return false;
}

function printReport(context: Context, report: VerifyReport): void {
  const { out } = context;
  for (const finding of report.findings) {
    out.line(
      `${finding.kind.toUpperCase()} ${finding.object}: ${place(finding)}${printableName(Buffer.from(finding.message))}`,
    );
    const ids = finding.snapshots.map((id) => id.slice(0, 8)).join(', ');
    if (finding.whole) out.line(`  nothing in ${ids || 'it'} can be read`);
    else if (finding.fileCount > 0) out.line(`  concerns ${plural(finding.fileCount, 'file')}:`);
    else if (ids !== '') out.line(`  in ${ids}`);
    const shown = context.options.verbose ? finding.files.length : SHOWN_FILES;
    for (const { snapshot, path } of finding.files.slice(0, shown))
      out.line(`    ${snapshot.slice(0, 8)}:${printableName(path)}`);
    if (finding.fileCount > shown) out.line(`    … and ${formatCount(finding.fileCount - shown)} more`);
  }
  if (!out.quiet) for (const note of report.notes) out.line(`note: ${note}`);
  const { snapshots, archives, objects, files, pages, blocks, chunks, bytesRead, startedAt, finishedAt } = report;
  const counts = [plural(snapshots, 'snapshot'), plural(archives, 'archive'), plural(objects, 'object')];
  if (report.mode !== 'scrub') counts.push(plural(pages, 'page'), plural(files, 'file'));
  if (report.mode === 'data') counts.push(plural(blocks, 'block'), plural(chunks, 'chunk'));
  out.line(
    `checked ${counts.join(', ')}: ${formatSize(bytesRead)} in ${formatElapsed((finishedAt - startedAt) / 1000)}`,
  );
  const { passphrases, ageKeys } = report;
  out.line(`it opens by ${plural(passphrases, 'passphrase')} and ${plural(ageKeys, 'age key')}`);
  if (report.mode === 'structure') out.line('content was not read (--read-data reads it, --sample 5 a part of it)');
  out.line(
    report.findings.length === 0 ? 'no problems were found' : `${plural(report.findings.length, 'problem')} found`,
  );
}

function place({ frame, block, offset }: Finding): string {
  const words: string[] = [];
  if (block !== null) words.push(`block ${block}`);
  else if (frame !== null) words.push(`${frame.type} frame ${frame.sequence}`);
  if (offset !== null) words.push(`at byte ${offset}`);
  return words.length === 0 ? '' : `${words.join(' ')}: `;
}

function reportAsJson(report: VerifyReport): Record<string, unknown> {
  const { findings, startedAt, finishedAt, ...rest } = report;
  return {
    ...rest,
    startedAt: isoTime(Math.floor(startedAt / 1000), (startedAt % 1000) * 1e6),
    finishedAt: isoTime(Math.floor(finishedAt / 1000), (finishedAt % 1000) * 1e6),
    findings: findings.map(({ files, ...finding }) => ({
      ...finding,
      files: files.map(({ snapshot, path }) => ({ snapshot, ...jsonName('path', path) })),
    })),
  };
}
