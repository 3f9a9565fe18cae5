import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { LocalStore } from '../../src/store/local.ts';
import type { Unfinished } from '../../src/store/object-store.ts';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { expectCode } from '../contract/store.ts';
import { noise } from '../e2e/odd-tree.ts';
import { temporaryFolder } from '../repository/place.ts';
import { accessEnvironment } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Request, type S3Server, startS3 } from '../s3/server.mjs';

const DAY = 86_400_000;
const scratch = temporaryFolder();
const large = join(scratch, 'large');
let server: S3Server;
let bucket = '';
let count = 0;

beforeAll(async () => {
  server = await startS3();
  Object.assign(process.env, accessEnvironment({ endpoint: server.endpoint, ...CREDENTIALS }));
  writeFileSync(large, noise(17 * 1024 * 1024));
});
afterAll(() => server.close());
beforeEach(() => {
  bucket = `bucket-${count++}`;
  server.faults = [];
});

const open = () => new S3Store(parseS3Place(`s3:${server.endpoint}/${bucket}/p`));
const version = (name: string) => server.objects.buckets.get(bucket)!.keys.get(`p/${name}`)!.versions.at(-1)!;

test('only content goes to a class of its own', async () => {
  const store = open();
  store.keep({ storageClass: 'GLACIER' });
  await store.prepare();
  await store.put('data/ab/x.roz', Buffer.from('x'));
  await store.putFile('data/ab/large.roz', large);
  await store.put('index/ab/x.rix', Buffer.from('x'));
  await store.putFile('tree/ab/large.roz', large);
  expect(version('data/ab/x.roz').storageClass).toBe('GLACIER');
  expect(version('data/ab/large.roz').storageClass).toBe('GLACIER');
  expect(version('index/ab/x.rix').storageClass).toBe('STANDARD');
  expect(version('tree/ab/large.roz').storageClass).toBe('STANDARD');
  await expectCode(store.get('data/ab/x.roz'), 'frozen');
  // Small ones wait for others.
  store.keep({ storageClass: 'GLACIER', classFrom: 1000 });
  await store.put('data/ab/small.roz', Buffer.alloc(999));
  await store.put('data/ab/enough.roz', Buffer.alloc(1000));
  await store.putFile('data/ab/larger.roz', large);
  expect(['small', 'enough', 'larger'].map((name) => version(`data/ab/${name}.roz`).storageClass)).toEqual([
    'STANDARD',
    'GLACIER',
    'GLACIER',
  ]);
  store.keep({ storageClass: 'NO_SUCH' });
  expect((await expectCode(store.put('data/y', Buffer.from('y')), 'io')).hint).toMatch(/storage-class/);
});

test('locks what it makes, and extends what is still needed', async () => {
  const store = open();
  store.keep({ lockDays: 10 });
  await store.prepare();
  const seen: S3Request[] = [];
  server.faults = [{ kind: '500', match: (request) => seen.push(request) === 0 }];
  expect(await store.cannotKeep({ lockDays: 10 })).toBeNull();
  await store.put('small', Buffer.from('x'));
  await store.putFile('large', large);
  for (const { operation, headers } of seen) {
    if (operation === 'PutObject' || operation === 'UploadPart') expect(headers['content-md5']).toBeTruthy();
  }
  const untilOf = (name: string) => (Date.parse(version(name).lock!.until) - Date.now()) / DAY;
  for (const name of ['small', 'large']) {
    expect(version(name).lock!.mode).toBe('COMPLIANCE');
    expect(untilOf(name)).toBeGreaterThan(9.99);
  }
  server.faults = [];
  // Hidden by a delete marker, as the bucket keeps versions; what is locked stays.
  await store.delete('small');
  expect(server.objects.buckets.get(bucket)!.keys.get('p/small')!.versions).toHaveLength(2);

  store.keep({ lockDays: 30 });
  server.reset();
  await store.retain(['large']);
  expect(untilOf('large')).toBeGreaterThan(29.99);
  server.reset();
  await store.retain(['large']);
  expect(server.requests.map(({ operation }) => operation)).toEqual(['HeadObject']);
  // A longer lock is not made shorter.
  store.keep({ lockDays: 1 });
  await store.retain(['large']);
  expect(untilOf('large')).toBeGreaterThan(29.99);
  await expectCode(store.retain(['nothing']), 'not-found');
});

test('a create whose answer was lost is locked too', async () => {
  const inner = open();
  const store = new RetryStore(inner, { firstDelayMs: 1 });
  store.keep({ lockDays: 3 });
  await store.prepare();
  server.faults = [{ kind: 'lost', operation: 'PutObject' }];
  await store.put('a', Buffer.from('a'));
  expect(version('a').lock).toBeDefined();
});

test('a lock that the server does not keep is an error', async () => {
  const store = open();
  store.keep({ lockDays: 3 });
  await store.prepare();
  server.faults = [{ kind: '403', operation: 'PutObjectRetention' }];
  expect((await expectCode(store.put('a', Buffer.from('a')), 'io')).message).toMatch(/did not lock/);
});

test('a bucket without Object Lock, and a folder, say what they cannot', async () => {
  const store = open();
  await store.prepare();
  expect((await store.cannotKeep({ lockDays: 3 }))?.message).toMatch(/no Object Lock/);
  expect(await store.cannotKeep({ storageClass: 'GLACIER' })).toBeNull();
  const local = new LocalStore(join(scratch, 'local'));
  expect((await local.cannotKeep({ lockDays: 3 }))?.code).toBe('unsupported');
  expect((await local.cannotKeep({ storageClass: 'GLACIER' }))?.code).toBe('unsupported');
  expect(await local.cannotKeep({})).toBeNull();
});

test('lists uploads that were never ended, and ends them', async () => {
  const store = open();
  await store.prepare();
  expect(await all(store.unfinished())).toEqual([]);
  server.faults = [{ kind: '403', operation: 'CompleteMultipartUpload' }];
  await expectCode(store.putFile('data/ab/x.roz', large), 'io');
  const [one] = await all(store.unfinished());
  expect(one).toMatchObject({ name: 'data/ab/x.roz', bytes: 17 * 1024 * 1024 });
  expect(Math.abs(Date.now() - one!.active)).toBeLessThan(60_000);
  // Another repository in the same bucket.
  expect(await all(new S3Store(parseS3Place(`s3:${server.endpoint}/${bucket}/q`)).unfinished())).toEqual([]);
  await store.abandon(one!);
  expect(server.objects.uploads.size).toBe(0);
  await store.abandon(one!);
  // The journal that is left names nothing any more: the next run begins anew.
  await store.putFile('data/ab/x.roz', large);
  expect(version('data/ab/x.roz').size).toBe(17 * 1024 * 1024);
});

test('an upload that is stopped goes on later', async () => {
  const store = open();
  await store.prepare();
  const stop = new AbortController();
  server.faults = [{ kind: 'stall', operation: 'UploadPart', match: ({ query }) => query.get('partNumber') === '2' }];
  const upload = store.putFile('a', large, { signal: stop.signal });
  const stopped = expectCode(upload, 'interrupted');
  while ([...server.objects.uploads.values()][0]?.parts.length !== 1) await new Promise((next) => setTimeout(next, 5));
  stop.abort();
  await stopped;
  server.reset();
  await store.putFile('a', large);
  expect(server.count('UploadPart')).toBe(1);
});

async function all(list: AsyncIterable<Unfinished>): Promise<Unfinished[]> {
  const found: Unfinished[] = [];
  for await (const one of list) found.push(one);
  return found;
}
