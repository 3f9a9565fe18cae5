import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RozenError } from '../../src/errors.ts';
import { CountingStore } from '../../src/store/counting.ts';
import { LocalStore } from '../../src/store/local.ts';
import { openStore } from '../../src/store/open.ts';
import { RetryStore } from '../../src/store/retry.ts';
import { expectCode, names, storeContract } from '../contract/store.ts';
import { temporaryFolder } from '../repository/place.ts';

const root = temporaryFolder();
let count = 0;
const fresh = () => join(root, String(count++));

/** Fails before or after the work of the inner store. */
class FlakyStore extends CountingStore {
  failures: ('before' | 'after' | 'for good' | null)[] = [];

  override async get(name: string, limit?: number): Promise<Buffer> {
    return this.#fail(() => super.get(name, limit));
  }

  override async put(name: string, bytes: Uint8Array): Promise<void> {
    return this.#fail(() => super.put(name, bytes));
  }

  override async putFile(name: string, path: string): Promise<void> {
    return this.#fail(() => super.putFile(name, path));
  }

  override async *list(prefix: string, options?: { after?: string }) {
    let n = 0;
    for await (const info of super.list(prefix, options)) {
      if (++n === 3) await this.#fail(async () => {});
      yield info;
    }
  }

  async #fail<T>(work: () => Promise<T>): Promise<T> {
    const failure = this.failures.shift() ?? null;
    if (failure === 'before') throw new RozenError('io', 'flaky', { retryable: true });
    if (failure === 'for good') throw new RozenError('io', 'broken');
    const result = await work();
    if (failure === 'after') throw new RozenError('io', 'flaky', { retryable: true });
    return result;
  }
}

async function flaky() {
  const inner = new FlakyStore(new LocalStore(fresh()));
  const pauses: number[] = [];
  const sleep = async (ms: number) => {
    pauses.push(ms);
  };
  const store = new RetryStore(inner, { attempts: 4, firstDelayMs: 100, maxDelayMs: 250, sleep });
  await store.prepare();
  return { inner, store, pauses };
}

storeContract('RetryStore', () => new RetryStore(new LocalStore(fresh())));
storeContract('CountingStore', () => new CountingStore(new LocalStore(fresh())));

test('repeats what may be repeated, with growing pauses', async () => {
  const { inner, store, pauses } = await flaky();
  await store.put('a', Buffer.from('a'));
  inner.failures = ['before', 'before', 'before'];
  expect((await store.get('a')).toString()).toBe('a');
  expect(pauses).toHaveLength(3);
  for (const [i, longest] of [100, 200, 250].entries()) {
    expect(pauses[i]).toBeGreaterThanOrEqual(longest / 2);
    expect(pauses[i]).toBeLessThanOrEqual(longest);
  }
});

test('gives up after the last attempt, and at once on other errors', async () => {
  const { inner, store, pauses } = await flaky();
  await store.put('a', Buffer.from('a'));
  inner.failures = ['before', 'before', 'before', 'before', 'before'];
  await expectCode(store.get('a'), 'io');
  expect(pauses).toHaveLength(3);
  inner.failures = ['for good'];
  await expectCode(store.get('a'), 'io');
  expect(pauses).toHaveLength(3);
});

test('a create that worked, but said it failed, is no error', async () => {
  const { inner, store } = await flaky();
  inner.failures = ['after'];
  await store.put('a', Buffer.from('a'));
  const path = join(root, 'a file');
  writeFileSync(path, 'content');
  const keep = new RetryStore(new FlakyStore(new LocalStore(fresh(), { hardLinks: false })), { sleep: async () => {} });
  await keep.prepare();
  (keep.inner as FlakyStore).failures = ['after'];
  await keep.putFile('f', path);
  expect((await keep.get('f')).toString()).toBe('content');
});

test('a create that failed and then met another object is exists', async () => {
  const { inner, store } = await flaky();
  await inner.put('a', Buffer.from('theirs'));
  inner.failures = ['before'];
  await expectCode(store.put('a', Buffer.from('ours!!')), 'exists');
  inner.failures = [];
  await expectCode(store.put('a', Buffer.from('theirs')), 'exists');
});

test('a listing that breaks off goes on where it was', async () => {
  const { inner, store } = await flaky();
  for (let i = 0; i < 9; i++) await inner.put(`n/${i}`, Buffer.from('x'));
  inner.failures = ['before', 'before', null, 'before'];
  expect(await names(store, 'n/')).toEqual(Array.from({ length: 9 }, (_, i) => `n/${i}`));
});

test('counts calls and bytes', async () => {
  const store = new CountingStore(new LocalStore(fresh()));
  await store.prepare();
  await store.put('a', Buffer.alloc(100));
  await store.getSuffix('a', 10);
  await store.getRange('a', 5, 7);
  expect(store.reads).toBe(2);
  expect(store.calls).toEqual([
    { operation: 'put', name: 'a', bytes: 100 },
    { operation: 'getSuffix', name: 'a', bytes: 10 },
    { operation: 'getRange', name: 'a', bytes: 7 },
  ]);
  store.reset();
  expect(store.count()).toBe(0);
});

test('opens stores by location', async () => {
  expect((await openStore('relative')).location).toBe(join(process.cwd(), 'relative'));
  expect((await openStore('file:///with%20space')).location).toBe('/with space');
  for (const [location, code] of [
    ['', 'usage'],
    ['s3://', 'usage'],
    ['s3://bucket/../x', 'usage'],
    ['s3:http:///bucket', 'usage'],
    ['ftp://host/path', 'usage'],
    ['file://host/path', 'usage'],
  ] as const) {
    const error = await expectCode(() => openStore(location), code);
    expect(error.hint).toBeTruthy();
  }
});
