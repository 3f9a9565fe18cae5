/**
 * Node numbers. A node is (slot, ino): 24 and 40 bits of what the kernel calls nodeid, and of st_ino. Slot 0 holds the
 * folders that Rozen itself makes; every snapshot has a slot of its own, recorded for good on this machine. The same
 * slot with VIEW_BIT is the `versions` view of that snapshot: its folders hold, for each file, a folder of its contents.
 * With DELETED_BIT it is the view of what was deleted.
 */

export const VIRTUAL_SLOT = 0;
/** Slots of snapshots are below this: st_ino stays a positive 64-bit number even in a view. */
export const MAX_SLOT = 2 ** 21;
export const DELETED_BIT = 2 ** 21;
export const VIEW_BIT = 2 ** 22;

/** Inodes of slot 0. */
export const ROOT = 1;
export const SNAPSHOTS = 2;
export const BY_ID = 3;
export const VERSIONS = 4;
export const DOT_ROZEN = 5;
export const WORM = 6;
/** One inode per set, by the set's recorded number: its folder in `snapshots`. */
const SET_BASE = 2 ** 16;
export const SETS_LIMIT = 2 ** 24;
/** The same set's folder in `worm`. */
const WORM_BASE = 2 ** 26;
/** One symlink in `by-id` per slot. */
export const BY_ID_BASE = 2 ** 32;
/** `.rozen/status` gets a fresh node for each lookup, so that no page of an older text is shown. */
export const STATUS_BASE = 2 ** 33;
export const STATUS_LIMIT = STATUS_BASE + 2 ** 32;
/** `latest`, by the slot that it leads to: what a link says never changes, so the kernel may keep it. */
export const LATEST_BASE = 2 ** 35;
/** `current` of a WORM set, likewise. */
export const CURRENT_BASE = 2 ** 36;
/** `deleted` of a set that several machines feed: a folder cannot have two places. */
export const DELETED_BASE = 2 ** 37;

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;

export function isFolder(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

export function setFolder(setNumber: number): number {
  return SET_BASE + setNumber;
}

/** The set whose folder this inode of slot 0 is; -1 when it is none. */
export function setOfInode(ino: number): number {
  return ino >= SET_BASE && ino < SET_BASE + SETS_LIMIT ? ino - SET_BASE : -1;
}

export function wormFolder(setNumber: number): number {
  return WORM_BASE + setNumber;
}

/** The set whose folder in `worm` this inode of slot 0 is; -1 when it is none. */
export function wormSetOfInode(ino: number): number {
  return ino >= WORM_BASE && ino < WORM_BASE + SETS_LIMIT ? ino - WORM_BASE : -1;
}

/** The slot that a symlink of slot 0 leads to, and as what it does; null when it is no symlink. */
export function linkOfInode(ino: number): { slot: number; as: 'id' | 'latest' | 'current' | 'deleted' } | null {
  if (ino > BY_ID_BASE && ino < BY_ID_BASE + MAX_SLOT) return { slot: ino - BY_ID_BASE, as: 'id' };
  if (ino > LATEST_BASE && ino < LATEST_BASE + MAX_SLOT) return { slot: ino - LATEST_BASE, as: 'latest' };
  if (ino > CURRENT_BASE && ino < CURRENT_BASE + MAX_SLOT) return { slot: ino - CURRENT_BASE, as: 'current' };
  if (ino > DELETED_BASE && ino < DELETED_BASE + MAX_SLOT) return { slot: ino - DELETED_BASE, as: 'deleted' };
  return null;
}

/** A number that changes when a slot is taken for another snapshot: the first four bytes of the snapshot id, never 0. */
export function generationOf(snapshotId: string): number {
  return Number.parseInt(snapshotId.slice(0, 8), 16) || 1;
}
