/** Reads tree pages as docs/FORMAT-TREES.md tells it, plainly and slowly. Imports nothing. */

export interface ReferencePage {
  tree: string;
  level: number;
  /** Numbers as bigint, byte strings as hex. */
  rows: (bigint | string)[][];
}

type ColumnKind = { name: string; bytes?: 'any' | 'file' | 'attribute'; min: bigint; max: bigint; relativeTo?: number };

const SAFE = 2n ** 53n - 1n;
const INO = 2n ** 40n - 1n;
const U32 = 2n ** 32n - 1n;
const ARCHIVE = 8n * 2n ** 30n + 256n * 2n ** 20n;

const u = (name: string, max = SAFE, relativeTo?: number): ColumnKind =>
  relativeTo === undefined ? { name, min: 0n, max } : { name, min: 0n, max, relativeTo };
const s = (name: string, relativeTo?: number): ColumnKind => ({
  ...u(name, 2n ** 52n - 1n, relativeTo),
  min: 1n - 2n ** 52n,
});
const ns = (name: string, relativeTo?: number): ColumnKind => u(name, 999_999_999n, relativeTo);
const b = (name: string, bytes: 'any' | 'file' | 'attribute' = 'any'): ColumnKind => ({
  name,
  bytes,
  min: 0n,
  max: 0n,
});

const TREES: { name: string; keys: number; columns: ColumnKind[] }[] = [
  { name: 'names', keys: 2, columns: [u('parent', INO), b('name', 'file'), u('inode', INO), u('type', 255n)] },
  {
    name: 'inodes',
    keys: 1,
    columns: [
      u('inode', INO),
      u('mode', U32),
      u('uid', U32),
      u('gid', U32),
      u('nlink', U32),
      u('size'),
      u('blocks'),
      s('mtimeSec'),
      ns('mtimeNs'),
      s('ctimeSec', 7),
      ns('ctimeNs', 8),
      s('btimeSec', 9),
      ns('btimeNs', 10),
      u('rdev'),
      u('version', U32),
      u('parent', INO),
      u('flags', U32),
      u('sourceDev'),
      u('sourceIno', SAFE, 0),
      b('target'),
    ],
  },
  {
    name: 'extents',
    keys: 3,
    columns: [u('inode', INO), u('version', U32), u('offset'), u('length'), u('row', U32), u('streamOffset')],
  },
  { name: 'xattrs', keys: 2, columns: [u('inode', INO), b('name', 'attribute'), b('value')] },
  {
    name: 'versions',
    keys: 2,
    columns: [
      u('inode', INO),
      u('version', U32),
      b('contentId'),
      u('size'),
      s('mtimeSec'),
      ns('mtimeNs'),
      u('firstSeen'),
      u('lastSeen', SAFE, 6),
    ],
  },
  {
    name: 'deleted',
    keys: 3,
    columns: [
      u('parent', INO),
      b('name', 'file'),
      u('sequence'),
      u('inode', INO),
      u('type', 255n),
      s('timeSec'),
      ns('timeNs'),
    ],
  },
  {
    name: 'archives',
    keys: 1,
    columns: [
      u('row', U32),
      b('id'),
      u('kind', 255n),
      u('size', ARCHIVE),
      b('headerHash'),
      b('merkleRoot'),
      b('envelope'),
    ],
  },
  {
    name: 'history',
    keys: 1,
    columns: [u('sequence'), b('snapshotId'), u('treeRow', U32), s('timeSec'), ns('timeNs'), b('info')],
  },
];

const CHILD: ColumnKind[] = [
  { name: 'row', min: 1n, max: U32 },
  { name: 'offset', min: 0n, max: ARCHIVE },
  { name: 'length', min: 1n, max: 2n ** 21n },
  { name: 'count', min: 1n, max: SAFE },
];

function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

export function readPage(page: Uint8Array): ReferencePage {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  must(page.length >= 8 && page.length <= 512 * 1024, 'size');
  const tree = TREES[page[0]! - 1];
  must(tree !== undefined, 'tree');
  const level = page[1]!;
  must(level <= 15, 'level');
  const columns = level === 0 ? tree.columns : [...tree.columns.slice(0, tree.keys), ...CHILD];
  must(view.getUint16(2, true) === columns.length, 'columns');
  const n = view.getUint32(4, true);
  must(n >= 1 && n <= page.length, 'rows');
  let at = 8 + 16 * columns.length;
  must(at <= page.length, 'column headers');
  const values: (bigint | string)[][] = [];
  for (const [c, column] of columns.entries()) {
    const header = 8 + 16 * c;
    const encoding = page[header]!;
    const width = page[header + 1]!;
    const heap = view.getUint32(header + 4, true);
    const base = view.getBigInt64(header + 8, true);
    must(width <= 7 && view.getUint16(header + 2, true) === 0, 'column header');
    must(base >= -SAFE && base <= SAFE, 'base');
    must(at + width * n + heap <= page.length, 'column length');
    const numbers: bigint[] = [];
    for (let row = 0; row < n; row++) {
      let value = base;
      for (let k = 0; k < width; k++) value += BigInt(page[at + k * n + row]!) << BigInt(8 * k);
      numbers.push(value);
    }
    at += width * n;
    if (column.bytes !== undefined) {
      must(encoding === 2 && base >= 0n, 'encoding of bytes');
      const strings: string[] = [];
      let start = at;
      for (const length of numbers) {
        must(length <= BigInt(at + heap - start), 'string length');
        const string = page.subarray(start, start + Number(length));
        if (column.bytes !== 'any') must(string.length >= 1 && string.length <= 255 && !string.includes(0), 'name');
        if (column.bytes === 'file') must(!string.includes(0x2f) && !/^(2e|2e2e)$/.test(hex(string)), 'file name');
        strings.push(hex(string));
        start += string.length;
      }
      must(start === at + heap, 'heap');
      at += heap;
      values.push(strings);
      continue;
    }
    must(heap === 0 && (encoding === 0 || (encoding === 1 && column.relativeTo !== undefined)), 'encoding of numbers');
    const whole = encoding === 0 ? numbers : numbers.map((v, row) => v + (values[column.relativeTo!]![row] as bigint));
    for (const value of whole) must(value >= column.min && value <= column.max, `limits of ${column.name}`);
    values.push(whole);
  }
  must(at === page.length, 'end');
  const rows = Array.from({ length: n }, (_, row) => values.map((column) => column[row]!));
  for (let row = 1; row < n; row++) must(ascends(rows[row - 1]!, rows[row]!, tree.keys), 'order');
  if (level > 0) {
    const sum = rows.reduce((total, row) => total + (row.at(-1) as bigint), 0n);
    must(sum <= SAFE, 'sum of counts');
  }
  return { tree: tree.name, level, rows };
}

/** Hex digits sort as the bytes do, the shorter first. */
function ascends(a: (bigint | string)[], z: (bigint | string)[], keys: number): boolean {
  for (let i = 0; i < keys; i++) if (a[i] !== z[i]) return a[i]! < z[i]!;
  return false;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
