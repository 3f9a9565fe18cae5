import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { encodePage } from '../../../src/archive/tree/builder.ts';
import { decodePage } from '../../../src/archive/tree/page.ts';
import { type Field, TREES, type TreeName } from '../../../src/archive/tree/schema.ts';
import { readPage } from '../../reference/pages.ts';

interface Vectors {
  pages: { name: string; tree: TreeName; level: number; rows: (number | string)[][]; page: string }[];
  /** Pages that every reader must refuse. */
  refused: { name: string; page: string }[];
}

const PATH = new URL('../../vectors/pages.json', import.meta.url);

function hash(i: number): Buffer {
  return Buffer.alloc(32, i);
}

const SAMPLES: { name: string; tree: TreeName; level: number; rows: Field[][] }[] = [
  {
    name: 'a folder with names that are no UTF-8',
    tree: 'names',
    level: 0,
    rows: [
      [1, Buffer.from('a'), 2, 4],
      [1, Buffer.from('ab'), 3, 8],
      [1, Buffer.from([0xff, 0xfe]), 1_000_000, 10],
      [2, Buffer.alloc(255, 0x78), 2 ** 40 - 1, 8],
    ],
  },
  {
    name: 'inodes: a folder, a file with change times relative to others, a symlink before 1970',
    tree: 'inodes',
    level: 0,
    rows: [
      [1, 0o40755, 0, 0, 3, 4096, 8, 1.7e9, 5, 1.7e9, 5, 1.7e9, 5, 0, 0, 1, 0, 2049, 2, Buffer.alloc(0)],
      [
        2,
        0o100644,
        1000,
        1000,
        1,
        2 ** 53 - 1,
        16,
        1.6e9,
        7,
        1.6e9,
        7,
        1.6e9,
        7,
        0,
        1,
        1,
        17,
        2049,
        3,
        Buffer.alloc(0),
      ],
      [3, 0o120777, 0, 0, 1, 4, 0, -1e10, 999_999_999, 1.7e9, 0, 0, 0, 0, 0, 1, 0, 2049, 4, Buffer.from('../b')],
    ],
  },
  {
    name: 'extents of a sparse file of two contents',
    tree: 'extents',
    level: 0,
    rows: [
      [9, 1, 0, 262_144, 4, 0],
      [9, 1, 262_144, 1_000_000_000_000, 0, 0],
      [9, 2, 0, 77, 5, 8 * 2 ** 30 - 77],
    ],
  },
  {
    name: 'xattrs',
    tree: 'xattrs',
    level: 0,
    rows: [
      [3, Buffer.from('system.posix_acl_access'), Buffer.from('0200000001000600ffffffff', 'hex')],
      [3, Buffer.from('user.comment'), Buffer.alloc(0)],
    ],
  },
  {
    name: 'versions',
    tree: 'versions',
    level: 0,
    rows: [
      [3, 1, hash(1), 77, 1.7e9, 5, 1, 12],
      [3, 2, hash(2), 78, 1.7e9 + 9, 6, 13, 13],
    ],
  },
  {
    name: 'deleted',
    tree: 'deleted',
    level: 0,
    rows: [
      [1, Buffer.from('gone'), 4, 8, 8, 1.7e9, 0],
      [1, Buffer.from('gone'), 9, 12, 8, 1.8e9, 1],
    ],
  },
  {
    name: 'archives',
    tree: 'archives',
    level: 0,
    rows: [1, 2].map((i) => [
      i,
      Buffer.alloc(16, i),
      i,
      1e9 * i,
      hash(3 * i),
      hash(4 * i),
      Buffer.from(`age ${'x'.repeat(i)}`),
    ]),
  },
  {
    name: 'history',
    tree: 'history',
    level: 0,
    rows: [[1, Buffer.alloc(16, 9), 2, 1.7e9, 123, Buffer.from('a0', 'hex')]],
  },
  {
    name: 'above the leaves: names',
    tree: 'names',
    level: 1,
    rows: [
      [1, Buffer.from('a'), 1, 300, 20_000, 1500],
      [70, Buffer.from('middle'), 8, 8 * 2 ** 30, 2 ** 21, 1],
    ],
  },
  { name: 'above the leaves: one inode child', tree: 'inodes', level: 15, rows: [[1, 2 ** 32 - 1, 0, 1, 2 ** 53 - 1]] },
];

function changed(page: Buffer, at: number, ...values: number[]): Buffer {
  const bytes = Buffer.from(page);
  bytes.set(values, at);
  return bytes;
}

function make(): Vectors {
  const pages = SAMPLES.map(({ name, tree, level, rows }) => ({
    name,
    tree,
    level,
    rows: rows.map((row) =>
      row.map((field) => (typeof field === 'number' ? field : Buffer.from(field).toString('hex'))),
    ),
    page: encodePage(TREES[tree], level, rows).toString('hex'),
  }));
  const names = Buffer.from(pages[0]!.page, 'hex');
  const extents = Buffer.from(pages[2]!.page, 'hex');
  const upper = Buffer.from(pages[8]!.page, 'hex');
  const inodes = Buffer.from(pages[1]!.page, 'hex');
  const name = (text: string) => encodePage(TREES.names, 0, [[1, Buffer.from(text), 2, 8]]);
  const refused: [string, Buffer][] = [
    ['an empty page', Buffer.alloc(0)],
    ['tree 0', changed(names, 0, 0)],
    ['tree 9', changed(names, 0, 9)],
    ['level 16', changed(upper, 1, 16)],
    ['a leaf that says it lies above', changed(names, 1, 1)],
    ['one column too few', changed(names, 2, 3)],
    ['no rows', changed(names, 4, 0)],
    ['more rows than bytes', changed(names, 4, 0xff, 0xff, 0xff, 0xff)],
    ['one row more', changed(names, 4, 5)],
    ['cut by one byte', names.subarray(0, names.length - 1)],
    ['one byte more', Buffer.concat([names, Buffer.alloc(1)])],
    ['cut in its column headers', names.subarray(0, 40)],
    ['an unknown encoding', changed(names, 8, 3)],
    ['a relative column that must not be', changed(extents, 8 + 16 * 3, 1)],
    ['numbers as bytes', changed(extents, 8, 2)],
    ['width 8', changed(extents, 8 + 16 * 3 + 1, 8)],
    ['a reserved byte', changed(extents, 8 + 2, 1)],
    ['a heap of numbers', changed(extents, 8 + 4, 1)],
    ['a base beyond 2^53', changed(extents, 8 + 8 + 6, 0x20)],
    ['a negative inode', changed(extents, 8 + 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)],
    ['nanoseconds of a whole second', changed(inodes, 8 + 16 * 8 + 8, 6)],
    ['a pointer to row 0', changed(upper, 8 + 16 * 2 + 8, 0)],
    ['lengths that do not add up', changed(names, 8 + 16 + 8, 2)],
    ['keys that descend', encodePage(TREES.extents, 0, [...SAMPLES[2]!.rows].reverse())],
    ['the same key twice', encodePage(TREES.names, 0, [SAMPLES[0]!.rows[0]!, SAMPLES[0]!.rows[0]!])],
    ['names out of order', encodePage(TREES.names, 0, [SAMPLES[0]!.rows[1]!, SAMPLES[0]!.rows[0]!])],
    ['the name .', name('.')],
    ['the name ..', name('..')],
    ['a name with a slash', name('a/b')],
    ['a name with NUL', name('a\0')],
    ['a name of no bytes', name('')],
    ['a name of 256 bytes', name('x'.repeat(256))],
  ];
  return { pages, refused: refused.map(([what, page]) => ({ name: what, page: page.toString('hex') })) };
}

// Vectors are made once for each version of the format and then stay as they are.
if (process.env.ROZEN_MAKE_VECTORS === 'pages') writeFileSync(PATH, `${JSON.stringify(make(), null, 1)}\n`);
const vectors = JSON.parse(readFileSync(PATH, 'utf8')) as Vectors;

describe('page vectors', () => {
  test.each(vectors.pages)('$name', ({ tree, level, rows, page: hex }) => {
    const page = decodePage(Buffer.from(hex, 'hex'));
    expect(page.schema.name).toBe(tree);
    expect(page.level).toBe(level);
    const decoded = rows.map((_, i) =>
      page.fields(i).map((f) => (typeof f === 'number' ? f : Buffer.from(f).toString('hex'))),
    );
    expect(page.count).toBe(rows.length);
    expect(decoded).toEqual(rows);
    const reference = readPage(Buffer.from(hex, 'hex'));
    expect(reference.tree).toBe(tree);
    expect(reference.level).toBe(level);
    expect(reference.rows.map((row) => row.map((f) => (typeof f === 'bigint' ? Number(f) : f)))).toEqual(rows);
  });

  test.each(vectors.refused)('refused: $name', ({ page }) => {
    const bytes = Buffer.from(page, 'hex');
    expect(() => decodePage(bytes)).toThrow(expect.objectContaining({ code: 'corrupt' }));
    expect(() => readPage(bytes)).toThrow();
  });

  test('both decoders agree on every page with one byte changed', () => {
    let refused = 0;
    for (const { page } of vectors.pages) {
      const good = Buffer.from(page, 'hex');
      for (let at = 0; at < good.length; at++) {
        for (const change of [0x01, 0x80, 0xff]) {
          const bytes = Buffer.from(good);
          bytes[at]! ^= change;
          let mine: unknown;
          let theirs: unknown;
          try {
            const decoded = decodePage(bytes);
            mine = Array.from({ length: decoded.count }, (_, i) =>
              decoded.fields(i).map((f) => (typeof f === 'number' ? BigInt(f) : Buffer.from(f).toString('hex'))),
            );
          } catch {
            mine = null;
            refused++;
          }
          try {
            theirs = readPage(bytes).rows;
          } catch {
            theirs = null;
          }
          expect(mine, `byte ${at} ^ ${change} of ${page}`).toEqual(theirs);
        }
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });
});
