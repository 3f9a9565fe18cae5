import { expect, test } from 'vitest';
import { Columns } from '../../src/snapshot/backup/columns.ts';

test('columns answer what was written, packed or not, in whatever order they are written again', () => {
  const columns = new Columns(4);
  const rows = 150_000;
  const value = (row: number, field: number) =>
    [row, (row * 7919) % 1_000_003, row % 3 === 0 ? Number.MAX_SAFE_INTEGER : 0, -row * 1_000_000][field]!;
  for (let row = 0; row < rows; row++) {
    expect(columns.append()).toBe(row);
    for (let field = 0; field < 4; field++) columns.set(row, field, value(row, field));
  }
  const changed = new Map<string, number>();
  for (let i = 0; i < 20_000; i++) {
    const row = (i * 104_729) % rows;
    // Only some of them: each may unpack a piece.
    if (i % 500 === 0) {
      columns.set(row, i % 4, i);
      changed.set(`${row} ${i % 4}`, i);
    }
  }
  let wrong = 0;
  for (let row = 0; row < rows; row++) {
    for (let field = 0; field < 4; field++) {
      if (columns.get(row, field) !== (changed.get(`${row} ${field}`) ?? value(row, field))) wrong++;
    }
  }
  expect(wrong).toBe(0);
  expect(columns.count).toBe(rows);
});
