/** Files on their way into slabs, in the order in which they came. */
import { FILE, FILE_WIDTH, SLAB_DATA, SLAB_FILES, SLAB_PATHS, type Slab } from './slab.ts';
import type { FileToStore, StoredFile } from './types.ts';

export interface Entry {
  file: FileToStore;
  resolve(stored: StoredFile): void;
  reject(error: Error): void;
}

export type Batch = { slab: number; entries: Entry[]; scanned: Promise<number> };
export type Unit = Batch | { large: Entry };

export function entriesOf(unit: Unit): Entry[] {
  return 'large' in unit ? [unit.large] : unit.entries;
}

/**
 * A batch is closed at this much content: a worker reads and hashes it, the main thread copies it, before it has left the
 * processor's cache. One larger file may fill the slab.
 */
const BATCH_DATA = 1024 * 1024;

/** Files beyond which no more are wanted before some have gone into a batch. */
const MAX_PENDING = 4 * SLAB_FILES;

/** Read piece by piece, each by its own. */
function isLarge(file: FileToStore): boolean {
  return file.sparse || file.size > SLAB_DATA;
}

/** Files that wait to be put into a batch. */
export class Pending {
  #entries: Entry[] = [];
  /** Content of those that will go into batches. */
  #bytes = 0;

  get length(): number {
    return this.#entries.length;
  }

  get full(): boolean {
    return this.#entries.length >= MAX_PENDING;
  }

  /** There is a whole batch, or a large file. */
  get ripe(): boolean {
    return this.#entries.length >= SLAB_FILES || this.#bytes >= BATCH_DATA;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
    this.#bytes += entry.file.size;
  }

  /** The next large file, or files for one slab; null when there is none, or too few for a batch and `partial` is not set. */
  take(partial: boolean): { large: Entry } | { entries: Entry[] } | null {
    const first = this.#entries[0];
    if (first === undefined) return null;
    if (isLarge(first.file)) {
      this.#remove(1, first.file.size);
      return { large: first };
    }
    const { end, bytes } = this.#batch();
    const couldGrow = end === this.#entries.length && end < SLAB_FILES && bytes < BATCH_DATA;
    if (couldGrow && !partial) return null;
    const entries = this.#entries.slice(0, end);
    this.#remove(end, bytes);
    return { entries };
  }

  /** True when the next one needs no slab. */
  get nextIsLarge(): boolean {
    const first = this.#entries[0];
    return first !== undefined && isLarge(first.file);
  }

  clear(): Entry[] {
    this.#bytes = 0;
    return this.#entries.splice(0);
  }

  #remove(count: number, bytes: number): void {
    this.#entries.splice(0, count);
    this.#bytes -= bytes;
  }

  /** How far a batch reaches. */
  #batch(): { end: number; bytes: number } {
    let bytes = 0;
    let paths = 0;
    let end = 0;
    for (; end < this.#entries.length && end < SLAB_FILES && bytes < BATCH_DATA; end++) {
      const { file } = this.#entries[end]!;
      if (isLarge(file) || bytes + file.size > SLAB_DATA || paths + file.path.length > SLAB_PATHS) break;
      bytes += file.size;
      paths += file.path.length;
    }
    return { end, bytes };
  }
}

/** Writes into a slab what a worker must know of the files. */
export function describe(slab: Slab, entries: readonly Entry[]): void {
  let end = 0;
  for (const [i, { file }] of entries.entries()) {
    slab.paths.set(file.path, end);
    end += file.path.length;
    const row = i * FILE_WIDTH;
    slab.files[row + FILE.pathEnd] = end;
    slab.files[row + FILE.trusted] = file.trusted;
    slab.files[row + FILE.dev] = file.dev;
    slab.files[row + FILE.ino] = file.ino;
    slab.files[row + FILE.sparse] = file.sparse ? 1 : 0;
  }
}
