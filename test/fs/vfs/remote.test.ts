import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BlockCache } from '../../../src/cache/block-cache.ts';
import { cachedObjects } from '../../../src/cache/cached-objects.ts';
import { type MountHost, openVfsHost } from '../../../src/fs/vfs/host.ts';
import { EIO } from '../../../src/posix/errno.ts';
import { openRepository } from '../../../src/repository/open.ts';
import { RemoteStore } from '../../store/remote.ts';
import { Client, errnoOf } from './client.ts';
import type { ModelEntry } from './model.ts';
import { TestRepository } from './repository.ts';

const MIB = 1024 * 1024;
const FOLDERS = 100;
const FILES = 1000;
const folder = mkdtempSync(join(tmpdir(), 'rozen-remote-'));
const small = randomBytes(5000);
const big = randomBytes(24 * MIB + 123);
/** One set with two snapshots of 100,000 files, and one with content. */
let many: TestRepository;
let contents: TestRepository;
let data = '';
let caches = 0;

/** 100,000 files of which each differs from the next one as files do: their pages take some megabytes. */
function manyEntries(): ModelEntry[] {
  const noise = randomBytes(FOLDERS * FILES * 8);
  const entries: ModelEntry[] = [{ path: '', type: 'folder' }];
  entries.push({ path: 'small.txt', type: 'file', content: [small] }, { path: 'sub', type: 'folder' });
  for (let d = 0; d < FOLDERS; d++) entries.push({ path: `folder-${d}`, type: 'folder' });
  for (let d = 0; d < FOLDERS; d++) {
    for (let f = 0; f < FILES; f++) {
      const at = (d * FILES + f) * 8;
      const name = noise.toString('hex', at, at + 6);
      const mtimeSec = 1_600_000_000 + (noise.readUInt32LE(at) % 1e8);
      entries.push({ path: `folder-${d}/${f}-${name}`, type: 'file', mtimeSec, mtimeNs: noise.readUInt32LE(at) % 1e9 });
    }
  }
  return entries;
}

interface MountOptions {
  made: TestRepository;
  /** Name of the cache's folder; by default a new one. */
  cache?: string;
  network?: RemoteStore['network'];
  deadlineMs?: number;
}

interface Mounted {
  host: MountHost;
  client: Client;
  store: RemoteStore;
  cache: BlockCache;
  log: string[];
  end(): Promise<void>;
}

/** What a failed test has left would answer for others. */
const open = new Set<() => Promise<void>>();
afterEach(async () => {
  for (const end of open) await end();
});

/** A mount over a store that is not on this machine, from the opening of the repository on. */
async function mounted({ made, network = 'up', deadlineMs, ...options }: MountOptions): Promise<Mounted> {
  process.env.ROZEN_STATE_DIR = join(made.folder, 'state');
  const store = new RemoteStore(made.store.location);
  store.network = network;
  const cache = BlockCache.open({ folder: join(folder, options.cache ?? `cache-${caches++}`), budget: 256 * MIB });
  const credentials = { identityFile: made.identityFile };
  const repository = await openRepository({ store, credentials, need: 'read', objects: cachedObjects(cache) });
  const log: string[] = [];
  const host = await openVfsHost({
    store,
    repository,
    cache,
    pollMs: 0,
    log: (line) => log.push(line),
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
  });
  const end = async () => {
    if (!open.delete(end)) return;
    await host.close();
    await cache.close();
  };
  open.add(end);
  return { host, client: new Client(host), store, cache, log, end };
}

/** What was asked of the store since the last time. */
function requests(store: RemoteStore): { gets: number; lists: number } {
  const counted = { gets: store.reads, lists: store.count('list') };
  store.reset();
  return counted;
}

beforeAll(async () => {
  many = await TestRepository.create(join(folder, 'many'));
  const entries = manyEntries();
  await many.commit('many', entries);
  // The second one shares almost all pages with the first.
  const fresh: ModelEntry = { path: 'folder-9/new', type: 'file', content: [randomBytes(300)] };
  await many.commit('many', [...entries, fresh], { timeSec: 1_800_000_100 });
  contents = await TestRepository.create(join(folder, 'contents'));
  const pieces: ModelEntry[] = [{ path: '', type: 'folder' }];
  pieces.push({ path: 'big.bin', type: 'file', content: [big] });
  for (let n = 0; n < 200; n++) pieces.push({ path: `f${n}`, type: 'file', content: [randomBytes(20_000)] });
  data = (await contents.commit('contents', pieces)).data!;
});

afterAll(() => {
  delete process.env.ROZEN_STATE_DIR;
  rmSync(folder, { recursive: true, force: true });
});

const isFolder = ({ mode }: { mode: number }) => (mode & 0o170000) === 0o040000;

describe('requests to a store that is not on this machine', () => {
  it('are few for the first look, whatever the size, and none for the second, also after a restart', async () => {
    for (const round of ['cold', 'warm']) {
      const { client, store, end } = await mounted({ made: many, cache: 'counted' });
      const root = await client.list(await client.walk('snapshots/many/latest'));
      expect(root.length).toBe(FOLDERS + 2);
      const first = requests(store);
      expect(first.lists).toBe(1);
      expect(first.gets).toBeLessThanOrEqual(round === 'cold' ? 3 : 0);
      expect(await client.content(await client.walk('snapshots/many/latest/small.txt'))).toEqual(small);
      expect(requests(store).gets).toBeLessThanOrEqual(round === 'cold' ? 2 : 0);
      let found = 0;
      for (const { attr } of root) if (isFolder(attr)) found += (await client.list(attr)).length;
      expect(found).toBe(FOLDERS * FILES + 1);
      expect(requests(store).gets).toBeLessThanOrEqual(round === 'cold' ? 40 : 0);
      await end();
    }
  });

  it('are as few as blocks far from each other, and one for many that lie side by side', async () => {
    const { client, host, store, end } = await mounted({ made: contents });
    const file = await client.walk('snapshots/contents/latest/big.bin');
    await client.read(file, 5 * MIB, 4096);
    store.reset();
    for (const at of [12, 1, 20, 8]) {
      expect(await client.read(file, at * MIB, 4096)).toEqual(big.subarray(at * MIB, at * MIB + 4096));
    }
    expect(store.calls.map(({ bytes }) => bytes < 300 * 1024)).toEqual([true, true, true, true]);
    store.reset();
    const whole = await client.content(file);
    expect(whole.equals(big)).toBe(true);
    // 24 MiB in windows that double to 16 MiB, in pieces of 1 MiB, several on their way at once.
    expect(store.reads).toBeLessThan(60);
    expect(store.mostOpen).toBeGreaterThan(4);
    expect(host.fetches!.ahead).toBeGreaterThan(10);
    await end();
  });

  it('go ahead of a reader of one small file after another', async () => {
    const { client, store, end } = await mounted({ made: contents });
    const files = (await client.list(await client.walk('snapshots/contents/latest'))).filter(
      ({ name }) => name[0] === 'f',
    );
    store.reset();
    for (const { attr } of files) expect((await client.content(attr)).length).toBe(20_000);
    // 200 files in 4 MB.
    expect(requests(store).gets).toBeLessThan(12);
    await end();
  });

  it('are not repeated while one is on its way', async () => {
    const { client, store, end } = await mounted({ made: contents });
    const file = await client.walk('snapshots/contents/latest/big.bin');
    await client.read(file, 0, 1);
    store.reset();
    store.latency = 20;
    const reads = await Promise.all(Array.from({ length: 20 }, () => client.read(file, 10 * MIB, 4096)));
    for (const bytes of reads) expect(bytes).toEqual(big.subarray(10 * MIB, 10 * MIB + 4096));
    expect(store.reads).toBe(1);
    await end();
  });
});

describe('when the network fails', () => {
  it('what is cached stays readable, from the mounting on, and what is not gives EIO', async () => {
    const warm = await mounted({ made: contents, cache: 'offline' });
    const before = await warm.client.walk('snapshots/contents/latest/f7');
    const bytes = await warm.client.content(before);
    await warm.end();
    const { client, store, log, end } = await mounted({ made: contents, cache: 'offline', network: 'down' });
    expect(await client.content(await client.walk('snapshots/contents/latest/f7'))).toEqual(bytes);
    const file = await client.walk('snapshots/contents/latest/big.bin');
    expect(await errnoOf(client.read(file, 20 * MIB, 10))).toBe(EIO);
    expect(log.join('\n')).toMatch(/the network is down: shown is what this machine has seen/);
    // Other places are not concerned, and come as soon as the network does.
    store.network = 'up';
    expect(await client.read(file, 4 * MIB, 10)).toEqual(big.subarray(4 * MIB, 4 * MIB + 10));
    await end();
  });

  it('a deadline ends the one read that waits, and others go on', async () => {
    const { client, store, log, end } = await mounted({ made: contents, deadlineMs: 1000 });
    const file = await client.walk('snapshots/contents/latest/big.bin');
    await client.read(file, 0, 10);
    store.network = 'dead';
    // More than there may be requests at once.
    const late = await Promise.all(Array.from({ length: 20 }, (_, i) => errnoOf(client.read(file, i * MIB + MIB, 10))));
    expect(late).toEqual(late.map(() => EIO));
    expect(log.join('\n')).toMatch(/no answer within 1 s/);
    expect(await client.read(file, 0, 10)).toEqual(big.subarray(0, 10));
    store.network = 'up';
    expect(await client.read(file, 23 * MIB, 10)).toEqual(big.subarray(23 * MIB, 23 * MIB + 10));
    await end();
  });
});

describe('damage', () => {
  it('on the way is made good by fetching once more: of the tail of an archive, and of a block', async () => {
    const { client, store, log, end } = await mounted({ made: contents });
    const file = await client.walk('snapshots/contents/latest/big.bin');
    let damaged = 0;
    const once = (at: (length: number) => number) => {
      const before = damaged;
      store.tamper = (name, _, bytes) => {
        if (name !== data || damaged > before) return;
        bytes[at(bytes.length)]! ^= 1;
        damaged++;
      };
    };
    once((length) => length - 100);
    expect(await client.read(file, 0, 10)).toEqual(big.subarray(0, 10));
    once(() => 1000);
    expect(await client.read(file, 10 * MIB, 10)).toEqual(big.subarray(10 * MIB, 10 * MIB + 10));
    expect(damaged).toBe(2);
    expect(log).toEqual([]);
    await end();
  });

  it('on the way is told, and not kept', async () => {
    const { client, store, log, end } = await mounted({ made: contents, cache: 'damaged' });
    const file = await client.walk('snapshots/contents/latest/big.bin');
    store.tamper = (name, _, bytes) => {
      if (name === data) bytes[1000]! ^= 1;
    };
    expect(await errnoOf(client.read(file, 10 * MIB, 10))).toBe(EIO);
    expect(log.join('\n')).toMatch(/authentication failed/);
    await end();
    const again = await mounted({ made: contents, cache: 'damaged' });
    const place = await again.client.walk('snapshots/contents/latest/big.bin');
    expect(await again.client.read(place, 10 * MIB, 10)).toEqual(big.subarray(10 * MIB, 10 * MIB + 10));
    await again.end();
  });
});
