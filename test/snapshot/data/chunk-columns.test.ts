import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { chunkAt } from '../../../src/archive/chunk-table.ts';
import { ChunkColumns } from '../../../src/snapshot/data/chunk-columns.ts';

describe('ChunkColumns', () => {
  it('finds every chunk by id and ordinal, through many growths', () => {
    const count = 10_000;
    const ids = randomBytes(32 * count);
    const columns = new ChunkColumns();
    for (let i = 0; i < count; i++) columns.add(ids, i * 32, { ordinal: i % 3, offset: i * 1000, length: i });
    expect(columns.count).toBe(count);
    for (let i = 0; i < count; i++) {
      expect(columns.find(ids, i * 32, i % 3)).toBe(i);
      expect(columns.find(ids, i * 32, (i % 3) + 1)).toBe(-1);
    }
    expect(columns.find(randomBytes(32), 0, 0)).toBe(-1);
    const table = columns.toTable();
    expect(table.count).toBe(count);
    expect(chunkAt(table, 777)).toEqual({
      id: ids.subarray(777 * 32, 778 * 32),
      ordinal: 0,
      offset: 777_000,
      length: 777,
    });
  });

  it('keeps chunks of one id apart by their ordinals', () => {
    const columns = new ChunkColumns();
    const id = Buffer.alloc(32, 1);
    for (let ordinal = 0; ordinal < 100; ordinal++) columns.add(id, 0, { ordinal, offset: ordinal, length: 1 });
    for (let ordinal = 0; ordinal < 100; ordinal++) expect(columns.find(id, 0, ordinal)).toBe(ordinal);
  });
});
