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
  /** WORM: names to be taken out of folders that were not walked. */
  readonly #left = new Map<number, string[]>();
  /** WORM: met here and not by the walk. */
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
  }

  /**
   * WORM: a file or folder that was not walked stays as it is, but for what was in it and moved on. Answers how many files that
   * are.
   */
  keep(
    inode: number,
    { base, visited }: Pick<DeparturesOptions, 'base' | 'visited'>,
  ): { files: number; bytes: number } {
    const names = new Cursor(base.source, TREES.names, base.roots.names);
    const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    const total = { files: 0, bytes: 0 };
    const stack = [inode];
    for (let it = stack.pop(); it !== undefined; it = stack.pop()) {
      const at = it;
      if (visited.has(at)) continue;
      visited.add(at);
      this.#unwalked.add(at);
      if (inodes.find(at) && (inodes.page!.num(INODE.mode, inodes.index) & S_IFMT) === S_IFREG) {
        total.files++;
        total.bytes += inodes.page!.num(INODE.size, inodes.index);
      }
      forEachName(names, at, (nameOf, child) => {
        if (!visited.has(child)) stack.push(child);
        else if (!this.#unwalked.has(child)) this.#leave(at, nameOf());
      });
    }
    return total;
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
    for (const [folder, gone] of this.#left) {
      plan.names.begin(folder);
      for (const name of gone.sort()) plan.names.remove(name);
    }
    for (const { inode, folder, name, mode } of this.moved) {
      const from = origins.get(inode)!;
      this.moves.push({ inode, from: from.length === 0 ? null : from, to: joinName(folder.path, name), mode });
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
  return { path, text: path.toString('latin1'), inode, dev: 0, fd: -1 };
}

const EMPTY = Buffer.alloc(0);
