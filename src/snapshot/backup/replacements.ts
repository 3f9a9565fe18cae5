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
    for (;;) {
      const open = this.#pending.filter(isReadOrWalked);
      if (open.length === 0) return;
      // What is walked below may add more.
      this.#pending = this.#pending.filter((pending) => !isReadOrWalked(pending));
      const left: Pending[] = [];
      for (const pending of open) {
        if (!this.#isElsewhere(pending)) {
          left.push(pending);
          continue;
        }
        const folder = this.#options.admit(pending.it, pending.op);
        if (folder !== null) yield folder;
      }
      if (left.length < open.length) this.#pending.push(...left);
      else yield* this.#decideAll(left);
    }
  }

  /** Until a folder was accepted: others may be in it. */
  *#decideAll(open: readonly Pending[]): Generator<Folder, void, undefined> {
    for (const [at, pending] of open.entries()) {
      const folder = this.#decide(pending);
      if (folder === null) continue;
      this.#pending.push(...open.slice(at + 1));
      yield folder;
      return;
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

function isReadOrWalked({ it }: Pending): boolean {
  const kind = it.stat.mode & S_IFMT;
  return kind === S_IFDIR || kind === S_IFREG;
}
