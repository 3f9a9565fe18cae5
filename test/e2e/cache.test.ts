import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endServer, startServer, useBucket } from '../s3/bucket.ts';
import { compareFolders } from './compare.ts';
import { noise } from './odd-tree.ts';
import { mountObstacle, Sandbox } from './rozen.ts';

const MIB = 1024 * 1024;

describe.skipIf(mountObstacle() !== null)('a repository in a bucket, through the block cache', () => {
  const sandbox = new Sandbox();
  const log = join(sandbox.dir, 'requests.log');
  const latest = join(sandbox.mountpoint, 'snapshots/set/latest');
  const source = join(sandbox.dir, 'source');
  const large = noise(12 * MIB + 77);
  let server: ChildProcess;
  let seen = 0;

  /** Requests since the last call. */
  function requests(): { gets: number; lists: number } {
    const text = existsSync(log) ? readFileSync(log, 'utf8') : '';
    const operations = text
      .slice(seen)
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as { operation: string }).operation);
    seen = text.length;
    const count = (name: string) => operations.filter((operation) => operation === name).length;
    return { gets: count('GetObject'), lists: count('ListObjectsV2') };
  }

  const status = () => readFileSync(join(sandbox.mountpoint, '.rozen/status'), 'utf8');

  beforeAll(async () => {
    const started = await startServer('--log', log);
    server = started.child;
    useBucket(sandbox, started.access, 'test/cached');
    mkdirSync(join(source, 'sub'), { recursive: true });
    for (let n = 0; n < 300; n++) writeFileSync(join(source, 'sub', `file-${n}`), noise(3000 + n));
    writeFileSync(join(source, 'small'), 'some words');
    writeFileSync(join(source, 'large'), large);
    sandbox.ok(['init']);
    const identity = join(sandbox.dir, 'identity.txt');
    sandbox.ok(['key', 'export', identity]);
    sandbox.env.ROZEN_IDENTITY_FILE = identity;
    sandbox.ok(['backup', source, '--set', 'set']);
  });
  afterAll(async () => {
    sandbox.remove();
    await endServer(server);
  });

  test('is mounted and read by few requests, and by none the second time', () => {
    for (const round of ['cold', 'warm']) {
      requests();
      sandbox.mount();
      try {
        expect(readdirSync(latest).sort()).toEqual(['large', 'small', 'sub']);
        const first = requests();
        expect(first.lists).toBe(1);
        expect(first.gets).toBeLessThanOrEqual(round === 'cold' ? 3 : 0);
        expect(readFileSync(join(latest, 'small'), 'utf8')).toBe('some words');
        expect(requests().gets).toBeLessThanOrEqual(round === 'cold' ? 2 : 0);
        for (let n = 0; n < 300; n++) expect(statSync(join(latest, 'sub', `file-${n}`)).size).toBe(3000 + n);
        expect(readFileSync(join(latest, 'large')).equals(large)).toBe(true);
        const gets = requests().gets;
        if (round === 'cold') expect(gets).toBeGreaterThan(0);
        else expect(gets).toBe(0);
        expect(status()).toMatch(/^cache +[1-9]\d* of 4294967296 bytes in /m);
        if (round === 'warm') expect(status()).toMatch(/^cache hit rate +100.0 %$/m);
      } finally {
        sandbox.unmount();
      }
    }
    const { kinds, diskBytes } = sandbox.json(['cache', 'stats']);
    expect(kinds.blocks.count).toBeGreaterThan(40);
    expect(kinds.pages.count).toBeGreaterThan(3);
    expect(kinds.objects.count).toBeGreaterThan(0);
    expect(diskBytes).toBeGreaterThan(12 * MIB);
  });

  test('is restored and verified by few requests for much', () => {
    requests();
    const target = join(sandbox.dir, 'restored');
    sandbox.ok(['restore', 'latest', '--target', target]);
    expect(compareFolders(source, target, { folderSizes: true })).toEqual([]);
    // Blocks come from the cache; what is not there comes in GETs of up to 8 MiB.
    expect(requests().gets).toBe(0);
    sandbox.ok(['cache', 'clear']);
    sandbox.ok(['restore', 'latest', '--target', join(sandbox.dir, 'again')]);
    expect(requests().gets).toBeLessThan(24);
    expect(sandbox.json(['cache', 'stats']).kinds.blocks.count).toBe(0);
    sandbox.ok(['verify', '--read-data']);
    // The hashes of some 52 blocks one by one, the blocks in large pieces.
    expect(requests().gets).toBeLessThan(90);
    expect(sandbox.json(['cache', 'warm', '--content']).blocks).toBeGreaterThan(40);
  });

  test('is cleared, and warmed for a time without network', async () => {
    expect(sandbox.json(['cache', 'clear']).freedBytes).toBeGreaterThan(12 * MIB);
    expect(sandbox.json(['cache', 'stats']).bytes).toBe(0);
    requests();
    expect(sandbox.json(['cache', 'warm', '--content', 'latest:/sub'])).toMatchObject({ blocks: expect.any(Number) });
    expect(requests().gets).toBeLessThan(12);
    await endServer(server, 'SIGKILL');
    sandbox.mount();
    try {
      expect(readdirSync(latest).length).toBe(3);
      for (let n = 0; n < 300; n++) expect(readFileSync(join(latest, 'sub', `file-${n}`)).length).toBe(3000 + n);
      expect(status()).toMatch(/shown is what this machine has seen before/);
    } finally {
      sandbox.unmount();
    }
  });

  test('has no cache when it lies in a folder', () => {
    const local = join(sandbox.dir, 'local');
    sandbox.ok(['init', local]);
    expect(sandbox.ok(['-r', local, 'cache', 'warm'], 2).stderr).toMatch(/lies on this machine/);
    expect(sandbox.ok(['mount', sandbox.mountpoint, '--cache-size', '1M'], 2).stderr).toMatch(/too small/);
  });
});
