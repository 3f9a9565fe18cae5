/**
 * What was fetched from a remote store, kept on this machine: sealed frames as they came, the tails that open archives,
 * signed records. Nothing in it is trusted: each value carries a checksum, so that a damaged one is as good as none, and
 * whoever reads it authenticates it like bytes from the store.
 *
 * One LMDB environment for all repositories and processes of a user. Tables:
 *
 *   values    key → checksum (16 bytes), bytes; a frame's own hash is the one of its bytes, and the checksum binds it to the key
 *   entries   key → class, cost in bytes, stamp
 *   order     class, stamp, key → nothing     the first one goes first: blocks before everything else, oldest before newer
 *   totals    one row: bytes in use, by class, and counts
 *
 * All four change in one transaction, so `kill -9` at any moment leaves them agreeing. The budget holds at each insertion.
 */
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Blake3Stream } from '../archive/crypto/blake3.ts';
import { HASH_SIZE } from '../archive/format.ts';
import { checkBlockHash } from '../archive/frame.ts';
import { makeFolders } from '../posix/make-folders.ts';
import { type CacheClass, type CacheKind, CLASS_BLOCK, CLASS_KEEP, isFrameKey, kindOf } from './cache-keys.ts';
import {
  costOf,
  decodeEntry,
  decodeTotals,
  ENTRY_SIZE,
  type Entry,
  encodeEntry,
  encodeTotals,
  FIRST_KEY,
  FIRST_ORDER,
  ORDER_PREFIX,
  orderKey,
  type Totals,
} from './cache-rows.ts';
import { isDamaged, type LmdbDatabase, type LmdbRoot, openLmdb } from './lmdb.ts';
import { MemoryPool } from './memory-pool.ts';

export interface CacheItem {
  key: Buffer;
  /** Left as they are until `put` resolves. Of a frame: whole, and held against its block hash. */
  bytes: Uint8Array;
  class: CacheClass;
}

export interface CacheTotals {
  /** Pages of the database that values and their entries take, bytes. */
  bytes: number;
  blocks: { count: number; bytes: number };
  kept: { count: number; bytes: number };
}

const VERSION = 'v2';
const CHECKSUM = 16;
const TOTALS = Buffer.from('totals');
/** A value that was used again within this time keeps its place: moving it is a write. */
const STAMP_MS = 60_000;
/**
 * The database cannot use pages again before the transactions after their release are on disk, so its file is larger than
 * what it holds. With transactions of this size by 10 MiB at most (measured: 64 MiB of values of all sizes, changed 30
 * times); so much of the budget is left to it.
 */
const TRANSACTION = 2 * 1024 * 1024;
const FILE_RESERVE = 12 * 1024 * 1024;
/** Values of this size and less are copied into memory that is used again: a block of content with all that is around it. */
const POOLED_VALUE = 320 * 1024;
const MAX_WAITING = 48 * 1024 * 1024;
/** Values larger than any frame or tail are refused. */
const MAX_VALUE = 8 * 1024 * 1024;

export interface BlockCacheOptions {
  folder: string;
  /** Bytes; null leaves what is there (looking at it, clearing it). */
  budget: number | null;
  report?: (message: string) => void;
  /** Told of a value that does not hold its checksum: a thread that only reads tells the one that writes, which calls `remove`. */
  onDamage?: (key: Buffer) => void;
}

/** One thread's view. Any thread may read; a thread that does not return to its event loop must not write. */
export class BlockCache {
  readonly folder: string;
  /** Bytes on disk. */
  readonly budget: number;
  /** Bytes of what it holds. */
  readonly #budget: number;
  readonly #report: (message: string) => void;
  readonly #onDamage: (key: Buffer) => void;
  readonly #root: LmdbRoot;
  readonly #values: LmdbDatabase;
  readonly #entries: LmdbDatabase;
  readonly #order: LmdbDatabase;
  readonly #totals: LmdbDatabase;
  #scratch = Buffer.allocUnsafeSlow(512 * 1024);
  readonly #pool = new MemoryPool(POOLED_VALUE, Math.ceil((2 * TRANSACTION) / POOLED_VALUE));
  /** Memory of values of the running transaction. */
  readonly #lent: Buffer[] = [];
  #broken = false;
  /** Puts and touches that wait for their turn in a transaction. */
  #writes: Promise<unknown> = Promise.resolve();
  /** Bytes of values that wait. */
  #waiting = 0;
  /** Keys (hex) of values whose checksum did not fit: as good as not there until they are put anew. */
  readonly #damaged = new Set<string>();

  private constructor(options: BlockCacheOptions, root: LmdbRoot) {
    this.folder = options.folder;
    this.budget = options.budget ?? Number.POSITIVE_INFINITY;
    this.#budget = Math.max(this.budget - FILE_RESERVE, this.budget / 2);
    this.#report = options.report ?? (() => {});
    this.#onDamage = options.onDamage ?? ((key) => void this.remove(key));
    this.#root = root;
    const table = (name: string) => root.openDB<Buffer, Buffer>({ name, encoding: 'binary', keyEncoding: 'binary' });
    this.#values = table('values');
    this.#entries = table('entries');
    this.#order = table('order');
    this.#totals = table('totals');
  }

  /**
   * Opens the cache in `folder`, which is made if missing. A damaged one is thrown away. Throws what the operating system
   * says when the folder cannot be used.
   */
  static open(options: BlockCacheOptions): BlockCache {
    const path = cachePath(options.folder);
    try {
      return BlockCache.#open(options, path);
    } catch (error) {
      if (!isDamaged(error)) throw error;
      options.report?.(`${path}: the cache was damaged; it is built anew`);
      rmSync(path, { recursive: true, force: true });
      return BlockCache.#open(options, path);
    }
  }

  static #open(options: BlockCacheOptions, path: string): BlockCache {
    makeFolders(path);
    const root = openLmdb(path, { maxDbs: 8 });
    try {
      const cache = new BlockCache(options, root);
      cache.totals();
      return cache;
    } catch (error) {
      void root.close();
      throw error;
    }
  }

  /** The bytes of a value, valid until the next call; null when it is not there. */
  get(key: Buffer): Buffer | null {
    if (this.#broken || this.#isDamaged(key)) return null;
    return this.#guard(() => {
      const found = this.#values.getBinaryFast(key);
      // An entry without a value, as a change that failed halfway may leave: else it would keep the value out for ever.
      if (found === undefined) return this.#entries.getBinaryFast(key) === undefined ? null : this.#distrust(key);
      const { length } = found;
      if (length < CHECKSUM || length > MAX_VALUE + CHECKSUM) return this.#distrust(key);
      if (length > this.#scratch.length) this.#scratch = Buffer.allocUnsafeSlow(length);
      // Its memory is larger than it says.
      this.#scratch.set(found.subarray(0, length));
      const bytes = this.#scratch.subarray(CHECKSUM, length);
      const sound = checksum(key, bytes).equals(this.#scratch.subarray(0, CHECKSUM));
      return sound && (!isFrameKey(key) || checkBlockHash(bytes)) ? bytes : this.#distrust(key);
    });
  }

  has(key: Buffer): boolean {
    if (this.#broken || this.#isDamaged(key)) return false;
    return this.#guard(() => (this.#entries.getBinaryFast(key) === undefined ? null : true)) ?? false;
  }

  /** Adds values that are not there; what must go for them goes. Resolves when every thread and process can see them. */
  put(items: readonly CacheItem[]): Promise<void> {
    const size = items.reduce((sum, { bytes }) => sum + bytes.length, 0);
    // The network may be faster than the disk of the cache: what would wait in memory is left out.
    if (this.#waiting > 0 && this.#waiting + size > MAX_WAITING) return Promise.resolve();
    this.#waiting += size;
    let done = Promise.resolve();
    for (let first = 0; first < items.length; ) {
      let end = first;
      for (let bytes = 0; end < items.length && bytes < TRANSACTION; end++) bytes += items[end]!.bytes.length;
      const some = items.slice(first, end);
      done = this.#write(() => {
        const totals = this.#readTotals();
        const now = Date.now();
        for (const item of some) this.#insert(item, totals, now);
        this.#writeTotals(totals);
      });
      first = end;
    }
    return done.then(() => {
      this.#waiting -= size;
    });
  }

  /** These values were used: they go later. */
  touch(keys: readonly Buffer[]): Promise<void> {
    if (keys.length === 0) return Promise.resolve();
    return this.#write(() => {
      const now = Date.now();
      for (const key of keys) {
        const entry = this.#entry(key);
        if (entry === null || now - entry.stamp < STAMP_MS) continue;
        this.#order.remove(orderKey(entry, key));
        const moved = { ...entry, stamp: now };
        this.#order.put(orderKey(moved, key), EMPTY);
        this.#entries.put(key, encodeEntry(moved));
      }
    });
  }

  /** Takes out a value that turned out to be damaged. */
  remove(key: Buffer): Promise<void> {
    this.#damaged.add(key.toString('hex'));
    return this.#write(() => {
      const totals = this.#readTotals();
      this.#drop(key, totals);
      this.#writeTotals(totals);
    });
  }

  totals(): CacheTotals {
    return (
      this.#guard(() => {
        const { bytes, counts } = this.#readTotals();
        return {
          bytes: bytes[CLASS_BLOCK]! + bytes[CLASS_KEEP]!,
          blocks: { count: counts[CLASS_BLOCK]!, bytes: bytes[CLASS_BLOCK]! },
          kept: { count: counts[CLASS_KEEP]!, bytes: bytes[CLASS_KEEP]! },
        };
      }) ?? { bytes: 0, blocks: { count: 0, bytes: 0 }, kept: { count: 0, bytes: 0 } }
    );
  }

  /** Counts and bytes by kind, by going through all entries. */
  inventory(): Record<CacheKind, { count: number; bytes: number }> {
    const none = () => ({ count: 0, bytes: 0 });
    const found: Record<CacheKind, { count: number; bytes: number }> = {
      blocks: none(),
      pages: none(),
      tails: none(),
      objects: none(),
    };
    for (const { key, value } of this.#entries.getRange({ start: FIRST_KEY })) {
      const entry = decodeEntry(value);
      const kind = found[kindOf(key, entry.class === CLASS_BLOCK)];
      kind.count++;
      kind.bytes += entry.cost;
    }
    return found;
  }

  /** Waits for what was put so far. */
  async settled(): Promise<void> {
    await this.#writes;
  }

  async close(): Promise<void> {
    await this.#writes;
    await this.#root.close();
  }

  /** Runs a change in a transaction of its own turn. A failure costs the change alone: this is a cache. */
  #write(change: () => void): Promise<void> {
    const done = this.#writes.then(async () => {
      if (this.#broken) return;
      try {
        await this.#root.transaction(() => {
          change();
        });
      } catch (error) {
        this.#failed(error);
      } finally {
        // The database has its copy now.
        for (const memory of this.#lent.splice(0)) this.#pool.give(memory);
      }
    });
    this.#writes = done;
    return done;
  }

  /** Reads, and lets go of the database's snapshot: one that is held keeps the file from using its pages again. */
  #guard<T>(read: () => T | null): T | null {
    try {
      return read();
    } catch (error) {
      this.#failed(error);
      return null;
    } finally {
      this.#root.resetReadTxn();
    }
  }

  #failed(error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    if (!isDamaged(error)) {
      this.#report(`${this.folder}: the cache cannot be used: ${reason}`);
      return;
    }
    if (this.#broken) return;
    this.#broken = true;
    this.#report(`${this.folder}: the cache is damaged and is not used any more; it will be built anew (${reason})`);
    // Whoever has it open keeps what it has; the next one to open it begins with an empty one.
    rmSync(cachePath(this.folder), { recursive: true, force: true });
  }

  #isDamaged(key: Buffer): boolean {
    return this.#damaged.size > 0 && this.#damaged.has(key.toString('hex'));
  }

  #distrust(key: Buffer): null {
    this.#damaged.add(key.toString('hex'));
    this.#report(`${this.folder}: a cached piece was damaged; it is fetched again`);
    this.#onDamage(Buffer.from(key));
    return null;
  }

  #insert({ key, bytes, class: kind }: CacheItem, totals: Totals, stamp: number): void {
    if (this.#damaged.delete(key.toString('hex'))) this.#drop(key, totals);
    else if (this.#entry(key) !== null) return;
    if (bytes.length > MAX_VALUE) return;
    const cost = costOf(CHECKSUM + bytes.length);
    if (cost > this.#budget) return;
    this.#makeRoom(cost, totals);
    const memory = this.#pool.take(CHECKSUM + bytes.length);
    this.#lent.push(memory);
    const value = memory.subarray(0, CHECKSUM + bytes.length);
    checksum(key, bytes).copy(value);
    value.set(bytes, CHECKSUM);
    const entry: Entry = { class: kind, cost, stamp };
    this.#values.put(key, value);
    this.#entries.put(key, encodeEntry(entry));
    this.#order.put(orderKey(entry, key), EMPTY);
    totals.bytes[kind] = totals.bytes[kind]! + cost;
    totals.counts[kind] = totals.counts[kind]! + 1;
  }

  #makeRoom(cost: number, totals: Totals): void {
    const used = () => totals.bytes[CLASS_BLOCK]! + totals.bytes[CLASS_KEEP]!;
    while (used() + cost > this.#budget) {
      const before = used();
      const oldest = [...this.#order.getKeys({ start: FIRST_ORDER, limit: 16 })];
      for (const key of oldest) {
        if (used() + cost <= this.#budget) break;
        this.#drop(Buffer.from(key.subarray(ORDER_PREFIX)), totals);
        this.#order.remove(key);
      }
      // Totals that say more than there is: nothing can be left.
      if (used() === before && oldest.length === 0) totals.bytes = [0, 0];
    }
  }

  #drop(key: Buffer, totals: Totals): void {
    const entry = this.#entry(key);
    if (entry === null) return;
    this.#values.remove(key);
    this.#entries.remove(key);
    this.#order.remove(orderKey(entry, key));
    totals.bytes[entry.class] = Math.max(0, totals.bytes[entry.class]! - entry.cost);
    totals.counts[entry.class] = Math.max(0, totals.counts[entry.class]! - 1);
  }

  #entry(key: Buffer): Entry | null {
    const found = this.#entries.getBinaryFast(key);
    return found === undefined || found.length !== ENTRY_SIZE ? null : decodeEntry(found);
  }

  #readTotals(): Totals {
    return decodeTotals(this.#totals.getBinaryFast(TOTALS));
  }

  #writeTotals(totals: Totals): void {
    this.#totals.put(TOTALS, encodeTotals(totals));
  }
}

// Making a hasher costs 10 µs, resetting one 1 µs.
const hasher = new Blake3Stream();
const EMPTY = Buffer.alloc(0);

/**
 * Binds the bytes to their key, so that a value can neither be damaged nor stand in a wrong place unnoticed; those of a frame by the
 * hash that it ends with, which was looked at when it came: to hash each byte once more would take as long as to decipher it.
 */
function checksum(key: Uint8Array, bytes: Uint8Array): Buffer {
  const bound = isFrameKey(key) ? bytes.subarray(Math.max(0, bytes.length - HASH_SIZE)) : bytes;
  return hasher.reset().update(key).update(bound).digest().subarray(0, CHECKSUM);
}

export function cachePath(folder: string): string {
  return join(folder, `blocks-${VERSION}`);
}

/** Bytes of the database on disk; 0 when there is none. */
export function cacheFileSize(folder: string): number {
  try {
    return statSync(join(cachePath(folder), 'data.mdb')).blocks * 512;
  } catch {
    return 0;
  }
}

/** Throws the cache away. A process that has it open goes on with what it has and builds no new one. */
export function clearCache(folder: string): void {
  rmSync(cachePath(folder), { recursive: true, force: true });
}
