/**
 * The chunks of one archive that is being written: columns that grow, in stream order, and a hash table to find them by
 * id. About 70 bytes a chunk, no object for any.
 */
import type { ChunkTable } from '../../archive/chunk-table.ts';
import { HASH_SIZE } from '../../archive/format.ts';

const FIRST_CAPACITY = 1024;

export class ChunkColumns {
  #count = 0;
  #ids: Uint8Array;
  #offsets: Float64Array;
  #lengths: Uint32Array;
  #ordinals: Uint32Array;
  /** Open addressing, half full at most; entries are chunk number + 1. */
  #table: Int32Array;

  constructor() {
    this.#ids = new Uint8Array(FIRST_CAPACITY * HASH_SIZE);
    this.#offsets = new Float64Array(FIRST_CAPACITY);
    this.#lengths = new Uint32Array(FIRST_CAPACITY);
    this.#ordinals = new Uint32Array(FIRST_CAPACITY);
    this.#table = new Int32Array(FIRST_CAPACITY * 2);
  }

  get count(): number {
    return this.#count;
  }

  offset(chunk: number): number {
    return this.#offsets[chunk]!;
  }

  length(chunk: number): number {
    return this.#lengths[chunk]!;
  }

  ordinal(chunk: number): number {
    return this.#ordinals[chunk]!;
  }

  /** A view of the 32 bytes. */
  id(chunk: number): Uint8Array {
    return this.#ids.subarray(chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE);
  }

  /** Adds a chunk. `ids` holds its id at `at`. */
  add(ids: Uint8Array, at: number, place: { ordinal: number; offset: number; length: number }): void {
    if (this.#count === this.#offsets.length) this.#grow();
    const chunk = this.#count++;
    for (let i = 0; i < HASH_SIZE; i++) this.#ids[chunk * HASH_SIZE + i] = ids[at + i]!;
    this.#offsets[chunk] = place.offset;
    this.#lengths[chunk] = place.length;
    this.#ordinals[chunk] = place.ordinal;
    this.#enter(chunk);
  }

  /** The chunk with this id and ordinal, or -1. */
  find(ids: Uint8Array, at: number, ordinal: number): number {
    const mask = this.#table.length - 1;
    for (let slot = hash(ids, at) & mask; ; slot = (slot + 1) & mask) {
      const chunk = this.#table[slot]! - 1;
      if (chunk < 0) return -1;
      if (this.#ordinals[chunk] === ordinal && this.#equals(chunk, ids, at)) return chunk;
    }
  }

  /** Views of the columns, valid until the next `add`. */
  toTable(): ChunkTable {
    const count = this.#count;
    return {
      count,
      ids: Buffer.from(this.#ids.buffer, 0, count * HASH_SIZE),
      ordinals: this.#ordinals.subarray(0, count),
      offsets: this.#offsets.subarray(0, count),
      lengths: this.#lengths.subarray(0, count),
    };
  }

  #equals(chunk: number, ids: Uint8Array, at: number): boolean {
    const start = chunk * HASH_SIZE;
    for (let i = 0; i < HASH_SIZE; i++) if (this.#ids[start + i] !== ids[at + i]) return false;
    return true;
  }

  #enter(chunk: number): void {
    const mask = this.#table.length - 1;
    let slot = hash(this.#ids, chunk * HASH_SIZE) & mask;
    while (this.#table[slot] !== 0) slot = (slot + 1) & mask;
    this.#table[slot] = chunk + 1;
  }

  #grow(): void {
    const capacity = this.#offsets.length * 2;
    this.#ids = copy(new Uint8Array(capacity * HASH_SIZE), this.#ids);
    this.#offsets = copy(new Float64Array(capacity), this.#offsets);
    this.#lengths = copy(new Uint32Array(capacity), this.#lengths);
    this.#ordinals = copy(new Uint32Array(capacity), this.#ordinals);
    this.#table = new Int32Array(capacity * 2);
    for (let chunk = 0; chunk < this.#count; chunk++) this.#enter(chunk);
  }
}

function copy<T extends { set(from: T): void }>(to: T, from: T): T {
  to.set(from);
  return to;
}

/** Ids are hashes already. */
function hash(ids: Uint8Array, at: number): number {
  return ids[at]! | (ids[at + 1]! << 8) | (ids[at + 2]! << 16) | (ids[at + 3]! << 24);
}
