import { describe, expect, test } from 'vitest';
import { encodePage } from '../../src/archive/tree/builder.ts';
import { decodePage } from '../../src/archive/tree/page.ts';
import { TREES } from '../../src/archive/tree/schema.ts';
import { type ArchiveAccess, closeArchives, isFetched, keepFetched, readFrame } from '../../src/cache/frames.ts';
import { Miss } from '../../src/cache/miss.ts';
import { PageCache, storedPages } from '../../src/cache/pages.ts';

const BYTES = encodePage(
  TREES.xattrs,
  0,
  Array.from({ length: 20 }, (_, i) => [i, Buffer.from('n'), Buffer.alloc(1000, i)]),
);

describe('the page cache', () => {
  test('stays within its budget and keeps what is used', () => {
    const cache = new PageCache(10 * (BYTES.length + 6 * 1024));
    const loads: number[] = [];
    const source = storedPages(cache, (row, offset) => {
      loads.push(row * 1000 + offset);
      return BYTES;
    });
    for (let round = 0; round < 50; round++) {
      source.page(1, 0, 1);
      source.page(2 + (round % 3), round, 1);
      expect(cache.bytes).toBeLessThanOrEqual(10 * (BYTES.length + 6 * 1024));
    }
    expect(loads.filter((page) => page === 1000).length).toBe(1);
    expect(cache.decoded).toBe(loads.length);
    expect(loads.length).toBe(51);
  });

  test('keeps a page that is larger than its budget until the next one comes', () => {
    const cache = new PageCache(10);
    const page = decodePage(BYTES);
    cache.add(1, 0, page);
    expect(cache.get(1, 0)).toBe(page);
    cache.add(1, 1, page);
    expect(cache.get(1, 0)).toBeUndefined();
    expect(cache.get(1, 1)).toBe(page);
  });
});

describe('fetched frames', () => {
  const access: ArchiveAccess = {
    handle: 1_000_000,
    scope: '',
    row: 1,
    id: Buffer.alloc(16),
    kind: 1,
    object: 'data/00/00.roz',
    path: null,
    size: 2 ** 33,
    headerHash: Buffer.alloc(32),
    blockKey: Buffer.alloc(32),
    blockOffsets: null,
    blockLengths: null,
    streamStart: 0,
    streamEnd: Number.POSITIVE_INFINITY,
  };

  test('are missing, then there, then gone again when too much came after them', () => {
    expect(() => readFrame(access, 500, 100)).toThrow(Miss);
    keepFetched(access.handle, 500, Buffer.alloc(100, 7));
    expect(readFrame(access, 500, 100)).toEqual(Buffer.alloc(100, 7));
    expect(() => readFrame(access, 500, 101)).toThrow(Miss);
    for (let i = 0; i < 17; i++) keepFetched(access.handle, 2 ** 30 + i * 2 ** 23, Buffer.alloc(2 ** 23));
    expect(() => readFrame(access, 500, 100)).toThrow(Miss);
    expect(isFetched(access.handle, 2 ** 30 + 16 * 2 ** 23, 2 ** 23)).toBe(true);
    closeArchives([access.handle]);
    expect(isFetched(access.handle, 2 ** 30 + 16 * 2 ** 23, 2 ** 23)).toBe(false);
  });

  test('a miss names what is missing and carries no stack', () => {
    try {
      readFrame(access, 500, 100);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(Miss);
      expect((error as Miss).target).toEqual({ kind: 'frame', handle: access.handle, offset: 500, length: 100 });
      expect((error as Miss).stack ?? '').not.toContain('    at ');
    }
  });

  test('lengths that no frame has are damage', () => {
    expect(() => readFrame(access, 0, 64 * 1024 * 1024)).toThrow(/frame/);
    expect(() => readFrame(access, 0, 0)).toThrow(/frame/);
  });
});
