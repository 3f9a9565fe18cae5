import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Cursor, childPointer, rows } from '../../../src/archive/tree/read.ts';
import {
  CHILD,
  EMPTY_ROOT,
  type Field,
  type PagePointer,
  TREES,
  type TreeName,
  type TreeRoot,
  type TreeSchema,
} from '../../../src/archive/tree/schema.ts';
import { beginUpdate, type Mutation, updateTree } from '../../../src/archive/tree/update.ts';
import { MemoryPages } from './memory-pages.ts';

const PAGE = 600;

function text(field: Field): string {
  return typeof field === 'number' ? String(field).padStart(20, '0') : Buffer.from(field).toString('hex');
}

/** Sorts as the tree does, for numbers that are not negative. */
function keyText(key: readonly Field[]): string {
  return key.map(text).join(' ');
}

type Model = Map<string, { key: readonly Field[]; value: readonly Field[] }>;

function apply(model: Model, mutations: readonly Mutation[]): void {
  for (const { key, value } of mutations) {
    if (value === null) model.delete(keyText(key));
    else model.set(keyText(key), { key, value });
  }
}

function sorted(model: Model): { key: readonly Field[]; value: readonly Field[] }[] {
  return [...model.keys()].sort().map((k) => model.get(k)!);
}

function plain(fields: readonly Field[]): unknown[] {
  return fields.map((f) => (typeof f === 'number' ? f : Buffer.from(f).toString('hex')));
}

/** Every page of a tree, and its invariants on the way: separators, counts, levels. */
function pagesOf(pages: MemoryPages, schema: TreeSchema, root: TreeRoot): Map<string, PagePointer> {
  const found = new Map<string, PagePointer>();
  const visit = (pointer: PagePointer, level: number, count: number): string => {
    found.set(MemoryPages.key(pointer), pointer);
    const page = pages.page(pointer.row, pointer.offset, pointer.length);
    expect(page.level).toBe(level);
    expect(page.total).toBe(count);
    if (level > 0) {
      for (let i = 0; i < page.count; i++) {
        const first = visit(childPointer(page, i), level - 1, page.num(schema.keys + CHILD.count, i));
        const separator = keyText(page.fields(i).slice(0, schema.keys));
        expect(separator <= first).toBe(true);
      }
    }
    return keyText(page.fields(0).slice(0, schema.keys));
  };
  if (root.row !== 0) visit(root, root.level, root.count);
  return found;
}

function generate(name: TreeName): fc.Arbitrary<Mutation> {
  const schema = TREES[name];
  const field = (c: number): fc.Arbitrary<Field> => {
    const column = schema.columns[c]!;
    if (column.names !== null) return fc.uint8Array({ minLength: 1, maxLength: 3, min: 0x30 });
    if (column.kind === 'bytes') return fc.uint8Array({ maxLength: 40 });
    return fc.nat(c < schema.keys ? (schema.keys === 1 ? 400 : 12) : 3);
  };
  const columns = schema.columns.map((_, c) => c);
  const key = fc.tuple(...columns.slice(0, schema.keys).map(field)) as unknown as fc.Arbitrary<Field[]>;
  const value = fc.tuple(...columns.slice(schema.keys).map(field)) as unknown as fc.Arbitrary<Field[]>;
  return fc.record({ key, value: fc.option(value, { freq: 3 }) });
}

function ordered(mutations: readonly Mutation[]): Mutation[] {
  const byKey = new Map(mutations.map((m) => [keyText(m.key), m]));
  return [...byKey.keys()].sort().map((k) => byKey.get(k)!);
}

function checkReads(pages: MemoryPages, tree: { schema: TreeSchema; root: TreeRoot }, model: Model): void {
  const { schema, root } = tree;
  const expected = sorted(model);
  expect(root.count).toBe(expected.length);
  expect([...rows({ source: pages, schema, root })].map(plain)).toEqual(
    expected.map((r) => plain([...r.key, ...r.value])),
  );
  const cursor = new Cursor(pages, schema, root);
  const jump = new Cursor(pages, schema, root);
  expected.forEach((row, rank) => {
    const [k0, k1, k2] = row.key as [number, Field?, number?];
    expect(cursor.find(k0, k1, k2)).toBe(true);
    expect(cursor.rank).toBe(rank);
    expect(jump.seekRank((rank * 7) % expected.length)).toBe(true);
    expect(keyText(jump.page!.fields(jump.index).slice(0, schema.keys))).toBe(
      keyText(expected[(rank * 7) % expected.length]!.key),
    );
    expect(jump.rank).toBe((rank * 7) % expected.length);
  });
  expect(jump.seekRank(expected.length)).toBe(false);
  expect(jump.seekRank(-1)).toBe(false);
  expect(jump.valid).toBe(false);
  expect(jump.rank).toBe(expected.length);
}

describe.each(['names', 'inodes', 'extents', 'xattrs', 'deleted'] as const)('tree %s', (name) => {
  const schema = TREES[name];

  test('agrees with a map through random batches, and shares what did not change', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(generate(name), { maxLength: 120, size: 'max' }), { minLength: 1, maxLength: 6 }),
        (batches) => {
          const pages = new MemoryPages();
          const model: Model = new Map();
          let root: TreeRoot = { ...EMPTY_ROOT };
          let old = pagesOf(pages, schema, root);
          for (const batch of batches) {
            pages.row++;
            const mutations = ordered(batch);
            const before = new Map(model);
            apply(model, mutations);
            const written = pages.writes.length;
            const result = updateTree({ schema, root, source: pages, mutations, sink: pages, pageTarget: PAGE });
            const now = pagesOf(pages, schema, result.root);
            const fresh = pages.writes.slice(written).map((w) => MemoryPages.key(w.pointer));
            // Replaced is exactly what is gone; everything else kept its pointer; everything new was written now.
            expect(result.replaced.map(MemoryPages.key).sort()).toEqual(
              [...old.keys()].filter((k) => !now.has(k)).sort(),
            );
            expect(fresh.sort()).toEqual([...now.keys()].filter((k) => !old.has(k)).sort());
            const same =
              before.size === model.size &&
              sorted(model).every((r) => {
                const b = before.get(keyText(r.key));
                return b !== undefined && plain(b.value).join() === plain(r.value).join();
              });
            if (same) expect(result.root).toEqual(root);
            if (model.size === 0) expect(result.root).toEqual(EMPTY_ROOT);
            root = result.root;
            old = now;
            checkReads(pages, { schema, root }, model);
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  test('seeks the first key not below, with whole keys and with prefixes', () => {
    fc.assert(
      fc.property(
        fc.array(generate(name), { maxLength: 150, size: 'max' }),
        fc.array(generate(name), { maxLength: 40 }),
        (load, probes) => {
          const pages = new MemoryPages();
          const model: Model = new Map();
          const mutations = ordered(load);
          apply(model, mutations);
          const { root } = updateTree({
            schema,
            root: EMPTY_ROOT,
            source: pages,
            mutations,
            sink: pages,
            pageTarget: PAGE,
          });
          const keys = sorted(model).map((r) => keyText(r.key));
          const cursor = new Cursor(pages, schema, root);
          for (const { key } of probes) {
            for (let parts = 1; parts <= key.length; parts++) {
              const probe = key.slice(0, parts) as unknown as [number, Field, number];
              const expected = keys.findIndex((k) => k >= keyText(probe));
              expect(cursor.seek(probe[0], probe[1], probe[2])).toBe(expected >= 0);
              if (expected >= 0) expect(cursor.rank).toBe(expected);
              else expect(cursor.next()).toBe(false);
            }
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  test('can be written afresh, in whole or for some archives only', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(generate(name), { maxLength: 100, size: 'max' }), { minLength: 2, maxLength: 5 }),
        (batches) => {
          const pages = new MemoryPages();
          const model: Model = new Map();
          let root: TreeRoot = { ...EMPTY_ROOT };
          for (const batch of batches) {
            pages.row++;
            apply(model, ordered(batch));
            root = updateTree({
              schema,
              root,
              source: pages,
              mutations: ordered(batch),
              sink: pages,
              pageTarget: PAGE,
            }).root;
          }
          pages.row++;
          const options = { schema, root, source: pages, mutations: [], sink: pages, pageTarget: PAGE };
          const evicted = updateTree({ ...options, rewrite: new Set([2]) }).root;
          for (const pointer of pagesOf(pages, schema, evicted).values()) expect(pointer.row).not.toBe(2);
          checkReads(pages, { schema, root: evicted }, model);
          const all = updateTree({ ...options, rewrite: true }).root;
          for (const pointer of pagesOf(pages, schema, all).values()) expect(pointer.row).toBe(pages.row);
          checkReads(pages, { schema, root: all }, model);
        },
      ),
      { numRuns: 30 },
    );
  });
});

function* numbered(from: number, to: number): Generator<Mutation> {
  for (let i = from; i < to; i++) yield { key: [Math.floor(i / 50) + 1, Buffer.from(`file-${i}`)], value: [i + 2, 8] };
}

function inOrder(mutations: Iterable<Mutation>): Mutation[] {
  return [...mutations].sort(
    (a, b) => (a.key[0] as number) - (b.key[0] as number) || Buffer.compare(a.key[1] as Buffer, b.key[1] as Buffer),
  );
}

describe('shape', () => {
  const schema = TREES.names;

  test('leaves are written first, upper pages at the end, the root last of all', () => {
    const pages = new MemoryPages();
    const pending = beginUpdate({
      schema,
      root: EMPTY_ROOT,
      source: pages,
      mutations: inOrder(numbered(0, 60_000)),
      sink: pages,
      pageTarget: 2000,
    });
    expect(pages.writes.every((w) => w.level === 0)).toBe(true);
    const leaves = pages.writes.length;
    const root = pending.finish();
    expect(root.level).toBeGreaterThanOrEqual(2);
    const upper = pages.writes.slice(leaves).map((w) => w.level);
    expect(upper).toEqual([...upper].sort());
    expect(pages.writes.at(-1)!.pointer).toEqual({ row: root.row, offset: root.offset, length: root.length });
  });

  test('a root that is a leaf waits too', () => {
    const pages = new MemoryPages();
    const pending = beginUpdate({
      schema,
      root: EMPTY_ROOT,
      source: pages,
      mutations: inOrder(numbered(0, 10)),
      sink: pages,
    });
    expect(pages.writes.length).toBe(0);
    expect(pending.count).toBe(10);
    expect(pending.changed).toBe(true);
    expect(pending.finish().level).toBe(0);
    expect(pages.writes.length).toBe(1);
  });

  test('one changed row costs one page per level', () => {
    const pages = new MemoryPages();
    const load = {
      schema,
      root: EMPTY_ROOT,
      source: pages,
      mutations: inOrder(numbered(0, 60_000)),
      sink: pages,
      pageTarget: 2000,
    };
    const root = updateTree(load).root;
    const written = pages.writes.length;
    pages.row = 2;
    const key = [500, Buffer.from('file-24960')];
    const result = updateTree({ ...load, root, mutations: [{ key, value: [24_962, 4] }] });
    expect(pages.writes.length - written).toBe(root.level + 1);
    expect(result.replaced.length).toBe(root.level + 1);
    expect(result.root.count).toBe(root.count);
  });

  test('changes that change nothing write nothing', () => {
    const pages = new MemoryPages();
    const load = {
      schema,
      root: EMPTY_ROOT,
      source: pages,
      mutations: inOrder(numbered(0, 20_000)),
      sink: pages,
      pageTarget: 2000,
    };
    const root = updateTree(load).root;
    const written = pages.writes.length;
    const again = beginUpdate({ ...load, root, mutations: inOrder(numbered(0, 20_000)) });
    expect(again.changed).toBe(false);
    expect(again.replaced).toEqual([]);
    expect(again.finish()).toEqual(root);
    const missing = [{ key: [3, Buffer.from('no such name')], value: null }];
    expect(updateTree({ ...load, root, mutations: missing }).root).toEqual(root);
    expect(pages.writes.length).toBe(written);
  });

  test('appended rows fill the last page and leave all others alone', () => {
    const pages = new MemoryPages();
    const inodes = TREES.inodes;
    const value = (i: number): Field[] => [
      0o100644,
      0,
      0,
      1,
      i * 7,
      8,
      1.7e9 + i,
      5,
      1.7e9,
      6,
      1.7e9,
      7,
      0,
      1,
      1,
      0,
      2049,
      9000 + i,
      Buffer.alloc(0),
    ];
    const range = (from: number, to: number): Mutation[] =>
      Array.from({ length: to - from }, (_, i) => ({ key: [from + i], value: value(from + i) }));
    let root: TreeRoot = { ...EMPTY_ROOT };
    let replaced = 0;
    for (let from = 1; from < 40_001; from += 100) {
      const result = updateTree({
        schema: inodes,
        root,
        source: pages,
        mutations: range(from, from + 100),
        sink: pages,
      });
      root = result.root;
      replaced = Math.max(replaced, result.replaced.length);
    }
    expect(replaced).toBeLessThanOrEqual(2);
    const all = pagesOf(pages, inodes, root);
    // 30 bytes a row or so: with pages only half full this would be 40 and more.
    expect(all.size).toBeLessThan(25);
  });

  test('inodes in order cost no descent within a page', () => {
    const pages = new MemoryPages();
    const value: Field[] = [0o100644, 0, 0, 1, 7, 8, 0, 5, 0, 6, 0, 7, 0, 1, 1, 0, 2049, 9000, Buffer.alloc(0)];
    const mutations = Array.from({ length: 50_000 }, (_, i) => ({ key: [i + 1], value }));
    const { root } = updateTree({ schema: TREES.inodes, root: EMPTY_ROOT, source: pages, mutations, sink: pages });
    const leaves = pagesOf(pages, TREES.inodes, root).size - 1;
    pages.reads = 0;
    const cursor = new Cursor(pages, TREES.inodes, root);
    for (let inode = 1; inode <= 50_000; inode++) expect(cursor.find(inode)).toBe(true);
    expect(pages.reads).toBeLessThanOrEqual(2 * leaves);
  });

  test('a row near the limit of bytes fits, one beyond it is refused', () => {
    const pages = new MemoryPages();
    const mutations = Array.from({ length: 12 }, (_, i) => ({
      key: [i + 1, Buffer.from('user.big')],
      value: [Buffer.alloc(200_000, i)],
    }));
    const options = { schema: TREES.xattrs, root: EMPTY_ROOT, source: pages, mutations, sink: pages };
    const { root } = updateTree(options);
    expect([...rows({ source: pages, schema: TREES.xattrs, root })].length).toBe(12);
    expect(() =>
      updateTree({ ...options, mutations: [{ key: [1, Buffer.from('x')], value: [Buffer.alloc(300_000)] }] }),
    ).toThrow(/bytes/);
  });

  test('mutations out of order and fields beyond their limits are refused', () => {
    const pages = new MemoryPages();
    const options = { schema, root: EMPTY_ROOT, source: pages, sink: pages };
    const [a, b] = inOrder(numbered(0, 2)) as [Mutation, Mutation];
    expect(() => updateTree({ ...options, mutations: [b, a] })).toThrow(/order/);
    expect(() => updateTree({ ...options, mutations: [a, a] })).toThrow(/order/);
    expect(() => updateTree({ ...options, mutations: [{ key: a.key, value: [-1, 8] }] })).toThrow(/inode/);
    expect(() => updateTree({ ...options, mutations: [{ key: a.key, value: [1.5, 8] }] })).toThrow(/inode/);
  });
});

describe('the first leaf', () => {
  const schema = TREES.names;
  /** Row of the archive that the first leaf lies in. */
  const firstLeaf = (pages: MemoryPages, root: TreeRoot): PagePointer => {
    let pointer: PagePointer = root;
    for (let level = root.level; level > 0; level--) {
      pointer = childPointer(pages.page(pointer.row, pointer.offset, pointer.length), 0);
    }
    return pointer;
  };

  test('lies in the own archive of every update, and only what it replaces is given up', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(generate('names'), { maxLength: 60, size: 'max' }), { maxLength: 5 }),
        (batches) => {
          const pages = new MemoryPages();
          const model: Model = new Map();
          const begin = Array.from({ length: 400 }, (_, i) => ({ key: [i, Buffer.from('name')], value: [i + 1, 8] }));
          let root: TreeRoot = { ...EMPTY_ROOT };
          for (const [i, batch] of [begin, ...batches].entries()) {
            const mutations = ordered(batch);
            const ownRow = i + 1;
            pages.row = ownRow;
            const before = pagesOf(pages, schema, root);
            const pending = beginUpdate({
              ...{ schema, root, source: pages, mutations, sink: pages },
              ...{ ownRow, repeatFirst: true, pageTarget: PAGE },
            });
            root = pending.finish();
            apply(model, mutations);
            checkReads(pages, { schema, root }, model);
            if (root.row === 0) continue;
            expect([root.row, firstLeaf(pages, root).row]).toEqual([ownRow, ownRow]);
            const after = pagesOf(pages, schema, root);
            expect([...pending.rows].sort()).toEqual([...new Set([...after.values()].map(({ row }) => row))].sort());
            const gone = [...before.keys()].filter((key) => !after.has(key));
            expect(pending.replaced.map(MemoryPages.key).sort()).toEqual(gone.sort());
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  test('is written last of the leaves, beside the pages above', () => {
    const pages = new MemoryPages();
    const mutations = Array.from({ length: 300 }, (_, i) => ({ key: [i, Buffer.from('name')], value: [i + 1, 8] }));
    const { root } = updateTree({ schema, root: EMPTY_ROOT, source: pages, mutations, sink: pages, pageTarget: PAGE });
    expect(root.level).toBeGreaterThan(0);
    const levels = pages.writes.map(({ level }) => level);
    const last = levels.lastIndexOf(0);
    expect(pages.writes[last]!.pointer).toEqual(firstLeaf(pages, root));
    expect(levels.slice(0, last).every((level) => level === 0)).toBe(true);
  });
});
