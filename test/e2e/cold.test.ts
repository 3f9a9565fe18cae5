/** A repository whose content lies in GLACIER, by the built command line. The server runs in this process: its clock and requests are ours. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ENOMEDIUM } from '../../src/posix/errno.ts';
import { onTerminal } from '../cli/rozen.ts';
import { useBucket } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Server, startS3 } from '../s3/server.mjs';
import { compareFolders } from './compare.ts';
import { photo } from './photos.ts';
import { mountObstacle, type Result, Sandbox } from './rozen.ts';

vi.setConfig({ testTimeout: 180_000 });

const KIB = 1024;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const ALBUMS = ['2019', '2020'];
const PER_ALBUM = 3;
let server: S3Server;
/** How far the server's clock is ahead. */
let later = 0;
let sandbox: Sandbox;
let source: string;

/** Runs a command while the server in this process answers it. */
async function run(
  args: string[],
  options: { stopWhen?: () => boolean; env?: Record<string, string> } = {},
): Promise<Result & { bytes: Buffer }> {
  const child = sandbox.start(args, options.env);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (piece) => out.push(piece));
  child.stderr.on('data', (piece) => err.push(piece));
  let watching: NodeJS.Timeout | undefined;
  if (options.stopWhen !== undefined) {
    watching = setInterval(() => {
      if (!options.stopWhen!()) return;
      clearInterval(watching);
      child.kill('SIGINT');
    }, 10);
  }
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  clearInterval(watching);
  const bytes = Buffer.concat(out);
  return { code, stdout: bytes.toString(), stderr: Buffer.concat(err).toString(), bytes };
}

async function ok(args: string[], code = 0, env: Record<string, string> = {}): Promise<Result & { bytes: Buffer }> {
  const result = await run(args, { env });
  if (result.code !== code)
    throw new Error(`rozen ${args.join(' ')}: exit ${result.code}, not ${code}\n${result.stdout}${result.stderr}`);
  return result;
}

// biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests look at
const json = async (args: string[], code = 0, env: Record<string, string> = {}): Promise<any> =>
  JSON.parse((await ok(['--json', ...args], code, env)).stdout);
/** Nothing that opens the repository. */
const KEYLESS = { ROZEN_IDENTITY_FILE: '', ROZEN_PASSWORD: '' };

/** Every data archive by its class. */
function archives(): Map<string, string> {
  const found = new Map<string, string>();
  for (const { keys } of server.objects.buckets.values()) {
    for (const [key, { versions }] of keys) {
      if (key.includes('/data/')) found.set(key, versions.at(-1)!.storageClass);
    }
  }
  return found;
}

const changing = () => server.count('RestoreObject', 'PutObject', 'DeleteObject', 'CreateMultipartUpload');

beforeAll(async () => {
  server = await startS3({ restoreMs: 5 * HOUR, clock: () => Date.now() + later });
  sandbox = new Sandbox();
  useBucket(sandbox, { endpoint: server.endpoint, ...CREDENTIALS }, `cold/p`);
  source = join(sandbox.dir, 'source');
  for (const [a, album] of ALBUMS.entries()) {
    mkdirSync(join(source, album), { recursive: true });
    for (let i = 0; i < PER_ALBUM; i++) {
      // What follows the end of the picture is the camera's business.
      const bytes = Buffer.concat([photo(a * 10 + i), randomBytes(420 * KIB)]);
      writeFileSync(join(source, album, `IMG_${i}.jpg`), bytes);
    }
  }
  writeFileSync(join(source, 'thumb.jpg'), photo(77));
  await ok(['init', '--storage-class', 'glacier']);
  const identity = join(sandbox.dir, 'identity.txt');
  await ok(['key', 'export', '--owner', identity]);
  sandbox.env.ROZEN_IDENTITY_FILE = identity;
  // Each photo is larger than the goal, so that it fills a pack of its own.
  await ok(['backup', source, '--set', 'photos', '--archive-size', '256K']);
});
afterAll(async () => {
  sandbox.remove();
  await server.close();
});
beforeEach(() => server.reset());

test('content is frozen; heads of photos, trees and indexes are not', async () => {
  const classes = [...archives().values()];
  expect(classes.filter((one) => one === 'GLACIER')).toHaveLength(ALBUMS.length * PER_ALBUM);
  expect(classes.filter((one) => one === 'STANDARD').length).toBeGreaterThan(0);
  expect((await ok(['ls', '-R', 'latest'])).stdout.split('\n').length).toBeGreaterThan(7);
  expect((await ok(['cat', 'latest:/thumb.jpg'])).bytes.equals(readFileSync(join(source, 'thumb.jpg')))).toBe(true);
});

describe('without a thaw', () => {
  test('restore ends before it writes anything, and names the command that helps', async () => {
    const target = join(sandbox.dir, 'never');
    const { stderr } = await ok(['restore', 'latest:/2019', '--target', target], 7);
    expect(existsSync(target)).toBe(false);
    const command = /first run: rozen (thaw [0-9a-f]{8}:\/2019)\n/.exec(stderr)![1]!;
    const plan = await json([...command.split(' '), '--dry-run']);
    expect(plan.packs.filter(({ state }: { state: string }) => state === 'frozen')).toHaveLength(PER_ALBUM);
    // What it would do can be told.
    await ok(['restore', 'latest:/2019', '--target', target, '--dry-run']);
    await ok(['restore', 'latest:/thumb.jpg', '--target', target]);
    rmSync(target, { recursive: true });
    expect(changing()).toBe(0);
  });

  test('so do cat and verify --read-data', async () => {
    const { stderr, stdout } = await ok(['cat', 'latest:/thumb.jpg', 'latest:/2020/IMG_0.jpg'], 7);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/first run: rozen thaw [0-9a-f]{8}:\/thumb\.jpg [0-9a-f]{8}:\/2020\/IMG_0\.jpg/);
    expect((await ok(['verify', '--read-data'], 7)).stderr).toMatch(
      /6 of \d+ data archives .* first run: rozen thaw --all/,
    );
    expect((await ok(['verify', '--sample', '5', 'latest'], 7)).stderr).toMatch(/first run: rozen thaw [0-9a-f]{8}$/m);
  });

  test('verify checks all that can be, and says what it could not', async () => {
    const { stdout } = await ok(['verify']);
    expect(stdout).toMatch(/6 of \d+ data archives lie in cold storage/);
    expect(stdout).toMatch(/no problems were found/);
    const scrubbed = await json(['verify', '--no-key'], 7);
    expect(scrubbed).toMatchObject({ frozen: 6, findings: [] });
    await ok(['verify', '--against', source]);
  });

  test('a lost archive is still found', async () => {
    const { keys } = server.objects.buckets.get('cold')!;
    const [key] = [...archives()].find(([, one]) => one === 'GLACIER')!;
    const object = keys.get(key)!;
    keys.delete(key);
    const report = await json(['verify'], 5);
    keys.set(key, object);
    expect(report.findings).toMatchObject([{ kind: 'missing', object: key.slice(2) }]);
    expect(report.findings[0].fileCount).toBe(1);
  });
});

describe('cost', () => {
  test('of the repository needs no key and no more than a listing', async () => {
    const cost = await json(['cost'], 0, KEYLESS);
    expect(cost.classes.map(({ storageClass }: { storageClass: string }) => storageClass)).toEqual([
      'GLACIER',
      'STANDARD',
    ]);
    expect(cost.classes[0]).toMatchObject({ objects: 6 });
    expect(cost.classes[0].earlyDeletion).toBeGreaterThan(2.9 * cost.classes[0].perMonth);
    expect(cost.thaw.map(({ tier }: { tier: string }) => tier)).toEqual(['standard', 'bulk', 'expedited']);
    expect(server.count('HeadObject')).toBe(0);
    expect((await ok(['cost'])).stdout).toMatch(/^GLACIER +6 .*USD/m);
  });

  test('of a folder is that of its packs', async () => {
    const one = await json(['cost', 'latest:/2019/IMG_0.jpg']);
    expect(one).toMatchObject({ packs: 2, states: { hot: 1, thawing: 0, frozen: 1 } });
    expect(one.thaw[0]).toMatchObject({ tier: 'standard', packs: 1, hours: 5 });
    expect(one.read.bytes).toBeGreaterThan(420 * KIB);
    expect(one.read.bytes).toBeLessThan(1200 * KIB);
    expect((await ok(['cost', 'latest'])).stdout).toMatch(/^bulk +12 hours/m);
    expect(changing()).toBe(0);
  });

  test("of a folder on this machine is nobody's business, and nothing there is ever frozen", async () => {
    const local = ['-r', join(sandbox.dir, 'local')];
    await ok([...local, 'init']);
    expect((await ok([...local, 'cost'], 2)).stderr).toMatch(/nobody is paid for it/);
    const key = { ROZEN_IDENTITY_FILE: '' };
    await ok([...local, 'backup', join(source, '2019'), '--set', 's'], 0, key);
    expect((await ok([...local, 'thaw', 's@latest'], 0, key)).stdout).toMatch(/nothing of it is frozen/);
  });

  test('the table can be another one', async () => {
    const table = (await ok(['cost', '--print-prices'])).stdout;
    expect(table).toMatch(/^currency = "USD"/m);
    const own = join(sandbox.dir, 'own.toml');
    writeFileSync(own, table.replace('currency = "USD"', 'currency = "EUR"').replace('hours = 12', 'hours = 20'));
    expect((await ok(['cost', 'latest', '--prices', own])).stdout).toMatch(/^bulk +20 hours .*EUR/m);
    const place = join(sandbox.env.XDG_CONFIG_HOME!, 'rozen/prices.toml');
    mkdirSync(join(place, '..'), { recursive: true });
    writeFileSync(place, table.replace('"USD"', '"CHF"'));
    expect((await json(['cost'])).currency).toBe('CHF');
    writeFileSync(place, 'currency = ');
    expect((await ok(['cost'], 2)).stderr).toMatch(/prices\.toml, line 1: /);
    rmSync(place);
  });
});

describe('thaw', () => {
  test('says what it would take, asks, and does nothing unasked', async () => {
    const { stderr } = await ok(['thaw', 'latest', '--dry-run', '--tier', 'bulk', '--days', '14']);
    expect(stderr).toMatch(/6 frozen \(\d.*MiB\)/);
    expect(stderr).toMatch(/bulk: some 12 hours; .* copies of 14 days \(prices of Amazon S3/);
    const target = join(sandbox.dir, 'never');
    const tried = await ok(['restore', 'latest', '--target', target, '--thaw', '--dry-run', '--tier', 'bulk']);
    expect(tried.stderr).toMatch(/6 frozen/);
    expect(tried.stdout).toMatch(/nothing was written/);
    expect(existsSync(target)).toBe(false);
    expect((await ok(['thaw', 'latest'], 2)).stderr).toMatch(/thaw 6 packs\?; thawing costs money: add --yes/);
    expect((await ok(['thaw'], 2)).stderr).toMatch(/needs to know what/);
    expect((await ok(['thaw', 'latest', '--days', 'x'], 2)).stderr).toMatch(/--days/);
    expect((await ok(['thaw', 'latest', '--poll', '5'], 2)).stderr).toMatch(/--poll/);
    expect((await ok(['restore', 'latest', '--target', '/x', '--tier', 'bulk'], 2)).stderr).toMatch(/add --thaw/);
    expect(changing()).toBe(0);
  });

  test('takes no for an answer', async () => {
    const ask = (type: string) => onTerminal(sandbox, ['thaw', 'latest:/2019'], [{ after: '[y/N] ', type }]);
    for (const [type, code, says] of [
      ['n\r', 7, /it stays frozen/],
      ['\r', 7, /it stays frozen/],
      ['\x03', 130, /nothing was done/],
    ] as const) {
      const answered = await ask(type);
      expect(answered.shown).toMatch(/thaw 3 packs\? \[y\/N\]/);
      expect(answered.shown).toMatch(says);
      expect(answered.code).toBe(code);
    }
    expect(changing()).toBe(0);
  });

  test('asks for the packs of a folder, and for none twice', async () => {
    const asked = await json(['thaw', 'latest:/2019', '--yes', '--no-wait']);
    expect(asked).toMatchObject({ asked: PER_ALBUM, ready: false, tier: 'standard', days: 7 });
    expect(server.count('RestoreObject')).toBe(PER_ALBUM);
    const again = await json(['thaw', 'latest:/2019', '--no-wait']);
    expect(again).toMatchObject({ asked: 0, ready: false });
    expect(again.packs.filter(({ state }: { state: string }) => state === 'thawing')).toHaveLength(PER_ALBUM);
    const target = join(sandbox.dir, 'never');
    expect((await ok(['restore', 'latest:/2019', '--target', target], 7)).stderr).toMatch(/3 of them on their way/);
    expect(server.count('RestoreObject')).toBe(PER_ALBUM);
  });

  test('is stopped by Ctrl-C, and the same command goes on and waits', async () => {
    const stopped = await run(['thaw', 'latest:/2019', '--poll', '0.05s'], {
      stopWhen: () => server.count('HeadObject') > 12,
    });
    expect(stopped).toMatchObject({ code: 130, stdout: '' });
    expect(stopped.stderr).toMatch(/run the same command again/);
    const going = run(['thaw', 'latest:/2019', '--poll', '0.05s']);
    server.reset();
    while (server.count('HeadObject') < 12) await new Promise((next) => setTimeout(next, 10));
    server.faults = [{ kind: '403', operation: 'RestoreObject', times: 1000 }];
    later += 6 * HOUR;
    const { code, stdout, stderr } = await going;
    server.faults = [];
    expect(stderr).toMatch(/\d of \d packs can be read/);
    expect(stdout).toMatch(/^everything can be read until 20\d\d-/);
    expect(code).toBe(0);
    const target = join(sandbox.dir, 'album');
    await ok(['restore', 'latest:/2019', '--target', target]);
    expect(compareFolders(join(source, '2019'), target, { folderSizes: false })).toEqual([]);
    await ok(['cat', 'latest:/2020/IMG_0.jpg'], 7);
  });

  test('restore --thaw does it in one go', async () => {
    server.restoreMs = 0;
    const target = join(sandbox.dir, 'all');
    const report = await json([
      'restore',
      'latest',
      '--target',
      target,
      '--thaw',
      '--yes',
      '--tier',
      'expedited',
      '--poll',
      '1s',
    ]);
    server.restoreMs = 5 * HOUR;
    expect(report.thaw).toMatchObject({ asked: PER_ALBUM, ready: true, tier: 'expedited' });
    expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
    expect(server.count('RestoreObject')).toBe(PER_ALBUM);
    await ok(['verify', '--read-data']);
    // The copies run out.
    later += 30 * DAY;
    await ok(['verify', '--read-data'], 7);
  });

  test('--all needs no key', async () => {
    const plan = await json(['thaw', '--all', '--dry-run'], 0, KEYLESS);
    expect(plan.packs).toHaveLength(6);
    expect(plan.cost).toMatchObject({ packs: 6 });
  });
});

test('a WORM set whose archived content is frozen tells what diverged, and restores after a thaw', async () => {
  const folder = join(sandbox.dir, 'worm');
  const path = join(folder, 'record');
  mkdirSync(folder);
  const original = randomBytes(300 * KIB);
  writeFileSync(path, original);
  await ok(['backup', folder, '--set', 'worm', '--mode', 'worm', '--archive-size', '256K']);
  const changed = Buffer.from(original);
  changed[200 * KIB]! ^= 1;
  writeFileSync(path, changed);
  const { worm } = await json(['backup', folder, '--set', 'worm'], 4);
  expect(worm.diverged).toMatchObject([{ kind: 'edited', exact: false }]);
  const { stderr } = await run(['backup', folder, '--set', 'worm', '--on-change', 'restore']);
  expect(stderr).toMatch(/not restored: .* lies in cold storage/);
  expect(readFileSync(path).equals(changed)).toBe(true);
  server.restoreMs = 0;
  await ok(['thaw', 'worm@latest', '--yes', '--poll', '0.05s']);
  server.restoreMs = 5 * HOUR;
  await ok(['backup', folder, '--set', 'worm', '--on-change', 'restore']);
  expect(readFileSync(path).equals(original)).toBe(true);
});

describe.skipIf(mountObstacle() !== null)('a mount', () => {
  let photos: string;
  beforeAll(async () => {
    await ok(['mount', sandbox.mountpoint]);
    photos = join(sandbox.mountpoint, 'snapshots/photos/latest');
  });
  afterAll(async () => {
    await ok(['umount', sandbox.mountpoint]);
  });

  const names = ALBUMS.flatMap((album) => Array.from({ length: PER_ALBUM }, (_, i) => join(album, `IMG_${i}.jpg`)));

  async function head(path: string, from: number, length: number): Promise<Buffer> {
    const file = await open(path, 'r');
    try {
      const bytes = Buffer.alloc(length);
      const { bytesRead } = await file.read(bytes, 0, length, from);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  }

  const state = async (name: string): Promise<string> => {
    const { stdout } = await promisify(execFile)('getfattr', [
      '--only-values',
      '-n',
      'user.rozen.state',
      join(photos, name),
    ]);
    return stdout;
  };

  /** What cp says of it; nothing when it has copied it. (Node's readFile takes the part before an error for the whole.) */
  const copied = (name: string): Promise<string> =>
    promisify(execFile)('cp', [join(photos, name), join(sandbox.dir, 'copy')]).then(
      () => '',
      (error) => error.stderr,
    );

  const errnoOf = async (work: Promise<unknown>): Promise<number> =>
    work.then(
      () => 0,
      (error) => -error.errno,
    );

  test('shows the head of every photo, and says at once that the rest is frozen', async () => {
    for (const name of names) {
      const original = readFileSync(join(source, name));
      for (const length of [64 * KIB, 128 * KIB])
        expect((await head(join(photos, name), 0, length)).equals(original.subarray(0, length)), name).toBe(true);
    }
    expect((await readFile(join(photos, 'thumb.jpg'))).equals(readFileSync(join(source, 'thumb.jpg')))).toBe(true);
    for (const name of names)
      expect(await errnoOf(head(join(photos, name), 200 * KIB, 64 * KIB)), name).toBe(ENOMEDIUM);
    expect(await copied(names[0]!)).toMatch(/No medium found/);
    const status = () => readFile(join(sandbox.mountpoint, '.rozen/status'), 'utf8');
    await vi.waitUntil(async () => /lies in cold storage/.test(await status()), { timeout: 60_000, interval: 100 });
  });

  test('tells the state of each file', async () => {
    expect(await state('2019/IMG_0.jpg')).toBe('frozen');
    expect(await state('thumb.jpg')).toBe('hot');
    expect(server.count('HeadObject')).toBeGreaterThan(0);
  });

  test('reads what was thawed, and goes on', async () => {
    await json(['thaw', 'photos@latest:/2019', '--yes', '--no-wait']);
    await vi.waitUntil(async () => (await state('2019/IMG_0.jpg')) === 'thawing', { timeout: 60_000, interval: 100 });
    expect(await state('2020/IMG_0.jpg')).toBe('frozen');
    later += 6 * HOUR;
    await vi.waitUntil(async () => (await state('2019/IMG_0.jpg')) === 'hot', { timeout: 60_000, interval: 100 });
    await vi.waitUntil(async () => (await copied('2019/IMG_0.jpg')) === '', { timeout: 60_000, interval: 100 });
    expect(readFileSync(join(sandbox.dir, 'copy')).equals(readFileSync(join(source, '2019/IMG_0.jpg')))).toBe(true);
    expect(await copied('2020/IMG_0.jpg')).toMatch(/No medium found/);
  });
});
