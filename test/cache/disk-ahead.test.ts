import { expect, test } from 'vitest';
import { KIND_DATA } from '../../src/archive/format.ts';
import { DiskAhead } from '../../src/cache/disk-ahead.ts';
import type { ArchiveAccess } from '../../src/cache/frames.ts';

const FRAME = 100_000;
const MIB = 1024 * 1024;

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
  return { disk, told, random };
}

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
  const access = archive(1, 1000);
  random(access, 1);
  disk.random(access, 2);
  expect(told).toEqual([]);
  disk.tell();
  disk.tell();
  expect(told.length).toBe(1);
});

test('who goes on in order is read ahead for, further and further, each byte once', () => {
  const { disk, told } = watched();
  const access = archive(1, 4000);
  for (let block = 3; block < 4000; block++) {
    disk.sequential(access, block);
    const [, offset, length] = told.at(-1)!;
    expect(offset + length).toBeGreaterThan(block * FRAME + 4 * MIB);
  }
  expect(told.slice(0, 5).map(([, , length]) => length / MIB)).toEqual([8, 16, 32, 64, 64]);
  for (let i = 1; i < told.length; i++) expect(told[i]![1]).toBe(told[i - 1]![1] + told[i - 1]![2]);
  disk.sequential(archive(9, 4000), 100);
  expect(told.at(-1)).toEqual([9, 100 * FRAME, 8 * MIB]);
});
