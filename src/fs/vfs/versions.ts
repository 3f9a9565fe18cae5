/**
 * The view `versions/<set>/<path>/<time>`: folders as they are, with all names that any snapshot of the set ever had in
 * them, and each file as a folder of its distinct contents. Contents are found by path, so a file that was deleted and
 * made again, or that another machine has backed up, shows all of them.
 *
 * A node (slot | VIEW_BIT, ino) means: the path that `ino` has in that snapshot, in it and in all older snapshots of the
 * set. What it shows therefore never changes. The contents themselves are the nodes of the snapshots they come from.
 */

import { ROOT_INODE } from '../../archive/format.ts';
import type { Cursor } from '../../archive/tree/read.ts';
import { INODE, NAME } from '../../archive/tree/schema.ts';
import { corrupt } from '../../errors.ts';
import { ENOTDIR } from '../../posix/errno.ts';
import { type Attr, type DirectoryEntry, type DirectorySink, FsError } from '../vfs.ts';
import type { CatalogueSnapshot } from './catalogue.ts';
import { addDots, addName, FIRST_ROW } from './dots.ts';
import { isFolder, S_IFDIR, S_IFMT, S_IFREG, VIEW_BIT } from './nodes.ts';
import type { SnapshotTree } from './snapshot-tree.ts';

export interface ViewSource {
  /** The snapshots of the set of this one, from it to the oldest. Throws ESTALE when there is no such slot. */
  olderThan(slot: number): readonly CatalogueSnapshot[];
  /** The trees of all these snapshots; throws one Miss for all that are not open. */
  trees(slots: readonly number[]): SnapshotTree[];
}

interface Place {
  tree: SnapshotTree;
  ino: number;
}

interface Content extends Place {
  name: Buffer;
}

/** Cookie of a row: the slot of the snapshot in which it is listed, and the row's rank in that snapshot's tree. */
const RANKS = 2 ** 31;
const PATHS_KEPT = 1000;
/** Deeper than any path that a kernel takes (4096 bytes): a loop of parents is damage. */
const MAX_DEPTH = 4096;

export class VersionView {
  readonly #source: ViewSource;
  readonly #paths = new Map<string, Buffer[]>();

  constructor(source: ViewSource) {
    this.#source = source;
  }

  getattr(slot: number, ino: number, attr: Attr): void {
    const { tree } = this.#start(slot);
    tree.getattr(ino, attr);
    this.#asView(attr);
  }

  lookup(place: { slot: number; ino: number }, name: Uint8Array, attr: Attr): boolean {
    const { tree } = this.#start(place.slot);
    if (this.#isFolder(tree, place.ino)) {
      for (const variant of this.#variants(place.slot, place.ino)) {
        const child = variant.tree.child(variant.ino, name);
        if (child === 0) continue;
        variant.tree.linked(child, attr);
        this.#asView(attr);
        return true;
      }
      return false;
    }
    const content = this.#contents(place.slot, place.ino).find((version) => version.name.equals(name));
    if (content === undefined) return false;
    content.tree.getattr(content.ino, attr);
    return true;
  }

  readdir(
    place: { slot: number; ino: number; parent: { slot: number; ino: number } },
    options: { cookie: number; attributes: boolean; sink: DirectorySink },
    entry: DirectoryEntry,
  ): void {
    if (!addDots(place, options, entry)) return;
    const { tree } = this.#start(place.slot);
    if (this.#isFolder(tree, place.ino)) this.#listFolder(place, options, entry);
    else this.#listContents(place, options, entry);
  }

  #listContents(
    place: { slot: number; ino: number },
    options: { cookie: number; sink: DirectorySink },
    entry: DirectoryEntry,
  ): void {
    const contents = this.#contents(place.slot, place.ino);
    for (let index = Math.max(0, options.cookie - FIRST_ROW); index < contents.length; index++) {
      const { tree, ino, name } = contents[index]!;
      tree.getattr(ino, entry.attr);
      if (!addName(entry, name, index + 1 + FIRST_ROW, options.sink)) return;
    }
  }

  /** The rows of each variant of the folder, newest first, without the names that a newer one has. */
  #listFolder(
    place: { slot: number; ino: number },
    options: { cookie: number; sink: DirectorySink },
    entry: DirectoryEntry,
  ): void {
    const variants = this.#variants(place.slot, place.ino);
    const { attr } = entry;
    const fresh = options.cookie <= FIRST_ROW;
    let first = 0;
    if (!fresh) {
      const slot = Math.floor(options.cookie / RANKS);
      first = variants.findIndex((variant) => variant.tree.slot === slot);
      if (first < 0) return;
    }
    for (let v = first; v < variants.length; v++) {
      const { tree, ino } = variants[v]!;
      const names: Cursor = tree.cursor('names');
      let on = v === first && !fresh ? names.seekRank(options.cookie % RANKS) : names.seek(ino);
      for (; on; on = names.next()) {
        const page = names.page!;
        const index = names.index;
        if (page.num(NAME.parent, index) !== ino) break;
        const rank = names.rank;
        if (v > 0) {
          const name = page.slice(NAME.name, index);
          if (variants.slice(0, v).some((newer) => newer.tree.child(newer.ino, name) !== 0)) continue;
        }
        tree.linked(page.num(NAME.inode, index), attr);
        this.#asView(attr);
        entry.source = page.bytes;
        entry.start = page.start(NAME.name, index);
        entry.end = page.end(NAME.name, index);
        entry.cookie = tree.slot * RANKS + rank + 1;
        if (!options.sink.add(entry)) return;
      }
    }
  }

  /** The path of `ino` in this and all older snapshots, where it is a folder; snapshots with the same names in it once. */
  #variants(viewSlot: number, ino: number): Place[] {
    const path = this.#path(viewSlot, ino);
    const variants: Place[] = [];
    let last = '';
    for (const tree of this.#all(viewSlot)) {
      const at = resolve(tree, path);
      if (at === 0) continue;
      const inode = tree.inode(at);
      const page = inode.page!;
      const i = inode.index;
      if (!isFolder(page.num(INODE.mode, i))) continue;
      // A folder's times change with its names, but for folders that a backup makes up; those show it by their number.
      const times = [INODE.mtimeSec, INODE.mtimeNs, INODE.ctimeSec, INODE.ctimeNs].map((column) => page.num(column, i));
      const state = `${at} ${countNames(tree, at)} ${times.join(' ')}`;
      if (state !== last) variants.push({ tree, ino: at });
      last = state;
    }
    return variants;
  }

  /** Distinct contents of the path, oldest first, each named by the first snapshot that has it. */
  #contents(viewSlot: number, ino: number): Content[] {
    const path = this.#path(viewSlot, ino);
    const snapshots = this.#source.olderThan(viewSlot & ~VIEW_BIT);
    const trees = this.#all(viewSlot);
    const byContent = new Map<string, Content>();
    for (let index = trees.length - 1; index >= 0; index--) {
      const tree = trees[index]!;
      const at = resolve(tree, path);
      if (at === 0) continue;
      const version = tree.contentVersion(at);
      if (version < 0) continue;
      const content = tree.contentId(at) ?? `${snapshots[index]!.lineage} ${at} ${version}`;
      if (!byContent.has(content)) {
        byContent.set(content, { tree, ino: at, name: Buffer.from(snapshots[index]!.name) });
      }
    }
    this.#addOwnVersions(viewSlot, ino, { snapshots, trees, byContent });
    return [...byContent.values()];
  }

  /** Of a WORM set: contents that the file had under other names too. */
  #addOwnVersions(
    viewSlot: number,
    ino: number,
    found: {
      snapshots: readonly CatalogueSnapshot[];
      trees: readonly SnapshotTree[];
      byContent: Map<string, Content>;
    },
  ): void {
    const { snapshots, trees, byContent } = found;
    const { tree } = this.#start(viewSlot);
    const { lineage } = snapshots[0]!;
    for (const { id, sequence } of tree.storedVersions(ino)) {
      if (byContent.has(id)) continue;
      const at = snapshots.findIndex((it) => it.lineage === lineage && it.sequence === sequence);
      if (at < 0 || trees[at]!.contentId(ino) !== id) continue;
      const plain = snapshots[at]!.name;
      const taken = [...byContent.values()].some(({ name }) => name.equals(Buffer.from(plain)));
      byContent.set(id, { tree: trees[at]!, ino, name: Buffer.from(taken ? `${plain}~` : plain) });
    }
  }

  #all(viewSlot: number): SnapshotTree[] {
    return this.#source.trees(this.#source.olderThan(viewSlot & ~VIEW_BIT).map((snapshot) => snapshot.slot));
  }

  #start(viewSlot: number): { tree: SnapshotTree } {
    return { tree: this.#source.trees([viewSlot & ~VIEW_BIT])[0]! };
  }

  #isFolder(tree: SnapshotTree, ino: number): boolean {
    const inode = tree.inode(ino);
    const mode = inode.page!.num(INODE.mode, inode.index);
    if (isFolder(mode)) return true;
    if ((mode & S_IFMT) !== S_IFREG) throw new FsError(ENOTDIR);
    return false;
  }

  /** Names from the root to an inode. Scans a folder per level; what was found is kept. */
  #path(viewSlot: number, ino: number): Buffer[] {
    const key = `${viewSlot}:${ino}`;
    const known = this.#paths.get(key);
    if (known !== undefined) return known;
    const { tree } = this.#start(viewSlot);
    const path: Buffer[] = [];
    for (let at = ino; at !== ROOT_INODE; ) {
      const parent = tree.parentOf(at);
      const name = nameOf(tree, parent, at);
      if (name === null || path.length > MAX_DEPTH) {
        throw corrupt(`snapshot ${tree.id}: inode ${at} has no name in its folder ${parent}`);
      }
      path.unshift(name);
      at = parent;
    }
    if (this.#paths.size >= PATHS_KEPT) this.#paths.clear();
    this.#paths.set(key, path);
    return path;
  }

  /** Files become folders; folders stay; all else is the node of the snapshot itself. */
  #asView(attr: Attr): void {
    const type = attr.mode & S_IFMT;
    if (type !== S_IFDIR && type !== S_IFREG) return;
    attr.slot |= VIEW_BIT;
    if (type === S_IFDIR) return;
    const readable = attr.mode & 0o444;
    attr.mode = S_IFDIR | readable | (readable >> 2);
    attr.nlink = 2;
    attr.size = 0;
    attr.blocks = 0;
  }
}

function resolve(tree: SnapshotTree, path: readonly Buffer[]): number {
  let ino = ROOT_INODE;
  for (const name of path) {
    ino = tree.child(ino, name);
    if (ino === 0) return 0;
  }
  return ino;
}

function countNames(tree: SnapshotTree, ino: number): number {
  const names = tree.cursor('names');
  names.seek(ino);
  const first = names.rank;
  names.seek(ino + 1);
  return names.rank - first;
}

function nameOf(tree: SnapshotTree, parent: number, ino: number): Buffer | null {
  const names = tree.cursor('names');
  for (let on = names.seek(parent); on; on = names.next()) {
    const page = names.page!;
    if (page.num(NAME.parent, names.index) !== parent) return null;
    if (page.num(NAME.inode, names.index) === ino) return Buffer.from(page.slice(NAME.name, names.index));
  }
  return null;
}
