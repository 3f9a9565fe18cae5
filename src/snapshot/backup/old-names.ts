/** The names that the snapshot before has in the folder at hand, taken in step with those that the walk finds there. */
import { Cursor } from '../../archive/tree/read.ts';
import { NAME, TREES } from '../../archive/tree/schema.ts';
import type { OldTrees } from './mutations.ts';

export class OldNames {
  readonly #names: Cursor | null;
  readonly #gone: (name: string, inode: number) => void;
  #folder = 0;
  /** The first that is still to come; null behind the last one. */
  #name: string | null = null;

  /** `gone` is told of names that nothing has any more. */
  constructor(base: OldTrees | null, gone: (name: string, inode: number) => void) {
    this.#gone = gone;
    this.#names = base === null ? null : new Cursor(base.source, TREES.names, base.roots.names);
  }

  /** The names of this folder come next; null: it is new and has none, and a seek for each of 10,000 such would be wasted. */
  enter(folder: number | null): void {
    this.#name = null;
    if (this.#names === null || folder === null) return;
    this.#folder = folder;
    this.#names.seek(folder);
    this.#read();
  }

  /** The inode that had this name, 0 for none. Names before it are gone. */
  take(name: string): number {
    while (this.#name !== null && this.#name < name) this.#drop();
    return this.#name === name ? this.#next() : 0;
  }

  /** All that are left are gone. */
  end(): void {
    while (this.#name !== null) this.#drop();
  }

  #drop(): void {
    const name = this.#name!;
    this.#gone(name, this.#next());
  }

  #next(): number {
    const names = this.#names!;
    const inode = names.page!.num(NAME.inode, names.index);
    names.next();
    this.#read();
    return inode;
  }

  #read(): void {
    const { page, index } = this.#names!;
    if (page === null || page.num(NAME.parent, index) !== this.#folder) this.#name = null;
    else this.#name = page.bytes.toString('latin1', page.start(NAME.name, index), page.end(NAME.name, index));
  }
}
