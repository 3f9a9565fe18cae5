import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { getParallel, openObject } from '../../src/snapshot/verify/object-file.ts';
import { LocalStore } from '../../src/store/local.ts';
import { RemoteStore } from '../store/remote.ts';

const MIB = 1024 * 1024;
const folder = mkdtempSync(join(tmpdir(), 'rozen-object-'));
const bytes = randomBytes(17 * MIB + 5);

beforeAll(async () => {
  const store = new LocalStore(folder);
  await store.prepare();
  await store.put('data/x', bytes);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('an object that is read in order comes by some large requests at once, single places by small ones', async () => {
  const store = new RemoteStore(folder, 5);
  const file = (await openObject(store, 'data/x'))!;
  store.reset();
  for (let at = 0; at < bytes.length; at += 300_000) {
    const length = Math.min(300_000, bytes.length - at);
    expect((await file.read(at, length)).equals(bytes.subarray(at, at + length))).toBe(true);
  }
  expect([store.reads, store.mostOpen]).toEqual([3, 3]);
  store.reset();
  expect((await file.read(12_345_678, 100)).equals(bytes.subarray(12_345_678, 12_345_778))).toBe(true);
  expect(store.calls.map((call) => call.bytes)).toEqual([100]);
  await expect(file.read(bytes.length - 5000, 5001)).rejects.toMatchObject({ code: 'corrupt' });
  expect(await openObject(store, 'data/y')).toBeNull();
});

test('a long range comes by several requests at once', async () => {
  const store = new RemoteStore(folder, 5);
  const got = await getParallel(store, 'data/x', { offset: 100, length: 17 * MIB - 100 });
  expect(got.equals(bytes.subarray(100, 17 * MIB))).toBe(true);
  expect([store.reads, store.mostOpen]).toEqual([3, 3]);
});
