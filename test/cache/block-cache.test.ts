import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { FRAME_OVERHEAD, HASH_SIZE } from '../../src/archive/format.ts';
import { BlockCache, type CacheItem, cacheFileSize, cachePath, clearCache } from '../../src/cache/block-cache.ts';
import { type CacheClass, CLASS_BLOCK, CLASS_KEEP, frameKey, objectKey, tailKey } from '../../src/cache/cache-keys.ts';
import { openLmdb } from '../../src/cache/lmdb.ts';

const MIB = 1024 * 1024;
const root = mkdtempSync(join(tmpdir(), 'rozen-block-cache-'));
const id = randomBytes(16);
let folders = 0;
const fresh = () => join(root, String(folders++));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function open(folder: string, budget = 64 * MIB): { cache: BlockCache; told: string[] } {
  const told: string[] = [];
  return { cache: BlockCache.open({ folder, budget, report: (message) => told.push(message) }), told };
}

/** As a frame ends with the hash of what is before. */
function framed(bytes: Buffer): Buffer {
  bytes.set(blake3(bytes.subarray(0, bytes.length - HASH_SIZE)), bytes.length - HASH_SIZE);
  return bytes;
}

const filled = (size: number, n: number): Buffer => framed(Buffer.alloc(size, n));

const item = (n: number, size: number, kind: CacheClass = CLASS_BLOCK): CacheItem => ({
  key: frameKey(id, n * 2 ** 20),
  bytes: filled(size, n),
  class: kind,
});
const get = (cache: BlockCache, n: number) => cache.get(frameKey(id, n * 2 ** 20));

describe('the block cache', () => {
  test('takes a value anew of which only the entry is left', async () => {
    const folder = fresh();
    const first = open(folder);
    await first.cache.put([item(1, 5000)]);
    await first.cache.close();
    const database = openLmdb(cachePath(folder), { maxDbs: 8 });
    database.openDB({ name: 'values', encoding: 'binary', keyEncoding: 'binary' }).removeSync(item(1, 5000).key);
    await database.close();
    const { cache, told } = open(folder);
    expect(get(cache, 1)).toBeNull();
    expect(told.join()).toMatch(/damaged/);
    await cache.put([item(1, 5000)]);
    expect(get(cache, 1)).toEqual(filled(5000, 1));
    expect(cache.totals().blocks).toEqual({ count: 1, bytes: expect.any(Number) });
    await cache.close();
  });

  test('gives back what was put, by any key, after a restart too', async () => {
    const folder = fresh();
    const { cache } = open(folder);
    const items = [FRAME_OVERHEAD, 4095, 4096, 262_324, 262_325, 1_500_000].map((size, n) => item(n, size));
    const tail: CacheItem = { key: tailKey(id, true), bytes: randomBytes(300), class: CLASS_KEEP };
    const records = [0, 1, 50].map(
      (size): CacheItem => ({ key: objectKey(id, `snapshots/${size}`), bytes: randomBytes(size), class: CLASS_KEEP }),
    );
    await cache.put([...items, tail, ...records]);
    const check = (opened: BlockCache): void => {
      for (const { key, bytes } of [...items, tail, ...records]) expect(opened.get(key)?.equals(bytes)).toBe(true);
      expect(opened.get(tailKey(id, false))).toBeNull();
      expect(opened.has(frameKey(id, 2 ** 40))).toBe(false);
      expect(opened.has(items[4]!.key)).toBe(true);
    };
    check(cache);
    await cache.close();
    const again = open(folder).cache;
    check(again);
    const { blocks, tails, objects, pages } = again.inventory();
    expect([blocks.count, tails.count, objects.count, pages.count]).toEqual([6, 1, 3, 0]);
    expect(statSync(join(cachePath(folder), 'data.mdb')).mode & 0o777).toBe(0o600);
    await again.close();
    clearCache(folder);
    expect(cacheFileSize(folder)).toBe(0);
  });

  test('stays within its budget on disk, whatever is put', async () => {
    const folder = fresh();
    const { cache } = open(folder);
    for (let round = 0; round < 30; round++) {
      const items = Array.from({ length: 40 }, (_, i) =>
        item(round * 40 + i, 1000 + ((i * 7919 * (round + 1)) % 261_000), i % 20 === 0 ? CLASS_KEEP : CLASS_BLOCK),
      );
      await cache.put(items);
      expect(cacheFileSize(folder)).toBeLessThanOrEqual(64 * MIB);
    }
    const { bytes, blocks, kept } = cache.totals();
    expect(bytes).toBeLessThan(64 * MIB);
    expect(bytes).toBeGreaterThan(40 * MIB);
    // Nothing of what names and opens things had to go.
    expect(kept.count).toBe(60);
    const counted = cache.inventory();
    expect([counted.blocks.count, counted.blocks.bytes]).toEqual([blocks.count, blocks.bytes]);
    await cache.close();
  });

  test('gives up what was used longest ago, and pages only when no block is left', async () => {
    const { cache } = open(fresh(), 16 * MIB);
    const now = Date.now;
    try {
      let time = 1.8e12;
      Date.now = () => time;
      await cache.put([item(0, MIB, CLASS_KEEP)]);
      for (let n = 1; n <= 6; n++) {
        time += 100_000;
        await cache.put([item(n, MIB)]);
      }
      time += 100_000;
      await cache.touch([frameKey(id, 2 ** 20)]);
      for (let n = 7; n <= 9; n++) {
        time += 100_000;
        await cache.put([item(n, MIB)]);
      }
      const left = Array.from({ length: 10 }, (_, n) => n).filter((n) => get(cache, n) !== null);
      expect(left).toEqual([0, 1, 5, 6, 7, 8, 9]);
      await cache.put(Array.from({ length: 6 }, (_, n) => item(20 + n, MIB, CLASS_KEEP)));
      expect(cache.totals().blocks.count).toBe(0);
      await cache.put([item(30, MIB, CLASS_KEEP)]);
      expect(get(cache, 0)).toBeNull();
      expect(get(cache, 30)).not.toBeNull();
    } finally {
      Date.now = now;
    }
    await cache.close();
  });

  test.each([
    ['a frame', frameKey(id, 7), 50_010],
    ['the hash of a frame', frameKey(id, 7), 200_000 - 5],
    ['a tail', tailKey(id, true), 50_010],
  ])('never gives a damaged value (%s), and takes it anew', async (_, key, where) => {
    const folder = fresh();
    const first = open(folder).cache;
    const value: CacheItem = { key, bytes: framed(Buffer.from(randomBytes(200_000))), class: CLASS_BLOCK };
    await first.put([value, item(9, 5000)]);
    await first.close();
    const file = join(cachePath(folder), 'data.mdb');
    const at = readFileSync(file).indexOf(value.bytes.subarray(where - 20, where + 1));
    const fd = openSync(file, 'r+');
    writeSync(fd, Buffer.from([value.bytes[where]! ^ 1]), 0, 1, at + 20);
    closeSync(fd);
    const { cache, told } = open(folder);
    expect(cache.get(value.key)).toBeNull();
    expect(cache.has(value.key)).toBe(false);
    expect(told.join()).toMatch(/damaged/);
    expect(get(cache, 9)?.equals(filled(5000, 9))).toBe(true);
    await cache.put([value]);
    expect(cache.get(value.key)?.equals(value.bytes)).toBe(true);
    await cache.close();
  });

  test('is thrown away when it is no database, and built anew', async () => {
    for (const spoil of [
      (file: string) => writeFileSync(file, randomBytes(20_000)),
      (file: string) => truncateSync(file, 5000),
      (file: string) => {
        const bytes = readFileSync(file);
        // Both meta pages.
        bytes.fill(0xff, 16, 160);
        bytes.fill(0xff, 4096 + 16, 4096 + 160);
        writeFileSync(file, bytes);
      },
    ]) {
      const folder = fresh();
      const first = open(folder).cache;
      await first.put([item(1, 100_000)]);
      await first.close();
      spoil(join(cachePath(folder), 'data.mdb'));
      const { cache } = open(folder);
      const found = get(cache, 1);
      if (found !== null) expect(found.equals(filled(100_000, 1))).toBe(true);
      await cache.put([item(2, 1000)]);
      await cache.close();
      const again = open(folder).cache;
      await again.put([item(3, 1000)]);
      expect(get(again, 3)?.equals(filled(1000, 3))).toBe(true);
      await again.close();
    }
  });

  test('a folder that cannot be used throws', () => {
    const file = join(root, 'file');
    writeFileSync(file, '');
    expect(() => open(join(file, 'cache'))).toThrow(/ENOTDIR/);
  });
});

describe('several processes', () => {
  const writer = (folder: string, seed: number): ChildProcess =>
    spawn(process.execPath, [join(import.meta.dirname, 'cache-writer.mjs'), folder, String(seed), String(48 * MIB)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });

  test('share one budget, and kill -9 of any of them at any moment harms nothing', async () => {
    const folder = fresh();
    for (let round = 0; round < 3; round++) {
      const children = [writer(folder, round * 2), writer(folder, round * 2 + 1)];
      await Promise.all(children.map((child) => once(child.stdout!, 'data')));
      const { cache, told } = open(folder, 48 * MIB);
      for (let n = 0; n < 20; n++) await cache.put([item(round * 100 + n, 100_000)]);
      // Not all at the same moment of their work.
      for (const child of children) {
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        await ended;
        await cache.put([item(round * 100 + 50, 100_000)]);
      }
      for (let n = 0; n < 20; n++) {
        const found = get(cache, round * 100 + n);
        if (found !== null) expect(found.equals(filled(100_000, round * 100 + n))).toBe(true);
      }
      const { blocks } = cache.totals();
      const counted = cache.inventory().blocks;
      expect([counted.count, counted.bytes]).toEqual([blocks.count, blocks.bytes]);
      expect(blocks.bytes).toBeLessThanOrEqual(48 * MIB);
      expect(told).toEqual([]);
      await cache.close();
    }
    expect(existsSync(cachePath(folder))).toBe(true);
  });
});
