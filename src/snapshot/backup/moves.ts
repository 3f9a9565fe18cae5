/** Finds old inodes by what the source calls them: (device, inode number). Built once, when the first new name shows up. */
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, TREES, type TreeRoot } from '../../archive/tree/schema.ts';
import type { Stat } from '../../posix/stat.ts';
import { sameBtime } from './old-rows.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from './walk.ts';

/**
 * Open addressing, two Float64Arrays: 1 million inodes take 32 MB and about 0.15 s, most of it reading their pages, which
 * the comparison reads anyway.
 */
export class MoveIndex {
  readonly #cursor: Cursor;
  readonly #keys: Float64Array;
  readonly #inodes: Float64Array;
  readonly #mask: number;

  constructor(source: PageSource, root: TreeRoot) {
    this.#cursor = new Cursor(source, TREES.inodes, root);
    let capacity = 16;
    while (capacity < root.count * 2) capacity *= 2;
    this.#mask = capacity - 1;
    this.#keys = new Float64Array(capacity).fill(-1);
    this.#inodes = new Float64Array(capacity);
    const cursor = this.#cursor;
    for (let on = cursor.seek(0); on; on = cursor.next()) {
      const page = cursor.page!;
      const ino = page.num(INODE.sourceIno, cursor.index);
      let slot = hash(ino) & this.#mask;
      while (this.#keys[slot] !== -1) slot = (slot + 1) & this.#mask;
      this.#keys[slot] = ino;
      this.#inodes[slot] = page.num(INODE.inode, cursor.index);
    }
  }

  /**
   * The old inode that is this entry: same device, inode number and kind; regular files also same size and mtime; same
   * birth time. 0 when there is none that `acceptable` takes.
   */
  find(stat: Stat, sameDevice: (old: number) => boolean, acceptable: (inode: number) => boolean): number {
    const cursor = this.#cursor;
    let slot = hash(stat.ino) & this.#mask;
    for (; this.#keys[slot] !== -1; slot = (slot + 1) & this.#mask) {
      if (this.#keys[slot] !== stat.ino) continue;
      const inode = this.#inodes[slot]!;
      if (!acceptable(inode) || !cursor.find(inode)) continue;
      if (!isSameEntry(cursor, stat, sameDevice)) continue;
      return inode;
    }
    return 0;
  }
}

/** Whether an entry is the old inode on whose row the cursor stands, wherever it is now. */
export function isSameEntry({ page, index: row }: Cursor, stat: Stat, sameDevice: (old: number) => boolean): boolean {
  const kind = stat.mode & S_IFMT;
  if (page!.num(INODE.sourceIno, row) !== stat.ino || (page!.num(INODE.mode, row) & S_IFMT) !== kind) return false;
  if (!sameDevice(page!.num(INODE.sourceDev, row)) || !sameBtime(page!, row, stat)) return false;
  // Without a birth time a number says little about a folder or a special file: it may have been given out again.
  if (kind === S_IFDIR && stat.btimeSec === 0 && stat.btimeNs === 0) return false;
  if (kind !== S_IFREG) return true;
  return (
    page!.num(INODE.size, row) === stat.size &&
    page!.num(INODE.mtimeSec, row) === stat.mtimeSec &&
    page!.num(INODE.mtimeNs, row) === stat.mtimeNs
  );
}

function hash(ino: number): number {
  const low = (ino % 2 ** 32) | 0;
  const high = Math.floor(ino / 2 ** 32) | 0;
  let h = Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1);
  h ^= h >>> 15;
  return h >>> 0;
}
