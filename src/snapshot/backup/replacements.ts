/**
 * WORM: names of known files and folders that something new of another kind has now. Whether the known one was replaced, or
 * is somewhere else and the name was free, shows when the walk is over; until then nothing is read of what stands there, and a
 * folder is not entered. What turns out to be a replacement is the policy's case.
 */
import { joinName } from '../../posix/folder.ts';
import type { Stat } from '../../posix/stat.ts';
import type { Displaced, WormRules } from './comparison-types.ts';
import { InodeSet } from './inode-set.ts';
import { anyBelow, type Folder, S_IFDIR, S_IFMT, S_IFREG } from './walk.ts';

export interface ReplacementsOptions {
  worm: WormRules | null;
  /** Old inodes that were met. */
  visited: InodeSet;
  /** What stands there is new and takes the name, by a change that was reserved for it. Answers a folder to be walked. */
  admit: (it: Displaced, op: number) => Folder | null;
  /** The old file stays, or the folder with all that is in it. */
  keep: (inode: number) => void;
  /** Whether an entry is this old inode, wherever it is. */
  isSame: (inode: number, stat: Stat) => boolean;
}

interface Pending {
  it: Displaced;
  op: number;
  /** Whether the old inode lies in what has its name now; undefined until that was looked for. */
  holds?: boolean;
}

export class Replacements {
  readonly #options: ReplacementsOptions;
  #pending: Pending[] = [];
  readonly #gone = new InodeSet();

  constructor(options: ReplacementsOptions) {
    this.#options = options;
  }

  add(it: Displaced, op: number): void {
    this.#pending.push({ it, op });
  }

  /** This old inode has lost its name to something that was accepted. */
  gone(inode: number): void {
    this.#gone.add(inode);
  }

  hasGone(inode: number): boolean {
    return this.#gone.has(inode);
  }

  /**
   * Decides on what must be read or walked if it is new: files and folders. Each folder that it gives is to be walked before
   * the next one is asked for, as what is missed may lie in it.
   */
  *postponed(): Generator<Folder, void, undefined> {
    const late: Pending[] = [];
    const open = this.#pending.filter((pending) => {
      const kind = pending.it.stat.mode & S_IFMT;
      if (kind === S_IFDIR || kind === S_IFREG) return true;
      late.push(pending);
      return false;
    });
    this.#pending = late;
    while (open.length > 0) {
      let at = open.findIndex((pending) => this.#isElsewhere(pending));
      const isNew = at >= 0;
      if (at < 0) at = 0;
      const [pending] = open.splice(at, 1) as [Pending];
      const folder = isNew ? this.#options.admit(pending.it, pending.op) : this.#decide(pending);
      if (folder !== null) yield folder;
    }
  }

  /** Decides on the rest, when all was read: symlinks, fifos, devices. */
  finish(): void {
    for (const pending of this.#pending) {
      if (this.#options.visited.has(pending.it.inode)) this.#options.admit(pending.it, pending.op);
      else this.#decide(pending);
    }
    this.#pending = [];
  }

  #decide({ it, op }: Pending): Folder | null {
    const { worm, keep, admit } = this.#options;
    if (!worm!.replaced(it)) return admit(it, op);
    keep(it.inode);
    return null;
  }

  /** Met by the walk, or put into the folder that has its name now. */
  #isElsewhere(pending: Pending): boolean {
    const { inode, folder, name, stat } = pending.it;
    if (this.#options.visited.has(inode)) return true;
    if ((stat.mode & S_IFMT) !== S_IFDIR) return false;
    const isIt = (found: Stat): boolean => this.#options.isSame(inode, found);
    pending.holds ??= anyBelow(joinName(folder.path, name), isIt);
    return pending.holds;
  }
}
