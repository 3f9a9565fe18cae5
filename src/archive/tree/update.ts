/**
 * Copy-on-write updates: sorted changes and an old tree in, a new tree out that shares every page that did not change.
 *
 * The old tree is walked in key order. A subtree without changes is taken over as it is; a page with changes is merged
 * into the builder of its level. A builder that holds too little for a page of its own when a page boundary comes takes
 * in the next page too; one that holds too much is cut. So pages stay between a quarter and the whole of PAGE_TARGET, but for
 * the last of a level. Leaves go to the sink as they fill up; upper pages, and a root that is a leaf, wait for `finish`,
 * so that an archive carries the upper pages of all its trees together at its end.
 */
import { RozenError } from '../../errors.ts';
import { PAGE_TARGET } from '../format.ts';
import { PageBuilder } from './builder.ts';
import { type Entry, type PageSink, TreeLevels } from './levels.ts';
import type { Page } from './page.ts';
import {
  childPointer,
  collectRows,
  collectRowsBelow,
  compareKey,
  loadPage,
  lowerBound,
  type PageSource,
} from './read.ts';
import { CHILD, type Field, type PagePointer, type TreeRoot, type TreeSchema } from './schema.ts';

/** A change of one row: `value` null deletes (nothing happens if there is no such row), else inserts or replaces. */
export interface Mutation {
  key: readonly Field[];
  value: readonly Field[] | null;
}

export type { PageSink } from './levels.ts';

export interface UpdateOptions {
  schema: TreeSchema;
  /** The tree to start from; an empty one for a bulk load. */
  root: TreeRoot;
  source: PageSource;
  /** In strictly ascending key order. May be a generator: it is drawn from once and nothing is kept. */
  mutations: Iterable<Mutation>;
  sink: PageSink;
  /** True: share nothing, write every page afresh. A set: do so with pages of these archive rows. */
  rewrite?: boolean | ReadonlySet<number>;
  /** The row of the archive that the sink writes to. When given, a root page that lies elsewhere is written again there. */
  ownRow?: number;
  /** With `ownRow`: the first leaf too. */
  repeatFirst?: boolean;
  /** Bytes at which a page is full; for tests. */
  pageTarget?: number;
}

/** An update whose leaves are written and whose upper pages wait. */
export interface PendingTree {
  readonly schema: TreeSchema;
  /** Rows of the new tree. */
  readonly count: number;
  /** False when the new tree is the old one, page for page; `finish` then answers with the old root. */
  readonly changed: boolean;
  /** Pages of the old tree that the new one does not hold. */
  readonly replaced: PagePointer[];
  /** Rows of the archives that pages of the new tree lie in; complete after `finish`. */
  readonly rows: Set<number>;
  /** Writes the waiting pages, the root last. */
  finish(): TreeRoot;
}

export interface UpdateResult {
  root: TreeRoot;
  replaced: PagePointer[];
}

/** The first half of an update: merges everything and writes the leaves. */
export function beginUpdate(options: UpdateOptions): PendingTree {
  return new TreeUpdate(options).run();
}

/** A whole update in one call. Throws 'internal' for mutations out of order, whatever the source throws, and `Miss`. */
export function updateTree(options: UpdateOptions): UpdateResult {
  const pending = beginUpdate(options);
  const root = pending.finish();
  return { root, replaced: pending.replaced };
}

function compareKeys(a: readonly Field[], b: readonly Field[]): number {
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    const order = typeof x === 'number' ? x - (y as number) : Buffer.compare(x, y as Uint8Array);
    if (order !== 0) return order;
  }
  return 0;
}

/** The child in row `index` of a page above the leaves; its key is copied. */
function entryAt(page: Page, index: number): Entry {
  const { keys } = page.schema;
  const key: Field[] = [];
  for (let c = 0; c < keys; c++) {
    key.push(page.schema.columns[c]!.kind === 'bytes' ? Buffer.from(page.slice(c, index)) : page.num(c, index));
  }
  return { key, pointer: childPointer(page, index), count: page.num(keys + CHILD.count, index) };
}

class TreeUpdate implements PendingTree {
  readonly schema: TreeSchema;
  count = 0;
  changed = false;
  readonly replaced: PagePointer[] = [];
  readonly rows = new Set<number>();
  readonly #options: UpdateOptions;
  readonly #mutations: Iterator<Mutation>;
  readonly #levels: TreeLevels;
  #next: Mutation | null = null;
  /** The first leaf is merged even if nothing of it changes, so that it is written again. */
  #repeatFirst = false;

  constructor(options: UpdateOptions) {
    this.#options = options;
    this.schema = options.schema;
    this.#mutations = options.mutations[Symbol.iterator]();
    const { schema, sink, pageTarget = PAGE_TARGET } = options;
    this.#levels = new TreeLevels({ schema, sink, full: pageTarget });
  }

  run(): this {
    const { root } = this.#options;
    this.#advance();
    const pointer = { row: root.row, offset: root.offset, length: root.length };
    const old: Entry | null = root.row === 0 ? null : { key: [], pointer, count: root.count };
    this.#repeatFirst = this.#options.repeatFirst === true && this.#next !== null;
    if (old !== null) this.#visit(old, { level: root.level, end: null, first: true });
    while (this.#next !== null) {
      if (this.#next.value !== null) this.#levels.push(this.#next.key, this.#next.value);
      this.#advance();
    }
    this.#levels.end();
    this.count = this.#levels.root?.count ?? 0;
    this.changed = this.#levels.root !== old;
    return this;
  }

  finish(): TreeRoot {
    const root = this.#levels.write((shared) => this.#collectRows(shared), this.rows);
    return root.row === 0 || this.#levels.rootIsNew ? root : this.#repeatRoot(root);
  }

  /** A root page that was taken over from the old tree. */
  #repeatRoot(root: TreeRoot): TreeRoot {
    const { source, sink, ownRow } = this.#options;
    if (ownRow === undefined || root.row === ownRow) {
      this.#collectRows(root);
      return root;
    }
    const page = loadPage(source, root, { schema: this.schema, level: root.level, count: root.count });
    this.rows.add(ownRow);
    this.replaced.push({ row: root.row, offset: root.offset, length: root.length });
    if (root.level > 0 && this.#options.repeatFirst) return { ...root, ...this.#repeatLeftmost(page, ownRow) };
    collectRowsBelow(source, page, this.rows);
    return { ...root, ...sink.write(this.schema, root.level, page.bytes) };
  }

  /** Writes a page above the leaves again, with those that lead from it to the first leaf. */
  #repeatLeftmost(page: Page, ownRow: number): PagePointer {
    const { source, sink } = this.#options;
    const child = entryAt(page, 0);
    const level = page.level - 1;
    const below = loadPage(source, child.pointer, { schema: this.schema, level, count: child.count });
    const builder = new PageBuilder(this.schema, page.level);
    for (let i = 0; i < page.count; i++) {
      const { key, pointer, count } = i === 0 ? child : entryAt(page, i);
      let { row, offset, length } = pointer;
      if (i > 0) this.#collectRows({ ...pointer, level, count });
      else if (level > 0) ({ row, offset, length } = this.#repeatLeftmost(below, ownRow));
      else if (row !== ownRow) ({ row, offset, length } = sink.write(this.schema, 0, below.bytes));
      if (i === 0 && row !== pointer.row) this.replaced.push(pointer);
      builder.push(key, [row, offset, length, count]);
    }
    return sink.write(this.schema, page.level, builder.encode(builder.count));
  }

  #collectRows(root: TreeRoot): void {
    const { source } = this.#options;
    collectRows({ source, schema: this.schema, root }, this.rows);
  }

  /**
   * Takes one old page with all below it into the new tree. `end` is the key where its range ends, null: never; `first`:
   * nothing of the tree lies before it.
   */
  #visit(entry: Entry, { level, end, first }: { level: number; end: readonly Field[] | null; first: boolean }): void {
    const closable = this.#levels.closable(level);
    if (closable) this.#levels.close(level);
    const reusable = closable && !(first && this.#repeatFirst) && this.#mayShare(entry, level);
    if (reusable && !this.#pending(end)) {
      this.#levels.share(level, entry);
      return;
    }
    const page = loadPage(this.#options.source, entry.pointer, { schema: this.schema, level, count: entry.count });
    if (level === 0) this.#mergeLeaf(entry, { page, end, reusable });
    else this.#mergeUpper(entry, { page, end, reusable, first });
  }

  #mergeUpper(
    entry: Entry,
    old: { page: Page; end: readonly Field[] | null; reusable: boolean; first: boolean },
  ): void {
    const { page, end, reusable, first } = old;
    if (reusable) this.#levels.follow(page.level);
    let child = entryAt(page, 0);
    for (let i = 0; i < page.count; i++) {
      const following = i + 1 < page.count ? entryAt(page, i + 1) : null;
      const range = { level: page.level - 1, end: following === null ? end : following.key };
      this.#visit(child, { ...range, first: first && i === 0 });
      if (following !== null) child = following;
    }
    const same = this.#levels.followed(page.level, page.count);
    if (same) this.#levels.share(page.level, entry);
    else this.replaced.push(entry.pointer);
  }

  #mergeLeaf(entry: Entry, old: { page: Page; end: readonly Field[] | null; reusable: boolean }): void {
    const { page, end, reusable } = old;
    const levels = this.#levels;
    if (reusable) {
      while (this.#pending(end) && !this.#changes(page, this.#next!)) this.#advance();
      if (!this.#pending(end)) {
        levels.share(0, entry);
        return;
      }
    }
    this.replaced.push(entry.pointer);
    let position = 0;
    while (this.#pending(end)) {
      const { key, value } = this.#next!;
      const at = this.#position(page, key);
      levels.pushFrom(page, position, at);
      position = at < page.count && this.#compare(page, at, key) === 0 ? at + 1 : at;
      if (value !== null) levels.push(key, value);
      this.#advance();
    }
    levels.pushFrom(page, position, page.count);
  }

  #position(page: Page, key: readonly Field[]): number {
    return lowerBound(page, key[0] as number, key[1], key[2] as number | undefined);
  }

  #compare(page: Page, index: number, key: readonly Field[]): number {
    return compareKey(page, index, key[0] as number, key[1], key[2] as number | undefined);
  }

  /** False for a mutation that would leave the page as it is. */
  #changes(page: Page, mutation: Mutation): boolean {
    const at = this.#position(page, mutation.key);
    const present = at < page.count && this.#compare(page, at, mutation.key) === 0;
    if (mutation.value === null) return present;
    if (!present) return true;
    return mutation.value.some((field, i) => {
      const c = this.schema.keys + i;
      return typeof field === 'number' ? page.num(c, at) !== field : page.compareBytes(c, at, field) !== 0;
    });
  }

  /** True while the next mutation lies before `end`. */
  #pending(end: readonly Field[] | null): boolean {
    return this.#next !== null && (end === null || compareKeys(this.#next.key, end) < 0);
  }

  #advance(): void {
    const { done, value } = this.#mutations.next();
    const following: Mutation | null = done ? null : value;
    if (this.#next !== null && following !== null && compareKeys(this.#next.key, following.key) >= 0) {
      throw new RozenError('internal', `tree ${this.schema.name}: mutations out of order`);
    }
    this.#next = following;
  }

  /** Whether the new tree may hold this old page and all below it. */
  #mayShare(entry: Entry, level: number): boolean {
    const { rewrite } = this.#options;
    if (rewrite === undefined || rewrite === false) return true;
    if (rewrite === true) return false;
    if (rewrite.has(entry.pointer.row)) return false;
    if (level === 0) return true;
    const page = loadPage(this.#options.source, entry.pointer, { schema: this.schema, level, count: entry.count });
    for (let i = 0; i < page.count; i++) {
      if (level === 1 ? rewrite.has(page.num(this.schema.keys, i)) : !this.#mayShare(entryAt(page, i), level - 1))
        return false;
    }
    return true;
  }
}
