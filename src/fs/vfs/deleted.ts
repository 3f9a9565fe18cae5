/**
 * The view `worm/<set>/deleted/…`: what is gone, where it was. Folders that are there show only what was deleted in and below
 * them; folders that were deleted show all that was in them. Files are the nodes of the snapshot itself.
 *
 * A node (slot | DELETED_BIT, ino) means the folder `ino` of that snapshot. What it shows never changes.
 */
import { ROOT_INODE } from '../../archive/format.ts';
import type { Page } from '../../archive/tree/page.ts';
import { DELETED, INODE, NAME } from '../../archive/tree/schema.ts';
import { ENOTDIR } from '../../posix/errno.ts';
import { type Attr, type DirectoryEntry, type DirectorySink, FsError } from '../vfs.ts';
import { timeName } from './catalogue.ts';
import { addDots, addName, FIRST_ROW } from './dots.ts';
import { DELETED_BIT, isFolder, S_IFDIR, S_IFMT } from './nodes.ts';
import type { SnapshotTree } from './snapshot-tree.ts';

interface Child {
  name: Buffer;
  ino: number;
}

interface Listing {
  list: Child[];
  byName: Map<string, number>;
}

/** Listings of folders, and sets of folders of whole snapshots, that are kept. */
const LISTINGS_KEPT = 200;
const SNAPSHOTS_KEPT = 4;
const MAX_DEPTH = 4096;
const D_TYPE_FOLDER = 4;
const MAX_NAME = 220;

export class DeletedView {
  readonly #tree: (slot: number) => SnapshotTree;
  readonly #listings = new Map<string, Listing>();
  /** By slot: folders in or below which something was deleted. */
  readonly #folders = new Map<number, Set<number>>();

  /** `tree` gives the tree of a snapshot; throws a Miss when it is not open. */
  constructor(tree: (slot: number) => SnapshotTree) {
    this.#tree = tree;
  }

  getattr(viewSlot: number, ino: number, attr: Attr): void {
    this.#tree(viewSlot & ~DELETED_BIT).getattr(ino, attr);
    this.#asView(attr);
  }

  lookup(place: { slot: number; ino: number }, name: Uint8Array, attr: Attr): boolean {
    const child = this.#listing(place.slot, place.ino).byName.get(Buffer.from(name).toString('latin1'));
    if (child === undefined) return false;
    this.#tree(place.slot & ~DELETED_BIT).linked(child, attr);
    this.#asView(attr);
    return true;
  }

  readdir(
    place: { slot: number; ino: number; parent: { slot: number; ino: number } },
    options: { cookie: number; attributes: boolean; sink: DirectorySink },
    entry: DirectoryEntry,
  ): void {
    const { list } = this.#listing(place.slot, place.ino);
    const { cookie, sink } = options;
    if (!addDots(place, options, entry)) return;
    const tree = this.#tree(place.slot & ~DELETED_BIT);
    for (let index = Math.max(0, cookie - FIRST_ROW); index < list.length; index++) {
      const { ino, name } = list[index]!;
      tree.linked(ino, entry.attr);
      this.#asView(entry.attr);
      if (!addName(entry, name, index + 1 + FIRST_ROW, sink)) return;
    }
  }

  #asView(attr: Attr): void {
    if ((attr.mode & S_IFMT) === S_IFDIR) attr.slot |= DELETED_BIT;
  }

  #listing(viewSlot: number, ino: number): Listing {
    const key = `${viewSlot}:${ino}`;
    let listing = this.#listings.get(key);
    if (listing === undefined) {
      listing = this.#list(this.#tree(viewSlot & ~DELETED_BIT), ino);
      if (this.#listings.size >= LISTINGS_KEPT) this.#listings.clear();
      this.#listings.set(key, listing);
    }
    return listing;
  }

  #list(tree: SnapshotTree, ino: number): Listing {
    const row = tree.inode(ino);
    if (!isFolder(row.page!.num(INODE.mode, row.index))) throw new FsError(ENOTDIR);
    const byName = new Map<string, number>();
    const whole = isGone(tree, ino);
    const folders = this.#foldersOf(tree);
    const names = tree.cursor('names');
    for (let on = names.seek(ino); on; on = names.next()) {
      const page = names.page!;
      if (page.num(NAME.parent, names.index) !== ino) break;
      const child = page.num(NAME.inode, names.index);
      const shown = whole || (page.num(NAME.type, names.index) === D_TYPE_FOLDER && folders.has(child));
      if (shown) byName.set(text(page, NAME.name, names.index), child);
    }
    for (const { name, inode, timeSec } of tombstones(tree, ino).reverse()) {
      if (!byName.has(name)) byName.set(name, inode);
      else byName.set(olderName(byName, name, timeSec), inode);
    }
    const list = [...byName].map(([name, child]) => ({ name: Buffer.from(name, 'latin1'), ino: child }));
    list.sort((a, b) => Buffer.compare(a.name, b.name));
    return { list, byName };
  }

  #foldersOf(tree: SnapshotTree): Set<number> {
    let folders = this.#folders.get(tree.slot);
    if (folders !== undefined) return folders;
    folders = new Set([ROOT_INODE]);
    const parents = new Set<number>();
    const deleted = tree.cursor('deleted');
    for (let on = deleted.seek(0); on; on = deleted.next()) {
      const page = deleted.page!;
      if (hasNoName(tree, page.num(DELETED.inode, deleted.index))) parents.add(page.num(DELETED.parent, deleted.index));
    }
    for (const parent of parents) {
      for (let at = parent; !folders.has(at); at = tree.parentOf(at)) folders.add(at);
    }
    if (this.#folders.size >= SNAPSHOTS_KEPT) this.#folders.clear();
    this.#folders.set(tree.slot, folders);
    return folders;
  }
}

/** What was deleted in a folder and is still gone, oldest first. */
function tombstones(tree: SnapshotTree, folder: number): { name: string; inode: number; timeSec: number }[] {
  const found: { name: string; inode: number; timeSec: number; sequence: number }[] = [];
  const deleted = tree.cursor('deleted');
  for (let on = deleted.seek(folder); on; on = deleted.next()) {
    const page = deleted.page!;
    const row = deleted.index;
    if (page.num(DELETED.parent, row) !== folder) break;
    const inode = page.num(DELETED.inode, row);
    found.push({
      name: text(page, DELETED.name, row),
      inode,
      timeSec: page.num(DELETED.timeSec, row),
      sequence: page.num(DELETED.sequence, row),
    });
  }
  // Deleted, back and deleted again: the last time counts.
  const last = new Map<number, number>();
  for (const { inode, sequence } of found) last.set(inode, Math.max(sequence, last.get(inode) ?? 0));
  return found
    .filter(({ inode, sequence }) => last.get(inode) === sequence && hasNoName(tree, inode))
    .sort((a, b) => a.sequence - b.sequence);
}

function hasNoName(tree: SnapshotTree, inode: number): boolean {
  const row = tree.cursor('inodes');
  return row.find(inode) && row.page!.num(INODE.nlink, row.index) === 0;
}

/** Whether a folder was deleted, itself or with one above it. */
function isGone(tree: SnapshotTree, ino: number): boolean {
  for (let at = ino, depth = 0; at !== ROOT_INODE && depth < MAX_DEPTH; at = tree.parentOf(at), depth++) {
    if (hasNoName(tree, at)) return true;
  }
  return false;
}

/** Of several with one name the newest bears it; others tell when they were deleted. */
function olderName(taken: Map<string, number>, name: string, timeSec: number): string {
  const base = `${name.slice(0, MAX_NAME)}.deleted-${timeName(timeSec)}`;
  let other = base;
  for (let count = 2; taken.has(other); count++) other = `${base}-${count}`;
  return other;
}

function text(page: Page, column: number, row: number): string {
  return page.slice(column, row).toString('latin1');
}
