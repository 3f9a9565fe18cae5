import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { selection } from '../../src/snapshot/backup/select.ts';

/** Whether `path` (UTF-8, or a byte string when `raw`) is left out itself; folders end with a slash. */
function excluded(patterns: string[], path: string, raw = false): boolean {
  const isFolder = path.length > 1 && path.endsWith('/');
  const text = raw ? path : Buffer.from(path).toString('latin1');
  const clean = isFolder ? text.slice(0, -1) : text;
  const cut = clean.lastIndexOf('/');
  return selection({ patterns }).excludes(cut === 0 ? '/' : clean.slice(0, cut), clean.slice(cut + 1), isFolder);
}

describe('a pattern', () => {
  test.each<[string, string, boolean]>([
    ['*.o', '/a/b/c.o', true],
    ['*.o', '/c.o', true],
    ['*.o', '/a/c.o.txt', false],
    ['*.o', '/a/.o', true],
    ['cache', '/home/u/cache/', true],
    ['cache', '/home/u/cache', true],
    ['cache/', '/home/u/cache', false],
    ['cache/', '/home/u/cache/', true],
    ['cache', '/home/u/caches', false],
    ['a/b', '/x/a/b', true],
    ['a/b', '/a/b', true],
    ['a/b', '/x/za/b', false],
    ['a/b', '/a/x/b', false],
    ['a/*/b', '/a/x/b', true],
    ['a/*/b', '/a/x/y/b', false],
    ['a/**/b', '/z/a/x/y/b', true],
    ['a/**/b', '/a/b', true],
    ['a/**', '/a/b', true],
    ['a/**', '/a/b/c/', true],
    ['a/**', '/a/', false],
    ['**/b', '/b', true],
    ['**/b', '/a/b', true],
    ['/a', '/a', true],
    ['/a', '/x/a', false],
    ['/a/b/', '/a/b/', true],
    ['/a/b/', '/a/b', false],
    ['/*/tmp', '/a/tmp', true],
    ['/*/tmp', '/a/b/tmp', false],
    ['/**/tmp', '/a/b/tmp', true],
    ['/**/tmp', '/tmp', true],
    ['/a//b/./c', '/a/b/c', true],
    ['file?', '/file1', true],
    ['file?', '/file', false],
    ['file?', '/fileé', true],
    ['file?', '/file12', false],
    ['[abc]x', '/bx', true],
    ['[!abc]x', '/bx', false],
    ['[^abc]x', '/dx', true],
    ['[a-c]x', '/bx', true],
    ['[]]x', '/]x', true],
    ['[а-я]x', '/жx', true],
    ['[а-я]x', '/Жx', false],
    ['[!а-я]x', '/Жx', true],
    ['a[!x]b', '/a/b', false],
    ['\\*', '/*', true],
    ['\\*', '/x', false],
    ['a.b', '/axb', false],
    ['a+b(c)|{d}$', '/a+b(c)|{d}$', true],
    ['*', '/anything', true],
    ['line*', '/line\nbreak', true],
  ])('%s on %s: %s', (pattern, path, expected) => {
    expect(excluded([pattern], path)).toBe(expected);
  });

  test('takes bytes that are no UTF-8 as one character each', () => {
    expect(excluded(['a?b'], '/a\xffb', true)).toBe(true);
    expect(excluded(['a?b'], '/a\xff\xfeb', true)).toBe(false);
    expect(excluded(['a*b'], '/a\xff\xfeb', true)).toBe(true);
  });

  test('counts from the home and the working directory', () => {
    expect(excluded(['~/x'], `${homedir()}/x`)).toBe(true);
    expect(excluded(['~/x'], '/elsewhere/x')).toBe(false);
    expect(excluded(['./x'], `${process.cwd()}/x`)).toBe(true);
    expect(excluded(['./x'], '/elsewhere/x')).toBe(false);
  });

  test('takes in again what an earlier one left out; the last one wins', () => {
    expect(excluded(['*.o', '!keep.o'], '/keep.o')).toBe(false);
    expect(excluded(['*.o', '!keep.o'], '/other.o')).toBe(true);
    expect(excluded(['!keep.o', '*.o'], '/keep.o')).toBe(true);
    expect(excluded(['*.o', '!keep.o', '/a/keep.o'], '/a/keep.o')).toBe(true);
  });

  test.each(['/', '', '!', '[a', 'a\\', '[z-a]', '[a-\u{10000}]'])('%s is refused as a usage error', (pattern) => {
    expect(() => selection({ patterns: [pattern] })).toThrow(expect.objectContaining({ code: 'usage' }));
  });
});

describe('an exclude file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'rozen-select-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  test('holds a pattern a line, comments, blank lines and bytes', () => {
    const file = join(folder, 'excludes');
    writeFileSync(file, Buffer.from('# comment\r\n\n  *.tmp  \r\n/byte-\xff\n\\#x\nspace\\ \n', 'latin1'));
    const { excludes } = selection({ files: [file] });
    expect(excludes('/', 'a.tmp', false)).toBe(true);
    expect(excludes('/', 'byte-\xff', false)).toBe(true);
    expect(excludes('/', '#x', false)).toBe(true);
    expect(excludes('/', 'space ', false)).toBe(true);
    expect(excludes('/', '# comment', false)).toBe(false);
  });

  test('that is not there is a usage error naming it', () => {
    const file = join(folder, 'nowhere');
    expect(() => selection({ files: [file] })).toThrow(expect.objectContaining({ code: 'usage' }));
  });
});
