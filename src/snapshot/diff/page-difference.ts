import type { Page } from '../../archive/tree/page.ts';
import { compareKey } from '../../archive/tree/read.ts';
import type { Field, TreeName } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { childrenOf, loadNode, type PageNode, pageKey, topOf } from './page-nodes.ts';

/** One row, where it lies. */
export interface RowPlace {
  page: Page;
  index: number;
}

/** Told in key order. A row that is equal in both trees may be told too, if its pages differ. */
export interface DifferenceVisitor {
  removed(row: RowPlace): void;
  added(row: RowPlace): void;
  both(older: RowPlace, newer: RowPlace): void;
}

/**
 * Compares one tree of two snapshots that count archive rows alike. Pages that both share are never read: what two
 * snapshots of a million files have in common costs nothing. Rows in pages that they do not share are merged by key;
 * a key in a shared page is in both, with one value, so what the merge finds is all there is.
 */
export async function comparePages(
  older: SnapshotReader,
  newer: SnapshotReader,
  tree: TreeName,
  visitor: DifferenceVisitor,
): Promise<void> {
  const [a, b] = await unsharedLeaves(older, newer, tree);
  const left = new LeafRows(older, tree, a);
  const right = new LeafRows(newer, tree, b);
  let onLeft = await left.next();
  let onRight = await right.next();
  while (onLeft || onRight) {
    const order = !onRight ? -1 : !onLeft ? 1 : compareRows(left, right);
    if (order < 0) visitor.removed(left.place);
    else if (order > 0) visitor.added(right.place);
    else visitor.both(left.place, right.place);
    // Awaiting only at the end of a page: a promise per row would cost more than the comparison.
    if (order <= 0) onLeft = left.advance() || (await left.next());
    if (order >= 0) onRight = right.advance() || (await right.next());
  }
}

async function unsharedLeaves(
  older: SnapshotReader,
  newer: SnapshotReader,
  tree: TreeName,
): Promise<[PageNode[], PageNode[]]> {
  let a = topOf(older.roots[tree]);
  let b = topOf(newer.roots[tree]);
  for (;;) {
    const level = Math.max(a[0]?.level ?? 0, b[0]?.level ?? 0);
    if ((a[0]?.level ?? level) === (b[0]?.level ?? level)) {
      const shared = new Set(b.map(pageKey));
      const both = new Set(a.map(pageKey).filter((k) => shared.has(k)));
      a = a.filter((child) => !both.has(pageKey(child)));
      b = b.filter((child) => !both.has(pageKey(child)));
    }
    if (level === 0) return [a, b];
    if (a[0]?.level === level) a = await childrenOf(older, tree, a);
    if (b[0]?.level === level) b = await childrenOf(newer, tree, b);
  }
}

function compareRows(left: LeafRows, right: LeafRows): number {
  const { page, index } = right.place;
  const { keys, columns } = page.schema;
  const part = (c: number): Field => (columns[c]?.kind === 'bytes' ? page.slice(c, index) : page.num(c, index));
  return compareKey(
    left.place.page,
    left.place.index,
    page.num(0, index),
    keys > 1 ? part(1) : undefined,
    keys > 2 ? page.num(2, index) : undefined,
  );
}

/** The rows of a list of leaves, one after another. */
class LeafRows {
  readonly #reader: SnapshotReader;
  readonly #tree: TreeName;
  readonly #leaves: readonly PageNode[];
  #nextLeaf = 0;
  /** Valid after `next` or `advance` answered true; a new object for each page, changed in place within one. */
  place!: RowPlace;

  constructor(reader: SnapshotReader, tree: TreeName, leaves: readonly PageNode[]) {
    this.#reader = reader;
    this.#tree = tree;
    this.#leaves = leaves;
  }

  /** The next row of the page at hand; false at its end. */
  advance(): boolean {
    if (this.place.index + 1 >= this.place.page.count) return false;
    this.place.index++;
    return true;
  }

  /** The first row of the next page; false when there is none. */
  async next(): Promise<boolean> {
    const leaf = this.#leaves[this.#nextLeaf];
    if (leaf === undefined) return false;
    this.#nextLeaf++;
    this.place = { page: await loadNode(this.#reader, this.#tree, leaf), index: 0 };
    return true;
  }
}
