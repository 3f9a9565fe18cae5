import { RozenError } from '../../errors.ts';

/** What `find` looks for. Everything that is given must hold; an empty list allows everything. */
export interface EntryFilterOptions {
  /** Globs: without a slash for the name, with one for the end of the path. One of them must fit. */
  patterns: readonly string[];
  ignoreCase: boolean;
  /** d_type numbers. */
  types: readonly number[];
  sizes: readonly SizeCondition[];
  /** Modification time in seconds since 1970. */
  newerThan: number | null;
  olderThan: number | null;
}

export interface SizeCondition {
  comparison: 'more' | 'less' | 'equal';
  bytes: number;
}

/** The letters of `find -type` as d_type. */
export const TYPE_LETTERS: Readonly<Record<string, number>> = { p: 1, c: 2, d: 4, b: 6, f: 8, l: 10, s: 12 };

export interface EntryFilter {
  /** True when attributes can change the answer, so that the inode must be looked at. */
  needsInode: boolean;
  fitsName(path: Buffer, name: Buffer, type: number): boolean;
  fitsInode(attributes: { type: number; size: number; mtimeSec: number }): boolean;
}

/** Throws `usage` for a pattern that makes no sense. */
export function entryFilter(options: EntryFilterOptions): EntryFilter {
  const names: RegExp[] = [];
  const paths: RegExp[] = [];
  for (const pattern of options.patterns) {
    (pattern.includes('/') ? paths : names).push(globToRegExp(pattern, options.ignoreCase));
  }
  const { types, sizes, newerThan, olderThan } = options;
  return {
    needsInode: sizes.length > 0 || newerThan !== null || olderThan !== null,
    fitsName(path, name, type) {
      if (types.length > 0 && !types.includes(type)) return false;
      if (names.length === 0 && paths.length === 0) return true;
      const text = nameText(name);
      if (names.some((expression) => expression.test(text))) return true;
      if (paths.length === 0) return false;
      const whole = `/${nameText(path)}`;
      return paths.some((expression) => expression.test(whole));
    },
    fitsInode({ type, size, mtimeSec }) {
      if (newerThan !== null && mtimeSec <= newerThan) return false;
      if (olderThan !== null && mtimeSec >= olderThan) return false;
      if (sizes.length === 0) return true;
      if (type !== TYPE_LETTERS.f) return false;
      return sizes.every(({ comparison, bytes }) =>
        comparison === 'more' ? size > bytes : comparison === 'less' ? size < bytes : size === bytes,
      );
    },
  };
}

/** Bytes as text that a pattern can be held against: UTF-8 where it is, else one character per byte. */
function nameText(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  return text.includes('\ufffd') ? bytes.toString('latin1') : text;
}

/**
 * `*` and `?` stop at slashes, `**` does not, `[a-z]` and `[!a-z]` are classes, a backslash takes the next character
 * literally. A pattern with a slash fits the end of a path at a folder's boundary; one that begins with a slash the whole.
 */
export function globToRegExp(pattern: string, ignoreCase: boolean): RegExp {
  if (pattern === '') throw new RozenError('usage', 'an empty pattern fits nothing');
  const characters = [...pattern.replace(/(?<=.)\/+$/, '')];
  let source = '';
  for (let i = 0; i < characters.length; i++) {
    const c = characters[i] as string;
    if (c === '*' && characters[i + 1] === '*') {
      const wholeName = (i === 0 || characters[i - 1] === '/') && characters[i + 2] === '/';
      source += wholeName ? '(?:.*/)?' : '.*';
      i += wholeName ? 2 : 1;
    } else if (c === '*') source += '[^/]*';
    else if (c === '?') source += '[^/]';
    else if (c === '[') {
      const end = classEnd(characters, i);
      if (end < 0) {
        throw new RozenError('usage', `pattern '${pattern}': a [ without its ]`, {
          hint: 'write \\[ for the character itself',
        });
      }
      source += classSource(characters.slice(i + 1, end));
      i = end;
    } else if (c === '\\' && i + 1 < characters.length) source += escapeCharacter(characters[++i] as string);
    else source += escapeCharacter(c);
  }
  const lead = pattern.startsWith('/') || !pattern.includes('/') ? '^' : '^(?:.*/)?';
  try {
    return new RegExp(`${lead}${source}$`, ignoreCase ? 'sui' : 'su');
  } catch (cause) {
    throw new RozenError('usage', `pattern '${pattern}' makes no sense`, { cause });
  }
}

function classEnd(characters: readonly string[], open: number): number {
  let at = open + 1;
  if (characters[at] === '!' || characters[at] === '^') at++;
  // A ] right at the beginning is a member.
  return characters.indexOf(']', at + 1);
}

function classSource(members: readonly string[]): string {
  const negated = members[0] === '!' || members[0] === '^';
  const body = members
    .slice(negated ? 1 : 0)
    .map((c, i, all) => (c === '-' ? (i > 0 && i < all.length - 1 ? '-' : '\\-') : escapeCharacter(c)))
    .join('');
  return negated ? `(?!/)[^${body}]` : `[${body}]`;
}

function escapeCharacter(c: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(c) ? `\\${c}` : c;
}
