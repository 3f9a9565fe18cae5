/** `rozen compact` beside everything else that may go on, and killed at any moment. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { noise } from './odd-tree.ts';
import { mountObstacle, Sandbox } from './rozen.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const KIB = 1024;
const sandboxes: Sandbox[] = [];
afterAll(() => {
  for (const sandbox of sandboxes) sandbox.remove();
});

/** A repository of many small archives, whose owner's key needs no passphrase to be stretched. */
function repository(count: number, size = 300 * KIB): { sandbox: Sandbox; contents: Map<string, Buffer> } {
  const sandbox = new Sandbox();
  sandboxes.push(sandbox);
  sandbox.ok(['init']);
  const key = join(sandbox.dir, 'owner.txt');
  sandbox.ok(['key', 'export', '--owner', key]);
  sandbox.env.ROZEN_IDENTITY_FILE = key;
  delete sandbox.env.ROZEN_PASSWORD;
  mkdirSync(join(sandbox.dir, 'source'));
  const contents = new Map<string, Buffer>();
  for (let i = 0; i < count; i++) {
    contents.set(`file ${i}`, noise(size + i, i + 1));
    writeFileSync(join(sandbox.dir, 'source', `file ${i}`), contents.get(`file ${i}`)!);
    sandbox.ok(['backup', join(sandbox.dir, 'source'), '--set', 's']);
  }
  return { sandbox, contents };
}

function archives(sandbox: Sandbox, area = 'data'): string[] {
  const folder = join(sandbox.repo, area);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => /\.r[io][xz]$/.test(name));
}

function expectFolder(folder: string, contents: ReadonlyMap<string, Buffer>): void {
  for (const [name, bytes] of contents) expect(readFileSync(join(folder, name)).equals(bytes), name).toBe(true);
}

describe('one repository', () => {
  let sandbox: Sandbox;
  let contents: Map<string, Buffer>;
  beforeAll(() => {
    ({ sandbox, contents } = repository(12));
  });

  test('a dry run writes nothing, and says what would be', () => {
    const before = readdirSync(sandbox.repo, { recursive: true });
    const plan = sandbox.json(['compact', '--dry-run']);
    expect(plan).toMatchObject({ dryRun: true, planned: [{ archives: 12 }], merged: [], removed: { archives: 0 } });
    expect(sandbox.ok(['compact', '-n']).stdout).toMatch(/12 archives of 3\.\d\d MiB would become one\n.*22 objects/);
    expect(readdirSync(sandbox.repo, { recursive: true })).toEqual(before);
  });

  test('a machine that can only write cannot', () => {
    const file = join(sandbox.dir, 'nas.writer');
    sandbox.ok(['enroll', '--name', 'nas', '--export', file]);
    const env = { XDG_STATE_HOME: join(sandbox.dir, 'nas'), ROZEN_IDENTITY_FILE: '' };
    sandbox.ok(['enroll', '--import', file], 0, env);
    const { stderr } = sandbox.ok(['compact'], 6, env);
    expect(stderr).toMatch(/^rozen: this needs an owner's key of .*; give the passphrase/);
    // Nor can somebody who may read.
    const reader = join(sandbox.dir, 'reader.txt');
    sandbox.ok(['key', 'export', reader]);
    sandbox.ok(['ls', 'latest'], 0, { ROZEN_IDENTITY_FILE: reader });
    expect(sandbox.ok(['compact'], 6, { ROZEN_IDENTITY_FILE: reader }).stderr).toMatch(/owner's key/);
  });

  test.skipIf(mountObstacle() !== null)('a mount goes on, with what it had open and what it had not', () => {
    const mounted = join(sandbox.mount(), 'snapshots', 's', 'latest');
    expect(readFileSync(join(mounted, 'file 3')).equals(contents.get('file 3')!)).toBe(true);
    const old = archives(sandbox);
    const report = sandbox.json(['compact', '--grace', '0']);
    expect(report).toMatchObject({ merged: [{ archives: 12 }], removed: { archives: 12 }, problems: [] });
    expect(archives(sandbox)).toHaveLength(1);
    expect(archives(sandbox, 'index')).toHaveLength(1);
    expect(old).not.toContain(archives(sandbox)[0]);
    expectFolder(mounted, contents);
    // The kernel's pages do not help: each older snapshot is read for the first time.
    for (const time of readdirSync(join(sandbox.mountpoint, 'snapshots', 's'))) {
      for (const name of readdirSync(join(sandbox.mountpoint, 'snapshots', 's', time)))
        expect(readFileSync(join(sandbox.mountpoint, 'snapshots', 's', time, name)).equals(contents.get(name)!)).toBe(
          true,
        );
    }
    sandbox.unmount();
  });

  test('restore, verify, backup and a mount made afterwards', () => {
    sandbox.ok(['compact', '--grace', '0']);
    const target = join(sandbox.dir, 'restored');
    sandbox.ok(['restore', 's@latest', '--target', target, '--verify']);
    expectFolder(target, contents);
    expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [], notes: [] });
    sandbox.ok(['verify', '--no-key']);
    sandbox.ok(['verify', 's@latest', '--against', join(sandbox.dir, 'source'), '--read-data']);
    expect(sandbox.json(['backup', join(sandbox.dir, 'source'), '--set', 's'])).toMatchObject({ unchanged: true });
    expect(sandbox.json(['backup', join(sandbox.dir, 'source'), '--set', 'other'])).toMatchObject({ bytesNew: 0 });
    if (mountObstacle() === null) {
      expectFolder(join(sandbox.mount(), 'snapshots', 's', 'latest'), contents);
      sandbox.unmount();
    }
    expect(sandbox.ok(['compact']).stdout).toMatch(/^1 archive of .* stay small: /);
  });

  test('another machine of the owner does it too, and is enrolled for that', () => {
    for (let i = 0; i < 6; i++) {
      const name = `later ${i}`;
      contents.set(name, noise(700 * KIB, 100 + i));
      writeFileSync(join(sandbox.dir, 'source', name), contents.get(name)!);
      sandbox.ok(['backup', join(sandbox.dir, 'source'), '--set', 's']);
    }
    const env = { XDG_STATE_HOME: join(sandbox.dir, 'another') };
    const configs = () => readdirSync(join(sandbox.repo, 'config')).length;
    const before = configs();
    sandbox.ok(['compact', '--dry-run'], 0, env);
    expect(configs()).toBe(before);
    expect(sandbox.ok(['compact', '--grace', '0'], 0, env).stdout).toMatch(/^7 archives of .* became one/);
    expect(configs()).toBe(before + 1);
    expect(archives(sandbox)).toHaveLength(1);
    expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [], notes: [] });
    expect(sandbox.json(['backup', join(sandbox.dir, 'source'), '--set', 's'])).toMatchObject({ unchanged: true });
  });

  test('a forged record is refused by name', () => {
    const name = join(sandbox.repo, 'forward', '00000002.cbor');
    const bytes = readFileSync(name);
    rmSync(name);
    const gone = sandbox.ok(['cat', 's@latest:file 1'], 5);
    expect(gone.stderr).toMatch(/rolled back: forward\/00000002\.cbor, which this machine has seen, is gone/);
    expect(sandbox.json(['verify'], 5).findings.map((it: { object: string }) => it.object)).toContain(
      'forward/00000002.cbor',
    );
    // An older one in its place.
    cpSync(join(sandbox.repo, 'forward', '00000001.cbor'), name);
    expect(sandbox.ok(['cat', 's@latest:file 1'], 5).stderr).toMatch(/00000002\.cbor holds forward record 1/);
    rmSync(name);
    writeFileSync(name, bytes);
    expect(sandbox.run(['cat', 's@latest:file 1']).code).toBe(0);
  });
});

test('killed at any moment, the next run ends it, and nothing is ever missing', async () => {
  const { sandbox, contents } = repository(8, 1500 * KIB);
  const template = join(sandbox.dir, 'template');
  for (const name of ['repo', 'state']) cpSync(join(sandbox.dir, name), join(template, name), { recursive: true });
  const fresh = (): void => {
    for (const name of ['repo', 'state']) {
      rmSync(join(sandbox.dir, name), { recursive: true });
      cpSync(join(template, name), join(sandbox.dir, name), { recursive: true });
    }
  };
  const args = ['compact', '--grace', '0'];
  const begun = performance.now();
  sandbox.ok(args);
  const whole = performance.now() - begun;
  const spools = () =>
    readdirSync(sandbox.env.XDG_STATE_HOME!, { recursive: true, encoding: 'utf8' }).filter((name) =>
      /compact\/spool\/./.test(name),
    );
  /** How many kills met a run in each state. */
  const met = new Map<string, number>();
  const KILLS = 14;
  for (let i = 0; i < KILLS; i++) {
    fresh();
    // Spread over the time that a run takes, without what it takes to start the program.
    const after = whole * (0.25 + (0.75 * (i + Math.random())) / KILLS);
    const child = sandbox.start(args);
    const ended = new Promise<void>((done) => child.once('exit', () => done()));
    const timer = setTimeout(() => child.kill('SIGKILL'), after);
    await ended;
    clearTimeout(timer);
    const state = existsSync(join(sandbox.repo, 'forward'))
      ? `merged, ${archives(sandbox).length - 1} left`
      : spools().length > 0
        ? 'merging'
        : 'before';
    met.set(state, (met.get(state) ?? 0) + 1);
    sandbox.ok(['verify', '--read-data']);
    if (i % 2 === 0) {
      // Backups know nothing of it.
      writeFileSync(join(sandbox.dir, 'source', 'new'), noise(1000, i));
      expect(sandbox.json(['backup', join(sandbox.dir, 'source'), '--set', 's'])).toMatchObject({ bytesNew: 1000 });
      rmSync(join(sandbox.dir, 'source', 'new'));
    }
    sandbox.ok(args);
    expect(spools()).toEqual([]);
    const left = archives(sandbox);
    expect(left.length).toBeLessThanOrEqual(i % 2 === 0 ? 2 : 1);
    expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [], notes: [] });
    const target = join(sandbox.dir, `restored ${i}`);
    sandbox.ok(['restore', 's@latest', '--target', target]);
    expectFolder(target, contents);
    rmSync(target, { recursive: true });
  }
  console.log(`${KILLS} kills: ${[...met].map(([state, count]) => `${count} ${state}`).join('; ')}`);
  expect([...met.keys()].some((state) => state !== 'before')).toBe(true);
});

test('backups and compactions at the same time', async () => {
  const { sandbox, contents } = repository(4);
  const run = (args: string[]): Promise<number | null> =>
    new Promise((done) => {
      const child = sandbox.start(args);
      let errors = '';
      child.stderr.on('data', (bytes) => {
        errors += bytes;
      });
      child.once('exit', (code) => {
        if (code !== 0) console.error(`${args.join(' ')}: ${code}\n${errors}`);
        done(code);
      });
    });
  let backing = true;
  const backups = (async () => {
    for (let i = 4; i < 14; i++) {
      contents.set(`file ${i}`, noise(300 * KIB + i, i + 1));
      writeFileSync(join(sandbox.dir, 'source', `file ${i}`), contents.get(`file ${i}`)!);
      const sets = i % 3 === 0 ? ['s', 'other'] : ['s'];
      const codes = sets.map((set) => run(['backup', join(sandbox.dir, 'source'), '--set', set]));
      expect(await Promise.all(codes)).toEqual(sets.map(() => 0));
    }
    backing = false;
  })();
  let rounds = 0;
  while (backing) {
    expect(await run(['compact', '--grace', '0'])).toBe(0);
    rounds++;
  }
  await backups;
  expect(rounds).toBeGreaterThan(1);
  sandbox.ok(['compact', '--grace', '0']);
  expect(sandbox.json(['verify', '--read-data'])).toMatchObject({ findings: [] });
  for (const set of ['s', 'other']) {
    const target = join(sandbox.dir, `restored ${set}`);
    sandbox.ok(['restore', `${set}@latest`, '--target', target]);
    const known = [...contents].filter(([name]) => set === 's' || Number(name.slice(5)) <= 12);
    expectFolder(target, new Map(known));
  }
});
