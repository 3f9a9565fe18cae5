/**
 * What a folder of the snapshot holds, in the order in which backup numbered and packed it: a folder's entries together,
 * then its sub-folders. Rows of inodes, extents and attributes then follow one another, and so does content.
 */
import type { Page } from '../../archive/tree/page.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { EXTENT, INODE_FLAGS, NAME, TREES, XATTR } from '../../archive/tree/schema.ts';
import { Miss } from '../../cache/miss.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt } from '../../errors.ts';
import { type Attributes, InodeLookup, S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { Extent } from '../view/content.ts';
import type { Xattr } from './settle.ts';

export interface Found {
  name: Buffer;
  attributes: Attributes;
  xattrs: readonly Xattr[];
  /** Of regular files. */
  extents: readonly Extent[];
}

const NOTHING: readonly never[] = [];

/** Rows of a snapshot by inode. Synchronous; everything throws Miss, and 'corrupt' when rows do not fit together. */
export class Rows {
  readonly #inodes: InodeLookup;
  readonly #extents: Cursor;
  readonly #xattrs: Cursor;

  /** `content`: where the extents are looked up; all tree archives of another snapshot must be open. */
  constructor(reader: SnapshotReader, content = reader) {
    this.#inodes = new InodeLookup(reader);
    this.#extents = new Cursor(content.source, TREES.extents, content.roots.extents);
    this.#xattrs = new Cursor(reader.source, TREES.xattrs, reader.roots.xattrs);
  }

  attributes(inode: number): Attributes {
    return this.#inodes.get(inode);
  }

  xattrs({ inode, flags }: Attributes): readonly Xattr[] {
    if ((flags & INODE_FLAGS.xattrs) === 0) return NOTHING;
    const found: Xattr[] = [];
    const cursor = this.#xattrs;
    for (let on = cursor.seek(inode); on; on = cursor.next()) {
      const page = cursor.page!;
      if (page.num(XATTR.inode, cursor.index) !== inode) break;
      found.push({ name: page.slice(XATTR.name, cursor.index), value: page.slice(XATTR.value, cursor.index) });
    }
    return found;
  }

  extents({ inode, version, size, mode }: Attributes): readonly Extent[] {
    if ((mode & S_IFMT) !== S_IFREG || size === 0) return NOTHING;
    const found: Extent[] = [];
    const cursor = this.#extents;
    let end = 0;
    for (let on = cursor.seek(inode, version, 0); on; on = cursor.next()) {
      const page: Page = cursor.page!;
      const i = cursor.index;
      if (page.num(EXTENT.inode, i) !== inode || page.num(EXTENT.version, i) !== version) break;
      const offset = page.num(EXTENT.offset, i);
      if (offset !== end) throw corrupt(`inode ${inode}: its extents have a gap at ${end}`);
      const length = page.num(EXTENT.length, i);
      end += length;
      found.push({
        offset,
        length,
        row: page.num(EXTENT.row, i),
        streamOffset: page.num(EXTENT.streamOffset, i),
      });
    }
    if (end !== size) throw corrupt(`inode ${inode}: its extents end at ${end}, its size is ${size}`);
    return found;
  }
}

/** What a walk tells. `entry` answers false to be asked again later, after whoever walks has waited. */
export interface FolderVisitor {
  entry(found: Found): void;
  /** The rows of this entry are damaged. */
  damaged(name: Buffer, error: Error): void;
  /** True when the walk must pause. */
  full(): boolean;
  drain(): Promise<void>;
}

/** Visits all entries of one folder. Throws 'corrupt' when its names cannot be read. */
export async function walkFolder(
  reader: SnapshotReader,
  rows: Rows,
  inode: number,
  visitor: FolderVisitor,
): Promise<void> {
  const cursor = new Cursor(reader.source, TREES.names, reader.roots.names);
  let step: 'seek' | 'next' | 'entry' = 'seek';
  /** Goes on until the folder ends (true) or the visitor is full. After a Miss it is called again. */
  const go = (): boolean => {
    for (;;) {
      if (step !== 'entry') {
        const on = step === 'seek' ? cursor.seek(inode) : cursor.next();
        if (!on || cursor.page!.num(NAME.parent, cursor.index) !== inode) return true;
        step = 'entry';
      }
      const name = cursor.page!.slice(NAME.name, cursor.index);
      let found: Found | null = null;
      try {
        const attributes = rows.attributes(cursor.page!.num(NAME.inode, cursor.index));
        found = { name, attributes, xattrs: rows.xattrs(attributes), extents: rows.extents(attributes) };
      } catch (error) {
        if (error instanceof Miss) throw error;
        visitor.damaged(name, error as Error);
      }
      step = 'next';
      if (found !== null) visitor.entry(found);
      if (visitor.full()) return false;
    }
  };
  while (!(await reader.archives.retry(go))) await visitor.drain();
}
