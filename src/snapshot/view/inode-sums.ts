/** Counts the entries of a snapshot from the leaves of its inodes: what is there, and of a WORM set what was deleted. */
import type { Page } from '../../archive/tree/page.ts';
import { INODE } from '../../archive/tree/schema.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './attributes.ts';

export interface InodeSums {
  files: number;
  folders: number;
  symlinks: number;
  others: number;
  /** Bytes of all files, hard links counted once, holes included. */
  bytes: number;
}

/** What one leaf adds, whatever snapshot it belongs to. */
export interface LeafSums {
  /** Entries without a name. */
  gone: InodeSums;
  /** The others, by the folder that holds them: whether that one is there, another leaf may say. */
  byFolder: Map<number, InodeSums>;
  folders: { inode: number; parent: number; isGone: boolean }[];
}

function noSums(): InodeSums {
  return { files: 0, folders: 0, symlinks: 0, others: 0, bytes: 0 };
}

export function sumLeaf(page: Page): LeafSums {
  const leaf: LeafSums = { gone: noSums(), byFolder: new Map(), folders: [] };
  for (let i = 0; i < page.count; i++) {
    const isGone = page.num(INODE.nlink, i) === 0;
    const parent = page.num(INODE.parent, i);
    let sums = leaf.gone;
    if (!isGone) {
      sums = leaf.byFolder.get(parent) ?? noSums();
      leaf.byFolder.set(parent, sums);
    }
    const type = page.num(INODE.mode, i) & S_IFMT;
    if (type === S_IFREG) {
      sums.files++;
      sums.bytes += page.num(INODE.size, i);
    } else if (type === S_IFDIR) {
      sums.folders++;
      leaf.folders.push({ inode: page.num(INODE.inode, i), parent, isGone });
    } else if (type === S_IFLNK) sums.symlinks++;
    else sums.others++;
  }
  return leaf;
}

/** Something is deleted if it has no name, or if a folder above it has none. */
export function sumSnapshot(leaves: readonly LeafSums[]): { current: InodeSums; deleted: InodeSums } {
  const below = new Map<number, number[]>();
  const dead = new Set<number>();
  const waiting: number[] = [];
  for (const { folders } of leaves) {
    for (const { inode, parent, isGone } of folders) {
      if (isGone) waiting.push(inode);
      const children = below.get(parent);
      if (children === undefined) below.set(parent, [inode]);
      else children.push(inode);
    }
  }
  for (let inode = waiting.pop(); inode !== undefined; inode = waiting.pop()) {
    if (dead.has(inode)) continue;
    dead.add(inode);
    for (const child of below.get(inode) ?? []) waiting.push(child);
  }
  const [current, deleted] = [noSums(), noSums()];
  for (const { gone, byFolder } of leaves) {
    add(deleted, gone);
    for (const [folder, sums] of byFolder) add(dead.has(folder) ? deleted : current, sums);
  }
  return { current, deleted };
}

function add(to: InodeSums, more: InodeSums): void {
  to.files += more.files;
  to.folders += more.folders;
  to.symlinks += more.symlinks;
  to.others += more.others;
  to.bytes += more.bytes;
}
