import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodePage } from '../../../src/archive/tree/builder.ts';
import { decodePage } from '../../../src/archive/tree/page.ts';
import { type Column, type Field, TREE_NAMES, TREES, type TreeSchema } from '../../../src/archive/tree/schema.ts';
import { RozenError } from '../../../src/errors.ts';

function fieldOf(column: Column): fc.Arbitrary<Field> {
  if (column.names !== null) return fc.uint8Array({ minLength: 1, maxLength: 12, min: 0x30 });
  if (column.kind === 'bytes') return fc.uint8Array({ maxLength: 12 });
  const near = fc.integer({ min: Math.max(column.min, -300), max: Math.min(column.max, 70_000) });
  return fc.oneof(near, fc.integer({ min: column.min, max: column.max }), fc.constantFrom(column.min, column.max));
}

function compareFields(a: readonly Field[], b: readonly Field[], keys: number): number {
  for (let i = 0; i < keys; i++) {
    const x = a[i]!;
    const y = b[i]!;
    const order = typeof x === 'number' ? x - (y as number) : Buffer.compare(x, y as Uint8Array);
    if (order !== 0) return order;
  }
  return 0;
}

function rowsOf(schema: TreeSchema, level: number): fc.Arbitrary<Field[][]> {
  const columns =
    level === 0 ? schema.columns : schema.interior.map((c) => (c.name === 'count' ? { ...c, max: 2 ** 40 } : c));
  const row = fc.tuple(...columns.map(fieldOf)) as unknown as fc.Arbitrary<Field[]>;
  return fc.array(row, { minLength: 1, maxLength: 40 }).map((rows) => {
    rows.sort((a, b) => compareFields(a, b, schema.keys));
    return rows.filter((r, i) => i === 0 || compareFields(rows[i - 1]!, r, schema.keys) < 0);
  });
}

const anyPage = fc
  .tuple(fc.constantFrom(...TREE_NAMES), fc.integer({ min: 0, max: 2 }))
  .chain(([name, level]) => rowsOf(TREES[name], level).map((rows) => ({ schema: TREES[name], level, rows })));

/** Decodes hostile bytes: a page whose every field can be read, or RozenError('corrupt'). */
function decodeOrCorrupt(bytes: Buffer): void {
  try {
    const page = decodePage(bytes);
    for (let row = 0; row < page.count; row++) {
      const fields = page.fields(row);
      const columns = page.level === 0 ? page.schema.columns : page.schema.interior;
      columns.forEach((column, c) => {
        const field = fields[c]!;
        if (typeof field !== 'number') return;
        expect(Number.isSafeInteger(field) && field >= column.min && field <= column.max).toBe(true);
      });
    }
  } catch (error) {
    expect(error).toBeInstanceOf(RozenError);
    expect((error as RozenError).code).toBe('corrupt');
  }
}

describe('pages', () => {
  test('give back every row of every tree and level', () => {
    fc.assert(
      fc.property(anyPage, ({ schema, level, rows }) => {
        const page = decodePage(encodePage(schema, level, rows));
        expect(page.schema).toBe(schema);
        expect(page.level).toBe(level);
        expect(page.count).toBe(rows.length);
        rows.forEach((row, i) => {
          expect(page.fields(i).map((f) => (typeof f === 'number' ? f : Buffer.from(f)))).toEqual(
            row.map((f) => (typeof f === 'number' ? f + 0 : Buffer.from(f))),
          );
        });
      }),
      { numRuns: 400 },
    );
  });

  test('of random bytes are corrupt or readable', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => decodeOrCorrupt(Buffer.from(bytes))),
      { numRuns: 2000 },
    );
  });

  test('with flipped, overwritten and cut bytes are corrupt or readable', () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(anyPage, damage, fc.option(fc.nat()), ({ schema, level, rows }, changes, cut) => {
        let bytes = encodePage(schema, level, rows);
        // Half of the damage goes to the headers, where it matters most.
        for (const [at, value] of changes)
          bytes[at % (value % 2 === 0 ? bytes.length : Math.min(bytes.length, 64))] = value;
        if (cut !== null) bytes = bytes.subarray(0, cut % bytes.length);
        decodeOrCorrupt(bytes);
      }),
      { numRuns: 5000 },
    );
  });

  test('refuse each single bit flip in their headers or stay readable', () => {
    const rows: Field[][] = [];
    for (let i = 0; i < 50; i++) rows.push([7, Buffer.from(`name ${String(i).padStart(3, '0')}`), 100 + i, 8]);
    const good = encodePage(TREES.names, 0, rows);
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bytes = Buffer.from(good);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      decodeOrCorrupt(bytes);
    }
  });

  test('refuse a claim of rows that take no bytes', () => {
    const bytes = encodePage(TREES.archives, 0, [
      [1, Buffer.alloc(0), 1, 0, Buffer.alloc(0), Buffer.alloc(0), Buffer.alloc(0)],
    ]);
    bytes.writeUInt32LE(0xffff_ffff, 4);
    expect(() => decodePage(bytes)).toThrow(/rows/);
  });

  test('refuse names that no file system has', () => {
    const page = (tree: 'names' | 'deleted' | 'xattrs', name: Buffer) => {
      const more = { names: [5, 8], deleted: [1, 5, 8, 0, 0], xattrs: [Buffer.alloc(0)] }[tree];
      const other = Buffer.alloc(name.length, 0xff);
      return encodePage(TREES[tree], 0, [
        [1, name, ...more],
        [1, other, ...more],
        [2, Buffer.from('x'), ...more],
      ]);
    };
    for (const tree of ['names', 'deleted', 'xattrs'] as const) {
      for (const text of ['', '.', '..', 'a/b', '/', 'a\0b', 'x'.repeat(256)]) {
        const bytes = page(tree, Buffer.from(text));
        const allowed = tree === 'xattrs' && (text.includes('/') || text.includes('.'));
        if (allowed) expect(decodePage(bytes).count).toBe(3);
        else expect(() => decodePage(bytes)).toThrow(/names|ascend/);
      }
      for (const text of ['...', '.a', 'a.', '..a', 'x'.repeat(255), '\xfe'])
        expect(decodePage(page(tree, Buffer.from(text, 'latin1')))).toBeDefined();
    }
  });

  test('compare names as memcmp does, the shorter first', () => {
    const names = [[1], [1, 1], [2], [0x7f], [0x80], [0xff], [0xff, 0xff]].map((b) => Buffer.from(b));
    const page = decodePage(
      encodePage(
        TREES.names,
        0,
        names.map((name, i) => [1, name, i + 2, 8]),
      ),
    );
    for (let i = 0; i < names.length; i++) {
      for (let k = 0; k < names.length; k++) {
        expect(Math.sign(page.compareBytes(1, i, names[k]!))).toBe(Buffer.compare(names[i]!, names[k]!));
      }
    }
  });
});
