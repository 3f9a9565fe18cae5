import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { connectS3 } from '../../src/store/s3-client.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { compareFolders } from '../e2e/compare.ts';
import { makeOddTree, noise } from '../e2e/odd-tree.ts';
import { isMounted, isRoot, mountObstacle, Sandbox } from '../e2e/rozen.ts';
import { accessEnvironment, type S3Access, useBucket } from './bucket.ts';

/** What must work on a folder must work in a bucket: the built command line, from `init` to a restored copy. */
export function bucketJob(open: () => Promise<S3Access>): void {
  // Some twenty commands, each a process: slow when the machine is busy.
  vi.setConfig({ testTimeout: 180_000 });
  let sandbox: Sandbox;
  let access: S3Access;
  let source: string;

  beforeAll(async () => {
    sandbox = new Sandbox();
    access = await open();
    useBucket(sandbox, access, `job-${process.pid}-${Date.now()}/deep/prefix`);
    source = join(sandbox.dir, 'source');
    mkdirSync(source);
    makeOddTree(join(source, 'odd'), { privileged: isRoot });
    // More than one part.
    writeFileSync(join(source, 'large'), noise(20 * 1024 * 1024));
  });
  afterAll(() => sandbox.remove());

  test('init makes the bucket, and refuses a place that is taken', () => {
    // A class that can be read at once, and a lock: whatever is done below is done to such a repository.
    const made = sandbox.json(['init', '--storage-class', 'glacier-ir', '--object-lock', '1']);
    expect(made.location).toBe(sandbox.env.ROZEN_REPOSITORY);
    // From here on no command has to stretch a passphrase.
    const identity = join(sandbox.dir, 'identity.txt');
    sandbox.ok(['key', 'export', '--owner', identity]);
    sandbox.env.ROZEN_IDENTITY_FILE = identity;
    expect(sandbox.ok(['init'], 1).stderr).toMatch(/holds a repository already/);
    const above = sandbox.env.ROZEN_REPOSITORY!.replace(/\/prefix$/, '');
    expect(sandbox.ok(['-r', above, 'init'], 1).stderr).toMatch(/is not empty \(prefix\/config/);
  });

  test('backup stores it, and a second one finds nothing to do', () => {
    sandbox.ok(['backup', source, '--set', 'all']);
    expect(sandbox.json(['backup', source, '--set', 'all'])).toMatchObject({ unchanged: true });
    writeFileSync(join(source, 'late'), 'added later');
    sandbox.ok(['backup', source, '--set', 'all']);
    expect(sandbox.json(['snapshots'])).toHaveLength(2);
  });

  test('every byte verifies', () => {
    sandbox.ok(['verify', '--read-data']);
    sandbox.ok(['verify', '--no-key']);
    sandbox.ok(['verify', 'all@latest', '--against', source]);
  });

  test.skipIf(mountObstacle() !== null)('the mount shows what was backed up', () => {
    const mountpoint = sandbox.mount();
    try {
      const view = join(mountpoint, 'snapshots/all/latest');
      expect(compareFolders(source, view, { folderSizes: true })).toEqual([]);
    } finally {
      sandbox.unmount();
    }
    expect(isMounted(mountpoint)).toBe(false);
  });

  test('cat, stats and restore read it', () => {
    expect(sandbox.ok(['cat', 'latest:/late']).stdout).toBe('added later');
    expect(sandbox.json(['stats']).store).toBeTruthy();
    const target = join(sandbox.dir, 'restored');
    sandbox.ok(['restore', 'latest', '--target', target, '--verify']);
    expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
  });

  test('everything is locked for a day', async () => {
    const place = parseS3Place(sandbox.env.ROZEN_REPOSITORY!);
    Object.assign(process.env, accessEnvironment(access));
    const api = connectS3(place);
    const { objects } = await api.list({ prefix: place.prefix });
    expect(objects.length).toBeGreaterThan(9);
    for (const { key } of objects)
      expect(((await api.head(key)).lockedUntil ?? 0) - Date.now(), key).toBeGreaterThan(0.9 * 86_400_000);
    api.close();
  });

  test('repair ends an upload that nobody goes on with', async () => {
    const place = parseS3Place(sandbox.env.ROZEN_REPOSITORY!);
    const api = connectS3(place);
    const id = await api.beginUpload(`${place.prefix}data/ab/left.roz`);
    const body = noise(5 * 1024 * 1024);
    const sha256 = createHash('sha256').update(body).digest('hex');
    await api.putPart({ key: `${place.prefix}data/ab/left.roz`, upload: id, number: 1, body, sha256 });
    api.close();
    const left = { name: 'data/ab/left.roz', id, bytes: body.length };
    expect(sandbox.json(['repair']).uploads).toMatchObject([{ ...left, stale: false, removed: false }]);
    const dry = sandbox.json(['repair', '--older-than', '0m', '--dry-run']);
    expect(dry.uploads).toMatchObject([{ ...left, stale: true, removed: false }]);
    expect(sandbox.ok(['repair', '--older-than', '0m']).stdout).toMatch(/^removed {2}data\/ab\/left.roz/);
    expect(sandbox.json(['repair']).uploads).toEqual([]);
  });

  test('keys and enrolled machines live in it too', () => {
    sandbox.ok(['key', 'add', '--label', 'spare', '--new-password-file', join(source, 'late')]);
    expect(sandbox.json(['key', 'list']).keys).toHaveLength(2);
    const other = new Sandbox();
    try {
      useBucket(other, access, sandbox.env.ROZEN_REPOSITORY!.split('/').slice(3).join('/'));
      delete other.env.ROZEN_PASSWORD;
      const writer = join(sandbox.dir, 'other.writer');
      sandbox.ok(['enroll', '--name', 'other', '--export', writer]);
      other.ok(['enroll', '--import', writer]);
      const report = other.json(['backup', source, '--set', 'theirs']);
      // What this machine has stored is not stored again.
      expect(report.bytesNew).toBe(0);
    } finally {
      other.remove();
    }
  });
}
