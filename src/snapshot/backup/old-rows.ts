/** What the tree of the snapshot before says of an entry: an inode row against lstat, and the names in a folder. */
import type { Page } from '../../archive/tree/page.ts';
import type { Cursor } from '../../archive/tree/read.ts';
import { INODE, INODE_FLAGS, NAME } from '../../archive/tree/schema.ts';
import type { Stat } from '../../posix/stat.ts';
import { S_IFMT, S_IFREG } from './walk.ts';

/** Clocks of file systems tick in up to 10 ms; a little more is kept clear of. */
const RACE_MS = 20;
/** Some count whole seconds, or two at a time (FAT). */
const COARSE_SEC = 3;

/** Compares the row on which a cursor of `inodes` stands. */
export class RowComparison {
  readonly #raceSec: number;
  readonly #raceNs: number;

  /** `walkedAt`: epoch milliseconds when the walk began that last saw these rows. */
  constructor(walkedAt: number) {
    const race = walkedAt - RACE_MS;
    this.#raceSec = Math.floor(race / 1000);
    this.#raceNs = (race - this.#raceSec * 1000) * 1e6;
  }

  /** All that is stored of an entry but the number of blocks and the device, which change by themselves. */
  sameRow({ page, index: row }: Cursor, stat: Stat, parent: number): boolean {
    return (
      sameCtime(page!, row, stat) &&
      page!.num(INODE.sourceIno, row) === stat.ino &&
      page!.num(INODE.size, row) === stat.size &&
      sameMtime(page!, row, stat) &&
      sameBtime(page!, row, stat) &&
      page!.num(INODE.mode, row) === stat.mode &&
      page!.num(INODE.uid, row) === stat.uid &&
      page!.num(INODE.gid, row) === stat.gid &&
      page!.num(INODE.nlink, row) === stat.nlink &&
      page!.num(INODE.parent, row) === parent &&
      page!.num(INODE.rdev, row) === stat.rdev
    );
  }

  /** True when the content need not be read. What is not a regular file has none. */
  sameContent({ page, index: row }: Cursor, stat: Stat, moved: boolean): boolean {
    return (
      (stat.mode & S_IFMT) !== S_IFREG ||
      (page!.num(INODE.size, row) === stat.size &&
        sameMtime(page!, row, stat) &&
        page!.num(INODE.sourceIno, row) === stat.ino &&
        (moved || sameCtime(page!, row, stat)) &&
        (page!.num(INODE.flags, row) & INODE_FLAGS.incomplete) === 0 &&
        !this.#racy(page!.num(INODE.ctimeSec, row), page!.num(INODE.ctimeNs, row)))
    );
  }

  /** The very inode, and nothing about it has been touched. */
  sameInode({ page, index: row }: Cursor, stat: Stat): boolean {
    return page!.num(INODE.sourceIno, row) === stat.ino && sameCtime(page!, row, stat);
  }

  #racy(sec: number, ns: number): boolean {
    if (ns === 0) return sec >= this.#raceSec - COARSE_SEC;
    return sec > this.#raceSec || (sec === this.#raceSec && ns >= this.#raceNs);
  }
}

export function sameBtime(page: Page, row: number, stat: Stat): boolean {
  return page.num(INODE.btimeSec, row) === stat.btimeSec && page.num(INODE.btimeNs, row) === stat.btimeNs;
}

function sameCtime(page: Page, row: number, stat: Stat): boolean {
  return page.num(INODE.ctimeSec, row) === stat.ctimeSec && page.num(INODE.ctimeNs, row) === stat.ctimeNs;
}

function sameMtime(page: Page, row: number, stat: Stat): boolean {
  return page.num(INODE.mtimeSec, row) === stat.mtimeSec && page.num(INODE.mtimeNs, row) === stat.mtimeNs;
}

/** Calls `visit` for every name in a folder with its inode number; `names` is a cursor of `names`. */
export function forEachName(names: Cursor, folder: number, visit: (name: () => string, inode: number) => void): void {
  for (let on = names.seek(folder); on; on = names.next()) {
    const page = names.page!;
    const { index } = names;
    if (page.num(NAME.parent, index) !== folder) return;
    visit(() => page.slice(NAME.name, index).toString('latin1'), page.num(NAME.inode, index));
  }
}
