/**
 * Which inode of the snapshot before an entry is: that of the same name, or one that moved here, told by device, inode
 * number, birth time, and of files size and mtime.
 */
import { readlinkSync } from 'node:fs';
import { Cursor } from '../../archive/tree/read.ts';
import { DELETED, INODE, TREES } from '../../archive/tree/schema.ts';
import type { Stat } from '../../posix/stat.ts';
import type { InodeSet } from './inode-set.ts';
import { isSameEntry, MoveIndex } from './moves.ts';
import type { OldTrees } from './mutations.ts';
import { sameBtime } from './old-rows.ts';
import { type Folder, reachable, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './walk.ts';

export interface IdentitiesOptions {
  base: OldTrees;
  /** Old inodes that were met. */
  visited: InodeSet;
  /** First inode number that is new. */
  firstNew: number;
  /** Whether an inode that was not met may turn up under another name. */
  mayMove: (inode: number, nlink: number) => boolean;
}

export class Identities {
  readonly #options: IdentitiesOptions;
  readonly #inodes: Cursor;
  readonly #deleted: Cursor;
  /** Device numbers that changed since the row was written (a reboot): old to new. */
  readonly #devices = new Map<number, number>();
  #moves: MoveIndex | null = null;

  constructor(options: IdentitiesOptions) {
    const { base } = options;
    this.#options = options;
    this.#inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    this.#deleted = new Cursor(base.source, TREES.deleted, base.roots.deleted);
  }

  /**
   * WORM: what the numbers alone do not tell. Another target is another symlink, and a deleted folder that is there again goes
   * on. `inode`: what `find` has answered.
   */
  inWorm(folder: Folder, it: { name: string; stat: Stat; inode: number }): number {
    return it.inode === 0 ? this.#deletedFolder(folder, it) : this.#sameTarget(folder, it);
  }

  /** Whether an old inode is a file or folder of another kind than what has its name now. */
  isOfOtherKind(oldInode: number, mode: number): boolean {
    const inodes = this.#inodes;
    if (oldInode === 0 || this.#options.visited.has(oldInode) || !inodes.find(oldInode)) return false;
    const old = inodes.page!.num(INODE.mode, inodes.index) & S_IFMT;
    return old !== (mode & S_IFMT) && KEPT_KINDS.has(old);
  }

  /** Whether an entry is this old inode, wherever it is now. */
  isSame(inode: number, stat: Stat): boolean {
    return this.#inodes.find(inode) && isSameEntry(this.#inodes, stat, (old) => this.#isDevice(old, stat));
  }

  #isDevice(old: number, { dev }: Stat): boolean {
    return (this.#devices.get(old) ?? old) === dev;
  }

  /** Answers 0 for what is new. `oldInode`: that of the same name, or 0. */
  find(oldInode: number, stat: Stat): number {
    const inodes = this.#inodes;
    if (inodes.root.count === 0) return 0;
    const { visited, base, mayMove } = this.#options;
    let inode = 0;
    if (oldInode !== 0 && !visited.has(oldInode) && inodes.find(oldInode)) {
      const page = inodes.page!;
      const row = inodes.index;
      const oldMode = page.num(INODE.mode, row);
      if ((oldMode & S_IFMT) === (stat.mode & S_IFMT)) {
        if (page.num(INODE.sourceIno, row) === stat.ino) {
          const dev = page.num(INODE.sourceDev, row);
          if (dev !== stat.dev && sameBtime(page, row, stat)) this.#devices.set(dev, stat.dev);
          return oldInode;
        }
        // A row with several names belongs to those that still are the old inode.
        if ((oldMode & S_IFMT) === S_IFDIR || page.num(INODE.nlink, row) <= 1) inode = oldInode;
      }
    }
    this.#moves ??= new MoveIndex(base.source, base.roots.inodes);
    const moved = this.#moves.find(
      stat,
      (old) => this.#isDevice(old, stat),
      (candidate) => !visited.has(candidate) && this.#mayBe(candidate, mayMove),
    );
    return moved !== 0 ? moved : inode;
  }

  #mayBe(candidate: number, mayMove: IdentitiesOptions['mayMove']): boolean {
    const inodes = this.#inodes;
    return inodes.find(candidate) && mayMove(candidate, inodes.page!.num(INODE.nlink, inodes.index));
  }

  #sameTarget(folder: Folder, it: { name: string; stat: Stat; inode: number }): number {
    const { name, stat, inode } = it;
    if ((stat.mode & S_IFMT) !== S_IFLNK) return inode;
    let target: Buffer;
    try {
      target = readlinkSync(reachable(folder, name), 'buffer');
    } catch {
      return inode;
    }
    if (!this.#inodes.find(inode)) return inode;
    return this.#inodes.page!.compareBytes(INODE.target, this.#inodes.index, target) === 0 ? inode : 0;
  }

  #deletedFolder(folder: Folder, { name, stat }: { name: string; stat: Stat }): number {
    const { visited, firstNew } = this.#options;
    const deleted = this.#deleted;
    const inodes = this.#inodes;
    if ((stat.mode & S_IFMT) !== S_IFDIR || deleted.root.count === 0 || folder.inode >= firstNew) return 0;
    const bytes = Buffer.from(name, 'latin1');
    let found = 0;
    for (let on = deleted.seek(folder.inode, bytes); on; on = deleted.next()) {
      const page = deleted.page!;
      const row = deleted.index;
      if (page.num(DELETED.parent, row) !== folder.inode || page.compareBytes(DELETED.name, row, bytes) !== 0) break;
      const inode = page.num(DELETED.inode, row);
      if (page.num(DELETED.type, row) !== S_IFDIR >>> 12 || visited.has(inode)) continue;
      if (inodes.find(inode) && inodes.page!.num(INODE.nlink, inodes.index) === 0) found = inode;
    }
    return found;
  }
}

/** What stands in for content: a symlink, fifo or device that something else has replaced is simply gone. */
const KEPT_KINDS: ReadonlySet<number> = new Set([S_IFDIR, S_IFREG]);
