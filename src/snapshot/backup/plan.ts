/**
 * What a run is going to write, in columns: a million new files take some 80 MB here, not a million objects. Rows are
 * appended in walk order and never move; mutations.ts turns them into sorted changes of the trees.
 */
import { HASH_SIZE } from '../../archive/format.ts';
import { joinName } from '../../posix/folder.ts';
import type { Stat } from '../../posix/stat.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';
import { Columns } from './columns.ts';

/** Fields of a record: a row of `inodes` to be, and what is known on the way to it. */
export const FIELD = {
  inode: 0,
  size: 1,
  blocks: 2,
  mtimeSec: 3,
  ctimeSec: 4,
  btimeSec: 5,
  parent: 6,
  sourceDev: 7,
  sourceIno: 8,
  rdev: 9,
  mode: 10,
  uid: 11,
  gid: 12,
  nlink: 13,
  mtimeNs: 14,
  ctimeNs: 15,
  btimeNs: 16,
  /** INODE_FLAGS. */
  flags: 17,
  version: 18,
  /** STATE bits. */
  state: 19,
  /** Extents of the new content: first row in the extent log, and how many. */
  extents: 20,
  extentCount: 21,
  /** For files that are read: where the path is to be found. */
  folder: 22,
  nameAt: 23,
  nameLength: 24,
  /** Place of the content id in `plan.contents`, from 1; 0: none. */
  content: 25,
} as const;
const FIELDS = 26;

export const STATE = {
  /** The inode row is to be written. */
  put: 1,
  /** The content is new: its extents are in the log. */
  content: 2,
  /** A new entry that could not be read: neither row nor name. */
  dropped: 4,
  /** The inode was not in the tree before. */
  fresh: 8,
  /** The extended attributes were read and replace the old ones. */
  xattrs: 16,
  /** An old entry found under another name. */
  moved: 32,
  /** Attributes differ from those of the old row. */
  differs: 64,
  /** WORM: an old entry that had been deleted. */
  returned: 128,
  /** WORM, a frozen set: a file that is left out unless it turns out, by its content, to be a known one. */
  tentative: 256,
  /** It is read, and has further names: those that the walk meets are in `plan.links`. */
  linked: 512,
} as const;

/** Inode rows to be. */
class Records extends Columns {
  constructor() {
    super(FIELDS);
  }

  add(stat: Stat, inode: number, parent: number): number {
    const row = this.append();
    this.set(row, FIELD.inode, inode);
    this.set(row, FIELD.parent, parent);
    this.fill(row, stat);
    return row;
  }

  /** Takes over all that lstat knows. */
  fill(row: number, stat: Stat): void {
    this.set(row, FIELD.size, stat.size);
    this.set(row, FIELD.blocks, stat.blocks);
    this.set(row, FIELD.mtimeSec, stat.mtimeSec);
    this.set(row, FIELD.ctimeSec, stat.ctimeSec);
    this.set(row, FIELD.btimeSec, stat.btimeSec);
    this.set(row, FIELD.sourceDev, stat.dev);
    this.set(row, FIELD.sourceIno, stat.ino);
    this.set(row, FIELD.rdev, stat.rdev);
    this.set(row, FIELD.mode, stat.mode);
    this.set(row, FIELD.uid, stat.uid);
    this.set(row, FIELD.gid, stat.gid);
    this.set(row, FIELD.nlink, stat.nlink);
    this.set(row, FIELD.mtimeNs, stat.mtimeNs);
    this.set(row, FIELD.ctimeNs, stat.ctimeNs);
    this.set(row, FIELD.btimeNs, stat.btimeNs);
  }

  is(row: number, state: number): boolean {
    return (this.get(row, FIELD.state) & state) !== 0;
  }

  mark(row: number, state: number): void {
    this.set(row, FIELD.state, this.get(row, FIELD.state) | state);
  }

  addFlags(row: number, flags: number): void {
    this.set(row, FIELD.flags, this.get(row, FIELD.flags) | flags);
  }
}

const ARENA_PIECE = 1 << 20;

/** Byte strings side by side; a string never crosses pieces. */
class ByteArena {
  readonly #pieces: Buffer[] = [];
  #end = ARENA_PIECE;

  /** Where the bytes of a byte string now stand; `length` of it is the caller's to remember. At most 1 MiB each. */
  add(string: string): number {
    if (this.#end + string.length > ARENA_PIECE) {
      this.#pieces.push(Buffer.allocUnsafeSlow(ARENA_PIECE));
      this.#end = 0;
    }
    const at = (this.#pieces.length - 1) * ARENA_PIECE + this.#end;
    this.#pieces.at(-1)!.write(string, this.#end, 'latin1');
    this.#end += string.length;
    return at;
  }

  bytes(at: number, length: number): Buffer {
    const from = at % ARENA_PIECE;
    return this.#pieces[Math.floor(at / ARENA_PIECE)]!.subarray(from, from + length);
  }

  string(at: number, length: number): string {
    const from = at % ARENA_PIECE;
    return this.#pieces[Math.floor(at / ARENA_PIECE)]!.toString('latin1', from, from + length);
  }
}

/** Fields of a change of a name. `inode` 0: the name goes. `type` carries REPLACES, `record` counts from 1 (0: none). */
export const NAME_OP = { inode: 0, at: 1, length: 2, type: 3, record: 4 } as const;
/** There was a row of this name. */
export const REPLACES = 0x100;
const CANCELLED = 0x400;

/** In place of a folder: a group of changes that was written down once more elsewhere. */
export const VOID = -1;

/** Changes of names, in groups of one folder each, ascending inside a group. */
class NameChanges {
  readonly arena = new ByteArena();
  readonly ops = new Columns(5);
  /** Per group: the folder's inode number and its first change. */
  readonly parents: number[] = [];
  readonly starts: number[] = [];

  begin(parent: number): void {
    this.parents.push(parent);
    this.starts.push(this.ops.count);
  }

  /** `record` -1: none. */
  set(name: string, target: { inode: number; type: number; record: number; replaces: boolean }): void {
    const at = this.arena.add(name);
    const op = this.ops.append();
    this.ops.set(op, NAME_OP.inode, target.inode);
    this.ops.set(op, NAME_OP.at, at);
    this.ops.set(op, NAME_OP.length, name.length);
    this.ops.set(op, NAME_OP.type, target.type | (target.replaces ? REPLACES : 0));
    this.ops.set(op, NAME_OP.record, target.record + 1);
  }

  /** Where the name of a change stands in the arena. */
  placeOf(op: number): number {
    return this.ops.get(op, NAME_OP.at);
  }

  /** Keeps the place of a change that is not decided on: nothing comes of it unless it is filled. */
  reserve(name: string): number {
    this.set(name, { inode: 0, type: 0, record: -1, replaces: true });
    const op = this.ops.count - 1;
    this.cancel(op);
    return op;
  }

  /** What a reserved change does after all; inode 0: the name goes. */
  fill(op: number, to: { inode: number; type: number; record: number }): void {
    this.ops.set(op, NAME_OP.inode, to.inode);
    this.ops.set(op, NAME_OP.type, to.type | REPLACES);
    this.ops.set(op, NAME_OP.record, to.record + 1);
  }

  /** The name stays as it was after all. */
  cancel(op: number): void {
    this.ops.set(op, NAME_OP.type, this.ops.get(op, NAME_OP.type) | CANCELLED);
  }

  remove(name: string): void {
    this.set(name, { inode: 0, type: 0, record: -1, replaces: true });
  }
}

/** Fields of a further name (hard link) of a file that is read; folder and name as a record has them. */
export const LINK = { record: 0, folder: 1, parent: 2, nameAt: 3, nameLength: 4 } as const;

/** Fields of an extent of new content; row 0 is a hole. */
export const PIECE = { offset: 0, length: 1, row: 2, streamOffset: 3 } as const;

class ExtentLog extends Columns {
  constructor() {
    super(4);
  }

  add(extent: { offset: number; length: number; row: number; streamOffset: number }): void {
    const at = this.append();
    this.set(at, PIECE.offset, extent.offset);
    this.set(at, PIECE.length, extent.length);
    this.set(at, PIECE.row, extent.row);
    this.set(at, PIECE.streamOffset, extent.streamOffset);
  }
}

const ID_PIECE = 1 << 15;

/** Content ids side by side: a million take 32 MB. */
class ContentIds {
  count = 0;
  readonly #pieces: Buffer[] = [];

  /** Answers the place, from 1. */
  add(id: Uint8Array): number {
    const at = this.count++ % ID_PIECE;
    if (at === 0) this.#pieces.push(Buffer.allocUnsafeSlow(ID_PIECE * HASH_SIZE));
    this.#pieces.at(-1)!.set(id, at * HASH_SIZE);
    return this.count;
  }

  get(place: number): Buffer {
    const at = ((place - 1) % ID_PIECE) * HASH_SIZE;
    return this.#pieces[Math.floor((place - 1) / ID_PIECE)]!.subarray(at, at + HASH_SIZE);
  }
}

/** A content that was seen and is not stored: a row of `versions` without extents. */
export interface SeenContent {
  inode: number;
  version: number;
  /** As `versions` has it: see seen.ts. */
  contentId: Buffer;
  size: number;
  mtimeSec: number;
  mtimeNs: number;
  firstSeen: number;
}

/** A name that is gone while what it named stays. */
export interface Tombstone {
  parent: number;
  name: Buffer;
  inode: number;
  type: number;
}

export interface Xattr {
  name: Buffer;
  value: Buffer;
}

/** Everything that differs from the snapshot before. */
export class Plan {
  readonly records = new Records();
  readonly names = new NameChanges();
  readonly extents = new ExtentLog();
  /** By record. Equal sets are one object (every file of a system with SELinux has some). */
  readonly xattrs = new Map<number, readonly Xattr[]>();
  readonly targets = new Map<number, Buffer>();
  /** Paths of folders that hold files to be read, by FIELD.folder. */
  readonly folders: Buffer[] = [];
  /** Records of files to be read, in walk order. */
  readonly reading: number[] = [];
  /** Names of new files that had gone when these were read by others, and the bytes that they would stand for. */
  readonly forgotten = { files: 0, bytes: 0 };
  /** By LINK. */
  readonly links = new Columns(5);
  /** Old inodes whose last name is gone. In a WORM set their rows stay. */
  readonly removed: number[] = [];
  /** True for a WORM set: nothing that was stored is ever taken out of the trees. */
  readonly worm: boolean;
  /** WORM: records of files whose content must be held against the archived one. */
  readonly checking: number[] = [];
  /** WORM, a frozen set: records of new files, which are left out unless they turn out to be known ones. */
  readonly tentative: number[] = [];
  /** WORM: further names (hard links) of files to be checked, by record. */
  readonly otherNames = new Map<number, Buffer[]>();
  /** WORM: ids of new contents. */
  readonly contents = new ContentIds();
  readonly tombstones: Tombstone[] = [];
  readonly seen = new Map<number, SeenContent>();
  /** WORM: contents that are stored once more under the version that they have, by record, with their ids. */
  readonly rewritten = new Map<number, Buffer>();

  /** Paths of the sources, which may lead through symlinks. */
  readonly sources: readonly Buffer[];

  constructor(worm = false, sources: readonly Buffer[] = []) {
    this.worm = worm;
    this.sources = sources;
  }

  /** True when nothing at all would be written. */
  get empty(): boolean {
    if (this.removed.length > 0 || this.seen.size > 0 || this.rewritten.size > 0) return false;
    for (let op = 0; op < this.names.ops.count; op++) if (this.nameOutcome(op) !== 'nothing') return false;
    for (let i = 0; i < this.records.count; i++) {
      if (this.records.is(i, STATE.put) && !this.records.is(i, STATE.dropped)) return false;
    }
    return true;
  }

  /** Files that the walk has met and the snapshot will not have: they could not be read, or the set takes nothing new. */
  leftOut(): { files: number; bytes: number } {
    const { ops } = this.names;
    const left = { ...this.forgotten };
    for (let op = 0; op < ops.count; op++) {
      const record = ops.get(op, NAME_OP.record) - 1;
      if (ops.get(op, NAME_OP.inode) === 0 || record < 0 || !this.records.is(record, STATE.dropped)) continue;
      if ((this.records.get(record, FIELD.mode) & S_IFMT) !== S_IFREG) continue;
      left.files++;
      left.bytes += this.records.get(record, FIELD.size);
    }
    return left;
  }

  /** Path of a file that is read or checked. */
  pathOf(record: number): Buffer {
    const { records, names, folders } = this;
    const name = names.arena.string(records.get(record, FIELD.nameAt), records.get(record, FIELD.nameLength));
    return joinName(folders[records.get(record, FIELD.folder)]!, name);
  }

  /** What becomes of a change of a name, now that it is known whether its file could be read. */
  nameOutcome(op: number): 'set' | 'remove' | 'nothing' {
    const { ops } = this.names;
    if ((ops.get(op, NAME_OP.type) & CANCELLED) !== 0) return 'nothing';
    if (ops.get(op, NAME_OP.inode) === 0) return 'remove';
    const record = ops.get(op, NAME_OP.record) - 1;
    if (record < 0 || !this.records.is(record, STATE.dropped)) return 'set';
    return (ops.get(op, NAME_OP.type) & REPLACES) !== 0 ? 'remove' : 'nothing';
  }
}
