/**
 * When the content of each file was last read and found to be the archived one. Four bytes a file, on this machine only:
 * what is lost counts as proven when it was stored.
 */
import type { Cursor } from '../../archive/tree/read.ts';
import { type PageSource, Cursor as TreeCursor } from '../../archive/tree/read.ts';
import { HISTORY, INODE, TREES, type TreeRoots } from '../../archive/tree/schema.ts';
import { InodeSet } from '../backup/inode-set.ts';
import type { LocalState } from '../backup/local-state.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';

const PIECE = 4096;

interface Trees {
  source: PageSource;
  roots: TreeRoots;
}

export class Proofs {
  readonly #local: LocalState;
  readonly #pieces = new Map<number, Uint32Array>();
  readonly #changed = new Set<number>();

  constructor(local: LocalState) {
    this.#local = local;
  }

  /** Epoch seconds; 0 when this machine remembers none. */
  get(inode: number): number {
    return this.#piece(Math.floor(inode / PIECE))[inode % PIECE]!;
  }

  set(inode: number, seconds: number): void {
    const number = Math.floor(inode / PIECE);
    this.#piece(number)[inode % PIECE] = seconds;
    this.#changed.add(number);
  }

  /** Writes down what is new. */
  save(): void {
    if (this.#changed.size === 0) return;
    const pieces = new Map<number, Buffer>();
    for (const number of this.#changed) {
      const { buffer, byteOffset, byteLength } = this.#piece(number);
      pieces.set(number, Buffer.from(buffer, byteOffset, byteLength));
    }
    this.#local.putProofs(pieces);
    this.#changed.clear();
  }

  #piece(number: number): Uint32Array {
    let piece = this.#pieces.get(number);
    if (piece === undefined) {
      piece = new Uint32Array(PIECE);
      const stored = this.#local.proofs(number);
      if (stored !== undefined) new Uint8Array(piece.buffer).set(stored.subarray(0, PIECE * 4));
      this.#pieces.set(number, piece);
    }
    return piece;
  }
}

/** Calls `visit` for each regular file that is there, with the time of its newest proof. Throws Miss. */
function forEachProof(
  trees: Trees,
  proofs: Proofs | null,
  visit: (file: { inode: number; size: number; seconds: number }) => void,
): void {
  const { source, roots } = trees;
  const times = sequenceTimes(trees);
  const dead = deletedFolders(trees);
  const inodes = new TreeCursor(source, TREES.inodes, roots.inodes);
  for (let on = inodes.seek(0); on; on = inodes.next()) {
    const page = inodes.page!;
    const row = inodes.index;
    if ((page.num(INODE.mode, row) & S_IFMT) !== S_IFREG || page.num(INODE.nlink, row) === 0) continue;
    if (dead.has(page.num(INODE.parent, row))) continue;
    const inode = page.num(INODE.inode, row);
    const stored = times.get(page.num(INODE.version, row)) ?? 0;
    visit({ inode, size: page.num(INODE.size, row), seconds: Math.max(stored, proofs?.get(inode) ?? 0) });
  }
}

/** Files to be read again: those with the oldest proof, until they make up `percent` of all bytes. */
export function dueFiles(trees: Trees, proofs: Proofs, percent: number): InodeSet {
  const bySecond = new Map<number, number>();
  let total = 0;
  // A byte for each file, so that empty ones have their turn too.
  forEachProof(trees, proofs, ({ size, seconds }) => {
    bySecond.set(seconds, (bySecond.get(seconds) ?? 0) + size + 1);
    total += size + 1;
  });
  const quota = (total * percent) / 100;
  let taken = 0;
  let last = -1;
  for (const second of [...bySecond.keys()].sort((a, b) => a - b)) {
    if (taken >= quota) break;
    last = second;
    taken += bySecond.get(second)!;
  }
  let room = quota - (taken - (bySecond.get(last) ?? 0));
  const due = new InodeSet();
  forEachProof(trees, proofs, ({ inode, size, seconds }) => {
    if (seconds > last || (seconds === last && room <= 0)) return;
    if (seconds === last) room -= size + 1;
    due.add(inode);
  });
  return due;
}

export function oldestProof(trees: Trees, proofs: Proofs | null): number | null {
  let oldest: number | null = null;
  forEachProof(trees, proofs, ({ seconds }) => {
    if (oldest === null || seconds < oldest) oldest = seconds;
  });
  return oldest;
}

function sequenceTimes({ source, roots }: Trees): Map<number, number> {
  const times = new Map<number, number>();
  const history: Cursor = new TreeCursor(source, TREES.history, roots.history);
  for (let on = history.seek(0); on; on = history.next()) {
    const page = history.page!;
    times.set(page.num(HISTORY.sequence, history.index), page.num(HISTORY.timeSec, history.index));
  }
  return times;
}

/** Folders that were deleted, with all folders that were in them. Throws Miss. */
function deletedFolders({ source, roots }: Trees): InodeSet {
  const dead = new InodeSet();
  if (roots.deleted.count === 0) return dead;
  const parents = new Map<number, number>();
  const tops: number[] = [];
  const inodes = new TreeCursor(source, TREES.inodes, roots.inodes);
  for (let on = inodes.seek(0); on; on = inodes.next()) {
    const page = inodes.page!;
    const row = inodes.index;
    if ((page.num(INODE.mode, row) & S_IFMT) !== S_IFDIR) continue;
    const inode = page.num(INODE.inode, row);
    if (page.num(INODE.nlink, row) === 0) tops.push(inode);
    parents.set(inode, page.num(INODE.parent, row));
  }
  const below = new Map<number, number[]>();
  for (const [inode, parent] of parents) {
    const list = below.get(parent);
    if (list === undefined) below.set(parent, [inode]);
    else list.push(inode);
  }
  for (let inode = tops.pop(); inode !== undefined; inode = tops.pop()) {
    if (dead.has(inode)) continue;
    dead.add(inode);
    tops.push(...(below.get(inode) ?? []).filter((it) => it !== inode));
  }
  return dead;
}
