import { expect, test } from 'vitest';
import { encodePage } from '../../../src/archive/tree/builder.ts';
import { checkPage, type PageTask, rootTask } from '../../../src/archive/tree/check.ts';
import { EMPTY_ROOT, TREES, type TreeRoot } from '../../../src/archive/tree/schema.ts';
import { type Mutation, updateTree } from '../../../src/archive/tree/update.ts';
import { MemoryPages } from './memory-pages.ts';

const schema = TREES.names;

function names(step: number): Mutation[] {
  const mutations: Mutation[] = [];
  for (let i = 0; i < 20_000; i += step) {
    mutations.push({ key: [1 + (i >> 8), Buffer.from(`n${String(i).padStart(6, '0')}`)], value: [i + 2, 8] });
  }
  return mutations;
}

/** Pages and rows that a whole check sees. */
function check(pages: MemoryPages, root: TreeRoot): { leaves: number; rows: number } {
  const first = rootTask(schema, root);
  const tasks: PageTask[] = first === null ? [] : [first];
  const seen = { leaves: 0, rows: 0 };
  while (tasks.length > 0) {
    const task = tasks.pop()!;
    const page = pages.page(task.row, task.offset, task.length);
    tasks.push(...checkPage(task, page));
    if (task.level === 0) {
      seen.leaves++;
      seen.rows += page.count;
    }
  }
  return seen;
}

test('trees pass, also after many changes', () => {
  const pages = new MemoryPages();
  const options = { schema, source: pages, sink: pages, pageTarget: 2000 };
  let { root } = updateTree({ ...options, root: EMPTY_ROOT, mutations: names(2) });
  expect(check(pages, root).rows).toBe(10_000);
  for (const step of [7, 100, 3, 1000]) {
    const mutations = names(step).map((m, i) => (i % 3 === 0 ? m : { ...m, value: null }));
    root = updateTree({ ...options, root, mutations }).root;
    expect(check(pages, root).rows).toBe(root.count);
  }
  expect(rootTask(schema, EMPTY_ROOT)).toBeNull();
});

test('a page that is not what its parent promises is named', () => {
  const pages = new MemoryPages();
  const row = (parent: number, name: string) => [parent, Buffer.from(name), 5, 8];
  const leaf = pages.write(schema, 0, encodePage(schema, 0, [row(2, 'a'), row(4, 'b')]));
  const other = pages.write(schema, 0, encodePage(schema, 0, [row(6, 'c')]));
  const inodes = pages.write(TREES.xattrs, 0, encodePage(TREES.xattrs, 0, [[7, Buffer.from('x'), Buffer.from('y')]]));
  const child = ({ row, offset, length }: typeof leaf, key: [number, string], count: number) => [
    key[0],
    Buffer.from(key[1]),
    row,
    offset,
    length,
    count,
  ];
  const tree = (...children: ReturnType<typeof child>[]): TreeRoot => ({
    ...pages.write(schema, 1, encodePage(schema, 1, children)),
    level: 1,
    count: children.reduce((sum, c) => sum + (c[5] as number), 0),
  });
  expect(check(pages, tree(child(leaf, [2, 'a'], 2), child(other, [6, 'c'], 1)))).toEqual({ leaves: 2, rows: 3 });
  expect(check(pages, tree(child(leaf, [1, 'x'], 2), child(other, [4, 'c'], 1)))).toEqual({ leaves: 2, rows: 3 });
  expect(() => check(pages, tree(child(leaf, [2, 'b'], 2)))).toThrow(/begins/);
  expect(() => check(pages, tree(child(leaf, [2, 'a'], 2), child(other, [4, 'b'], 1)))).toThrow(/goes on/);
  expect(() => check(pages, tree(child(leaf, [2, 'a'], 3)))).toThrow(/rows/);
  expect(() => check(pages, tree(child(inodes, [7, 'x'], 1)))).toThrow(/xattrs/);
  const twice = tree(child(leaf, [2, 'a'], 2));
  expect(() => check(pages, { ...twice, level: 2 })).toThrow(/level/);
});
