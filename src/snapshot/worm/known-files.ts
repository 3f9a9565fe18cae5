/** What the snapshot before knows of files by their content, and of the places that they had. */
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, NAME, TREES, type TreeRoots, VERSION } from '../../archive/tree/schema.ts';
import { forEachName } from '../backup/old-rows.ts';
import { S_IFMT } from '../view/attributes.ts';
import { ContentIndex } from './content-index.ts';

interface KnownRow {
  /** Type bits of the mode. */
  kind: number;
  version: number;
  parent: number;
  /** It has no name. */
  isGone: boolean;
}

export class KnownFiles {
  readonly #inodes: Cursor;
  readonly #versions: Cursor;
  readonly #names: Cursor;

  constructor({ source, roots }: { source: PageSource; roots: TreeRoots }) {
    this.#inodes = new Cursor(source, TREES.inodes, roots.inodes);
    this.#versions = new Cursor(source, TREES.versions, roots.versions);
    this.#names = new Cursor(source, TREES.names, roots.names);
  }

  /** Inode numbers of all files that are not empty, by the ids of their current contents. */
  byContent(): ContentIndex {
    const inodes = this.#inodes;
    const versions = this.#versions;
    const index = new ContentIndex(versions.root.count);
    for (let on = versions.seek(0); on; on = versions.next()) {
      const page = versions.page!;
      const inode = page.num(VERSION.inode, versions.index);
      if (!inodes.find(inode)) continue;
      const row = inodes.index;
      if (inodes.page!.num(INODE.version, row) !== page.num(VERSION.version, versions.index)) continue;
      if (inodes.page!.num(INODE.size, row) === 0) continue;
      index.add(page.slice(VERSION.contentId, versions.index), inode);
    }
    return index;
  }

  /** The id of the current content; null for what has none. Valid until the next call. */
  contentId(inode: number): Buffer | null {
    const inodes = this.#inodes;
    const versions = this.#versions;
    if (!inodes.find(inode) || !versions.find(inode, inodes.page!.num(INODE.version, inodes.index))) return null;
    return versions.page!.slice(VERSION.contentId, versions.index);
  }

  row(inode: number): KnownRow | null {
    const inodes = this.#inodes;
    if (!inodes.find(inode)) return null;
    const page = inodes.page!;
    const row = inodes.index;
    return {
      kind: page.num(INODE.mode, row) & S_IFMT,
      version: page.num(INODE.version, row),
      parent: page.num(INODE.parent, row),
      isGone: page.num(INODE.nlink, row) === 0,
    };
  }

  /** Whether a name in a folder led to this inode. */
  isNamed(inode: number, folder: number, name: Buffer): boolean {
    const names = this.#names;
    return names.find(folder, name) && names.page!.num(NAME.inode, names.index) === inode;
  }

  /** Names in a folder in order, as byte strings. */
  namesIn(folder: number): { name: string; inode: number }[] {
    const found: { name: string; inode: number }[] = [];
    forEachName(this.#names, folder, (name, inode) => found.push({ name: name(), inode }));
    return found;
  }
}
