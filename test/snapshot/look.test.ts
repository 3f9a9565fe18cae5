import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { entryFilter, globToRegExp, TYPE_LETTERS } from '../../src/snapshot/view/entry-filter.ts';
import { unionLength } from '../../src/snapshot/view/statistics.ts';

describe('patterns of find', () => {
  const fits = (pattern: string, text: string, ignoreCase = false) => globToRegExp(pattern, ignoreCase).test(text);

  test.each([
    ['*.jpg', 'a.jpg', true],
    ['*.jpg', 'a.jpeg', false],
    ['a?c', 'abc', true],
    ['a?c', 'aüc', true],
    ['[a-c]x', 'bx', true],
    ['[!a-c]x', 'bx', false],
    ['[]x]', ']', true],
    ['[a\\]x', 'ax', true],
    ['a\\*', 'a*', true],
    ['a\\*', 'ab', false],
    ['a.b', 'axb', false],
    ['b/c', '/a/b/c', true],
    ['b/c', '/a/xb/c', false],
    ['/a/*', '/a/b', true],
    ['/a/*', '/a/b/c', false],
    ['/a/**', '/a/b/c', true],
    ['a/**/z', '/a/z', true],
    ['a/**/z', '/a/b/c/z', true],
    ['/b/c', '/a/b/c', false],
    ['dir/', 'dir', true],
  ])('%s and %s: %s', (pattern, text, expected) => {
    expect(fits(pattern, text)).toBe(expected);
  });

  test('case can be ignored', () => {
    expect(fits('*.JPG', 'ä.jpg', true)).toBe(true);
    expect(fits('Ä*', 'ä.jpg', true)).toBe(true);
    expect(fits('*.JPG', 'a.jpg')).toBe(false);
  });

  test('any text without wildcards fits itself and nothing else', () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1 }).filter((s) => !/[*?[\]\\/]/.test(s)),
        (text) => {
          expect(fits(text, text)).toBe(true);
          expect(fits(text, `${text}x`)).toBe(false);
        },
      ),
    );
  });
});

test('filters hold names, types, sizes and times', () => {
  const all = { patterns: [], ignoreCase: false, types: [], sizes: [], newerThan: null, olderThan: null };
  const name = Buffer.from('a.txt');
  const path = Buffer.from('docs/a.txt');
  expect(entryFilter(all).fitsName(path, name, 8)).toBe(true);
  expect(entryFilter({ ...all, patterns: ['*.md', '*.txt'] }).fitsName(path, name, 8)).toBe(true);
  expect(entryFilter({ ...all, patterns: ['docs/*.txt'] }).fitsName(path, name, 8)).toBe(true);
  expect(entryFilter({ ...all, types: [TYPE_LETTERS.d!] }).fitsName(path, name, 8)).toBe(false);
  expect(entryFilter({ ...all, patterns: ['*'] }).fitsName(path, Buffer.from([0xff, 0xfe]), 8)).toBe(true);
  const large = entryFilter({
    ...all,
    sizes: [
      { comparison: 'more', bytes: 10 },
      { comparison: 'less', bytes: 20 },
    ],
  });
  expect(large.needsInode).toBe(true);
  expect([5, 10, 11, 19, 20].map((size) => large.fitsInode({ type: 8, size, mtimeSec: 0 }))).toEqual([
    false,
    false,
    true,
    true,
    false,
  ]);
  expect(large.fitsInode({ type: 4, size: 15, mtimeSec: 0 })).toBe(false);
  const between = entryFilter({ ...all, newerThan: 100, olderThan: 200 });
  expect([100, 101, 199, 200].map((mtimeSec) => between.fitsInode({ type: 4, size: 0, mtimeSec }))).toEqual([
    false,
    true,
    true,
    false,
  ]);
});

test('the union of ranges counts each byte once', () => {
  expect(unionLength([], [])).toBe(0);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 20 }))), (ranges) => {
      const covered = new Set<number>();
      for (const [start, length] of ranges) for (let i = 0; i < length; i++) covered.add(start + i);
      const starts = ranges.map(([start]) => start);
      const ends = ranges.map(([start, length]) => start + length);
      expect(unionLength(starts, ends)).toBe(covered.size);
    }),
  );
});
