import { expect, test } from 'vitest';
import {
  ARCHIVE,
  DELETED,
  EXTENT,
  HISTORY,
  INODE,
  MAX_SIGNED,
  NAME,
  schemaByNumber,
  TREE_NAMES,
  TREES,
  VERSION,
  XATTR,
} from '../../../src/archive/tree/schema.ts';

const COLUMNS = {
  names: NAME,
  inodes: INODE,
  extents: EXTENT,
  xattrs: XATTR,
  versions: VERSION,
  deleted: DELETED,
  archives: ARCHIVE,
  history: HISTORY,
};

test.each(TREE_NAMES)('the constants of %s name its columns', (name) => {
  const named = Object.entries(COLUMNS[name]);
  expect(named).toEqual(TREES[name].columns.map((column, i) => [column.name, i]));
});

test('trees are numbered from 1, and a relative column follows the one it needs, which is no key of bytes', () => {
  TREE_NAMES.forEach((name, i) => {
    expect(TREES[name].number).toBe(i + 1);
    expect(schemaByNumber(i + 1)).toBe(TREES[name]);
    TREES[name].columns.forEach((column, c) => {
      expect(column.relativeTo).toBeLessThan(c);
      if (column.relativeTo >= 0) expect(TREES[name].columns[column.relativeTo]!.kind).toBe('number');
    });
  });
  expect(schemaByNumber(0)).toBeUndefined();
  expect(schemaByNumber(9)).toBeUndefined();
  expect(TREES.inodes.columns[INODE.mtimeSec]!.max).toBe(MAX_SIGNED);
});
