/**
 * One snapshot as a filesystem: names, attributes, content, straight from the columns of its pages. Holds no state per
 * file; its cursors remember the last leaves, so that a walk in order descends once per page.
 */
import { HASH_SIZE } from '../../archive/format.ts';
import type { Cursor, PageSource } from '../../archive/tree/read.ts';
import { Cursor as TreeCursor } from '../../archive/tree/read.ts';
import {
  ARCHIVE,
  EXTENT,
  INODE,
  INODE_FLAGS,
  NAME,
  TREES,
  type TreeName,
  type TreeRoots,
  VERSION,
  XATTR,
} from '../../archive/tree/schema.ts';
import type { ArchiveAccess } from '../../cache/frames.ts';
import { missArchive } from '../../cache/miss.ts';
import { corrupt } from '../../errors.ts';
import { EINVAL, EISDIR, ENOTDIR, ENXIO, ESTALE } from '../../posix/errno.ts';
import { type Attr, type DirectoryEntry, type DirectorySink, FsError } from '../vfs.ts';
import { addDots, FIRST_ROW } from './dots.ts';
import { isFolder, S_IFLNK, S_IFMT, S_IFREG } from './nodes.ts';

/** Gives the archive of a row, if it is open in this thread. */
export interface ArchiveRows {
  archive(scope: string, row: number): ArchiveAccess | undefined;
}

export interface SnapshotTreeOptions {
  slot: number;
  generation: number;
  /** 32 hex characters. */
  id: string;
  scope: string;
  roots: TreeRoots;
  source: PageSource;
  archives: ArchiveRows;
}

/** Receives where content lies: a hole (`access` null) or a range of an archive's stream. */
export type ExtentVisitor = (access: ArchiveAccess | null, streamOffset: number, length: number) => void;

const ACCESS_ACL = Buffer.from('system.posix_acl_access');
const DEFAULT_ACL = Buffer.from('system.posix_acl_default');
const NO_NAMES = Buffer.alloc(0);
const SEEK_DATA = 3;
/** A file cut into more archives than this has its first ones named. */
const ARCHIVES_NAMED = 16;

export class SnapshotTree {
  readonly slot: number;
  readonly id: string;
  readonly scope: string;
  readonly roots: TreeRoots;
  readonly #generation: number;
  readonly #source: PageSource;
  readonly #archives: ArchiveRows;
  readonly #cursors: { [N in TreeName]?: Cursor } = {};

  constructor(options: SnapshotTreeOptions) {
    this.slot = options.slot;
    this.id = options.id;
    this.scope = options.scope;
    this.roots = options.roots;
    this.#generation = options.generation;
    this.#source = options.source;
    this.#archives = options.archives;
  }

  /** The cursor of a tree, shared by all calls of this thread. */
  cursor(tree: TreeName): Cursor {
    let cursor = this.#cursors[tree];
    if (cursor === undefined) {
      cursor = new TreeCursor(this.#source, TREES[tree], this.roots[tree]);
      this.#cursors[tree] = cursor;
    }
    return cursor;
  }

  /** Stands on the row of an inode. Throws ESTALE when this snapshot has no such inode. */
  inode(ino: number): Cursor {
    const cursor = this.cursor('inodes');
    if (!cursor.find(ino)) throw new FsError(ESTALE);
    return cursor;
  }

  getattr(ino: number, attr: Attr): void {
    this.#fill(this.inode(ino), attr);
  }

  #fill(inode: Cursor, attr: Attr): void {
    const page = inode.page!;
    const i = inode.index;
    attr.slot = this.slot;
    attr.ino = page.num(INODE.inode, i);
    attr.generation = this.#generation;
    attr.mode = page.num(INODE.mode, i);
    // What was deleted has none, but the kernel would take that for a file on its way out.
    attr.nlink = Math.max(1, page.num(INODE.nlink, i));
    attr.uid = page.num(INODE.uid, i);
    attr.gid = page.num(INODE.gid, i);
    attr.rdev = page.num(INODE.rdev, i);
    attr.size = page.num(INODE.size, i);
    attr.blocks = page.num(INODE.blocks, i);
    attr.mtimeSec = page.num(INODE.mtimeSec, i);
    attr.mtimeNs = page.num(INODE.mtimeNs, i);
    attr.ctimeSec = page.num(INODE.ctimeSec, i);
    attr.ctimeNs = page.num(INODE.ctimeNs, i);
    attr.btimeSec = page.num(INODE.btimeSec, i);
    attr.btimeNs = page.num(INODE.btimeNs, i);
    attr.volatile = false;
    attr.complete = true;
  }

  /** The inode of a name in a folder; 0 when there is none. */
  child(parent: number, name: Uint8Array): number {
    const cursor = this.cursor('names');
    if (!cursor.find(parent, name)) return 0;
    return cursor.page!.num(NAME.inode, cursor.index);
  }

  /** Attributes of an inode that a name row leads to: that it is missing is damage, not an old handle. */
  linked(ino: number, attr: Attr): void {
    const cursor = this.cursor('inodes');
    if (!cursor.find(ino)) throw corrupt(`snapshot ${this.id}: a name leads to inode ${ino}, which is missing`);
    this.#fill(cursor, attr);
  }

  parentOf(ino: number): number {
    const cursor = this.inode(ino);
    return cursor.page!.num(INODE.parent, cursor.index);
  }

  readdir(
    ino: number,
    options: { cookie: number; attributes: boolean; sink: DirectorySink; parent: { slot: number; ino: number } },
    entry: DirectoryEntry,
  ): void {
    const { cookie, sink, attributes } = options;
    const { attr } = entry;
    if (cookie < FIRST_ROW) {
      const inode = this.inode(ino);
      if (!isFolder(inode.page!.num(INODE.mode, inode.index))) throw new FsError(ENOTDIR);
      if (!addDots({ slot: this.slot, ino, parent: options.parent }, options, entry)) return;
    }
    const names = this.cursor('names');
    const on = cookie <= FIRST_ROW ? names.seek(ino) : names.seekRank(cookie - FIRST_ROW);
    if (!on) return;
    do {
      const page = names.page!;
      const index = names.index;
      if (page.num(NAME.parent, index) !== ino) return;
      const child = page.num(NAME.inode, index);
      const rank = names.rank;
      if (attributes) {
        this.linked(child, attr);
      } else {
        attr.slot = this.slot;
        attr.ino = child;
        attr.mode = page.num(NAME.type, index) << 12;
        attr.complete = true;
      }
      entry.source = page.bytes;
      entry.start = page.start(NAME.name, index);
      entry.end = page.end(NAME.name, index);
      entry.cookie = rank + 1 + FIRST_ROW;
      if (!sink.add(entry)) return;
    } while (names.next());
  }

  readlink(ino: number): Buffer {
    const cursor = this.inode(ino);
    if ((cursor.page!.num(INODE.mode, cursor.index) & S_IFMT) !== S_IFLNK) throw new FsError(EINVAL);
    return cursor.page!.slice(INODE.target, cursor.index);
  }

  /**
   * Visits the pieces of a file's content in [offset, offset + size), in order, up to its end.
   * Throws Miss when the archive of a piece is not open, 'corrupt' when extents leave a gap.
   * `content`: a newer snapshot of the lineage, whose trees lead to the content.
   */
  extents(
    ino: number,
    range: { offset: number; size: number },
    visit: ExtentVisitor,
    content: SnapshotTree = this,
  ): void {
    const inode = this.inode(ino);
    const mode = inode.page!.num(INODE.mode, inode.index);
    if ((mode & S_IFMT) !== S_IFREG) throw new FsError(isFolder(mode) ? EISDIR : EINVAL);
    const end = Math.min(range.offset + range.size, inode.page!.num(INODE.size, inode.index));
    let at = range.offset;
    if (at >= end) return;
    const version = inode.page!.num(INODE.version, inode.index);
    const cursor = content.#extentAt(ino, version, at);
    for (;;) {
      const page = cursor.page!;
      const i = cursor.index;
      const start = page.num(EXTENT.offset, i);
      const length = page.num(EXTENT.length, i);
      const inside =
        page.num(EXTENT.inode, i) === ino &&
        page.num(EXTENT.version, i) === version &&
        start <= at &&
        at < start + length;
      if (!inside) throw this.#gap(ino, at);
      const take = Math.min(end, start + length) - at;
      const row = page.num(EXTENT.row, i);
      if (row === 0) visit(null, 0, take);
      else visit(content.#archive(row), page.num(EXTENT.streamOffset, i) + (at - start), take);
      at += take;
      if (at >= end) return;
      if (!cursor.next()) throw this.#gap(ino, at);
    }
  }

  /** SEEK_DATA and SEEK_HOLE; ENXIO beyond the end and where no data follows. */
  lseek(ino: number, offset: number, whence: number): number {
    const inode = this.inode(ino);
    const page = inode.page!;
    if ((page.num(INODE.mode, inode.index) & S_IFMT) !== S_IFREG) throw new FsError(EINVAL);
    const size = page.num(INODE.size, inode.index);
    if (!(offset >= 0 && offset < size)) throw new FsError(ENXIO);
    const data = whence === SEEK_DATA;
    if ((page.num(INODE.flags, inode.index) & INODE_FLAGS.holes) === 0) return data ? offset : size;
    const version = page.num(INODE.version, inode.index);
    const cursor = this.#extentAt(ino, version, offset);
    do {
      const extent = cursor.page!;
      const i = cursor.index;
      if (extent.num(EXTENT.inode, i) !== ino || extent.num(EXTENT.version, i) !== version) break;
      const hole = extent.num(EXTENT.row, i) === 0;
      if (hole !== data) return Math.max(offset, extent.num(EXTENT.offset, i));
    } while (cursor.next());
    if (data) throw new FsError(ENXIO);
    return size;
  }

  getxattr(ino: number, name: Uint8Array): Buffer | null {
    const inode = this.inode(ino);
    const flags = inode.page!.num(INODE.flags, inode.index);
    const wanted = ACCESS_ACL.equals(name)
      ? INODE_FLAGS.accessAcl
      : DEFAULT_ACL.equals(name)
        ? INODE_FLAGS.defaultAcl
        : INODE_FLAGS.xattrs;
    if ((flags & wanted) === 0) return null;
    const cursor = this.cursor('xattrs');
    return cursor.find(ino, name) ? cursor.page!.slice(XATTR.value, cursor.index) : null;
  }

  listxattr(ino: number): Buffer {
    const inode = this.inode(ino);
    const some = INODE_FLAGS.xattrs | INODE_FLAGS.accessAcl | INODE_FLAGS.defaultAcl;
    if ((inode.page!.num(INODE.flags, inode.index) & some) === 0) return NO_NAMES;
    const names: Buffer[] = [];
    const cursor = this.cursor('xattrs');
    for (let on = cursor.seek(ino); on; on = cursor.next()) {
      if (cursor.page!.num(XATTR.inode, cursor.index) !== ino) break;
      names.push(cursor.page!.slice(XATTR.name, cursor.index), NUL);
    }
    return Buffer.concat(names);
  }

  /** Content version of an inode if it is a regular file here; -1 otherwise. */
  contentVersion(ino: number): number {
    const cursor = this.cursor('inodes');
    if (!cursor.find(ino) || (cursor.page!.num(INODE.mode, cursor.index) & S_IFMT) !== S_IFREG) return -1;
    return cursor.page!.num(INODE.version, cursor.index);
  }

  /** Hex of the content id of a file's current version; null for what has none. */
  contentId(ino: number): string | null {
    const version = this.contentVersion(ino);
    if (version < 0) return null;
    const cursor = this.cursor('versions');
    return cursor.find(ino, version) ? cursor.page!.slice(VERSION.contentId, cursor.index).toString('hex') : null;
  }

  /** Versions of a file that are stored: content id, and the sequence of the snapshot that had it first. */
  storedVersions(ino: number): { id: string; sequence: number }[] {
    const found: { id: string; sequence: number }[] = [];
    const cursor = this.cursor('versions');
    for (let on = cursor.seek(ino); on; on = cursor.next()) {
      const page = cursor.page!;
      if (page.num(VERSION.inode, cursor.index) !== ino) break;
      const id = page.slice(VERSION.contentId, cursor.index);
      // Other lengths are of contents that were seen and not stored.
      if (id.length === HASH_SIZE)
        found.push({ id: id.toString('hex'), sequence: page.num(VERSION.version, cursor.index) });
    }
    return found;
  }

  /** Rows of the archives that hold a file's content, by the trees of `through`, each once, in order of use; the first `most` of them. */
  contentRows(ino: number, most = ARCHIVES_NAMED, through: SnapshotTree = this): number[] {
    const version = this.contentVersion(ino);
    const found = new Set<number>();
    if (version < 0) return [];
    const cursor = through.cursor('extents');
    for (let on = cursor.seek(ino, version); on && found.size < most; on = cursor.next()) {
      const page = cursor.page!;
      if (page.num(EXTENT.inode, cursor.index) !== ino || page.num(EXTENT.version, cursor.index) !== version) break;
      const row = page.num(EXTENT.row, cursor.index);
      if (row !== 0) found.add(row);
    }
    return [...found];
  }

  /** Hex ids of the archives of these rows. */
  archiveIds(rows: readonly number[]): string[] {
    const cursor = this.cursor('archives');
    return rows.map((row) => {
      if (!cursor.find(row)) throw corrupt(`snapshot ${this.id}: archive row ${row} is missing`);
      return cursor.page!.slice(ARCHIVE.id, cursor.index).toString('hex');
    });
  }

  #archive(row: number): ArchiveAccess {
    const access = this.#archives.archive(this.scope, row);
    if (access === undefined) throw missArchive(this.scope, row);
    return access;
  }

  /** Stands on the extent that holds this offset, or on the first one of another place when none does. */
  #extentAt(ino: number, version: number, offset: number): Cursor {
    const cursor = this.cursor('extents');
    const on = cursor.seek(ino, version, offset);
    const exact =
      on &&
      cursor.page!.num(EXTENT.inode, cursor.index) === ino &&
      cursor.page!.num(EXTENT.version, cursor.index) === version &&
      cursor.page!.num(EXTENT.offset, cursor.index) === offset;
    if (!exact && !cursor.seekRank(cursor.rank - 1)) throw this.#gap(ino, offset);
    return cursor;
  }

  #gap(ino: number, offset: number): Error {
    return corrupt(`snapshot ${this.id}: inode ${ino} has no content recorded at ${offset}`);
  }
}

const NUL = Buffer.from([0]);
