import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compareFolders } from '../e2e/compare.ts';
import { makeOddTree, noise } from '../e2e/odd-tree.ts';
import { isRoot, Sandbox, until } from '../e2e/rozen.ts';

/** Restore starts worker threads, so these tests run what was built, as people do. */

let counter = 0;
const fresh = (sandbox: Sandbox): string => join(sandbox.dir, `target-${counter++}`);

/** Files of a folder by name, folders left out. */
function countFiles(dir: string): number {
  return Number(execFileSync('sh', ['-c', `find "${dir}" -type f | wc -l`], { encoding: 'utf8' }));
}

/** From here on commands of this sandbox need no passphrase, whose hash takes longer than they do. */
function useIdentity(sandbox: Sandbox): void {
  const file = join(sandbox.dir, 'identity');
  sandbox.ok(['key', 'export', file]);
  sandbox.env.ROZEN_IDENTITY_FILE = file;
  delete sandbox.env.ROZEN_PASSWORD;
}

function dataArchives(sandbox: Sandbox): string[] {
  return execFileSync('find', [join(sandbox.repo, 'data'), '-name', '*.roz'], { encoding: 'utf8' })
    .trim()
    .split('\n');
}

function flip(path: string, offset: number): void {
  chmodSync(path, 0o600);
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, offset);
  byte[0]! ^= 1;
  writeSync(fd, byte, 0, 1, offset);
  closeSync(fd);
}

describe('a tree with every odd case', () => {
  let sandbox: Sandbox;
  let odd: string;
  const restore = (target: string, ...more: string[]) =>
    sandbox.json(['restore', 'odd@latest', '--target', target, ...more]);

  beforeAll(() => {
    sandbox = new Sandbox();
    odd = join(sandbox.dir, 'odd');
    makeOddTree(odd, { privileged: isRoot });
    sandbox.ok(['init']);
    sandbox.ok(['backup', odd, '--set', 'odd']);
    useIdentity(sandbox);
  });
  afterAll(() => sandbox.remove());

  test('comes back as it was, holes too', () => {
    const target = fresh(sandbox);
    const report = restore(target);
    expect(report).toMatchObject({ problems: [], notices: [], dryRun: false });
    expect(report.classes.replaced).toEqual({ files: 0, folders: 0, others: 0 });
    expect(compareFolders(odd, target, { folderSizes: false })).toEqual([]);
    for (const name of ['all hole', 'holes between', 'hole at the end']) {
      const path = join(target, 'sizes', name);
      expect(statSync(path).blocks * 512).toBeLessThan(statSync(path).size / 2);
    }
  });

  test('is kept when it is there already, and its attributes are set right', () => {
    const target = fresh(sandbox);
    restore(target);
    const file = join(target, 'attributes/with acl');
    const inode = statSync(file).ino;
    execFileSync('setfacl', ['-b', file]);
    chmodSync(join(target, 'case'), 0o777);
    chmodSync(join(target, 'many'), 0o500);
    const again = restore(target);
    expect(again.bytesRestored).toBe(0);
    expect(again.classes.new).toEqual({ files: 0, folders: 0, others: 0 });
    expect(again.classes.replaced).toEqual({ files: 0, folders: 0, others: 0 });
    expect(statSync(file).ino).toBe(inode);
    expect(compareFolders(odd, target, { folderSizes: false })).toEqual([]);
  });

  test('what differs is replaced, whatever it was; what is more stays', () => {
    const target = fresh(sandbox);
    restore(target);
    const at = (name: string) => join(target, name);
    const outside = join(sandbox.dir, 'outside');
    writeFileSync(outside, 'not to be touched\n');
    rmSync(at('case'));
    symlinkSync(outside, at('case'));
    writeFileSync(at('CASE'), 'longer than before\n');
    rmSync(at('symlink'));
    linkSync(outside, at('symlink'));
    rmSync(at('links/second'));
    writeFileSync(at('links/second'), noise(5000, 7));
    rmSync(at('fifo'));
    writeFileSync(at('fifo'), '');
    utimesSync(at('times/epoch'), 1, 1);
    writeFileSync(at('one more'), 'kept\n');
    const report = restore(target);
    expect(report.problems).toEqual([]);
    expect(report.classes.replaced.files).toBe(3);
    expect(readFileSync(outside, 'utf8')).toBe('not to be touched\n');
    expect(readFileSync(at('one more'), 'utf8')).toBe('kept\n');
    rmSync(at('one more'));
    utimesSync(target, statSync(odd).atime, statSync(odd).mtime);
    restore(target);
    expect(compareFolders(odd, target, { folderSizes: false })).toEqual([]);
  });

  test('--verify finds content that only looks right', () => {
    const target = fresh(sandbox);
    restore(target, '--verify');
    const path = join(target, 'sizes/1048577');
    const { atimeNs, mtimeNs } = statSync(path, { bigint: true });
    execFileSync('cp', ['-p', path, `${path}.times`]);
    flip(path, 500_000);
    execFileSync('touch', ['-r', `${path}.times`, path]);
    rmSync(`${path}.times`);
    expect(statSync(path, { bigint: true }).mtimeNs).toBe(mtimeNs);
    expect(atimeNs).toBeGreaterThan(0n);
    expect(restore(target).bytesRestored).toBe(0);
    expect(readFileSync(path).equals(readFileSync(join(odd, 'sizes/1048577')))).toBe(false);
    const report = restore(target, '--verify');
    expect(report).toMatchObject({ verified: true, bytesRestored: 1048577 });
    expect(readFileSync(path).equals(readFileSync(join(odd, 'sizes/1048577')))).toBe(true);
  });

  test('a dry run tells the same and touches nothing', () => {
    const target = fresh(sandbox);
    const would = restore(target, '--dry-run');
    expect(existsSync(target)).toBe(false);
    const did = restore(target);
    expect(would.classes.new).toEqual(did.classes.new);
    expect(would.bytesRestored).toBe(did.bytesRestored);
    rmSync(join(target, 'case'));
    writeFileSync(join(target, 'CASE'), 'x');
    const listed = sandbox.ok(['restore', 'odd@latest', '-n', '-t', target]).stdout.split('\n');
    expect(listed.filter((line) => /^[+M] /.test(line)).sort()).toEqual(['+ case', 'M CASE']);
    expect(readFileSync(join(target, 'CASE'), 'utf8')).toBe('x');
  });

  test('one folder, and one file, of it', () => {
    const target = fresh(sandbox);
    sandbox.ok(['restore', 'odd@latest:/times', '--target', target]);
    expect(compareFolders(join(odd, 'times'), target, { folderSizes: false })).toEqual([]);
    const other = fresh(sandbox);
    sandbox.ok(['restore', 'odd@latest:/sizes/4097', '--target', other]);
    expect(readdirSync(other)).toEqual(['4097']);
    expect(readFileSync(join(other, '4097')).equals(noise(4097, 4097))).toBe(true);
  });

  test.runIf(isRoot)('a target that hands down ACLs and a group does not show', () => {
    const target = fresh(sandbox);
    mkdirSync(target);
    chownSync(target, 0, 4242);
    chmodSync(target, 0o2775);
    execFileSync('setfacl', ['-d', '-m', 'u:777:rwx,g:888:r', target]);
    restore(target);
    expect(compareFolders(odd, target, { folderSizes: false })).toEqual([]);
  });
});

describe('a target that somebody else prepared', () => {
  let sandbox: Sandbox;
  beforeAll(() => {
    sandbox = new Sandbox();
    const source = join(sandbox.dir, 'source');
    mkdirSync(join(source, 'sub/deeper'), { recursive: true });
    writeFileSync(join(source, 'sub/file'), 'secret\n');
    writeFileSync(join(source, 'sub/deeper/file'), 'secret\n');
    writeFileSync(join(source, 'plain'), 'content\n');
    mkdirSync(join(source, 'blocked'));
    sandbox.ok(['init']);
    sandbox.ok(['backup', source, '--set', 's']);
    useIdentity(sandbox);
  });
  afterAll(() => sandbox.remove());

  test('nothing is written through a symlink that stands for a folder', () => {
    const target = fresh(sandbox);
    const outside = join(sandbox.dir, 'elsewhere');
    mkdirSync(target);
    mkdirSync(join(outside, 'deeper'), { recursive: true });
    symlinkSync(outside, join(target, 'sub'));
    const before = statSync(outside, { bigint: true }).ctimeNs;
    const report = sandbox.json(['restore', 's@latest', '--target', target], 3);
    expect(report.problems).toMatchObject([{ kind: 'occupied', path: 'sub' }]);
    expect(readdirSync(outside)).toEqual(['deeper']);
    expect(readdirSync(join(outside, 'deeper'))).toEqual([]);
    expect(statSync(outside, { bigint: true }).ctimeNs).toBe(before);
    expect(readlinkSync(join(target, 'sub'))).toBe(outside);
    expect(readFileSync(join(target, 'plain'), 'utf8')).toBe('content\n');
  });

  test('nor through one that stands for a file, or for the temporary name', () => {
    const target = fresh(sandbox);
    const outside = join(sandbox.dir, 'victim');
    writeFileSync(outside, 'victim\n');
    mkdirSync(target);
    symlinkSync(outside, join(target, 'plain'));
    const id = sandbox.json(['snapshots'])[0].id.slice(0, 8);
    for (let inode = 1; inode < 20; inode++) symlinkSync(outside, join(target, `.rozen-restore-${id}-${inode}`));
    sandbox.ok(['restore', 's@latest', '--target', target]);
    expect(readFileSync(outside, 'utf8')).toBe('victim\n');
    expect(lstatSync(join(target, 'plain')).isFile()).toBe(true);
  });

  test('a folder is never removed for a file, nor a file for a folder', () => {
    const target = fresh(sandbox);
    mkdirSync(join(target, 'plain/kept'), { recursive: true });
    writeFileSync(join(target, 'blocked'), 'mine\n');
    const report = sandbox.json(['restore', 's@latest', '--target', target], 3);
    expect(report.problems.map((it: { kind: string; path: string }) => [it.kind, it.path]).sort()).toEqual([
      ['occupied', 'blocked'],
      ['occupied', 'plain'],
    ]);
    expect(existsSync(join(target, 'plain/kept'))).toBe(true);
    expect(readFileSync(join(target, 'blocked'), 'utf8')).toBe('mine\n');
    expect(readFileSync(join(target, 'sub/deeper/file'), 'utf8')).toBe('secret\n');
  });
});

describe('a run that is killed', () => {
  let sandbox: Sandbox;
  let source: string;
  beforeAll(() => {
    sandbox = new Sandbox();
    source = join(sandbox.dir, 'source');
    for (let folder = 0; folder < 60; folder++) {
      mkdirSync(join(source, `${folder}`), { recursive: true });
      for (let file = 0; file < 100; file++) {
        writeFileSync(join(source, `${folder}/${file}`), noise(folder * file * 7, folder * 1000 + file));
      }
      chmodSync(join(source, `${folder}`), 0o550);
    }
    writeFileSync(join(source, 'large'), noise(60_000_000, 5));
    sandbox.ok(['init']);
    sandbox.ok(['backup', source, '--set', 's']);
    useIdentity(sandbox);
  });
  afterAll(() => sandbox.remove());

  const killedAfter = async (target: string, files: number): Promise<void> => {
    const child = sandbox.start(['restore', 's@latest', '--target', target]);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await until(() => existsSync(target) && countFiles(target) >= files, `${files} files`);
    child.kill('SIGKILL');
    await ended;
  };

  test('leaves a target from which the next one goes on', async () => {
    const target = fresh(sandbox);
    for (const files of [1, 700, 2500]) {
      await killedAfter(target, files);
      // What has the right size and time is whole. Beside the folders there may be `large`, also under a temporary name.
      for (const entry of readdirSync(target, { withFileTypes: true })) {
        if (!entry.isDirectory()) continue;
        const folder = entry.name;
        for (const file of readdirSync(join(target, folder))) {
          const [made, meant] = [join(target, folder, file), join(source, folder, file)];
          const [is, was] = [statSync(made, { bigint: true }), statSync(meant, { bigint: true })];
          if (is.size !== was.size || is.mtimeNs !== was.mtimeNs) continue;
          expect(readFileSync(made).equals(readFileSync(meant))).toBe(true);
        }
      }
    }
    const report = sandbox.json(['restore', 's@latest', '--target', target]);
    expect(report.problems).toEqual([]);
    expect(report.classes.kept.files).toBeGreaterThan(0);
    expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
  });

  test('Ctrl-C ends it at once, and the next one goes on', async () => {
    const target = fresh(sandbox);
    const child = sandbox.start(['restore', 's@latest', '--target', target]);
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    await until(() => existsSync(target) && countFiles(target) >= 50, '50 files');
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    sandbox.ok(['restore', 's@latest', '--target', target]);
    expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
  });
});

describe('a damaged repository', () => {
  test('costs the files that the damage hits, and no others; what stood there stays', () => {
    const sandbox = new Sandbox();
    try {
      const source = join(sandbox.dir, 'source');
      mkdirSync(source);
      for (let i = 0; i < 40; i++) writeFileSync(join(source, `file-${i}`), noise(100_000, i + 1));
      linkSync(join(source, 'file-20'), join(source, 'second name of 20'));
      sandbox.ok(['init']);
      sandbox.ok(['backup', source, '--set', 's']);
      useIdentity(sandbox);
      const [archive] = dataArchives(sandbox) as [string];
      flip(archive, Math.floor(statSync(archive).size / 2));
      const target = fresh(sandbox);
      const report = sandbox.json(['restore', 's@latest', '--target', target], 5);
      const lost = report.problems.filter((it: { kind: string }) => it.kind === 'corrupt');
      expect(lost.length).toBeGreaterThan(0);
      expect(lost.length).toBeLessThan(6);
      expect(lost[0].message).toContain('authentication failed');
      const names = new Set(report.problems.map((it: { path: string }) => it.path));
      for (const name of readdirSync(source)) {
        expect(existsSync(join(target, name))).toBe(!names.has(name));
        if (!names.has(name)) {
          expect(readFileSync(join(target, name)).equals(readFileSync(join(source, name)))).toBe(true);
        }
      }
      // An older content in its place is better than none.
      const victim = join(target, lost[0].path);
      writeFileSync(victim, 'older\n');
      sandbox.json(['restore', 's@latest', '--target', target], 5);
      expect(readFileSync(victim, 'utf8')).toBe('older\n');
      expect(readdirSync(target).filter((name) => name.startsWith('.rozen'))).toEqual([]);
      // Without the archive and its index nothing but empty files can come back, and each one is told.
      renameSync(join(sandbox.repo, 'data'), join(sandbox.repo, 'data-away'));
      const none = sandbox.json(['restore', 's@latest', '--target', fresh(sandbox)], 5);
      expect(none.problems).toHaveLength(41);
      expect(new Set(none.problems.map((it: { kind: string }) => it.kind))).toEqual(new Set(['corrupt', 'failed']));
    } finally {
      sandbox.remove();
    }
  });
});

describe.runIf(isRoot)('an unprivileged user', () => {
  test('gets everything but owners, told once, and no rights that were meant for others', () => {
    const sandbox = new Sandbox();
    const nobody = new Sandbox('nobody');
    try {
      const source = join(nobody.dir, 'source');
      mkdirSync(join(source, 'closed'), { recursive: true });
      for (let i = 0; i < 5; i++) writeFileSync(join(source, `root-${i}`), `${i}\n`);
      writeFileSync(join(source, 'closed/inside'), 'inside\n');
      writeFileSync(join(source, 'setuid'), 'x');
      chmodSync(join(source, 'setuid'), 0o6755);
      execFileSync('setfattr', ['-n', 'trusted.mark', '-v', 'x', join(source, 'root-0')]);
      execFileSync('setfattr', ['-n', 'user.mark', '-v', 'x', join(source, 'root-1')]);
      chmodSync(join(source, 'root-1'), 0o444);
      chmodSync(join(source, 'root-2'), 0o000);
      execFileSync('mknod', [join(source, 'device'), 'c', '1', '3']);
      chmodSync(join(source, 'closed'), 0o000);
      sandbox.ok(['init', '-r', nobody.repo]);
      sandbox.ok(['backup', '-r', nobody.repo, source, '--set', 's']);
      execFileSync('chown', ['-R', '65534:65534', nobody.repo]);
      const target = fresh(nobody);
      const first = nobody.json(['restore', 's@latest', '--target', target, '--verify'], 3);
      expect(first.problems).toEqual([{ kind: 'failed', path: 'device', message: 'operation not permitted' }]);
      expect(first.notices).toHaveLength(2);
      expect(first.notices.find((it: { kind: string }) => it.kind === 'owner').count).toBeGreaterThan(7);
      expect(statSync(join(target, 'setuid')).mode & 0o7777).toBe(0o755);
      expect(statSync(join(target, 'root-1')).mode & 0o7777).toBe(0o444);
      expect(statSync(join(target, 'root-2')).mode & 0o7777).toBe(0);
      expect(statSync(join(target, 'closed')).mode & 0o7777).toBe(0);
      expect(readFileSync(join(target, 'closed/inside'), 'utf8')).toBe('inside\n');
      expect(execFileSync('getfattr', ['--only-values', '-n', 'user.mark', join(target, 'root-1')]).toString()).toBe(
        'x',
      );
      const second = nobody.json(['restore', 's@latest', '--target', target], 3);
      expect(second.classes.kept.files).toBe(7);
      expect(second.bytesRestored).toBe(0);
      const fd = openSync(join(target, 'closed'), 'r');
      expect(fstatSync(fd).mode & 0o7777).toBe(0);
      closeSync(fd);
    } finally {
      nobody.remove();
      sandbox.remove();
    }
  });
});
