import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseMoment } from '../../src/snapshot/view/moment.ts';
import { chooseSnapshot, parseSnapshotName, splitPath } from '../../src/snapshot/view/naming.ts';

const utc = (text: string): number => Date.parse(text) / 1000;

describe('moments', () => {
  test('cover what their words cover', () => {
    expect(parseMoment('2026-11-23T06:50:03Z')).toEqual({
      first: utc('2026-11-23T06:50:03Z'),
      last: utc('2026-11-23T06:50:03Z'),
    });
    expect(parseMoment('2026-11-23T06.50.03Z')).toEqual(parseMoment('2026-11-23T06:50:03Z'));
    expect(parseMoment('2026-11-23T06:50Z')).toEqual({
      first: utc('2026-11-23T06:50:00Z'),
      last: utc('2026-11-23T06:50:59Z'),
    });
    expect(parseMoment('2026-11-23T07:50+01:00')).toEqual(parseMoment('2026-11-23T06:50Z'));
    const day = parseMoment('2026-11-23')!;
    expect(day.first).toBe(new Date(2026, 10, 23).getTime() / 1000);
    expect(day.last).toBe(new Date(2026, 10, 24).getTime() / 1000 - 1);
    expect(parseMoment('2024-12')!.last).toBe(new Date(2025, 0, 1).getTime() / 1000 - 1);
    expect(parseMoment('2024')!.last).toBe(new Date(2025, 0, 1).getTime() / 1000 - 1);
    expect(parseMoment('@12')).toEqual({ first: 12, last: 12 });
    expect(parseMoment('7d', 7 * 86400)).toEqual({ first: 0, last: 0 });
  });

  test.each([
    '',
    'soon',
    '2026-13-01',
    '2026-02-30',
    '2026-11-23T25:00',
    '2026-11-23T10:61',
    '23.11.2026',
    '12',
    '-3d',
  ])('%j is none', (text) => {
    expect(parseMoment(text)).toBeNull();
  });
});

describe('names of snapshots', () => {
  test.each([
    ['latest', { kind: 'latest', set: null, path: null }],
    ['latest:/etc/a:b', { kind: 'latest', set: null, path: '/etc/a:b' }],
    ['5F3a', { kind: 'id', prefix: '5f3a', path: null }],
    ['5f3a:', { kind: 'id', prefix: '5f3a', path: '' }],
    ['photos@latest:x', { kind: 'latest', set: 'photos', path: 'x' }],
    ['photos@2026-11-23', { kind: 'time', set: 'photos', path: null }],
    ['photos@2026-11-23:/a', { kind: 'time', set: 'photos', path: '/a' }],
    ['photos@2026-11-23T18:30:/a', { kind: 'time', set: 'photos', path: '/a' }],
    ['photos@2026-11-23 18:30', { kind: 'time', set: 'photos', path: null }],
    ['photos@2026-11-23T18.30.05Z:/a@b', { kind: 'time', set: 'photos', path: '/a@b' }],
    ['me@home@latest', { kind: 'latest', set: 'me@home', path: null }],
    ['x:b@latest:/x', { kind: 'latest', set: 'x:b', path: '/x' }],
    ['x@7d', { kind: 'time', set: 'x', path: null }],
  ])('%s', (text, expected) => {
    expect(parseSnapshotName(text)).toMatchObject(expected);
  });

  test.each(['', 'photos', 'xyz', '@latest', 'photos@', 'photos@noon', ':/etc'])('%j names none', (text) => {
    expect(() => parseSnapshotName(text)).toThrow(/names no snapshot/);
  });

  test('any text is answered or refused', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'latesphoab0192-:@T/. ') }), (text) => {
        try {
          parseSnapshotName(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'usage' });
        }
      }),
    );
  });

  const snapshots = [
    { id: 'aa11', set: 'photos', lineage: 'p', sequence: 1, timeSec: utc('2026-11-20T10:00:00Z'), timeNs: 0 },
    { id: 'aa22', set: 'photos', lineage: 'p', sequence: 2, timeSec: utc('2026-11-23T10:00:00Z'), timeNs: 5 },
    { id: 'bb33', set: 'docs', lineage: 'd', sequence: 1, timeSec: utc('2026-11-23T10:00:00Z'), timeNs: 9 },
  ];
  const choose = (text: string) => chooseSnapshot(parseSnapshotName(text), snapshots).id;

  test('choose the newest that fits', () => {
    expect(choose('latest')).toBe('bb33');
    expect(choose('photos@latest')).toBe('aa22');
    expect(choose('photos@2026-11-22')).toBe('aa11');
    expect(choose('photos@2026-11-23T10:00Z')).toBe('aa22');
    expect(choose('photos@2026')).toBe('aa22');
    expect(choose('aa2')).toBe('aa22');
  });

  test('pass over what a clock that stood ahead has dated into the future', () => {
    const ahead = {
      id: 'aa20',
      set: 'photos',
      lineage: 'p',
      sequence: 1,
      timeSec: utc('2036-01-01T00:00:00Z'),
      timeNs: 0,
    };
    const of = (text: string) => chooseSnapshot(parseSnapshotName(text), [...snapshots, ahead]).id;
    expect(of('photos@latest')).toBe('aa22');
    expect(of('latest')).toBe('bb33');
    expect(of('photos@2036')).toBe('aa20');
  });

  test('that fit nothing, or too much, are refused with help', () => {
    expect(() => choose('aa')).toThrow(/2 snapshots begin with aa/);
    expect(() => choose('cc')).toThrow(/no snapshot with an id/);
    expect(() => choose('music@latest')).toThrow(/no snapshot of a set 'music'/);
    expect(() => choose('photos@2025')).toThrow(/no snapshot as old as/);
    expect(() => chooseSnapshot(parseSnapshotName('latest'), [])).toThrow(/holds no snapshots/);
  });
});

test('paths are split into names', () => {
  const split = (path: string) => splitPath(Buffer.from(path)).map(String);
  expect(split('/a//b/./c/')).toEqual(['a', 'b', 'c']);
  expect(split('a/../b')).toEqual(['b']);
  expect(split('/../..')).toEqual([]);
  expect(split('')).toEqual([]);
  expect(splitPath(Buffer.from([0x2f, 0xff]))).toEqual([Buffer.from([0xff])]);
});
