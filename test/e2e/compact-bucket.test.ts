/** `rozen compact` in a bucket: locks are kept, classes given, and what is read is read by few requests. */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { accessEnvironment, endServer, type S3Access, startServer, useBucket } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Request, startS3 } from '../s3/server.mjs';
import { noise } from './odd-tree.ts';
import { mountObstacle, Sandbox } from './rozen.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const KIB = 1024;
let access: S3Access;
let child: ChildProcess;
const sandboxes: Sandbox[] = [];
beforeAll(async () => {
  ({ access, child } = await startServer());
  Object.assign(process.env, accessEnvironment(access));
});
afterAll(async () => {
  await endServer(child);
  for (const sandbox of sandboxes) sandbox.remove();
});

function repository(place: string, count: number, ...init: string[]) {
  const sandbox = new Sandbox();
  sandboxes.push(sandbox);
  useBucket(sandbox, access, place);
  sandbox.ok(['init', ...init]);
  const key = join(sandbox.dir, 'owner.txt');
  sandbox.ok(['key', 'export', '--owner', key]);
  sandbox.env.ROZEN_IDENTITY_FILE = key;
  delete sandbox.env.ROZEN_PASSWORD;
  const source = join(sandbox.dir, 'source');
  mkdirSync(source);
  const contents = new Map<string, Buffer>();
  for (let i = 0; i < count; i++) {
    contents.set(`file ${i}`, noise(300 * KIB + i, i + 1));
    writeFileSync(join(source, `file ${i}`), contents.get(`file ${i}`)!);
    sandbox.ok(['backup', source, '--set', 's']);
  }
  const store = new S3Store(parseS3Place(`s3:${access.endpoint}/${place}`));
  const objects = async (prefix: string) => {
    const found = new Map<string, string | undefined>();
    for await (const { name, storageClass } of store.list(prefix)) found.set(name, storageClass);
    return found;
  };
  return { sandbox, contents, source, store, objects };
}

function expectFolder(folder: string, contents: ReadonlyMap<string, Buffer>): void {
  for (const [name, bytes] of contents) expect(readFileSync(join(folder, name)).equals(bytes), name).toBe(true);
}

test('small archives become a cold one, for readers that are there and readers to come', async () => {
  const { sandbox, contents, source, objects } = repository('test/merge', 10, '--storage-class', 'GLACIER_IR');
  expect(new Set((await objects('data/')).values())).toEqual(new Set(['STANDARD']));
  const mounted = mountObstacle() === null ? join(sandbox.mount(), 'snapshots', 's', 'latest') : null;
  if (mounted !== null) expect(readFileSync(join(mounted, 'file 2')).equals(contents.get('file 2')!)).toBe(true);
  const report = sandbox.json(['compact', '--grace', '0', '--archive-size', '16M']);
  expect(report).toMatchObject({ merged: [{ archives: 10 }], removed: { archives: 10 }, problems: [] });
  const left = await objects('data/');
  expect([...left.values()]).toEqual(['GLACIER_IR']);
  expect((await objects('index/')).size).toBe(1);
  if (mounted !== null) {
    expectFolder(mounted, contents);
    sandbox.unmount();
  }
  for (const cache of ['known', 'empty']) {
    if (cache === 'empty') sandbox.ok(['cache', 'clear']);
    const target = join(sandbox.dir, `restored ${cache}`);
    sandbox.ok(['restore', 's@latest', '--target', target]);
    expectFolder(target, contents);
  }
  expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [], notes: [] });
  expect(sandbox.json(['backup', source, '--set', 'other'])).toMatchObject({ bytesNew: 0 });
  // In its class it is nothing to merge again.
  expect(sandbox.json(['compact'])).toMatchObject({ small: { archives: 0 }, merged: [] });
});

test('what was merged into a frozen archive is found there, thawed and read', async () => {
  const { sandbox, contents, objects } = repository('test/frozen', 4);
  sandbox.ok(['compact', '--grace', '0', '--storage-class', 'GLACIER', '--archive-size', '8M']);
  const [[object]] = [...(await objects('data/'))] as [[string, string]];
  expect(sandbox.json(['cost', 's@latest'])).toMatchObject({ packs: 1, states: { hot: 0, frozen: 1 } });
  const target = join(sandbox.dir, 'restored');
  expect(sandbox.ok(['restore', 's@latest', '--target', target], 7).stderr).toMatch(
    /1 pack of it .* first run: rozen thaw/,
  );
  const state = () =>
    sandbox.shell(`getfattr --only-values -n user.rozen.state '${sandbox.mountpoint}'/snapshots/s/latest/'file 1'`);
  if (mountObstacle() === null) {
    sandbox.mount();
    expect(state()).toBe('frozen');
    sandbox.unmount();
  }
  const thawed = sandbox.json(['thaw', 's@latest', '--yes', '--poll', '0.05s']);
  expect(thawed).toMatchObject({ asked: 1, ready: true, packs: [{ object, state: 'hot' }] });
  sandbox.ok(['restore', 's@latest', '--target', target]);
  expectFolder(target, contents);
  if (mountObstacle() === null) {
    sandbox.mount();
    expect(state()).toBe('hot');
    expectFolder(join(sandbox.mountpoint, 'snapshots/s/latest'), contents);
    sandbox.unmount();
  }
  expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [] });
});

test('what is locked stays, and its successor is locked before anything leads there', async () => {
  const { sandbox, contents, source, store, objects } = repository('locked/merge', 4, '--object-lock', '2');
  const before = [...(await objects('data/')).keys()];
  const report = sandbox.json(['compact', '--grace', '0']);
  expect(report).toMatchObject({ merged: [{ archives: 4 }], removed: { archives: 0 }, locked: { archives: 4 } });
  expect(Date.parse(report.locked.until)).toBeGreaterThan(Date.now() + 86_400_000);
  const after = [...(await objects('data/')).keys()];
  expect(after).toEqual(expect.arrayContaining(before));
  expect(after).toHaveLength(5);
  const made = after.find((name) => !before.includes(name))!;
  for (const name of [made, made.replace('data/', 'index/').replace('.roz', '.rix'), 'forward/00000001.cbor'])
    expect(await store.lockedUntil(name), name).toBeGreaterThan(Date.now() + 86_400_000);
  expect(sandbox.ok(['compact', '--grace', '0']).stdout).toMatch(/4 archives of .*, merged, are locked until 20/);
  // The next snapshot extends the lock of what it needs.
  writeFileSync(join(source, 'new'), 'new');
  sandbox.ok(['backup', source, '--set', 's']);
  const target = join(sandbox.dir, 'restored');
  sandbox.ok(['restore', 's@latest', '--target', target]);
  expectFolder(target, contents);
  expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [] });
});

/** A server in this process, which nothing may block: commands are run beside it. */
async function beside(...init: string[]) {
  const server = await startS3();
  const sandbox = new Sandbox();
  sandboxes.push(sandbox);
  const run = (args: string[], started?: (kill: () => void) => void) =>
    new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
      const one = sandbox.start(args);
      const result = { stdout: '', stderr: '' };
      one.stdout.on('data', (bytes) => (result.stdout += bytes));
      one.stderr.on('data', (bytes) => (result.stderr += bytes));
      one.once('close', (code) => resolve({ code, ...result }));
      started?.(() => one.kill('SIGKILL'));
    });
  const ok = async (args: string[]) => {
    const result = await run(args);
    if (result.code !== 0) throw new Error(`rozen ${args.join(' ')}: ${result.code}\n${result.stdout}${result.stderr}`);
    return result.stdout;
  };
  useBucket(sandbox, { endpoint: server.endpoint, ...CREDENTIALS }, 'kills/r');
  await ok(['init', ...init]);
  const key = join(sandbox.dir, 'owner.txt');
  await ok(['key', 'export', '--owner', key]);
  sandbox.env.ROZEN_IDENTITY_FILE = key;
  delete sandbox.env.ROZEN_PASSWORD;
  const keys = server.objects.buckets.get('kills')!.keys;
  const names = (prefix: string) =>
    [...keys].filter(([key, { versions }]) => key.startsWith(prefix) && !versions.at(-1)!.deleted).map(([key]) => key);
  const source = join(sandbox.dir, 'source');
  mkdirSync(source);
  const contents = new Map<string, Buffer>();
  const more = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const name = `file ${contents.size}`;
      contents.set(name, noise(100 * KIB + contents.size, contents.size + 1));
      writeFileSync(join(source, name), contents.get(name)!);
      await ok(['backup', source, '--set', 's']);
    }
  };
  /** Runs a command that is killed with the first request that `match` says. Null when there was none: then the exit code. */
  const killedAt = async (args: string[], match: (request: S3Request) => boolean) => {
    let kill: (() => void) | null = null;
    let killed = false;
    const isIt = (request: S3Request): boolean => {
      if (kill === null || killed || !match(request)) return false;
      killed = true;
      kill();
      return true;
    };
    server.faults = [{ kind: '500', match: isIt }];
    const { code } = await run(args, (it) => {
      kill = it;
    });
    server.faults = [];
    return killed ? null : code;
  };
  return { server, sandbox, run, ok, names, keys, source, contents, more, killedAt };
}

test('killed with each request that changes anything, the next run ends it', async () => {
  const { server, sandbox, ok, names, contents, more, killedAt } = await beside();
  try {
    // Four archives of 100 KiB are a full one, which is left alone ever after.
    const args = ['compact', '--grace', '0', '--archive-size', '400K'];
    let kills = 0;
    for (let at = 1; ; at++) {
      await more(4);
      let seen = 0;
      const code = await killedAt(args, ({ operation }) => /^(?:Put|Delete|Complete)/.test(operation) && ++seen === at);
      if (code !== null) {
        expect(code).toBe(0);
        break;
      }
      kills++;
      const what = `killed with change ${at}`;
      expect(JSON.parse(await ok(['--json', 'verify', '--read-data'])).findings, what).toEqual([]);
      await ok(args);
      expect(names('r/data/'), what).toHaveLength(at);
      expect(names('r/index/'), what).toHaveLength(at);
      expect(JSON.parse(await ok(['--json', 'verify', '--read-data'])), what).toMatchObject({
        findings: [],
        notes: [],
      });
      const target = join(sandbox.dir, `restored ${at}`);
      await ok(['restore', 's@latest', '--target', target]);
      expectFolder(target, contents);
    }
    expect(kills).toBeGreaterThanOrEqual(11);
  } finally {
    await server.close();
  }
});

test('killed before the hot index is there, it stops no backup, and any owner puts the index', async () => {
  const { server, sandbox, ok, names, source, contents, more, killedAt } = await beside('--object-lock', '2');
  try {
    await more(4);
    const sources = [...names('r/data/'), ...names('r/index/')];
    const isIndex = ({ operation, key }: S3Request) => operation === 'PutObject' && key.startsWith('r/index/');
    expect(await killedAt(['compact'], isIndex)).toBeNull();
    expect(names('r/forward/')).toHaveLength(1);
    expect(names('r/data/')).toHaveLength(5);
    expect(names('r/index/')).toHaveLength(4);

    server.reset();
    writeFileSync(join(source, 'later'), 'later');
    await ok(['backup', source, '--set', 's']);
    const asked = server.requests.filter(({ operation }) => operation === 'HeadObject').map(({ key }) => key);
    expect(asked).toEqual(expect.arrayContaining(sources));

    // The machine that was killed never comes back.
    const [repository] = readdirSync(join(sandbox.dir, 'state/rozen/repositories'));
    rmSync(join(sandbox.dir, 'state/rozen/repositories', repository!, 'compact'), { recursive: true });
    const before = JSON.parse(await ok(['--json', 'verify']));
    expect(before.findings).toEqual([]);
    expect(before.notes).toEqual(expect.arrayContaining([expect.stringMatching(/^data\/.*: .*no hot index/)]));
    expect(JSON.parse(await ok(['--json', 'compact', '--dry-run']))).toMatchObject({ completed: { archives: 0 } });
    expect(JSON.parse(await ok(['--json', 'compact']))).toMatchObject({ completed: { archives: 1 }, problems: [] });
    const made = names('r/data/').find((name) => name.startsWith('r/data/') && !sources.includes(name))!;
    expect(names('r/index/')).toContain(made.replace('/data/', '/index/').replace('.roz', '.rix'));
    expect(JSON.parse(await ok(['--json', 'compact']))).toMatchObject({ completed: { archives: 0 }, problems: [] });

    // From then on it is what the snapshots need.
    server.reset();
    writeFileSync(join(source, 'last'), 'last');
    await ok(['backup', source, '--set', 's']);
    const now = server.requests.filter(({ operation }) => operation === 'HeadObject').map(({ key }) => key);
    expect(now).toContain(made);
    expect(now.filter((key) => sources.includes(key))).toEqual([]);
    const after = JSON.parse(await ok(['--json', 'verify', '--read-data']));
    expect(after.findings).toEqual([]);
    expect(after.notes).not.toEqual(expect.arrayContaining([expect.stringMatching(/no hot index/)]));
    const target = join(sandbox.dir, 'restored');
    await ok(['restore', 's@latest', '--target', target]);
    expectFolder(target, contents);
  } finally {
    await server.close();
  }
});

test('a backup extends the locks of old snapshot records, of whatever set', async () => {
  const { server, ok, names, keys, source, more } = await beside('--object-lock', '4');
  try {
    await more(2);
    await ok(['backup', source, '--set', 'other']);
    const DAY = 86_400_000;
    const records = names('r/snapshots/').map((name) => keys.get(name)!.versions.at(-1)!);
    expect(records).toHaveLength(3);
    for (const { lock } of records) lock!.until = new Date(Date.now() + 1.5 * DAY).toISOString();
    await more(1);
    for (const { lock } of records) expect(Date.parse(lock!.until)).toBeGreaterThan(Date.now() + 3.5 * DAY);
    expect(JSON.parse(await ok(['--json', 'verify'])).findings).toEqual([]);
  } finally {
    await server.close();
  }
});
