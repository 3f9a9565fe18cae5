import { Cursor } from '../../archive/tree/read.ts';
import { NAME, TREES } from '../../archive/tree/schema.ts';
import { Miss } from '../../cache/miss.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt } from '../../errors.ts';

/** One name in a snapshot. `name` shares the memory of a page. */
export interface Entry {
  /** Path of its folder from where the walk began, `/` at its end unless empty. */
  folder: Buffer;
  name: Buffer;
  inode: number;
  /** d_type, as readdir(3) tells it. */
  type: number;
  /** 0 right below the start. */
  depth: number;
}

export const D_TYPE_FOLDER = 4;

const SLASH = Buffer.from('/');

interface Level {
  cursor: Cursor;
  inode: number;
  folder: Buffer;
  /** The cursor stands before its first row until this is true. */
  begun: boolean;
}

export function entryPath(entry: Entry): Buffer {
  return entry.folder.length === 0 ? entry.name : Buffer.concat([entry.folder, entry.name]);
}

/**
 * All entries below a folder, each folder right before what it holds, names in byte order. `next` is synchronous; when
 * it throws `Miss` nothing has moved: resolve it and call again. Throws 'corrupt' for a folder that lies in itself. Holds one
 * cursor per level, whatever the tree's size.
 */
export class EntryWalk {
  readonly #reader: SnapshotReader;
  readonly #levels: Level[] = [];
  readonly #recursive: boolean;
  /** The folder that the next call enters. */
  #descendInto: Entry | null = null;

  constructor(reader: SnapshotReader, inode: number, options: { recursive: boolean; folder?: Buffer }) {
    this.#reader = reader;
    this.#recursive = options.recursive;
    this.#push(inode, options.folder ?? Buffer.alloc(0));
  }

  #push(inode: number, folder: Buffer): void {
    const { source, roots } = this.#reader;
    this.#levels.push({ cursor: new Cursor(source, TREES.names, roots.names), inode, folder, begun: false });
  }

  /** Does not enter the folder that `next` has just answered. */
  skip(): void {
    this.#descendInto = null;
  }

  next(): Entry | null {
    if (this.#descendInto !== null) {
      const { folder, name, inode } = this.#descendInto;
      this.#descendInto = null;
      if (this.#levels.some((level) => level.inode === inode)) {
        const snapshot = this.#reader.record.id.toString('hex').slice(0, 8);
        throw corrupt(`snapshot ${snapshot}: folder ${Buffer.concat([folder, name])} lies in itself`);
      }
      this.#push(inode, Buffer.concat([folder, name, SLASH]));
    }
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      const { cursor } = level;
      const on = level.begun ? cursor.next() : cursor.seek(level.inode);
      level.begun = true;
      const page = cursor.page;
      if (!on || page === null || page.num(NAME.parent, cursor.index) !== level.inode) {
        this.#levels.pop();
        continue;
      }
      const entry: Entry = {
        folder: level.folder,
        name: page.slice(NAME.name, cursor.index),
        inode: page.num(NAME.inode, cursor.index),
        type: page.num(NAME.type, cursor.index),
        depth: this.#levels.length - 1,
      };
      if (this.#recursive && entry.type === D_TYPE_FOLDER) this.#descendInto = entry;
      return entry;
    }
    return null;
  }
}

/** Runs `step` again and again until it answers null, fetching what it misses. `step` must be repeatable after a Miss. */
export async function forEachStep<T>(
  reader: SnapshotReader,
  step: () => T | null,
  visit: (value: T) => void | Promise<void>,
): Promise<void> {
  for (;;) {
    let value: T | null;
    try {
      value = step();
    } catch (error) {
      if (!(error instanceof Miss)) throw error;
      await reader.resolve(error);
      continue;
    }
    if (value === null) return;
    const pending = visit(value);
    if (pending !== undefined) await pending;
  }
}
