import { Cursor } from '../../archive/tree/read.ts';
import { ARCHIVE, INODE_FLAGS, TREES, VERSION, XATTR } from '../../archive/tree/schema.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { type ChangeKind, differingFields, isIdle } from '../diff/difference.ts';
import { type Attributes, S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { ContentReader, type Extent, fileExtents } from '../view/content.ts';

export interface ComparedEntry {
  reader: SnapshotReader;
  attributes: Attributes;
}

/** How two entries differ that bear the same path, whatever snapshots they come from; null when they do not. */
export async function compareEntries(
  older: ComparedEntry,
  newer: ComparedEntry,
): Promise<{ kind: ChangeKind; fields: string[] } | null> {
  const a = older.attributes;
  const b = newer.attributes;
  const fields = differingFields(a, b);
  if (((a.flags | b.flags) & XATTR_FLAGS) !== 0 && !(await sameXattrs(older, newer))) fields.push('xattrs');
  if ((a.mode & S_IFMT) !== (b.mode & S_IFMT)) return { kind: 'type', fields };
  if (!a.target.equals(b.target)) return { kind: 'content', fields };
  if ((a.mode & S_IFMT) === S_IFREG && !(await sameContent(older, newer))) return { kind: 'content', fields };
  return isIdle(b.mode, fields) ? null : { kind: 'metadata', fields };
}

const XATTR_FLAGS = INODE_FLAGS.xattrs | INODE_FLAGS.accessAcl | INODE_FLAGS.defaultAcl;

async function sameXattrs(older: ComparedEntry, newer: ComparedEntry): Promise<boolean> {
  const [a, b] = [await xattrs(older), await xattrs(newer)];
  return a.length === b.length && a.every((pair, i) => pair.name.equals(b[i]!.name) && pair.value.equals(b[i]!.value));
}

export async function xattrs({ reader, attributes }: ComparedEntry): Promise<{ name: Buffer; value: Buffer }[]> {
  const found: { name: Buffer; value: Buffer }[] = [];
  const cursor = new Cursor(reader.source, TREES.xattrs, reader.roots.xattrs);
  let on = await retrying(reader, () => cursor.seek(attributes.inode));
  while (on) {
    const { page, index } = cursor;
    if (page === null || page.num(XATTR.inode, index) !== attributes.inode) break;
    found.push({
      name: Buffer.from(page.slice(XATTR.name, index)),
      value: Buffer.from(page.slice(XATTR.value, index)),
    });
    on = await retrying(reader, () => cursor.next());
  }
  return found;
}

/**
 * Whether two regular files hold the same bytes: told by content ids where both snapshots have them, else by where the
 * bytes lie (deduplication gives equal content one place), and only in the last resort by reading both.
 */
async function sameContent(older: ComparedEntry, newer: ComparedEntry): Promise<boolean> {
  if (older.attributes.size !== newer.attributes.size) return false;
  if (newer.attributes.size === 0) return true;
  const [idA, idB] = [await contentId(older), await contentId(newer)];
  if (idA !== null && idB !== null) return idA.equals(idB);
  const [a, b] = [await fileExtents(older.reader, older.attributes), await fileExtents(newer.reader, newer.attributes)];
  if (await samePlaces({ reader: older.reader, extents: a }, { reader: newer.reader, extents: b })) return true;
  return sameBytes(older, newer);
}

async function contentId({ reader, attributes }: ComparedEntry): Promise<Buffer | null> {
  const cursor = new Cursor(reader.source, TREES.versions, reader.roots.versions);
  if (!(await retrying(reader, () => cursor.find(attributes.inode, attributes.version)))) return null;
  const id = cursor.page!.slice(VERSION.contentId, cursor.index);
  return id.length === 0 ? null : id;
}

interface Places {
  reader: SnapshotReader;
  extents: readonly Extent[];
}

async function samePlaces(a: Places, b: Places): Promise<boolean> {
  if (a.extents.length !== b.extents.length) return false;
  const pairs = new Set<string>();
  for (const [i, x] of a.extents.entries()) {
    const y = b.extents[i]!;
    if (x.length !== y.length || (x.row === 0) !== (y.row === 0)) return false;
    if (x.row === 0) continue;
    if (x.streamOffset !== y.streamOffset) return false;
    pairs.add(`${x.row} ${y.row}`);
  }
  for (const pair of pairs) {
    const [rowA, rowB] = pair.split(' ').map(Number) as [number, number];
    const [idA, idB] = [await archiveId(a.reader, rowA), await archiveId(b.reader, rowB)];
    if (idA === null || idB === null || !idA.equals(idB)) return false;
  }
  return true;
}

async function archiveId(reader: SnapshotReader, row: number): Promise<Buffer | null> {
  const cursor = new Cursor(reader.source, TREES.archives, reader.roots.archives);
  return (await retrying(reader, () => cursor.find(row))) ? cursor.page!.slice(ARCHIVE.id, cursor.index) : null;
}

async function sameBytes(older: ComparedEntry, newer: ComparedEntry): Promise<boolean> {
  const a = new ContentReader(older.reader).read(older.attributes);
  const b = new ContentReader(newer.reader).read(newer.attributes);
  let left: Buffer = Buffer.alloc(0);
  let right: Buffer = left;
  try {
    for (;;) {
      if (left.length === 0) left = (await a.next()).value ?? left;
      if (right.length === 0) right = (await b.next()).value ?? right;
      const common = Math.min(left.length, right.length);
      if (common === 0) return left.length === right.length;
      if (left.compare(right, 0, common, 0, common) !== 0) return false;
      left = left.subarray(common);
      right = right.subarray(common);
    }
  } finally {
    await a.return();
    await b.return();
  }
}

export function isFolder({ mode }: Attributes): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}
