import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { LocalStore } from '../../src/store/local.ts';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { coldStateOf } from '../../src/store/s3-cold.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { isFrozenClass } from '../../src/store/storage-class.ts';
import { expectCode } from '../contract/store.ts';
import { noise } from '../e2e/odd-tree.ts';
import { temporaryFolder } from '../repository/place.ts';
import { accessEnvironment } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Server, startS3 } from '../s3/server.mjs';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NAME = 'data/ab/x.roz';
const scratch = temporaryFolder();
let server: S3Server;
/** How far the server's clock is ahead. */
let later = 0;
let bucket = '';
let count = 0;

beforeAll(async () => {
  server = await startS3({ restoreMs: 5 * HOUR, clock: () => Date.now() + later });
  Object.assign(process.env, accessEnvironment({ endpoint: server.endpoint, ...CREDENTIALS }));
});
afterAll(() => server.close());
beforeEach(() => {
  bucket = `cold-${count++}`;
  later = 0;
  server.faults = [];
  server.reset();
});

async function frozen(storageClass = 'DEEP_ARCHIVE'): Promise<S3Store> {
  const store = new S3Store(parseS3Place(`s3:${server.endpoint}/${bucket}/p`));
  store.keep({ storageClass });
  await store.prepare();
  await store.put(NAME, Buffer.from('content'));
  return store;
}

test('an object is frozen, then thawing, then hot for some days', async () => {
  const store = await frozen();
  expect(await store.coldState(NAME)).toMatchObject({ size: 7, storageClass: 'DEEP_ARCHIVE', state: 'frozen' });
  await store.thaw(NAME, { tier: 'bulk', days: 3 });
  expect((await store.coldState(NAME))?.state).toBe('thawing');
  await expectCode(store.get(NAME), 'frozen');
  later = 6 * HOUR;
  const { state, until } = (await store.coldState(NAME))!;
  expect(state).toBe('hot');
  expect(Math.abs(until! - Date.now() - 5 * HOUR - 3 * DAY)).toBeLessThan(HOUR);
  expect(String(await store.get(NAME))).toBe('content');
  later = 4 * DAY;
  expect((await store.coldState(NAME))?.state).toBe('frozen');
});

test('asking again while it thaws is no error, also when the answer was lost', async () => {
  const store = new RetryStore(await frozen(), { firstDelayMs: 1 });
  server.faults = [{ kind: 'lost', operation: 'RestoreObject' }];
  await store.thaw(NAME, { tier: 'standard', days: 1 });
  expect(server.count('RestoreObject')).toBe(2);
  await store.thaw(NAME, { tier: 'standard', days: 1 });
  expect((await store.coldState(NAME))?.state).toBe('thawing');
});

test('what is not frozen is hot, whatever its class, and cannot be thawed', async () => {
  for (const storageClass of ['GLACIER_IR', 'STANDARD_IA']) {
    bucket = `cold-${count++}`;
    const store = await frozen(storageClass);
    expect(await store.coldState(NAME)).toMatchObject({ storageClass, state: 'hot', until: null });
    await expectCode(store.thaw(NAME, { tier: 'standard', days: 1 }), 'unsupported');
  }
  bucket = `cold-${count++}`;
  const store = await frozen('GLACIER');
  await store.put('index/ab/x.rix', Buffer.from('x'));
  expect(await store.coldState('index/ab/x.rix')).toMatchObject({ storageClass: 'STANDARD', state: 'hot' });
  expect(await store.coldState('data/ab/none.roz')).toBeNull();
  const local = new LocalStore(join(scratch, 'local'));
  await local.prepare();
  await local.put('x', Buffer.from('xyz'));
  expect(await local.coldState('x')).toMatchObject({ size: 3, storageClass: null, state: 'hot' });
  expect(await local.coldState('y')).toBeNull();
  await expectCode(local.thaw('x'), 'unsupported');
});

test('a data archive can be kept hot, small or in parts', async () => {
  const store = await frozen();
  for (const [name, bytes] of Object.entries({ small: 10, large: 17 * 1024 * 1024 })) {
    const path = join(scratch, name);
    writeFileSync(path, noise(bytes));
    await store.putFile(`data/ab/${name}.roz`, path, { hot: true });
    expect(await store.coldState(`data/ab/${name}.roz`)).toMatchObject({ storageClass: 'STANDARD', state: 'hot' });
    await store.putFile(`data/cd/${name}.roz`, path);
    expect((await store.coldState(`data/cd/${name}.roz`))?.state).toBe('frozen');
  }
});

test('a server whose classes only bear the names of cold ones freezes nothing', async () => {
  server.objects.freezes = false;
  try {
    const store = await frozen('GLACIER');
    await store.put('data/ab/y.roz', Buffer.from('y'));
    server.reset();
    for (const name of [NAME, NAME, 'data/ab/y.roz']) expect((await store.coldState(name))?.state).toBe('hot');
    expect(server.count('GetObject')).toBe(1);
  } finally {
    server.objects.freezes = true;
  }
});

test('a listing tells classes', async () => {
  const store = await frozen('GLACIER');
  await store.put('index/ab/x.rix', Buffer.from('x'));
  const listed: (string | undefined)[] = [];
  for await (const { storageClass } of store.list('')) listed.push(storageClass);
  expect(listed).toEqual(['GLACIER', 'STANDARD']);
});

test('no room for expedited thawing is told at once', async () => {
  const store = new RetryStore(await frozen('GLACIER'));
  server.thawRefusal = 'GlacierExpeditedRetrievalNotAvailable';
  const error = await expectCode(store.thaw(NAME, { tier: 'expedited', days: 1 }), 'io');
  expect(error.hint).toMatch(/--tier standard/);
  expect(server.count('RestoreObject')).toBe(1);
  server.thawRefusal = null;
});

test('odd headers of servers', () => {
  const head = { size: 1, modified: 0, lockedUntil: null, keptUntil: null, storageClass: 'GLACIER' };
  const state = (restore: string | undefined) => coldStateOf({ ...head, restore }, Date.parse('2026-01-01')).state;
  expect(state(undefined)).toBe('frozen');
  expect(state('nonsense')).toBe('frozen');
  expect(state('ongoing-request="true"')).toBe('thawing');
  expect(state('ongoing-request="false"')).toBe('hot');
  expect(state('ongoing-request="false", expiry-date="Fri, 02 Jan 2026 00:00:00 GMT"')).toBe('hot');
  expect(state('ongoing-request="false", expiry-date="Wed, 31 Dec 2025 00:00:00 GMT"')).toBe('frozen');
  expect(['GLACIER', 'DEEP_ARCHIVE', 'GLACIER_IR', 'STANDARD', undefined].map(isFrozenClass)).toEqual([
    true,
    true,
    false,
    false,
    false,
  ]);
});
