import { hostname } from 'node:os';
import { createInterface } from 'node:readline/promises';
import { RozenError } from '../../errors.ts';
import type { BackupReport, Decision } from '../../snapshot/backup/backup-types.ts';
import type { DivergedKind } from '../../snapshot/worm/seen.ts';
import type { Side } from '../../snapshot/worm/sides.ts';
import type { OpenCase, SetStatus } from '../../snapshot/worm/status.ts';
import { type Answer, answerFor, readAnswers } from '../answers.ts';
import type { Context } from '../context.ts';
import { formatSize, formatTime, isoTime, jsonName, plural, printableName } from '../display.ts';
import { EXIT } from '../exit.ts';
import { userName } from '../user-name.ts';
import { differenceOf } from '../worm-report.ts';
import { openForStatus } from '../worm-set.ts';

interface Options {
  answers?: string;
  keep: boolean;
}

/** Lines of a text diff that are shown. */
const DIFF_LINES = 40;

export async function run(context: Context, args: string[], options: Options): Promise<number> {
  const [set] = args as [string];
  const rules = options.answers === undefined ? null : readAnswers(options.answers);
  const asks = rules === null && !context.out.json;
  if (asks && !process.stdin.isTTY) {
    throw new RozenError('usage', 'review asks, and there is no terminal to ask on', {
      hint: 'use --json to look, --answers FILE to decide',
    });
  }
  const repository = await openForStatus(context);
  const { openArchivedSide, bothSides } = await import('../../snapshot/worm/sides.ts');
  const { setStatus } = await import('../../snapshot/worm/status.ts');
  try {
    const status = await setStatus(repository, set);
    const { cases } = status;
    const answers = new Map<OpenCase, Answer>();
    if (rules !== null) for (const it of cases) answers.set(it, answerFor(rules, it));
    else if (cases.length > 0) {
      const archived = await openArchivedSide(repository, status.record);
      const sides = (it: OpenCase) => bothSides(it, archived?.reader ?? null);
      try {
        if (!asks) {
          const shown: Record<string, unknown>[] = [];
          for (const it of cases) shown.push(caseAsJson(it, await sides(it)));
          context.out.document({ set, cases: shown });
          return EXIT.diverged;
        }
        await ask(context, cases, { answers, sides });
      } finally {
        archived?.close();
      }
    } else if (!asks) {
      context.out.document({ set, cases: [] });
      return EXIT.done;
    }
    return await apply(context, { status, answers, keep: options.keep, repository });
  } finally {
    repository.close();
  }
}

type Sides = (it: OpenCase) => Promise<{ archived: Side; local: Side }>;

async function ask(
  { out }: Context,
  cases: readonly OpenCase[],
  { answers, sides }: { answers: Map<OpenCase, Answer>; sides: Sides },
): Promise<void> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  let interrupted = false;
  terminal.on('SIGINT', () => {
    interrupted = true;
    terminal.close();
  });
  // Not `question`: it would lose lines that come faster than it asks.
  const lines = terminal[Symbol.asyncIterator]();
  const read = async (prompt: string): Promise<string | null> => {
    terminal.setPrompt(prompt);
    terminal.prompt();
    const { value, done } = await lines.next();
    if (interrupted) throw new RozenError('interrupted', 'review was interrupted: nothing was changed');
    return done === true ? null : value;
  };
  const ofKind = new Map<DivergedKind, Answer>();
  try {
    for (const [number, it] of cases.entries()) {
      const settled = ofKind.get(it.kind);
      if (settled !== undefined) {
        answers.set(it, settled);
        continue;
      }
      out.raw(`\n${number + 1} of ${cases.length}: ${it.kind}  ${printableName(it.path)}`);
      for (const line of await describe(it, await sides(it))) out.raw(`  ${line}`);
      const answer = await question(read, it);
      if (answer === 'quit') return;
      answers.set(it, answer.answer);
      if (answer.all) ofKind.set(it.kind, answer.answer);
    }
  } finally {
    terminal.close();
  }
}

const WORDS: Readonly<Record<string, Answer>> = { a: 'accept', r: 'restore', s: 'skip' };

async function question(
  read: (prompt: string) => Promise<string | null>,
  { kind }: OpenCase,
): Promise<{ answer: Answer; all: boolean } | 'quit'> {
  for (;;) {
    const text = await read(
      `  [a]ccept what is here, [r]estore what is archived, [s]kip; capital letter: all that ${kind === 'replaced' ? 'were' : 'are'} ${kind}; [q]uit: `,
    );
    if (text === null) return 'quit';
    const letter = text.trim().slice(0, 1);
    if (letter.toLowerCase() === 'q') return 'quit';
    const answer = WORDS[letter.toLowerCase()];
    if (answer !== undefined) return { answer, all: letter !== letter.toLowerCase() };
  }
}

async function describe(it: OpenCase, { archived, local }: { archived: Side; local: Side }): Promise<string[]> {
  const lines = [
    `archived  ${isFolder(it) ? 'a folder' : sideLine(it.archived, archived)}`,
    `here      ${it.kind === 'replaced' ? `a ${it.standsThere}` : sideLine(it.local, local)}`,
    `${differenceOf({ ...it, exact: true })
      .split(', ')
      .at(-1)}; since ${formatTime(it.sinceSec)}`,
  ];
  if (archived.text !== null && local.text !== null) {
    const { textDiff } = await import('../text-diff.ts');
    const diff = await textDiff(archived.text, local.text);
    for (const line of diff.slice(0, DIFF_LINES)) lines.push(printableName(Buffer.from(line)));
    if (diff.length > DIFF_LINES) lines.push(`… and ${plural(diff.length - DIFF_LINES, 'line')} more`);
  }
  return lines;
}

function isFolder({ mode }: OpenCase): boolean {
  return (mode & 0o170000) === 0o040000;
}

function sideLine({ size, mtimeSec }: OpenCase['local'], { image }: Side): string {
  const line = `${formatSize(size)} of ${formatTime(mtimeSec)}`;
  if (image === null) return line;
  return `${line}, ${image.type} ${image.width} × ${image.height}${image.taken === null ? '' : `, taken ${printableName(Buffer.from(image.taken))}`}`;
}

function caseAsJson(it: OpenCase, sides: { archived: Side; local: Side }): Record<string, unknown> {
  const side = ({ size, mtimeSec, mtimeNs }: OpenCase['local'], { image, text }: Side) => ({
    size,
    mtime: isoTime(mtimeSec, mtimeNs),
    image,
    isText: text !== null,
  });
  return {
    ...jsonName('path', it.path),
    inode: it.inode,
    kind: it.kind,
    standsThere: it.standsThere,
    differsAt: it.differsAt,
    since: it.since,
    sinceTime: isoTime(it.sinceSec),
    archived: side(it.archived, sides.archived),
    local: side(it.local, sides.local),
  };
}

/** Does what was decided, in one snapshot. */
async function apply(
  context: Context,
  it: {
    status: SetStatus;
    answers: ReadonlyMap<OpenCase, Answer>;
    keep: boolean;
    repository: Awaited<ReturnType<typeof openForStatus>>;
  },
): Promise<number> {
  const { status, answers, keep, repository } = it;
  const { out } = context;
  const decisions = new Map<number, Decision>();
  for (const [{ inode, path }, answer] of answers)
    if (answer !== 'skip') decisions.set(inode, { action: answer, path });
  let report: BackupReport | null = null;
  if (decisions.size > 0) {
    const { backup } = await import('../../snapshot/backup/backup.ts');
    report = await backup(
      {
        repository,
        stateDir: repository.stateDir,
        set: status.set,
        mode: 'worm',
        paths: status.paths,
        decisions,
        keepDiverged: keep,
        host: hostname(),
        user: userName(),
        signal: context.signal,
      },
      { problem: (problem) => out.warning(`${printableName(problem.path)}: ${problem.message}`) },
    );
  }
  const { openCount = 0, diverged = [] } = report?.worm ?? {};
  const done = (action: string): number => diverged.filter((file) => file.action === action).length;
  const left = status.cases.length - decisions.size + openCount + (report?.problems.length ?? 0);
  const result = { set: status.set, accepted: done('accepted'), restored: done('restored'), open: left };
  if (out.json) out.document({ ...result, snapshotId: report?.snapshotId ?? null });
  else out.line(`${status.set}: ${result.accepted} accepted, ${result.restored} restored, ${result.open} open`);
  return left > 0 ? EXIT.diverged : EXIT.done;
}
