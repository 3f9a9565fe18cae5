/**
 * Which entries a backup leaves out. Patterns are those of restic; .gitignore has the same ones, but for it a slash in front or
 * between names means the folder that it lies in:
 *
 *   `*.o`        a name anywhere (no slash in it, or only one at its end)
 *   `a/b`        these names one below the other, anywhere
 *   `/home/x`    an absolute path, also of a source that is shown as the root; `~/x` and `./x` from the home and the working directory
 *   `x/`         only a folder
 *   `**`         any number of folders
 *   `?` `[a-z]` `[!a-z]` `\*`   one character, one of a class, none of a class, the character itself
 *   `!x`         takes in again what an earlier pattern left out (but nothing below a folder that is left out)
 *
 * Later patterns win. Matching is on bytes; `?` and classes take a whole UTF-8 character, or one byte that is none.
 */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { RozenError } from '../../errors.ts';

/** One UTF-8 character of a byte string but the slash, else one byte. */
const CHARACTER =
  '(?:[\\x00-\\x2e\\x30-\\x7f]|[\\xc2-\\xdf][\\x80-\\xbf]|[\\xe0-\\xef][\\x80-\\xbf]{2}|[\\xf0-\\xf4][\\x80-\\xbf]{3}|[\\x80-\\xff])';
/** A class like `[а-я]` is spelled out up to this many characters. */
const MAX_CLASS = 2048;

interface Rule {
  /** Null: `name` alone decides. */
  path: RegExp | null;
  name: RegExp | string;
  folderOnly: boolean;
  negated: boolean;
}

export interface Selection {
  /** True when this entry, and all below it, is left out. `folder` is the byte string of the absolute path of its folder. */
  excludes(folder: string, name: string, isFolder: boolean): boolean;
}

const NOTHING: Selection = { excludes: () => false };

export interface SelectionOptions {
  patterns?: readonly string[];
  /** Files with one pattern a line; blank lines and lines that begin with # count for nothing. */
  files?: readonly string[];
}

/** Throws RozenError 'usage' for a pattern or file that makes no sense, naming it. */
export function selection({ patterns = [], files = [] }: SelectionOptions): Selection {
  const texts = patterns.map((pattern) => Buffer.from(pattern).toString('latin1'));
  for (const file of files) texts.push(...patternLines(file));
  const rules = texts.map(compileRule);
  if (rules.length === 0) return NOTHING;
  return {
    excludes(folder, name, isFolder) {
      let path: string | null = null;
      for (let i = rules.length - 1; i >= 0; i--) {
        const rule = rules[i]!;
        if (rule.folderOnly && !isFolder) continue;
        let matches: boolean;
        if (typeof rule.name === 'string') matches = rule.name === name;
        else matches = rule.name.test(name);
        if (matches && rule.path !== null) {
          path ??= folder.endsWith('/') ? folder + name : `${folder}/${name}`;
          matches = rule.path.test(path);
        }
        if (matches) return !rule.negated;
      }
      return false;
    },
  };
}

function patternLines(file: string): string[] {
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch (cause) {
    throw new RozenError('usage', `cannot read the exclude file ${file}`, { cause, hint: 'check --exclude-file' });
  }
  return text
    .split('\n')
    .map((line) =>
      line
        .replace(/\r$/, '')
        .replace(/^[ \t]+/, '')
        .replace(/(?<!\\)[ \t]+$/, ''),
    )
    .filter((line) => line !== '' && !line.startsWith('#'));
}

/** `text` is a byte string. */
function compileRule(text: string): Rule {
  const negated = text.startsWith('!');
  let glob = negated ? text.slice(1) : text;
  if (glob.startsWith('~/')) glob = escapeGlob(homedir()) + glob.slice(1);
  else if (glob.startsWith('./')) glob = escapeGlob(process.cwd()) + glob.slice(1);
  const folderOnly = glob.endsWith('/') && glob.length > 1;
  const anchored = glob.startsWith('/');
  const parts = glob.split('/').filter((part) => part !== '' && part !== '.');
  while (!anchored && parts[0] === '**') parts.shift();
  const last = parts.at(-1);
  if (last === undefined) {
    throw new RozenError('usage', `the exclude pattern '${Buffer.from(text, 'latin1')}' names nothing`, {
      hint: 'leave it out, or write a name',
    });
  }
  const name = last === '**' ? /^/ : componentPattern(last, text);
  if (parts.length === 1 && !anchored) return { path: null, name, folderOnly, negated };
  let source = anchored ? '^/' : '/';
  for (const [i, part] of parts.entries()) {
    const end = i === parts.length - 1;
    if (part === '**') source += end ? '.+' : '(?:[^/]+/)*';
    else source += componentSource(part, text) + (end ? '' : '/');
  }
  return { path: new RegExp(`${source}$`, 's'), name, folderOnly, negated };
}

function componentPattern(glob: string, text: string): RegExp | string {
  if (!/[*?[\\]/.test(glob)) return glob;
  return new RegExp(`^${componentSource(glob, text)}$`, 's');
}

function componentSource(glob: string, text: string): string {
  let source = '';
  for (let i = 0; i < glob.length; ) {
    const c = glob[i]!;
    if (c === '*') {
      source += '[^/]*';
      while (glob[i] === '*') i++;
    } else if (c === '?') {
      source += CHARACTER;
      i++;
    } else if (c === '[') {
      const end = classEnd(glob, i);
      if (end < 0) throw badPattern(text, 'a [ without its ]');
      source += classSource(glob.slice(i + 1, end), text);
      i = end + 1;
    } else if (c === '\\') {
      if (i + 1 >= glob.length) throw badPattern(text, 'a \\ at its end');
      source += quote(glob[i + 1]!);
      i += 2;
    } else {
      source += quote(c);
      i++;
    }
  }
  return source;
}

/** Where the `]` of a class stands; one right after `[` or `[!` is a member. */
function classEnd(glob: string, start: number): number {
  let i = start + 1;
  if (glob[i] === '!' || glob[i] === '^') i++;
  if (glob[i] === ']') i++;
  for (; i < glob.length; i++) {
    if (glob[i] === '\\') i++;
    else if (glob[i] === ']') return i;
  }
  return -1;
}

function classSource(body: string, text: string): string {
  const negated = body[0] === '!' || body[0] === '^';
  const characters = [...Buffer.from(negated ? body.slice(1) : body, 'latin1').toString()];
  const members: string[] = [];
  for (let i = 0; i < characters.length; i++) {
    if (characters[i] === '\\' && i + 1 < characters.length) i++;
    const from = characters[i]!.codePointAt(0)!;
    let to = from;
    if (characters[i + 1] === '-' && i + 2 < characters.length) {
      i += 2;
      if (characters[i] === '\\' && i + 1 < characters.length) i++;
      to = characters[i]!.codePointAt(0)!;
    }
    if (to < from) throw badPattern(text, 'a class that runs backwards');
    if (to - from + members.length >= MAX_CLASS) throw badPattern(text, 'a class with too many characters');
    for (let point = from; point <= to; point++) {
      members.push(quote(Buffer.from(String.fromCodePoint(point)).toString('latin1')));
    }
  }
  const any = `(?:${members.join('|')})`;
  return negated ? `(?!${any})${CHARACTER}` : `(?!/)${any}`;
}

function quote(bytes: string): string {
  return bytes.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
}

function escapeGlob(path: string): string {
  return Buffer.from(path)
    .toString('latin1')
    .replace(/[*?[\\]/g, '\\$&')
    .replace(/\/$/, '');
}

function badPattern(text: string, why: string): RozenError {
  return new RozenError('usage', `the exclude pattern '${Buffer.from(text, 'latin1')}' has ${why}`, {
    hint: 'write \\ before a character that stands for itself',
  });
}
