/** Reading trees: descents, scans and ranks over pages that somebody else holds. */
import { corrupt } from '../../errors.ts';
import type { Page } from './page.ts';
import { CHILD, type Field, type PagePointer, type TreeRoot, type TreeSchema } from './schema.ts';

export type { PagePointer, TreeRoot } from './schema.ts';

/** Hands out decoded pages. Synchronous; throws `Miss` when the page is not at hand, 'corrupt' when it is damaged. */
export interface PageSource {
  page(row: number, offset: number, length: number): Page;
}

/** What a pointer promises of the page it leads to. */
export interface PageExpectation {
  schema: TreeSchema;
  level: number;
  /** Rows of the tree at and below the page. */
  count: number;
}

/** Loads a page and holds it against its pointer, so that damaged or forged pointers cannot lead a reader in circles. */
export function loadPage(source: PageSource, pointer: PagePointer, expected: PageExpectation): Page {
  const page = source.page(pointer.row, pointer.offset, pointer.length);
  if (page.schema !== expected.schema || page.level !== expected.level || page.total !== expected.count) {
    throw corrupt(
      `tree ${expected.schema.name}: the page at ${pointer.row}:${pointer.offset} is not the one its parent names`,
    );
  }
  return page;
}

/** The pointer in row `index` of a page above the leaves. */
export function childPointer(page: Page, index: number): PagePointer {
  const k = page.schema.keys;
  return {
    row: page.num(k + CHILD.row, index),
    offset: page.num(k + CHILD.offset, index),
    length: page.num(k + CHILD.length, index),
  };
}

/**
 * Order of the key in row `index` against a key of up to three parts. A part that is undefined sorts before every value,
 * so (parent) alone stands right before the first entry of that folder.
 */
export function compareKey(page: Page, index: number, k0: number, k1?: Field, k2?: number): number {
  const first = page.num(0, index) - k0;
  if (first !== 0 || page.schema.keys === 1) return first;
  if (k1 === undefined) return 1;
  const second = typeof k1 === 'number' ? page.num(1, index) - k1 : page.compareBytes(1, index, k1);
  if (second !== 0 || page.schema.keys === 2) return second;
  return k2 === undefined ? 1 : page.num(2, index) - k2;
}

/** The first row of a page whose key is not below the given one; `page.count` when there is none. */
export function lowerBound(page: Page, k0: number, k1?: Field, k2?: number): number {
  let low = 0;
  let high = page.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareKey(page, middle, k0, k1, k2) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The child in whose range a key lies: the last one whose first key is not above it, else the first. */
function childFor(page: Page, k0: number, k1?: Field, k2?: number): number {
  const index = lowerBound(page, k0, k1, k2);
  if (index < page.count && compareKey(page, index, k0, k1, k2) === 0) return index;
  return index === 0 ? 0 : index - 1;
}

/**
 * A place in a tree. It keeps the pages from the root to its leaf, so a key that lies in the leaf of the last call, as
 * with inodes in order, is found without a descent. Holds no state per file and may be used for any number of keys.
 * When a page is missing (`Miss`), `next` leaves the place as it was and `seek` leaves the cursor invalid: call again.
 */
export class Cursor {
  readonly source: PageSource;
  readonly schema: TreeSchema;
  readonly root: TreeRoot;
  /** The leaf and the row in it where the cursor stands; null and 0 before the first seek, at the end and in an empty tree. */
  page: Page | null = null;
  index = 0;
  /** Rows of the tree before `page`. */
  #rankBase = 0;
  /** The leaf of the last descent, kept when the cursor runs off its end. */
  #leaf: Page | null = null;
  /** By level, from 1: pages above the leaf and the child taken in each. */
  readonly #path: (Page | null)[];
  readonly #taken: number[];

  constructor(source: PageSource, schema: TreeSchema, root: TreeRoot) {
    this.source = source;
    this.schema = schema;
    this.root = root;
    this.#path = new Array<Page | null>(root.level + 1).fill(null);
    this.#taken = new Array<number>(root.level + 1).fill(0);
  }

  /** True while the cursor stands on a row. */
  get valid(): boolean {
    return this.page !== null;
  }

  /** Rows of the tree before this one; `root.count` at the end. */
  get rank(): number {
    return this.page === null ? this.root.count : this.#rankBase + this.index;
  }

  /** Goes to the first row whose key is not below the given one (missing parts: the lowest). False when there is none. */
  seek(k0: number, k1?: Field, k2?: number): boolean {
    const leaf = this.#leaf;
    if (leaf !== null) {
      const index = this.#guess(leaf, k0) ?? this.#within(leaf, k0, k1, k2);
      if (index >= 0) return this.#stand(leaf, index);
    }
    this.#reset();
    if (this.root.row === 0) return false;
    let page = this.#load(this.root, this.root.level, this.root.count);
    let rank = 0;
    while (page.level > 0) {
      const child = childFor(page, k0, k1, k2);
      rank += page.ranks![child]!;
      page = this.#descend(page, child);
    }
    this.#leaf = page;
    this.#rankBase = rank;
    const index = lowerBound(page, k0, k1, k2);
    if (index < page.count) return this.#stand(page, index);
    // The key lies behind the last row of its leaf: the next leaf begins with the answer.
    this.page = page;
    this.index = page.count - 1;
    return this.next();
  }

  /** Goes to the row with exactly this key. False (and the cursor stands elsewhere) when there is none. */
  find(k0: number, k1?: Field, k2?: number): boolean {
    return this.seek(k0, k1, k2) && compareKey(this.page!, this.index, k0, k1, k2) === 0;
  }

  /** Goes to the row with `rank` rows before it. False when the tree has no so many. */
  seekRank(rank: number): boolean {
    const leaf = this.#leaf;
    if (leaf !== null && rank >= this.#rankBase && rank < this.#rankBase + leaf.count) {
      return this.#stand(leaf, rank - this.#rankBase);
    }
    this.#reset();
    if (!(rank >= 0 && rank < this.root.count)) return false;
    let page = this.#load(this.root, this.root.level, this.root.count);
    let base = 0;
    while (page.level > 0) {
      const ranks = page.ranks!;
      let low = 0;
      let high = page.count - 1;
      while (low < high) {
        const middle = (low + high + 1) >>> 1;
        if (base + ranks[middle]! <= rank) low = middle;
        else high = middle - 1;
      }
      base += ranks[low]!;
      page = this.#descend(page, low);
    }
    this.#leaf = page;
    this.#rankBase = base;
    return this.#stand(page, rank - base);
  }

  /** Goes to the next row in key order. False at the end of the tree. */
  next(): boolean {
    const leaf = this.page;
    if (leaf === null) return false;
    if (this.index + 1 < leaf.count) {
      this.index++;
      return true;
    }
    let level = 1;
    while (level <= this.root.level && this.#taken[level]! + 1 >= this.#path[level]!.count) level++;
    if (level > this.root.level) {
      this.page = null;
      this.index = 0;
      return false;
    }
    // Load first, then change the place: a Miss in between must leave the cursor where it was.
    const pages: Page[] = [];
    let page = this.#path[level]!;
    let child = this.#taken[level]! + 1;
    while (page.level > 0) {
      page = this.#load(childPointer(page, child), page.level - 1, page.num(this.schema.keys + CHILD.count, child));
      pages.push(page);
      child = 0;
    }
    this.#taken[level] = this.#taken[level]! + 1;
    for (const loaded of pages) {
      if (loaded.level === 0) continue;
      this.#path[loaded.level] = loaded;
      this.#taken[loaded.level] = 0;
    }
    this.#rankBase += leaf.count;
    this.#leaf = page;
    return this.#stand(page, 0);
  }

  #stand(page: Page, index: number): boolean {
    this.page = page;
    this.index = index;
    return true;
  }

  #reset(): void {
    this.page = null;
    this.#leaf = null;
    this.index = 0;
  }

  #load(pointer: PagePointer, level: number, count: number): Page {
    return loadPage(this.source, pointer, { schema: this.schema, level, count });
  }

  #descend(page: Page, child: number): Page {
    this.#path[page.level] = page;
    this.#taken[page.level] = child;
    return this.#load(childPointer(page, child), page.level - 1, page.num(this.schema.keys + CHILD.count, child));
  }

  /** Inode numbers are dense more often than not: the row then lies as far from the first as the numbers do. */
  #guess(leaf: Page, k0: number): number | undefined {
    if (this.schema.keys !== 1) return undefined;
    const index = k0 - leaf.num(0, 0);
    return index >= 0 && index < leaf.count && leaf.num(0, index) === k0 ? index : undefined;
  }

  /** The row in the leaf at hand where a search for this key ends; -1 when only a descent can tell. */
  #within(leaf: Page, k0: number, k1?: Field, k2?: number): number {
    if (compareKey(leaf, leaf.count - 1, k0, k1, k2) < 0) return -1;
    if (compareKey(leaf, 0, k0, k1, k2) > 0) return -1;
    return lowerBound(leaf, k0, k1, k2);
  }
}

/** A key of one to three parts, as far as it is given. */
export type KeyPrefix = readonly [number, Field?, number?];

/**
 * Rows in key order from `from` (inclusive) to `to` (exclusive), each as an array of fields. Byte strings are views into
 * pages. May throw `Miss` at any row; the generator is then finished, so begin again behind the last row that it gave.
 */
export function* rows(
  tree: { source: PageSource; schema: TreeSchema; root: TreeRoot },
  from: KeyPrefix = [Number.NEGATIVE_INFINITY],
  to?: KeyPrefix,
): Generator<Field[], void, undefined> {
  const cursor = new Cursor(tree.source, tree.schema, tree.root);
  let on = cursor.seek(from[0], from[1], from[2]);
  while (on) {
    const page = cursor.page!;
    if (to !== undefined && compareKey(page, cursor.index, to[0], to[1], to[2]) >= 0) return;
    yield page.fields(cursor.index);
    on = cursor.next();
  }
}

/** Adds the archive rows that the pages of a tree lie in. Reads the pages above the leaves, of which there are few. */
export function collectRows(tree: { source: PageSource; schema: TreeSchema; root: TreeRoot }, into: Set<number>): void {
  const { source, schema, root } = tree;
  if (root.row === 0) return;
  into.add(root.row);
  if (root.level === 0) return;
  collectRowsBelow(source, loadPage(source, root, { schema, level: root.level, count: root.count }), into);
}

/** The same without the row of the page itself. */
export function collectRowsBelow(source: PageSource, page: Page, into: Set<number>): void {
  const { schema, level } = page;
  if (level === 0) return;
  for (let i = 0; i < page.count; i++) {
    const pointer = childPointer(page, i);
    if (level === 1) into.add(pointer.row);
    else {
      const root = { ...pointer, level: level - 1, count: page.num(schema.keys + CHILD.count, i) };
      collectRows({ source, schema, root }, into);
    }
  }
}
