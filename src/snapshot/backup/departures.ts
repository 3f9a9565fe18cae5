/** What is not where it was when the walk is over: moved, or gone. */
import { Cursor } from '../../archive/tree/read.ts';
import { INODE, TREES } from '../../archive/tree/schema.ts';
import { joinName } from '../../posix/folder.ts';
import type { ComparisonEvents, WormRules } from './comparison-types.ts';
import { InodeSet } from './inode-set.ts';
import type { OldTrees } from './mutations.ts';
import { forEachName } from './old-rows.ts';
import type { Plan } from './plan.ts';
import { type Folder, S_IFDIR, S_IFMT, S_IFREG } from './walk.ts';

export interface DeparturesOptions {
  base: OldTrees;
  plan: Plan;
  /** Old inodes that were met. */
  visited: InodeSet;
  classified: ComparisonEvents['classified'];
}

export interface KeepOptions extends Pick<DeparturesOptions, 'base' | 'visited'> {
  /** Old inodes that were met and have several names. */
  linked?: InodeSet;
}

interface Named {
  inode: number;
  folder: Folder;
  name: string;
}

export class Departures {
  /** Names that old inodes have lost. `op`: the change that takes the name away; -1 when something else bears it. */
  readonly gone: (Named & { op: number })[] = [];
  /** WORM: entries that moved, with the folder that held them. */
  readonly moved: (Named & { from: number; mode: number })[] = [];
  /** WORM: what moved, and where from; complete after `record`. */
  readonly moves: { inode: number; from: Buffer | null; to: Buffer; mode: number }[] = [];
  /** Regular files among what is gone, and their bytes. */
  goneFiles = 0;
  goneBytes = 0;
  /** Names to be taken out of folders that were not walked. */
  readonly #left = new Map<number, string[]>();
  /** Met here and not by the walk. */
  readonly #unwalked = new InodeSet();

  /** What lost its last name goes, folders with all that was in them and did not move. */
  remove({ base, plan, visited, classified }: DeparturesOptions): void {
    const names = new Cursor(base.source, TREES.names, base.roots.names);
    const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    for (const { inode, folder, name } of this.gone) {
      if (visited.has(inode)) continue;
      const stack: Named[] = [{ inode, folder, name }];
      for (let it = stack.pop(); it !== undefined; it = stack.pop()) {
        if (visited.has(it.inode) || !inodes.find(it.inode)) continue;
        visited.add(it.inode);
        plan.removed.push(it.inode);
        const mode = inodes.page!.num(INODE.mode, inodes.index);
        const size = inodes.page!.num(INODE.size, inodes.index);
        classified(it.folder, it.name, { class: 'deleted', mode, size });
        if ((mode & S_IFMT) !== S_IFDIR) continue;
        const below = folderBelow(it);
        plan.names.begin(it.inode);
        forEachName(names, it.inode, (nameOf, child) => {
          const childName = nameOf();
          plan.names.remove(childName);
          stack.push({ inode: child, folder: below, name: childName });
        });
      }
    }
    this.#takeOut(plan);
  }

  /**
   * What was not walked stays as it is, but for what was in it and was met elsewhere: an entry has one place. `linked`: files
   * that may have a name here besides that under which they were met. Answers how many files stay so.
   */
  keep(inode: number, options: KeepOptions): { files: number; bytes: number } {
    const { base, visited } = options;
    const names = new Cursor(base.source, TREES.names, base.roots.names);
    const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    const total = { files: 0, bytes: 0 };
    const stack = [inode];
    for (let it = stack.pop(); it !== undefined; it = stack.pop()) {
      const at = it;
      if (!visited.has(at)) {
        visited.add(at);
        this.#unwalked.add(at);
        if (inodes.find(at) && (inodes.page!.num(INODE.mode, inodes.index) & S_IFMT) === S_IFREG) {
          total.files++;
          total.bytes += inodes.page!.num(INODE.size, inodes.index);
        }
      }
      forEachName(names, at, (nameOf, child) => {
        if (!visited.has(child)) stack.push(child);
        else if (this.isElsewhere(child, options)) this.#leave(at, nameOf());
      });
    }
    return total;
  }

  /** Whether an old inode was met, and cannot be where it was not looked for too. */
  isElsewhere(inode: number, { visited, linked }: KeepOptions): boolean {
    return visited.has(inode) && !this.#unwalked.has(inode) && linked?.has(inode) !== true;
  }

  /**
   * WORM: nothing goes. What lost its last name is left with a tombstone for each name, folders as they are: what was in
   * them and moved on leaves them, the rest stays reachable through the tombstone and comes back with it.
   */
  record(options: DeparturesOptions & { worm: WormRules }): void {
    const { base, plan, visited, worm, classified } = options;
    const names = new Cursor(base.source, TREES.names, base.roots.names);
    const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    const origins = new Map<number, Buffer>();
    for (const { inode } of this.moved) origins.set(inode, EMPTY);
    /** What went here, and whether it is to be written back. */
    const settled = new Map<number, boolean>();
    for (const { inode, folder, name, op } of this.gone) {
      if (origins.has(inode)) origins.set(inode, joinName(folder.path, name));
      const before = settled.get(inode);
      if ((visited.has(inode) && before === undefined) || !inodes.find(inode)) continue;
      const mode = inodes.page!.num(INODE.mode, inodes.index);
      const restores = before !== false && op >= 0 && worm.restores({ inode, folder, name, mode });
      if (restores) plan.names.cancel(op);
      else {
        const type = (mode & S_IFMT) >>> 12;
        if (before !== true)
          plan.tombstones.push({ parent: folder.inode, name: Buffer.from(name, 'latin1'), inode, type });
        if (before === undefined) plan.removed.push(inode);
      }
      if (before !== undefined) continue;
      settled.set(inode, restores);
      const stack: Named[] = [{ inode, folder, name }];
      for (let it = stack.pop(); it !== undefined; it = stack.pop()) {
        if (visited.has(it.inode) || !inodes.find(it.inode)) continue;
        visited.add(it.inode);
        this.#unwalked.add(it.inode);
        const its = inodes.page!.num(INODE.mode, inodes.index);
        const size = inodes.page!.num(INODE.size, inodes.index);
        if (!restores) {
          classified(it.folder, it.name, { class: 'deleted', mode: its, size });
          if ((its & S_IFMT) === S_IFREG) {
            this.goneFiles++;
            this.goneBytes += size;
          }
        }
        if ((its & S_IFMT) !== S_IFDIR) continue;
        const at = it.inode;
        const below = folderBelow(it);
        forEachName(names, at, (nameOf, child) => {
          const childName = nameOf();
          if (!visited.has(child)) stack.push({ inode: child, folder: below, name: childName });
          else if (!this.#unwalked.has(child)) {
            this.#leave(at, childName);
            if (origins.has(child)) origins.set(child, joinName(below.path, childName));
          }
        });
      }
    }
    this.#leaveOldFolders(names, { origins, visited });
    this.#takeOut(plan);
    for (const { inode, folder, name, mode } of this.moved) {
      const from = origins.get(inode)!;
      this.moves.push({ inode, from: from.length === 0 ? null : from, to: joinName(folder.path, name), mode });
    }
  }

  /** Nothing was written down of these folders before. */
  #takeOut({ names }: Plan): void {
    for (const [folder, gone] of this.#left) {
      names.begin(folder);
      for (const name of gone.sort()) names.remove(name);
    }
  }

  #leave(folder: number, name: string): void {
    const list = this.#left.get(folder);
    if (list === undefined) this.#left.set(folder, [name]);
    else list.push(name);
  }

  /** What came out of a folder that had been deleted before leaves it. */
  #leaveOldFolders(names: Cursor, { origins, visited }: { origins: Map<number, Buffer>; visited: InodeSet }): void {
    const from = new Map<number, Set<number>>();
    for (const { inode, from: folder } of this.moved) {
      if (visited.has(folder) || origins.get(inode)!.length > 0) continue;
      const set = from.get(folder);
      if (set === undefined) from.set(folder, new Set([inode]));
      else set.add(inode);
    }
    for (const [folder, inodes] of from) {
      forEachName(names, folder, (nameOf, child) => {
        if (inodes.has(child)) this.#leave(folder, nameOf());
      });
    }
  }
}

function folderBelow({ folder, name, inode }: Named): Folder {
  const path = joinName(folder.path, name);
  return { path, text: path.toString('latin1'), inode, dev: 0, ino: 0, fd: -1 };
}

const EMPTY = Buffer.alloc(0);
