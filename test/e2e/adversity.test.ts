/** Backups that meet each other, are interrupted, or run out of room: a clear word, nothing lost, and the next run succeeds. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { compareFolders } from './compare.ts';
import { filesBelow, type Ledger, mustStand, note } from './crash/sealed-frames.ts';
import { noise } from './odd-tree.ts';
import { isRoot, Sandbox, until } from './rozen.ts';

const MIB = 1024 * 1024;
const RUN = ['--archive-size', '8M'];

let sandbox: Sandbox;
let source: string;
beforeEach(() => {
  sandbox = new Sandbox();
  source = join(sandbox.dir, 'source');
  mkdirSync(source);
});
afterEach(() => sandbox.remove());

/** Files that do not compress: `megabytes` of them, different for each seed. */
function fill(folder: string, megabytes: number, seed = 1): void {
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < megabytes; i++) writeFileSync(join(folder, `file ${i}`), noise(MIB, seed * 1000 + i));
}

function setFolder(): string {
  const repositories = join(sandbox.dir, 'state/rozen/repositories');
  const [id] = existsSync(repositories) ? readdirSync(repositories) : [];
  const sets = join(repositories, id ?? 'none', 'sets');
  const [tag] = existsSync(sets) ? readdirSync(sets) : [];
  return join(sets, tag ?? 'none');
}

const spooled = (): string[] => filesBelow(join(setFolder(), 'spool'), '.roz');
const spooledBytes = (): number => spooled().reduce((sum, path) => sum + sizeOf(path), 0);
const stored = (): string[] => filesBelow(join(sandbox.repo, 'data'), '.roz');

/** 0 when the file is gone: a run goes on while the test looks. */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function start(args: string[]) {
  const child = sandbox.start(args);
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  child.stdout.resume();
  const ended = new Promise<{ code: number | null; stderr: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, stderr }));
  });
  return { child, ended };
}

/** Nothing is left behind, everything verifies, and what is restored is the source. */
function expectWhole(set: string, folder: string): void {
  expect(spooled()).toEqual([]);
  sandbox.ok(['verify', '--read-data']);
  const target = join(sandbox.dir, `restored-${set}`);
  sandbox.ok(['restore', `${set}@latest`, '--target', target]);
  expect(compareFolders(folder, target, { folderSizes: false })).toEqual([]);
}

/** One line on stderr that matches. */
function expectError(stderr: string, pattern: RegExp): void {
  const lines = stderr.split('\n').filter((line) => line.startsWith('rozen: '));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(pattern);
  expect(stderr).not.toMatch(/^ +at /m);
}

describe('two backups at once', () => {
  test('of one set: the second names the first, or waits for it', async () => {
    sandbox.ok(['init']);
    fill(source, 40);
    const first = start(['backup', source, '--set', 'docs']);
    await until(() => spooled().length > 0, 'the first backup to write');
    // Held still, so that it cannot be done too early.
    first.child.kill('SIGSTOP');
    const second = sandbox.run(['backup', source, '--set', 'docs']);
    expect(second.code).toBe(1);
    expectError(second.stderr, new RegExp(`'docs'.*\\(${first.child.pid}\\).*--wait`));
    const third = start(['--json', 'backup', source, '--set', 'docs', '--wait']);
    const fourth = start(['backup', source, '--set', 'docs', '--wait']);
    // Whoever waits can be told to stop. The handler stands once the lock file is open.
    await until(() => opensLock(fourth.child.pid!), 'the fourth backup to wait');
    fourth.child.kill('SIGINT');
    expect((await fourth.ended).code).toBe(130);
    expect(third.child.exitCode).toBeNull();
    first.child.kill('SIGCONT');
    expect((await first.ended).code).toBe(0);
    expect((await third.ended).code).toBe(0);
    expect(sandbox.json(['snapshots'])).toHaveLength(1);
    expectWhole('docs', source);
  });

  test('of two sets', async () => {
    sandbox.ok(['init']);
    // Half of the files are common to both.
    const sets = ['one', 'two'];
    for (const [i, set] of sets.entries()) {
      fill(join(source, set, 'own'), 12, i + 2);
      fill(join(source, set, 'common'), 12);
    }
    const runs = sets.map((set) => start(['backup', join(source, set), '--set', set, ...RUN]));
    for (const run of runs) expect(await run.ended).toMatchObject({ code: 0 });
    expect(sandbox.json(['snapshots'])).toHaveLength(2);
    for (const set of sets) expectWhole(set, join(source, set));
    for (const set of sets) {
      expect(sandbox.json(['backup', join(source, set), '--set', set])).toMatchObject({ unchanged: true });
    }
  });
});

test.each(['SIGINT', 'SIGTERM'] as const)('%s ends a backup that the next run takes up', async (signal) => {
  sandbox.ok(['init']);
  fill(source, 40);
  const run = start(['backup', source, '--set', 'docs', ...RUN]);
  await until(() => spooledBytes() > 2 * MIB || stored().length > 0, 'sealed blocks');
  run.child.kill(signal);
  const { code, stderr } = await run.ended;
  expect(code).toBe(130);
  expectError(stderr, /interrupted.*(again|goes on)/);
  const ledger: Ledger = new Map();
  expect(await note(ledger, [...spooled(), ...stored()])).toBeGreaterThan(0);
  sandbox.ok(['backup', source, '--set', 'docs', ...RUN]);
  await mustStand(ledger, stored());
  expectWhole('docs', source);
});

describe('a store that fails', () => {
  test.runIf(isRoot)('lies on another file system, which runs full', async () => {
    const disk = join(sandbox.dir, 'disk');
    mountTmpfs(disk, '24m');
    try {
      sandbox.env.ROZEN_REPOSITORY = join(disk, 'repo');
      const objects = (ending: string) => filesBelow(sandbox.env.ROZEN_REPOSITORY!, ending);
      sandbox.ok(['init']);
      fill(source, 10);
      sandbox.ok(['backup', source, '--set', 'docs', ...RUN]);
      const before = objects('.cbor');
      fill(source, 40, 2);
      const { code, stderr } = sandbox.run(['backup', source, '--set', 'docs', ...RUN]);
      expect(code).toBe(1);
      expectError(stderr, /ENOSPC|no space left.*room/);
      expect(objects('.cbor')).toEqual(before);
      // What was there is whole still, although the disk is full.
      sandbox.ok(['verify', '--read-data']);
      const ledger: Ledger = new Map();
      expect(
        await note(ledger, [...spooled(), ...objects('.roz').filter((path) => path.includes('/data/'))]),
      ).toBeGreaterThan(0);
      execFileSync('mount', ['-o', 'remount,size=128m', disk]);
      sandbox.ok(['backup', source, '--set', 'docs', ...RUN]);
      await mustStand(
        ledger,
        objects('.roz').filter((path) => path.includes('/data/')),
      );
      expectWhole('docs', source);
      expect(readdirSync(join(disk, 'repo/.tmp'))).toEqual([]);
    } finally {
      execFileSync('umount', ['-l', disk]);
    }
  });

  test.runIf(isRoot)('is on a file system that turns read-only', () => {
    const disk = join(sandbox.dir, 'disk');
    mountTmpfs(disk, '128m');
    try {
      sandbox.env.ROZEN_REPOSITORY = join(disk, 'repo');
      sandbox.ok(['init']);
      fill(source, 12);
      execFileSync('mount', ['-o', 'remount,ro', disk]);
      const { code, stderr } = sandbox.run(['backup', source, '--set', 'docs', ...RUN]);
      expect(code).toBe(1);
      expectError(stderr, /read-only/);
      execFileSync('mount', ['-o', 'remount,rw', disk]);
      sandbox.ok(['backup', source, '--set', 'docs', ...RUN]);
      expectWhole('docs', source);
    } finally {
      execFileSync('umount', ['-l', disk]);
    }
  });

  test('may not be written by this user', () => {
    sandbox.remove();
    sandbox = new Sandbox(isRoot ? 'nobody' : 'self');
    source = join(sandbox.dir, 'source');
    sandbox.ok(['init']);
    fill(source, 12);
    if (isRoot) execFileSync('chown', ['-R', '65534:65534', source]);
    chmodSync(sandbox.repo, 0o555);
    const { code, stderr } = sandbox.run(['backup', source, '--set', 'docs', ...RUN]);
    expect(code).toBe(1);
    expectError(stderr, /EACCES|permission.*owns/);
    chmodSync(sandbox.repo, 0o700);
    sandbox.ok(['backup', source, '--set', 'docs', ...RUN]);
    expectWhole('docs', source);
  });
});

test.runIf(isRoot)('the disk with the state runs full', async () => {
  const disk = join(sandbox.dir, 'disk');
  mountTmpfs(disk, '12m');
  try {
    sandbox.env.XDG_STATE_HOME = join(disk, 'state');
    sandbox.ok(['init']);
    // A large file gets an archive of its own, which does not fit into the spool.
    writeFileSync(join(source, 'large'), noise(40 * MIB, 9));
    const { code, stderr } = sandbox.run(['backup', source, '--set', 'docs']);
    expect(code).toBe(1);
    expectError(stderr, /no space left|ENOSPC/);
    sandbox.ok(['verify', '--read-data']);
    expect(sandbox.json(['snapshots'])).toEqual([]);
    execFileSync('mount', ['-o', 'remount,size=128m', disk]);
    sandbox.ok(['backup', source, '--set', 'docs']);
    expectWhole('docs', source);
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

// The databases of the state: none can be begun, and the one that is there cannot grow.
test.runIf(isRoot).each([
  { what: 'before the first run', sizes: ['256k'] },
  { what: 'while its databases grow', sizes: ['400k', '300k'] },
])('the disk with the state has no room $what', ({ sizes }) => {
  sandbox.ok(['init']);
  for (let i = 0; i < 3000; i++) writeFileSync(join(source, `file ${i}`), `${i}`.repeat(40));
  const disk = join(sandbox.dir, 'disk');
  for (const size of sizes) {
    mountTmpfs(disk, size);
    try {
      execFileSync('cp', ['-a', join(sandbox.dir, 'state'), join(disk, 'state')]);
      if (sizes.length === 1) spawnSync('dd', ['if=/dev/zero', `of=${join(disk, 'fill')}`, 'bs=4k']);
      const { code, stderr } = sandbox.run(['backup', source, '--set', `docs-${size}`], {
        env: { XDG_STATE_HOME: join(disk, 'state') },
      });
      expect(code).toBe(1);
      expectError(stderr, /no space left.*free some space/);
    } finally {
      execFileSync('umount', ['-l', disk]);
      rmdirSync(disk);
    }
  }
  sandbox.ok(['backup', source, '--set', 'docs']);
  expectWhole('docs', source);
});

test.runIf(isRoot)('nothing can be made on a file system that is read-only', () => {
  sandbox.ok(['init']);
  fill(source, 1);
  sandbox.ok(['backup', source, '--set', 'docs']);
  const disk = join(sandbox.dir, 'disk');
  mountTmpfs(disk, '1m');
  try {
    execFileSync('mount', ['-o', 'remount,ro', disk]);
    for (const args of [
      ['init', join(disk, 'new/repo')],
      ['restore', 'docs@latest', '--target', join(disk, 'new/files')],
    ]) {
      const { code, stderr } = sandbox.run(args);
      expect(code).toBe(1);
      expectError(stderr, /disk.*read-only/);
    }
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test('a mount whose state folder cannot be made says so', () => {
  sandbox.ok(['init']);
  writeFileSync(join(sandbox.dir, 'occupied'), '');
  sandbox.env.XDG_STATE_HOME = join(sandbox.dir, 'occupied');
  const { code, stderr } = sandbox.run(['mount', sandbox.mountpoint]);
  expect(code).toBe(1);
  expectError(stderr, /occupied/);
});

test.runIf(isRoot)('the disk that is restored to runs full, or is read-only: one line names it in words', () => {
  const disk = join(sandbox.dir, 'disk');
  const target = join(disk, 'out');
  mountTmpfs(disk, '1m');
  try {
    sandbox.ok(['init']);
    mkdirSync(join(source, 'folder'));
    writeFileSync(join(source, 'folder/large'), noise(3 * MIB, 9));
    sandbox.ok(['backup', source, '--set', 'docs']);
    mkdirSync(target);
    const restore = () => sandbox.run(['restore', 'latest', '--target', target]);
    expect(restore()).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(new RegExp(`^rozen: ${target}: no space left on the device; .*\\n$`)),
    });
    execFileSync('mount', ['-o', 'remount,ro', disk]);
    expect(restore()).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(new RegExp(`^rozen: ${target}: file system is read-only; .*\\n$`)),
    });
    const unmade = sandbox.run(['restore', 'latest', '--target', join(disk, 'new')]);
    expect(unmade).toMatchObject({ code: 1, stderr: `rozen: ${disk}/new: file system is read-only\n` });
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test.runIf(isRoot)('what cannot be read is named once, by its path and in words', () => {
  sandbox.remove();
  sandbox = new Sandbox('nobody');
  source = join(sandbox.dir, 'source');
  sandbox.ok(['init']);
  mkdirSync(join(source, 'open'), { recursive: true });
  mkdirSync(join(source, 'locked'), { mode: 0o700 });
  writeFileSync(join(source, 'open/secret'), 'x', { mode: 0o600 });
  const paths = ['locked', 'open', 'nothing'].map((name) => join(source, name));
  const { stderr } = sandbox.ok(['backup', ...paths, '--set', 'docs'], 3);
  expect(stderr.trimEnd().split('\n').sort()).toEqual([
    `rozen: ${source}/locked: permission denied`,
    `rozen: ${source}/nothing: no such file or folder`,
    `rozen: ${source}/open/secret: permission denied`,
  ]);
  expect(sandbox.ok(['verify', '--against', source, `latest:${source}`], 3).stdout).toContain(
    '! locked (permission denied)\n',
  );
});

function mountTmpfs(path: string, size: string): void {
  mkdirSync(path);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'tmpfs', path]);
}

/** Whether a process has the set's lock file open. */
function opensLock(pid: number): boolean {
  const { stdout } = spawnSync(
    'readlink',
    readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`),
    {
      encoding: 'utf8',
    },
  );
  return stdout.split('\n').includes(join(setFolder(), 'lock'));
}
