import type { Page } from '../../archive/tree/page.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { INODE, TREES } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt } from '../../errors.ts';

/** What an inode row says about an entry, as far as people ask for it. */
export interface Attributes {
  inode: number;
  /** st_mode with the type. */
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  size: number;
  mtimeSec: number;
  mtimeNs: number;
  ctimeSec: number;
  ctimeNs: number;
  rdev: number;
  version: number;
  parent: number;
  /** INODE_FLAGS. */
  flags: number;
  /** Of a symlink; else empty. Shares the memory of a page. */
  target: Buffer;
}

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;

export function readAttributes(page: Page, index: number): Attributes {
  return {
    inode: page.num(INODE.inode, index),
    mode: page.num(INODE.mode, index),
    uid: page.num(INODE.uid, index),
    gid: page.num(INODE.gid, index),
    nlink: page.num(INODE.nlink, index),
    size: page.num(INODE.size, index),
    mtimeSec: page.num(INODE.mtimeSec, index),
    mtimeNs: page.num(INODE.mtimeNs, index),
    ctimeSec: page.num(INODE.ctimeSec, index),
    ctimeNs: page.num(INODE.ctimeNs, index),
    rdev: page.num(INODE.rdev, index),
    version: page.num(INODE.version, index),
    parent: page.num(INODE.parent, index),
    flags: page.num(INODE.flags, index),
    target: page.slice(INODE.target, index),
  };
}

/** Finds inode rows; those that lie near the last one are found without a descent. Throws `Miss`. */
export class InodeLookup {
  readonly #cursor: Cursor;
  readonly #what: string;

  constructor(reader: SnapshotReader) {
    this.#cursor = new Cursor(reader.source, TREES.inodes, reader.roots.inodes);
    this.#what = `snapshot ${reader.record.id.toString('hex').slice(0, 8)}`;
  }

  /** Throws `corrupt` when there is no such row. */
  get(inode: number): Attributes {
    const found = this.find(inode);
    if (found === null) throw corrupt(`${this.#what}: inode ${inode} has no row`);
    return found;
  }

  find(inode: number): Attributes | null {
    return this.#cursor.find(inode) ? readAttributes(this.#cursor.page as Page, this.#cursor.index) : null;
  }
}
