/**
 * What this machine remembers of one lineage: the snapshot that it stands on and the plaintext of all its tree pages, in
 * LMDB. A run writes the pages of the snapshot to be beside them (its archive row is new, so nothing is overwritten) and,
 * before the commit, the state to be as "pending". Crash states, as the next run finds them:
 *
 *   pages of a row that no state names       the run died before its commit: they are dropped
 *   pending names the store's newest snapshot   it died after the commit: pending becomes the state
 *   pending names anything else              it died before the commit: dropped
 *
 * Names and attributes stand here in the clear, in files of mode 600 (docs/SECURITY.md).
 */
import { rmSync } from 'node:fs';
import { decodeCbor, encodeCbor } from '../../archive/cbor.ts';
import { emptyRoots, type PagePointer, TREE_NAMES, type TreeName, type TreeRoots } from '../../archive/tree/schema.ts';
import { inWords, isDamaged, type LmdbDatabase, type LmdbRoot, openLmdb } from '../../cache/lmdb.ts';
import { RozenError } from '../../errors.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import type { SnapshotTree } from '../../repository/repository.ts';

const VERSION = 1;
const STATE = Buffer.from('state');
const PENDING = Buffer.from('pending');
/** Pages wait in memory up to this many bytes: a transaction costs a sync. */
const BATCH = 8 * 1024 * 1024;

/** Where a lineage stands. */
export interface LineageState {
  /** A writer that lost its state and cannot read the store begins the next generation. */
  generation: number;
  snapshotId: Buffer;
  /** Sequence of the snapshot's record. */
  sequence: number;
  roots: TreeRoots;
  /** First inode number and archive row that were never used. */
  nextInode: number;
  nextRow: number;
  /** The tree archive of the snapshot, which its own `archives` tree cannot name. */
  tree: SnapshotTree;
  /** Tree archives that its pages lie in. */
  treeArchives: number;
  /** Epoch milliseconds when the walk began that last saw the source like this. */
  walkedAt: number;
}

export class LocalState {
  readonly path: string;
  readonly #root: LmdbRoot;
  readonly #meta: LmdbDatabase;
  readonly #pages: LmdbDatabase;
  readonly #proofs: LmdbDatabase;
  #batch: { key: Buffer; bytes: Buffer }[] = [];
  #batched = 0;
  #closed = false;

  private constructor(path: string, root: LmdbRoot) {
    this.path = path;
    this.#root = root;
    const table = (name: string) => root.openDB<Buffer, Buffer>({ name, encoding: 'binary', keyEncoding: 'binary' });
    this.#meta = table('meta');
    this.#pages = table('pages');
    this.#proofs = table('proofs');
  }

  /** Opens the state in a folder, which is made if missing. A damaged one is thrown away: the store has all. */
  static open(path: string): LocalState {
    const attempt = (): LocalState => {
      makeFolders(path);
      const root = sound(path, () => openLmdb(path, { maxDbs: 4 }));
      try {
        return sound(path, () => new LocalState(path, root));
      } catch (error) {
        void root.close();
        throw error;
      }
    };
    try {
      return attempt();
    } catch (error) {
      if (!(error instanceof StateDamaged)) throw error;
      rmSync(path, { recursive: true, force: true });
      return attempt();
    }
  }

  /** The state, or null when there is none. Like all calls here, throws StateDamaged for a database that does not hold. */
  read(): LineageState | null {
    return this.#decode(STATE);
  }

  /** A state whose commit was not seen to succeed. */
  readPending(): LineageState | null {
    return this.#decode(PENDING);
  }

  /** Says that a commit is about to be tried. All pages of the state must have been put. */
  writePending(state: LineageState): void {
    this.flush();
    sound(this.path, () => this.#meta.putSync(PENDING, encodeState(state)));
  }

  /** The snapshot of `state` is in the store: it is what the next run starts from. `replaced` pages go. */
  fold(state: LineageState, replaced: readonly PagePointer[] = []): void {
    this.flush();
    this.#change(() => {
      this.#meta.put(STATE, encodeState(state));
      this.#meta.remove(PENDING);
      for (const { row, offset } of replaced) this.#pages.remove(pageKey(row, offset));
    });
  }

  /** Like `fold`, for trees that share nothing: all pages of rows below `row` go. */
  foldOnly(state: LineageState, row: number): void {
    this.flush();
    const old = sound(this.path, () => [...this.#pages.getKeys({ end: pageKey(row, 0) })]);
    this.fold(
      state,
      old.map((key) => ({ row: key.readUInt32BE(0), offset: key.readUIntBE(4, 6), length: 0 })),
    );
  }

  /** How many pages lie in each row. */
  pagesByRow(): Map<number, number> {
    const counts = new Map<number, number>();
    for (const key of this.#pages.getKeys()) {
      const row = key.readUInt32BE(0);
      counts.set(row, (counts.get(row) ?? 0) + 1);
    }
    return counts;
  }

  /** A later walk saw nothing new. */
  confirm(state: LineageState): void {
    sound(this.path, () => this.#meta.putSync(STATE, encodeState(state)));
  }

  /** Drops a pending state and the pages of rows from `row` on; costs no transaction when there is nothing of the kind. */
  dropFrom(row: number): void {
    this.#batch = [];
    this.#batched = 0;
    const old = sound(this.path, () =>
      [...this.#pages.getKeys({ start: pageKey(row, 0) })].map((key) => Buffer.from(key)),
    );
    if (old.length === 0 && sound(this.path, () => this.#meta.getBinary(PENDING)) === undefined) return;
    this.#change(() => {
      this.#meta.remove(PENDING);
      for (const key of old) this.#pages.remove(key);
    });
  }

  clear(): void {
    this.#batch = [];
    this.#batched = 0;
    this.#change(() => {
      this.#meta.clearSync();
      this.#pages.clearSync();
      this.#proofs.clearSync();
    });
  }

  /** What `putProofs` kept under a number; see worm/proofs.ts. */
  proofs(piece: number): Buffer | undefined {
    return sound(this.path, () => this.#proofs.getBinary(pageKey(piece, 0)));
  }

  putProofs(pieces: ReadonlyMap<number, Buffer>): void {
    this.#change(() => {
      for (const [piece, bytes] of pieces) this.#proofs.put(pageKey(piece, 0), bytes);
    });
  }

  /** Keeps the plaintext of a page. Written with the next batch; `page` knows it at once only after `flush`. */
  put(row: number, offset: number, bytes: Buffer): void {
    this.#batch.push({ key: pageKey(row, offset), bytes });
    this.#batched += bytes.length;
    if (this.#batched >= BATCH) this.flush();
  }

  flush(): void {
    const batch = this.#batch;
    if (batch.length === 0) return;
    this.#batch = [];
    this.#batched = 0;
    this.#change(() => {
      for (const { key, bytes } of batch) this.#pages.put(key, bytes);
    });
  }

  #change(work: () => void): void {
    sound(this.path, () => this.#root.transactionSync(work));
  }

  /** The plaintext of a page. 'corrupt' when the state has lost it: the caller starts over without the state. */
  page(row: number, offset: number): Buffer {
    const bytes = sound(this.path, () => this.#pages.getBinary(pageKey(row, offset)));
    if (bytes === undefined) throw new StateDamaged(`page ${row}:${offset} is missing`);
    return bytes;
  }

  /** Calling it twice does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#root.close();
  }

  /** Closes and forgets everything. */
  async destroy(): Promise<void> {
    await this.close();
    rmSync(this.path, { recursive: true, force: true });
  }

  #decode(key: Buffer): LineageState | null {
    const bytes = sound(this.path, () => this.#meta.getBinary(key));
    if (bytes === undefined) return null;
    try {
      return decodeState(bytes);
    } catch (error) {
      throw new StateDamaged((error as Error).message);
    }
  }
}

/** Local state that contradicts itself. It is never the last word: the store is. */
export class StateDamaged extends RozenError {
  constructor(what: string) {
    super('corrupt', `local state: ${what}`, { hint: 'run the command again: the state is rebuilt from the store' });
  }
}

/** Tells damage, which is made good by starting over, from a full disk and the like, which is not. */
function sound<T>(path: string, work: () => T): T {
  try {
    return inWords(path, work);
  } catch (cause) {
    if (isDamaged(cause)) throw new StateDamaged((cause as Error).message);
    throw cause;
  }
}

/** Ordered by row, then offset. */
function pageKey(row: number, offset: number): Buffer {
  const key = Buffer.allocUnsafe(10);
  key.writeUInt32BE(row, 0);
  key.writeUIntBE(offset, 4, 6);
  return key;
}

function encodeState(state: LineageState): Buffer {
  const roots = TREE_NAMES.map((name) => {
    const { row, offset, length, level, count } = state.roots[name];
    return [row, offset, length, level, count];
  });
  return encodeCbor({ version: VERSION, ...state, roots });
}

interface Encoded extends Omit<LineageState, 'roots'> {
  version: number;
  roots: [number, number, number, number, number][];
}

/** Written by this machine into a private folder: checked for shape, not as hostile input. */
function decodeState(bytes: Buffer): LineageState {
  const { version, roots: list, ...rest } = decodeCbor(bytes, { what: 'local state' }) as unknown as Encoded;
  if (version !== VERSION || list.length !== TREE_NAMES.length) throw new StateDamaged('it is of another version');
  const roots = emptyRoots();
  for (const [i, [row, offset, length, level, count]] of list.entries()) {
    roots[TREE_NAMES[i] as TreeName] = { row, offset, length, level, count };
  }
  return { ...rest, roots };
}
