import { ROOT_INODE } from '../../archive/format.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { NAME, TREES } from '../../archive/tree/schema.ts';
import { Miss } from '../../cache/miss.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt } from '../../errors.ts';
import { InodeLookup } from '../view/attributes.ts';
import { D_TYPE_FOLDER } from '../view/entry-walk.ts';

export interface NamedIn {
  parent: number;
  name: Buffer;
}

/** Linux allows 4096 bytes for a path, so a deeper chain of parents is a loop. */
const MAX_DEPTH = 4096;

/** From inode numbers back to names: trees are keyed by (parent, name), so folders are looked through, each once. */
export class ReverseNames {
  readonly #reader: SnapshotReader;
  readonly #inodes: InodeLookup;
  /** Of each folder that was looked through: its subfolders. */
  readonly #subfolders = new Map<number, Map<number, Buffer>>();
  readonly #paths = new Map<number, Buffer[]>([[ROOT_INODE, []]]);

  constructor(reader: SnapshotReader) {
    this.#reader = reader;
    this.#inodes = new InodeLookup(reader);
  }

  /** Names from the root to a folder. */
  async folderPath(inode: number): Promise<Buffer[]> {
    const chain: { inode: number; parent: number }[] = [];
    let known = this.#paths.get(inode);
    for (let at = inode; known === undefined; known = this.#paths.get(at)) {
      const { parent } = await this.#retry(() => this.#inodes.get(at));
      chain.push({ inode: at, parent });
      if (chain.length > MAX_DEPTH) throw corrupt(`the parents of inode ${inode} form a loop`);
      at = parent;
    }
    let path = known;
    for (const link of chain.reverse()) {
      const name = (await this.#subfoldersOf(link.parent)).get(link.inode);
      if (name === undefined) throw corrupt(`folder ${link.inode} has no name in its parent ${link.parent}`);
      path = [...path, name];
      this.#paths.set(link.inode, path);
    }
    return path;
  }

  async #subfoldersOf(parent: number): Promise<Map<number, Buffer>> {
    const known = this.#subfolders.get(parent);
    if (known !== undefined) return known;
    const found = new Map<number, Buffer>();
    await this.#scan(parent, parent, (_parent, inode, type, name) => {
      if (type === D_TYPE_FOLDER) found.set(inode, Buffer.from(name()));
    });
    this.#subfolders.set(parent, found);
    return found;
  }

  /** Every name of these inodes. One that has several (hard links) makes it look through the whole tree. */
  async namesOf(
    inodes: ReadonlyMap<number, { parent: number; nlink: number; isFolder: boolean }>,
  ): Promise<Map<number, NamedIn[]>> {
    const found = new Map<number, NamedIn[]>();
    const take = (parent: number, inode: number, _type: number, name: () => Buffer): void => {
      if (!inodes.has(inode)) return;
      const list = found.get(inode);
      const row = { parent, name: Buffer.from(name()) };
      if (list === undefined) found.set(inode, [row]);
      else list.push(row);
    };
    const parents = new Set<number>();
    let everywhere = false;
    for (const { parent, nlink, isFolder } of inodes.values()) {
      parents.add(parent);
      if (nlink > 1 && !isFolder) everywhere = true;
    }
    if (everywhere) await this.#scan(0, Number.MAX_SAFE_INTEGER, take);
    else for (const parent of [...parents].sort((a, b) => a - b)) await this.#scan(parent, parent, take);
    return found;
  }

  /** Calls `visit` for each row of the folders from `first` to `last`. */
  async #scan(
    first: number,
    last: number,
    visit: (parent: number, inode: number, type: number, name: () => Buffer) => void,
  ): Promise<void> {
    const cursor = new Cursor(this.#reader.source, TREES.names, this.#reader.roots.names);
    let on = await this.#retry(() => cursor.seek(first));
    while (on) {
      const { page, index } = cursor;
      if (page === null) return;
      const parent = page.num(NAME.parent, index);
      if (parent > last) return;
      visit(parent, page.num(NAME.inode, index), page.num(NAME.type, index), () => page.slice(NAME.name, index));
      // Awaiting a row at a time would cost more than the row.
      on = index + 1 < page.count ? cursor.next() : await this.#retry(() => cursor.next());
    }
  }

  async #retry<T>(step: () => T): Promise<T> {
    for (;;) {
      try {
        return step();
      } catch (error) {
        if (!(error instanceof Miss)) throw error;
        await this.#reader.resolve(error);
      }
    }
  }
}
