/**
 * The eight trees of a snapshot: their columns, in the order of docs/FORMAT-TREES.md. A row is an array of fields, key
 * columns first; the constants below name the columns by number, so that hot code reads `page.num(INODE.size, i)`.
 */
import { MAX_ARCHIVE_SIZE, MAX_BODY, MAX_INODE } from '../format.ts';

/** A number (safe integer) or a byte string. */
export type Field = number | Uint8Array;

export interface Column {
  readonly name: string;
  readonly kind: 'number' | 'bytes';
  /** Inclusive limits of a number, checked when a page is decoded. */
  readonly min: number;
  readonly max: number;
  /** Number of an earlier column: a page may store the difference to it. -1: never. */
  readonly relativeTo: number;
  /** Byte strings that are file names (no `/`, not `.` or `..`) or names of attributes; both of 1 to 255 bytes without NUL. */
  readonly names: 'file' | 'attribute' | null;
}

export const TREE_NAMES = [
  'names',
  'inodes',
  'extents',
  'xattrs',
  'versions',
  'deleted',
  'archives',
  'history',
] as const;
export type TreeName = (typeof TREE_NAMES)[number];

export interface TreeSchema {
  readonly name: TreeName;
  /** As stored in a page: 1 for names … 8 for history. */
  readonly number: number;
  /** The first `keys` columns are the key: a number, then optionally a number or byte string, then optionally a number. */
  readonly keys: number;
  readonly columns: readonly Column[];
  /** Columns of pages above the leaves: the key columns, then row, offset, length and row count of the child. */
  readonly interior: readonly Column[];
}

/** Byte strings of one row together are never longer (a Linux xattr value ends at 64 KiB). */
export const MAX_ROW_BYTES = 256 * 1024;

/** Seconds and other signed numbers: wide enough for any file system, narrow enough that a difference is exact. */
export const MAX_SIGNED = 2 ** 52 - 1;
const MAX_U32 = 2 ** 32 - 1;
/** Archive rows are below this. */
export const MAX_ROW = 2 ** 32 - 1;

function number(name: string, max: number = Number.MAX_SAFE_INTEGER, relativeTo = -1): Column {
  return { name, kind: 'number', min: 0, max, relativeTo, names: null };
}

function signed(name: string, relativeTo = -1): Column {
  return { name, kind: 'number', min: -MAX_SIGNED, max: MAX_SIGNED, relativeTo, names: null };
}

function nanoseconds(name: string, relativeTo = -1): Column {
  return number(name, 999_999_999, relativeTo);
}

function bytes(name: string, names: Column['names'] = null): Column {
  return { name, kind: 'bytes', min: 0, max: 0, relativeTo: -1, names };
}

const inode = number('inode', MAX_INODE - 1);

/** `type` is the d_type of readdir(3): 1 fifo, 2 character device, 4 folder, 6 block device, 8 file, 10 symlink, 12 socket. */
export const NAME = { parent: 0, name: 1, inode: 2, type: 3 } as const;

export const INODE = {
  inode: 0,
  mode: 1,
  uid: 2,
  gid: 3,
  nlink: 4,
  size: 5,
  blocks: 6,
  mtimeSec: 7,
  mtimeNs: 8,
  ctimeSec: 9,
  ctimeNs: 10,
  btimeSec: 11,
  btimeNs: 12,
  rdev: 13,
  version: 14,
  parent: 15,
  flags: 16,
  sourceDev: 17,
  sourceIno: 18,
  target: 19,
} as const;

/** Bits of INODE.flags. */
export const INODE_FLAGS = {
  xattrs: 1,
  accessAcl: 2,
  defaultAcl: 4,
  diverged: 8,
  holes: 16,
  incomplete: 32,
} as const;

/** `row` 0 is a hole. The extents of a version cover its size without gap or overlap. */
export const EXTENT = { inode: 0, version: 1, offset: 2, length: 3, row: 4, streamOffset: 5 } as const;
export const XATTR = { inode: 0, name: 1, value: 2 } as const;
export const VERSION = {
  inode: 0,
  version: 1,
  contentId: 2,
  size: 3,
  mtimeSec: 4,
  mtimeNs: 5,
  firstSeen: 6,
  lastSeen: 7,
} as const;
export const DELETED = { parent: 0, name: 1, sequence: 2, inode: 3, type: 4, timeSec: 5, timeNs: 6 } as const;
export const ARCHIVE = { row: 0, id: 1, kind: 2, size: 3, headerHash: 4, merkleRoot: 5, envelope: 6 } as const;
export const HISTORY = { sequence: 0, snapshotId: 1, treeRow: 2, timeSec: 3, timeNs: 4, info: 5 } as const;

/** Columns that follow the key in a page above the leaves: `keys + CHILD.row` and so on. */
export const CHILD = { row: 0, offset: 1, length: 2, count: 3 } as const;

function schema(name: TreeName, keys: number, columns: readonly Column[]): TreeSchema {
  const interior: Column[] = columns.slice(0, keys);
  interior.push(
    { ...number('row', MAX_ROW), min: 1 },
    number('offset', MAX_ARCHIVE_SIZE),
    { ...number('length', 2 * MAX_BODY), min: 1 },
    { ...number('count'), min: 1 },
  );
  return { name, number: TREE_NAMES.indexOf(name) + 1, keys, columns, interior };
}

export const TREES: { readonly [N in TreeName]: TreeSchema } = {
  names: schema('names', 2, [number('parent', MAX_INODE - 1), bytes('name', 'file'), inode, number('type', 255)]),
  inodes: schema('inodes', 1, [
    inode,
    number('mode', MAX_U32),
    number('uid', MAX_U32),
    number('gid', MAX_U32),
    number('nlink', MAX_U32),
    number('size'),
    number('blocks'),
    signed('mtimeSec'),
    nanoseconds('mtimeNs'),
    signed('ctimeSec', INODE.mtimeSec),
    nanoseconds('ctimeNs', INODE.mtimeNs),
    signed('btimeSec', INODE.ctimeSec),
    nanoseconds('btimeNs', INODE.ctimeNs),
    number('rdev'),
    number('version', MAX_U32),
    number('parent', MAX_INODE - 1),
    number('flags', MAX_U32),
    number('sourceDev'),
    number('sourceIno', Number.MAX_SAFE_INTEGER, INODE.inode),
    bytes('target'),
  ]),
  extents: schema('extents', 3, [
    inode,
    number('version', MAX_U32),
    number('offset'),
    number('length'),
    number('row', MAX_ROW),
    number('streamOffset'),
  ]),
  xattrs: schema('xattrs', 2, [inode, bytes('name', 'attribute'), bytes('value')]),
  versions: schema('versions', 2, [
    inode,
    number('version', MAX_U32),
    bytes('contentId'),
    number('size'),
    signed('mtimeSec'),
    nanoseconds('mtimeNs'),
    number('firstSeen'),
    number('lastSeen', Number.MAX_SAFE_INTEGER, VERSION.firstSeen),
  ]),
  deleted: schema('deleted', 3, [
    number('parent', MAX_INODE - 1),
    bytes('name', 'file'),
    number('sequence'),
    inode,
    number('type', 255),
    signed('timeSec'),
    nanoseconds('timeNs'),
  ]),
  archives: schema('archives', 1, [
    number('row', MAX_ROW),
    bytes('id'),
    number('kind', 255),
    number('size', MAX_ARCHIVE_SIZE),
    bytes('headerHash'),
    bytes('merkleRoot'),
    bytes('envelope'),
  ]),
  history: schema('history', 1, [
    number('sequence'),
    bytes('snapshotId'),
    number('treeRow', MAX_ROW),
    signed('timeSec'),
    nanoseconds('timeNs'),
    bytes('info'),
  ]),
};

const BY_NUMBER: readonly TreeSchema[] = TREE_NAMES.map((name) => TREES[name]);

/** The schema of a tree by the number in its pages; undefined when there is none. */
export function schemaByNumber(number: number): TreeSchema | undefined {
  return BY_NUMBER[number - 1];
}

/** Where a page lies: archive row (from 1), byte offset and length of its PAGE frame. */
export interface PagePointer {
  row: number;
  offset: number;
  length: number;
}

/** A tree: its root page, the level of that page (0: a leaf) and the rows below it. Row 0: the tree is empty. */
export interface TreeRoot extends PagePointer {
  level: number;
  count: number;
}

export const EMPTY_ROOT: Readonly<TreeRoot> = { row: 0, offset: 0, length: 0, level: 0, count: 0 };

export type TreeRoots = { [N in TreeName]: TreeRoot };

/** Eight empty trees: where a lineage begins. */
export function emptyRoots(): TreeRoots {
  return Object.fromEntries(TREE_NAMES.map((name) => [name, { ...EMPTY_ROOT }])) as TreeRoots;
}
