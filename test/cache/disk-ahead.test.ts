import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { KIND_DATA } from '../../src/archive/format.ts';
import { DiskAhead } from '../../src/cache/disk-ahead.ts';
import { type ArchiveAccess, closeArchives, hintFrames } from '../../src/cache/frames.ts';
import { libc } from '../../src/posix/libc.ts';

const FRAME = 100_000;
const MIB = 1024 * 1024;
/** More than any device has its read-ahead at. */
const HINTED = 48 * MIB;
const PAGE = 4096;
/** sys/mman.h, linux/fadvise.h. */
const PROT_READ = 1;
const MAP_SHARED = 1;
const POSIX_FADV_DONTNEED = 4;

const folder = mkdtempSync(join(tmpdir(), 'rozen-disk-ahead-'));
afterAll(() => rmSync(folder, { recursive: true }));
const library = createRequire(import.meta.url)('koffi').load(null);
const mmap = library.func('void *mmap(void *, size_t, int, int, int, int64_t)');
const munmap = library.func('int munmap(void *, size_t)');
const mincore = library.func('int mincore(void *, size_t, void *)');

/** How many bytes of a file the kernel has in memory. Asking changes nothing, as reading would. */
function inMemory(fd: number, size: number): number {
  const place = mmap(null, size, PROT_READ, MAP_SHARED, fd, 0);
  const pages = Buffer.alloc(size / PAGE);
  expect(mincore(place, size, pages)).toBe(0);
  munmap(place, size);
  return PAGE * pages.reduce((sum, page) => sum + (page & 1), 0);
}

function archive(handle: number, blocks: number, path: string | null = '/there'): ArchiveAccess {
  return {
    handle,
    scope: '',
    row: 1,
    id: new Uint8Array(16),
    kind: KIND_DATA,
    object: `data/${handle}`,
    path,
    size: blocks * FRAME + 500,
    headerHash: new Uint8Array(32),
    blockKey: new Uint8Array(32),
    blockOffsets: Float64Array.from({ length: blocks }, (_, i) => i * FRAME),
    blockLengths: new Uint32Array(blocks).fill(FRAME),
    streamStart: 0,
    streamEnd: blocks * 262144,
  };
}

function watched() {
  const told: [handle: number, offset: number, length: number][] = [];
  const disk = new DiskAhead((access, offset, length) => void told.push([access.handle, offset, length]));
  const random = (access: ArchiveAccess, ...blocks: number[]): void => {
    for (const block of blocks) {
      disk.random(access, block);
      disk.tell();
    }
  };
  const inOrder = (access: ArchiveAccess, block: number): void => {
    disk.sequential(access, block);
    disk.tell();
  };
  return { disk, told, random, inOrder };
}

test('all that is hinted is read, how much the kernel may take at once', async (context) => {
  const path = join(folder, 'archive');
  writeFileSync(path, Buffer.alloc(HINTED, 7));
  const fd = openSync(path, 'r');
  onTestFinished(() => closeSync(fd));
  fsyncSync(fd);
  libc().posix_fadvise(fd, 0, HINTED, POSIX_FADV_DONTNEED);
  if (inMemory(fd, HINTED) > 0) context.skip('this filesystem keeps its files in memory');
  const access = { ...archive(77, 1, path), size: HINTED };
  hintFrames(access, 0, HINTED);
  onTestFinished(() => closeArchives([77]));
  await expect.poll(() => inMemory(fd, HINTED), { timeout: 20_000 }).toBe(HINTED);
});

test('the heads of many files far from each other read nothing else', () => {
  const { told, random } = watched();
  random(archive(1, 12_000), ...Array.from({ length: 100 }, (_, i) => i * 100));
  for (let handle = 2; handle < 20; handle++) random(archive(handle, 40), 0);
  expect(told).toEqual([]);
});

test('around a second read in a region a group is read, once', () => {
  const { told, random } = watched();
  const access = archive(1, 1000);
  random(access, 130, 150);
  expect(told).toEqual([[1, 144 * FRAME, 16 * FRAME]]);
  random(access, 159, 144, 150);
  expect(told.length).toBe(1);
  random(access, 130);
  expect(told[1]).toEqual([1, 128 * FRAME, 16 * FRAME]);
});

test('the last group ends with its archive', () => {
  const { told, random } = watched();
  const access = archive(1, 70);
  random(access, 65, 69);
  expect(told).toEqual([[1, 64 * FRAME, 6 * FRAME + 500]]);
});

test('it is told only when the read has been answered, and of local archives only', () => {
  const { disk, told, random } = watched();
  random(archive(2, 1000, null), 1, 2, 3);
  disk.sequential(archive(2, 1000, null), 4);
  disk.tell();
  const access = archive(1, 1000);
  random(access, 1);
  disk.random(access, 2);
  expect(told).toEqual([]);
  disk.tell();
  disk.tell();
  expect(told.length).toBe(1);
  disk.sequential(access, 3);
  expect(told.length).toBe(1);
  disk.tell();
  expect(told.length).toBe(2);
});

test('for who stopped, nothing more is read', () => {
  const { disk, told, inOrder } = watched();
  inOrder(archive(1, 4000), 3);
  for (let request = 0; request < 10; request++) disk.tell();
  expect(told).toEqual([[1, 3 * FRAME, 8 * MIB]]);
});

test('who goes on in order is read ahead for, further and further, each byte once', () => {
  const { disk, told, inOrder } = watched();
  const access = archive(1, 4000);
  const ahead: number[] = [];
  for (let block = 3; block < 4000; block++) {
    inOrder(access, block);
    const [, offset, length] = told.at(-1)!;
    ahead.push(offset + length - block * FRAME);
  }
  expect(told[0]).toEqual([1, 3 * FRAME, 8 * MIB]);
  for (let i = 1; i < told.length; i++) expect(told[i]![1]).toBe(told[i - 1]![1] + told[i - 1]![2]);
  // Steps small enough that none of them delays the reader.
  for (const [, , length] of told.slice(1)) expect(length).toBeLessThanOrEqual(4 * MIB);
  const end = ahead.findIndex((bytes, i) => (i + 3) * FRAME + bytes === access.size);
  for (const bytes of ahead.slice(100, end)) expect(bytes).toBeGreaterThanOrEqual(14 * MIB);
  expect(Math.min(...ahead.slice(0, end))).toBeGreaterThanOrEqual(6 * MIB);
  expect(Math.max(...ahead)).toBeLessThanOrEqual(16 * MIB);
  expect(told.at(-1)![1] + told.at(-1)![2]).toBe(access.size);
  disk.sequential(archive(9, 4000), 100);
  disk.tell();
  expect(told.at(-1)).toEqual([9, 100 * FRAME, 8 * MIB]);
});
