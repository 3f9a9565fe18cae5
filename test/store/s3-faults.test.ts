import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { expectCode, names } from '../contract/store.ts';
import { accessEnvironment } from '../s3/bucket.ts';
import { CREDENTIALS, FAULTS, type S3Server, startS3 } from '../s3/server.mjs';

let server: S3Server;
let count = 0;

beforeAll(async () => {
  server = await startS3({ buckets: ['bucket'] });
  Object.assign(process.env, accessEnvironment({ endpoint: server.endpoint, ...CREDENTIALS }));
});
afterAll(() => server.close());
beforeEach(() => {
  server.faults = [];
  server.chaos.rate = 0;
  server.skew = 0;
});

function open(options: { endpoint?: string; bucket?: string; region?: string; idleMs?: number } = {}): S3Store {
  const { endpoint = server.endpoint, bucket = 'bucket', region, idleMs } = options;
  return new S3Store(parseS3Place(`s3:${endpoint}/${bucket}/p${count++}`, { region }), { idleMs });
}

const patient = (store = open()) => new RetryStore(store, { attempts: 20, firstDelayMs: 1, maxDelayMs: 5 });

describe('errors that say what to do', () => {
  async function refused(store: S3Store, words: RegExp): Promise<void> {
    for (const call of [() => store.stat('x'), () => store.get('x'), () => store.put('x', Buffer.from('x'))]) {
      const error = await expectCode(call, 'io');
      expect(error.message).toMatch(words);
      expect(error.hint).toBeTruthy();
      expect(error.retryable).toBe(false);
    }
  }

  test('wrong keys', async () => {
    const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret } = process.env;
    try {
      process.env.AWS_SECRET_ACCESS_KEY = 'wrong';
      await refused(open(), /secret access key does not fit/);
      process.env.AWS_ACCESS_KEY_ID = 'nobody';
      await refused(open(), /does not know this access key/);
      delete process.env.AWS_ACCESS_KEY_ID;
      await refused(open(), /no credentials/);
    } finally {
      Object.assign(process.env, { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret });
    }
  });

  test('a clock that is wrong, and by how much', async () => {
    server.skew = -3_600_000;
    for (const call of [() => open().get('x'), () => open().stat('x'), () => open().put('x', Buffer.from('x'))]) {
      const error = await expectCode(call, 'io');
      expect(error.message).toMatch(/clock of this machine .*\(36[0-9]{2} s fast\)/);
      expect(error.retryable).toBe(false);
    }
  });

  test('another region', () => refused(open({ region: 'eu-west-1' }), /another region .*us-east-1/));

  test('a server that is not there, at once', () =>
    refused(open({ endpoint: 'http://127.0.0.1:1' }), /cannot be reached/));

  test('a bucket that is missing is neither an empty store nor a missing object', async () => {
    const store = open({ bucket: 'nobucket' });
    const calls = [
      () => store.get('x'),
      () => store.stat('x'),
      () => store.put('x', Buffer.from('x')),
      () => names(store, ''),
    ];
    for (const call of calls) expect((await expectCode(call, 'not-found')).message).toMatch(/no bucket nobucket/);
    expect(server.objects.buckets.has('nobucket')).toBe(false);
    await store.prepare();
    expect(await store.stat('x')).toBeNull();
  });

  test('a server that goes away in the middle may come back', async () => {
    const other = await startS3({ buckets: ['bucket'] });
    const store = open({ endpoint: other.endpoint });
    await store.put('x', Buffer.from('x'));
    await other.close();
    expect((await expectCode(store.get('x'), 'io')).retryable).toBe(true);
  });

  test('frozen content', async () => {
    const store = open();
    await store.put('cold', Buffer.from('x'));
    const [key] = [...server.objects.buckets.get('bucket')!.keys.keys()].slice(-1);
    server.objects.buckets.get('bucket')!.keys.get(key!)!.versions[0]!.storageClass = 'DEEP_ARCHIVE';
    const error = await expectCode(store.getRange('cold', 0, 1), 'frozen');
    expect(error.retryable).toBe(false);
    expect(await store.stat('cold')).toMatchObject({ size: 1 });
  });
});

describe('what passes is tried again', () => {
  for (const kind of FAULTS.filter((one) => one !== 'flip')) {
    test(kind, async () => {
      const store = patient(open(kind === 'stall' ? { idleMs: 400 } : {}));
      const bytes = Buffer.from('0123456789'.repeat(1000));
      const twice = (operation: string) => {
        server.faults = [{ kind, operation, times: 2 }];
      };
      if (kind !== 'cut') twice('PutObject');
      await store.put('a', bytes);
      twice('GetObject');
      expect(await store.get('a')).toEqual(bytes);
      twice('GetObject');
      expect((await store.getRange('a', 5, 10)).toString()).toBe('5678901234');
      twice('GetObject');
      expect((await store.getSuffix('a', 3)).bytes.toString()).toBe('789');
      twice('ListObjectsV2');
      expect(await names(store, '')).toEqual(['a']);
      if (kind !== 'cut') twice('HeadObject');
      expect((await store.stat('a'))?.size).toBe(bytes.length);
      if (kind !== 'cut') twice('DeleteObject');
      await store.delete('a');
      expect(server.faults).toEqual([]);
      expect(await store.stat('a')).toBeNull();
    });
  }

  test('a create whose answer was lost is no error, and never a second one', async () => {
    const store = patient();
    server.faults = [{ kind: 'lost', operation: 'PutObject' }];
    await store.put('a', Buffer.from('ours'));
    expect((await store.get('a')).toString()).toBe('ours');
    server.faults = [{ kind: '503', operation: 'PutObject' }];
    await expectCode(store.put('a', Buffer.from('theirs')), 'exists');
  });

  test('all kinds together: nothing lost, nothing wrong, and it ends', async () => {
    const store = patient();
    server.chaos = { rate: 0.1, kinds: ['500', '503', 'reset', 'lost', 'cut'] };
    const of = (i: number) => Buffer.alloc(1000 + i * 37, i);
    await Promise.all(Array.from({ length: 60 }, (_, i) => store.put(`n/${100 + i}`, of(i))));
    await Promise.all(
      Array.from({ length: 60 }, async (_, i) => expect(await store.get(`n/${100 + i}`)).toEqual(of(i))),
    );
    const found: string[] = [];
    for await (const { name } of store.list('n/')) found.push(name);
    expect(found).toEqual(Array.from({ length: 60 }, (_, i) => `n/${100 + i}`));
  });
});

test('lists page by page', async () => {
  const store = open();
  const all = Array.from({ length: 2300 }, (_, i) => `n/${10_000 + i}`);
  for (const name of all) server.objects.put('bucket', `p${count - 1}/${name}`, { body: Buffer.from('x') });
  server.reset();
  const found: string[] = [];
  for await (const { name } of store.list('n/')) found.push(name);
  expect(found).toEqual(all);
  expect(server.count('ListObjectsV2')).toBe(3);
  // Whoever wants only the beginning pays for it alone.
  server.reset();
  for await (const { name } of store.list('n/', { after: all[10]! })) {
    expect(name).toBe(all[11]);
    break;
  }
  expect(server.count()).toBe(1);
});

test('a whole object that was damaged on its way is asked for again', async () => {
  const store = open();
  const bytes = Buffer.alloc(100_000, 7);
  await store.put('a', bytes);
  server.reset();
  server.faults = [{ kind: 'flip', operation: 'GetObject', times: 2 }];
  expect((await store.get('a')).equals(bytes)).toBe(true);
  expect(server.count('GetObject')).toBe(3);
  server.faults = [{ kind: 'flip', operation: 'GetObject', times: 100 }];
  expect((await expectCode(store.get('a'), 'io')).message).toMatch(/other bytes each time/);
});

test('where the ETag is no hash of the bytes, that is found out once', async () => {
  const store = open();
  await store.put('a', Buffer.from('encrypted'));
  for (const { versions } of server.objects.buckets.get('bucket')!.keys.values())
    for (const one of versions) one.etag = '0'.repeat(32);
  server.reset();
  expect((await store.get('a')).toString()).toBe('encrypted');
  expect(server.count('GetObject')).toBe(2);
  expect((await store.get('a')).toString()).toBe('encrypted');
  expect(server.count('GetObject')).toBe(3);
});

test('each read is one request', async () => {
  const store = open();
  await store.put('a', Buffer.alloc(100_000, 7));
  for (const read of [() => store.get('a'), () => store.getRange('a', 10, 20), () => store.getSuffix('a', 10)]) {
    server.reset();
    await read();
    expect(server.requests.map(({ operation }) => operation)).toEqual(['GetObject']);
  }
  server.reset();
  await store.stat('a');
  expect(server.count()).toBe(1);
});

test('a large object that is refused is not read', async () => {
  const store = open();
  await store.put('big', Buffer.alloc(8 * 1024 * 1024));
  await expectCode(store.get('big', 1000), 'corrupt');
  await expectCode(store.getRange('big', 0, 2 ** 40), 'corrupt');
  expect((await store.getRange('big', 5, 1)).length).toBe(1);
});
