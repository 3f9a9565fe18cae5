/**
 * Answers to the cases of `rozen review` from a file, one a line, the first that fits counts; `#` begins a comment:
 *
 *   accept 2019/retouched.jpg        a path, from the root of the set or as it is on this machine
 *   restore kind=decayed             all of a kind
 *   skip *                           all others
 */
import { readFileSync } from 'node:fs';
import { RozenError } from '../errors.ts';
import { reasonOf } from '../posix/reason.ts';
import { type DivergedKind, KINDS } from '../snapshot/worm/seen.ts';

export type Answer = 'accept' | 'restore' | 'skip';

export interface AnswerRule {
  answer: Answer;
  kind: DivergedKind | null;
  /** Null with `kind` null: everything. */
  path: string | null;
}

export function readAnswers(file: string): AnswerRule[] {
  let text: string;
  try {
    text = readFileSync(file === '-' ? 0 : file, 'latin1');
  } catch (cause) {
    throw new RozenError('usage', `${file}: the answers cannot be read: ${reasonOf(cause)}`, { cause });
  }
  return parseAnswers(text, file);
}

function parseAnswers(text: string, file: string): AnswerRule[] {
  const rules: AnswerRule[] = [];
  for (const [number, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const match = /^(accept|restore|skip) (?:kind=(\w+)|(.+))$/.exec(line);
    const kind = match?.[2] ?? null;
    if (match === null || (kind !== null && !KINDS.includes(kind as DivergedKind))) {
      throw new RozenError('usage', `${file}, line ${number + 1}: '${line}' is no answer`, {
        hint: `write accept, restore or skip, then a path, kind=${KINDS.join('|')}, or *`,
      });
    }
    const path = match[3] === '*' ? null : (match[3] ?? null);
    rules.push({ answer: match[1] as Answer, kind: kind as DivergedKind | null, path });
  }
  return rules;
}

/** What the file says of a case; 'skip' when it says nothing. */
export function answerFor(
  rules: readonly AnswerRule[],
  it: { kind: DivergedKind; path: Buffer; names: Buffer[] },
): Answer {
  const local = it.path.toString('latin1');
  const inside = it.names.map((name) => name.toString('latin1')).join('/');
  for (const { answer, kind, path } of rules) {
    if (kind !== null ? kind === it.kind : path === null || path === local || path.replace(/^\//, '') === inside)
      return answer;
  }
  return 'skip';
}
