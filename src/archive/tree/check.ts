/**
 * Structure of a whole tree, page by page, for verify: a page is not only sound in itself, it must also be what its
 * ancestors promise. The caller keeps the list of what is to be visited, loads pages as it likes, and goes on after damage.
 */
import { corrupt } from '../../errors.ts';
import type { Page } from './page.ts';
import { childPointer, compareKey } from './read.ts';
import { CHILD, type Field, type PagePointer, type TreeRoot, type TreeSchema } from './schema.ts';

/** A page to visit, and what is promised of it. */
export interface PageTask extends PagePointer {
  schema: TreeSchema;
  level: number;
  /** Rows of the tree at and below it. */
  count: number;
  /** Its keys begin here or later; null: anywhere. */
  from: readonly Field[] | null;
  /** Its keys end before this; null: anywhere. */
  to: readonly Field[] | null;
}

/** The visit that a check of a tree begins with; null for an empty tree. */
export function rootTask(schema: TreeSchema, root: TreeRoot): PageTask | null {
  return root.row === 0 ? null : { schema, ...root, from: null, to: null };
}

/** Holds a page against what is promised of it ('corrupt' if it is not that), and answers with the pages below it in key order. */
export function checkPage(task: PageTask, page: Page): PageTask[] {
  const { schema, level } = task;
  const where = `tree ${schema.name}: the page at ${task.row}:${task.offset}`;
  if (page.schema !== schema) throw corrupt(`${where} is of tree ${page.schema.name}`);
  if (page.level !== level) throw corrupt(`${where} has level ${page.level}, its parent says ${level}`);
  if (page.total !== task.count) throw corrupt(`${where} has ${page.total} rows, its parent says ${task.count}`);
  if (task.from !== null && order(page, 0, task.from) < 0) throw corrupt(`${where} begins before its range`);
  if (task.to !== null && order(page, page.count - 1, task.to) >= 0) throw corrupt(`${where} goes on beyond its range`);
  const children: PageTask[] = [];
  if (level === 0) return children;
  for (let i = 0; i < page.count; i++) {
    children.push({
      schema,
      ...childPointer(page, i),
      level: level - 1,
      count: page.num(schema.keys + CHILD.count, i),
      from: keyOf(page, i),
      to: i + 1 < page.count ? keyOf(page, i + 1) : task.to,
    });
  }
  return children;
}

function order(page: Page, index: number, key: readonly Field[]): number {
  return compareKey(page, index, key[0] as number, key[1], key[2] as number | undefined);
}

function keyOf(page: Page, index: number): Field[] {
  return page.fields(index).slice(0, page.schema.keys);
}
