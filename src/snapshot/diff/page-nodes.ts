import type { Page } from '../../archive/tree/page.ts';
import { childPointer, loadPage, type PagePointer, type TreeRoot } from '../../archive/tree/read.ts';
import { CHILD, TREES, type TreeName } from '../../archive/tree/schema.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';

/** A page of a tree that is not loaded yet. */
export interface PageNode extends PagePointer {
  /** 0: a leaf. */
  level: number;
  /** Rows of the tree at and below it. */
  count: number;
}

/** Two pages of one numbering of rows with the same key are the same page. */
export const pageKey = (node: PagePointer): string => `${node.row}:${node.offset}`;

/** The root page as a list: empty for an empty tree. */
export function topOf(root: TreeRoot): PageNode[] {
  const { row, offset, length, level, count } = root;
  return row === 0 ? [] : [{ row, offset, length, level, count }];
}

/** What the pages above the leaves point to, in key order. */
export async function childrenOf(
  reader: SnapshotReader,
  tree: TreeName,
  parents: readonly PageNode[],
): Promise<PageNode[]> {
  const children: PageNode[] = [];
  const counts = TREES[tree].keys + CHILD.count;
  for (const parent of parents) {
    const page = await loadNode(reader, tree, parent);
    for (let i = 0; i < page.count; i++) {
      children.push({ ...childPointer(page, i), level: parent.level - 1, count: page.num(counts, i) });
    }
  }
  return children;
}

/** All leaves of a tree, in key order, without reading them. */
export async function leavesOf(reader: SnapshotReader, tree: TreeName): Promise<PageNode[]> {
  let nodes = topOf(reader.roots[tree]);
  while ((nodes[0]?.level ?? 0) > 0) nodes = await childrenOf(reader, tree, nodes);
  return nodes;
}

export function loadNode(reader: SnapshotReader, tree: TreeName, node: PageNode): Promise<Page> {
  const expected = { schema: TREES[tree], level: node.level, count: node.count };
  return retrying(reader, () => loadPage(reader.source, node, expected));
}
