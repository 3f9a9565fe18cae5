/** WORM: what is not where it was when the walk is over: moved, replaced by something else, or gone. */
import { Cursor } from '../../archive/tree/read.ts';
import { INODE, TREES } from '../../archive/tree/schema.ts';
import { joinName } from '../../posix/folder.ts';
import type { Stat } from '../../posix/stat.ts';
import type { ComparisonEvents, WormRules } from './compare.ts';
import type { InodeSet } from './inode-set.ts';
import type { OldTrees } from './mutations.ts';
import { forEachName } from './old-rows.ts';
import { type Plan, STATE } from './plan.ts';
import { type Folder, S_IFDIR, S_IFMT } from './walk.ts';

export interface DeparturesOptions {
  base: OldTrees;
  plan: Plan;
  /** Old inodes that were met. */
  visited: InodeSet;
  worm: WormRules;
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
  /** Entries that moved, with the folder that held them. */
  readonly moved: (Named & { from: number; mode: number })[] = [];
  /** Where something else stands in place of a file, until it is known whether the file is elsewhere. */
  readonly replaced: (Named & { record: number; stat: Stat })[] = [];
  /** What moved, and where from; complete after `finish`. */
  readonly moves: { inode: number; from: Buffer | null; to: Buffer; mode: number }[] = [];

  /**
   * WORM: nothing goes. What lost its last name is left with a tombstone, folders as they are: what was in them and moved
   * on leaves them, the rest stays reachable through the tombstone and comes back with it.
   */
  finish(options: DeparturesOptions): void {
    const { base, plan, visited, worm, classified } = options;
    for (const it of this.replaced) {
      if (visited.has(it.inode)) continue;
      if (!worm.replaced(it.inode, joinName(it.folder.path, it.name), it.stat)) continue;
      plan.records.mark(it.record, STATE.dropped);
      visited.add(it.inode);
    }
    const names = new Cursor(base.source, TREES.names, base.roots.names);
    const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    const origins = new Map<number, Buffer>();
    for (const { inode } of this.moved) origins.set(inode, EMPTY);
    const left = new Map<number, string[]>();
    const leave = (folder: number, name: string): void => {
      const list = left.get(folder);
      if (list === undefined) left.set(folder, [name]);
      else list.push(name);
    };
    for (const { inode, folder, name, op } of this.gone) {
      if (origins.has(inode)) origins.set(inode, joinName(folder.path, name));
      if (visited.has(inode) || !inodes.find(inode)) continue;
      const mode = inodes.page!.num(INODE.mode, inodes.index);
      const restores = op >= 0 && worm.restores({ inode, folder, name, mode });
      if (restores) plan.names.cancel(op);
      else {
        const type = (mode & S_IFMT) >>> 12;
        plan.tombstones.push({ parent: folder.inode, name: Buffer.from(name, 'latin1'), inode, type });
        plan.removed.push(inode);
      }
      const stack = [{ inode, folder, name }];
      for (let it = stack.pop(); it !== undefined; it = stack.pop()) {
        if (visited.has(it.inode) || !inodes.find(it.inode)) continue;
        visited.add(it.inode);
        const its = inodes.page!.num(INODE.mode, inodes.index);
        const size = inodes.page!.num(INODE.size, inodes.index);
        if (!restores) classified(it.folder, it.name, { class: 'deleted', mode: its, size });
        if ((its & S_IFMT) !== S_IFDIR) continue;
        const at = it.inode;
        const path = joinName(it.folder.path, it.name);
        const below: Folder = { path, text: path.toString('latin1'), inode: at, dev: 0, fd: -1 };
        forEachName(names, at, (nameOf, child) => {
          const childName = nameOf();
          if (!visited.has(child)) stack.push({ inode: child, folder: below, name: childName });
          else {
            leave(at, childName);
            if (origins.has(child)) origins.set(child, joinName(path, childName));
          }
        });
      }
    }
    this.#leaveOldFolders(names, { leave, origins, visited });
    for (const [folder, gone] of left) {
      plan.names.begin(folder);
      for (const name of gone.sort()) plan.names.remove(name);
    }
    for (const { inode, folder, name, mode } of this.moved) {
      const from = origins.get(inode)!;
      this.moves.push({ inode, from: from.length === 0 ? null : from, to: joinName(folder.path, name), mode });
    }
  }

  /** What came out of a folder that had been deleted before leaves it. */
  #leaveOldFolders(
    names: Cursor,
    it: { leave: (folder: number, name: string) => void; origins: Map<number, Buffer>; visited: InodeSet },
  ): void {
    const { leave, origins, visited } = it;
    const from = new Map<number, Set<number>>();
    for (const { inode, from: folder } of this.moved) {
      if (visited.has(folder) || origins.get(inode)!.length > 0) continue;
      const set = from.get(folder);
      if (set === undefined) from.set(folder, new Set([inode]));
      else set.add(inode);
    }
    for (const [folder, inodes] of from) {
      forEachName(names, folder, (nameOf, child) => {
        if (inodes.has(child)) leave(folder, nameOf());
      });
    }
  }
}

const EMPTY = Buffer.alloc(0);
