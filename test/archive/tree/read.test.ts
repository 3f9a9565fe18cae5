import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Cursor, collectRows, loadPage, type PageSource, rows } from '../../../src/archive/tree/read.ts';
import { EMPTY_ROOT, NAME, TREES } from '../../../src/archive/tree/schema.ts';
import { type Mutation, updateTree } from '../../../src/archive/tree/update.ts';
import { MemoryPages } from './memory-pages.ts';

const schema = TREES.names;
const pages = new MemoryPages();
const mutations: Mutation[] = Array.from({ length: 3000 }, (_, i) => ({
  key: [1 + Math.floor(i / 40), Buffer.from(`n${String(i).padStart(5, '0')}`)],
  value: [i + 2, 8],
}));
const { root } = updateTree({ schema, root: EMPTY_ROOT, source: pages, mutations, sink: pages, pageTarget: 500 });

class Missing extends Error {}

/** Throws for each page as often as told, before it gives it. */
function missing(times: () => number): PageSource {
  const left = new Map<number, number>();
  return {
    page(row, offset, length) {
      const now = left.get(offset) ?? times();
      left.set(offset, now > 0 ? now - 1 : times());
      if (now > 0) throw new Missing();
      return pages.page(row, offset, length);
    },
  };
}

function retry<T>(work: () => T): T {
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
    }
  }
}

describe('a cursor whose pages are missing now and then', () => {
  test('goes on from where it was', () => {
    expect(root.level).toBeGreaterThanOrEqual(2);
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(2)), fc.nat(2900), (times, start) => {
        const cursor = new Cursor(
          missing(() => times.next().value!),
          schema,
          root,
        );
        let on = retry(() => cursor.seekRank(start));
        for (let rank = start; rank < start + 60; rank++) {
          expect(on).toBe(true);
          expect(cursor.rank).toBe(rank);
          expect(cursor.page!.num(NAME.inode, cursor.index)).toBe(rank + 2);
          on = retry(() => cursor.next());
        }
      }),
      { numRuns: 50 },
    );
  });

  test('finds every key, whatever it looked for before', () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(1)), fc.array(fc.nat(2999), { maxLength: 60 }), (times, wanted) => {
        const cursor = new Cursor(
          missing(() => times.next().value!),
          schema,
          root,
        );
        for (const i of wanted) {
          const [parent, name] = mutations[i]!.key as [number, Buffer];
          expect(retry(() => cursor.find(parent, name))).toBe(true);
          expect(cursor.rank).toBe(i);
          expect(retry(() => cursor.find(parent, Buffer.from('no')))).toBe(false);
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('pointers', () => {
  test('that lead elsewhere are damage', () => {
    const expected = { schema, level: root.level, count: root.count };
    expect(loadPage(pages, root, expected).total).toBe(root.count);
    for (const change of [{ level: 0 }, { count: 1 }, { schema: TREES.inodes }]) {
      expect(() => loadPage(pages, root, { ...expected, ...change })).toThrow(
        expect.objectContaining({ code: 'corrupt' }),
      );
    }
    const lied = new Cursor(pages, schema, { ...root, level: root.level + 1 });
    expect(() => lied.seek(1)).toThrow(expect.objectContaining({ code: 'corrupt' }));
  });

  test('tell the archives of a tree', () => {
    const found = new Set<number>();
    collectRows({ source: pages, schema, root: EMPTY_ROOT }, found);
    expect([...found]).toEqual([]);
    collectRows({ source: pages, schema, root }, found);
    expect([...found]).toEqual([1]);
  });
});

test('rows come in a range', () => {
  const tree = { source: pages, schema, root };
  expect([...rows(tree, [3], [5])].length).toBe(80);
  expect([...rows(tree, [75])].length).toBe(40);
  expect([...rows(tree, [76])].length).toBe(0);
  expect([...rows({ ...tree, root: EMPTY_ROOT })].length).toBe(0);
});
