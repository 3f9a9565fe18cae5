/** A mounted repository in the hands of file managers and NFS, and when the machine fails it: degraded, said so, alive. */
import { execFile, execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { getXattr, listXattrs } from '../../src/posix/xattr.ts';
import { noise } from './odd-tree.ts';
import { isRoot, mountObstacle, Sandbox, until } from './rozen.ts';

const KIB = 1024;
const ESTALE = 116;

describe.skipIf(mountObstacle() !== null)('a mounted repository', () => {
  const box = new Sandbox();
  const source = join(box.dir, 'source');
  const photos = join(box.mountpoint, 'snapshots/photos/latest');
  const small = join(box.mountpoint, 'snapshots/small');

  beforeAll(() => {
    mkdirSync(source);
    for (let i = 0; i < 40; i++) writeFileSync(join(source, `photo-${i}.jpg`), noise(1024 * KIB + i, i + 1));
    box.ok(['init']);
    box.ok(['backup', source, '--set', 'photos']);
    const table = join(box.dir, 'table');
    mkdirSync(table);
    // It shrinks by half, and no two places of it are alike.
    writeFileSync(
      join(table, 'rows.db'),
      noise(12 * 1024 * KIB, 77)
        .toString('hex')
        .slice(0, 12 * 1024 * KIB),
    );
    box.ok(['backup', table, '--set', 'table']);
    const other = join(box.dir, 'other');
    mkdirSync(other);
    // Each snapshot has a pack of its own.
    for (let i = 0; i < 5; i++) {
      writeFileSync(join(other, `file-${i}`), noise(20_000, 100 + i));
      box.ok(['backup', other, '--set', 'small']);
    }
  });
  afterAll(() => box.remove());

  const status = (): string => readFileSync(join(box.mountpoint, '.rozen/status'), 'utf8');
  const counted = (name: string): number => Number(new RegExp(`^${name} +([0-9]+)`, 'm').exec(status())![1]);
  const fetchedBytes = (): number => Number(/^blocks fetched +[0-9]+ \(([0-9]+) bytes\)/m.exec(status())![1]);

  function server(): number {
    for (const pid of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(`rozen mount ${box.mountpoint}`))
          return Number(pid);
      } catch {
        // It has just ended.
      }
    }
    throw new Error('no server');
  }

  function codeOf(path: string): string {
    try {
      readFileSync(path);
      return 'read';
    } catch (error) {
      return (error as NodeJS.ErrnoException).code!;
    }
  }

  test('a file manager that looks at every head does not pull whole files', () => {
    box.mount();
    const before = fetchedBytes();
    const head = Buffer.alloc(64 * KIB);
    let total = 0;
    for (const name of readdirSync(photos)) {
      const path = join(photos, name);
      total += statSync(path).size;
      const fd = openSync(path, 'r');
      expect(readSync(fd, head, 0, head.length, 0)).toBe(head.length);
      closeSync(fd);
      expect(head.equals(readFileSync(join(source, name)).subarray(0, head.length))).toBe(true);
      expect(listXattrs(path)).toEqual([]);
      expect(getXattr(path, 'user.xdg.origin.url')).toBeNull();
      expect(getXattr(path, 'user.rozen.state')?.toString()).toBe('hot');
    }
    // Blocks are 256 KiB, and the kernel as well as Rozen read somewhat ahead.
    expect(fetchedBytes() - before).toBeLessThan(0.6 * total);
    box.unmount();
  });

  test.skipIf(!isRoot)('the kernel reads ahead 2 MiB of a mount by root', () => {
    box.mount();
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const device = mounts.map((line) => line.split(' ')).find((words) => words[4] === box.mountpoint)?.[2];
    expect(readFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, 'utf8')).toBe('2048\n');
    box.unmount();
  });

  test('every block is decoded once, however many read it, and however often', async () => {
    box.mount();
    const paths = readdirSync(photos).map((name) => join(photos, name));
    const total = paths.reduce((sum, path) => sum + statSync(path).size, 0);
    const readAll = () =>
      Promise.all(
        // Past the page cache: each of them asks the server for everything.
        [0, 1, 2, 3].map(() =>
          promisify(execFile)('sh', [
            '-c',
            'for f; do dd if="$f" bs=1M iflag=direct status=none; done > /dev/null',
            'sh',
            ...paths,
          ]),
        ),
      );
    await readAll();
    // Noise does not shrink: the pack holds the photos, some records, and one block that is not full. The kernel asks for the end of
    // a large read apart, and may have it before the rest: then it comes as a part of its block.
    const whole = Math.ceil(total / (256 * KIB));
    const [decoded, parts] = [counted('blocks decoded'), counted('parts of blocks')];
    expect(decoded + parts).toBeGreaterThanOrEqual(whole);
    expect(decoded).toBeLessThanOrEqual(whole + 2);
    await readAll();
    const again = counted('blocks decoded');
    expect(again).toBeGreaterThanOrEqual(decoded);
    // Nothing is decoded again; what was there in part only may come whole.
    expect(again).toBeLessThanOrEqual(Math.min(decoded + parts, whole + 2));
    expect(status()).toMatch(/^blocks failed +0$/m);
    box.unmount();
  });

  test('a read here and there in a large file decodes a part of a block; who reads on gets the blocks', () => {
    box.mount();
    const source = readFileSync(join(box.dir, 'table/rows.db'));
    const path = join(box.mountpoint, 'snapshots/table/latest/rows.db');
    const scattered = [9, 3, 6, 1, 11, 4].map((megabyte) => megabyte * 1024 * KIB + 4096 * megabyte);
    for (const at of scattered)
      execFileSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=4096', `skip=${at / 4096}`, 'count=1', 'iflag=direct'], {
        stdio: 'ignore',
      });
    expect(counted('parts of blocks')).toBe(scattered.length);
    expect(counted('blocks decoded')).toBe(0);
    expect(readFileSync(path).equals(source)).toBe(true);
    expect(counted('blocks decoded')).toBeGreaterThanOrEqual(source.length / (256 * KIB) - 1);
    expect(counted('parts of blocks')).toBeLessThanOrEqual(scattered.length + 4);
    box.unmount();
  });

  test.skipIf(availableParallelism() < 2)(
    'a reader that has nothing to do decodes a piece of a larger one',
    () => {
      const source = readFileSync(join(box.dir, 'table/rows.db'));
      const path = join(box.mountpoint, 'snapshots/table/latest/rows.db');
      const length = 128 * KIB;
      const shared = (): number =>
        Number(/^parts of blocks +[0-9]+ \(([0-9]+) for another reader\)/m.exec(status())![1]);
      // Within a block, and across two. A reader that wakes too late finds its piece taken back: that is as right, but not what is looked for.
      for (let helped = 0, tries = 0; helped === 0; tries++) {
        expect(tries).toBeLessThan(50);
        box.mount();
        for (const megabyte of [9, 3, 6, 1, 11, 4]) {
          const at = megabyte * 1024 * KIB + (megabyte % 2 === 0 ? 100 : 200) * KIB;
          const args = [
            `if=${path}`,
            `bs=${length}`,
            `skip=${at}`,
            'count=1',
            'iflag=direct,skip_bytes',
            'status=none',
          ];
          expect(execFileSync('dd', args).equals(source.subarray(at, at + length))).toBe(true);
        }
        helped = shared();
        box.unmount();
      }
    },
    120_000,
  );

  test('what file managers look for everywhere is answered from names, without a page or block more', () => {
    box.mount();
    readdirSync(photos);
    expect(existsSync(join(photos, 'no such photo'))).toBe(false);
    const [pages, blocks, misses] = ['pages decoded', 'blocks fetched', 'misses'].map(counted);
    for (const name of ['.Trash', '.Trash-1000', '.hidden', 'autorun.inf', '.autorun', '.directory', 'Thumbs.db']) {
      expect(existsSync(join(photos, name))).toBe(false);
      expect(existsSync(join(box.mountpoint, name))).toBe(false);
      expect(existsSync(join(box.mountpoint, 'snapshots', name))).toBe(false);
    }
    // One page of names for each reader thread at most.
    expect(counted('pages decoded') - pages!).toBeLessThanOrEqual(8);
    expect([counted('blocks fetched'), counted('misses')]).toEqual([blocks, misses]);
    box.unmount();
  });

  test.runIf(isRoot)('handles of files hold from mount to mount; one of a slot that is reused is stale', () => {
    const koffi = createRequire(import.meta.url)('koffi');
    const libc = koffi.load(null);
    const nameToHandle = libc.func(
      'int name_to_handle_at(int dir, const char *path, void *handle, void *mount, int flags)',
    );
    const openHandle = libc.func('int open_by_handle_at(int mount, void *handle, int flags)');
    const handleOf = (path: string): Buffer => {
      const handle = Buffer.alloc(136);
      handle.writeUInt32LE(128, 0);
      expect(nameToHandle(-100, path, handle, Buffer.alloc(4), 0)).toBe(0);
      return handle;
    };
    const opened = (handle: Buffer): Buffer | number => {
      const root = openSync(box.mountpoint, 'r');
      const fd = openHandle(root, handle, 0);
      const errno = koffi.errno();
      closeSync(root);
      if (fd < 0) return errno;
      const bytes = readFileSync(fd);
      closeSync(fd);
      return bytes;
    };
    box.mount();
    const names = readdirSync(small).filter((name) => name !== 'latest');
    const handle = handleOf(join(small, names[0]!, 'file-0'));
    const { ino } = statSync(join(small, names[0]!, 'file-0'), { bigint: true });
    box.unmount();
    box.mount();
    // Nobody has looked at the path in this mount.
    expect(opened(handle)).toEqual(readFileSync(join(box.dir, 'other/file-0')));
    expect(statSync(join(small, names[0]!, 'file-0'), { bigint: true }).ino).toBe(ino);
    box.unmount();
    // Another machine's state, or one that was lost: the numbers lead to other snapshots now.
    const repositories = join(box.dir, 'state/rozen/repositories');
    const slots = join(repositories, readdirSync(repositories)[0]!, 'mount/slots');
    const lines = readFileSync(slots, 'utf8').split('\n');
    const ids = lines.map((line) => /^snapshot [0-9]+ (.*)$/.exec(line)?.[1]).filter((id) => id !== undefined);
    const moved = lines.map((line) =>
      line.replace(/^(snapshot [0-9]+) (.*)$/, (_, slot, id) => `${slot} ${ids[ids.length - 1 - ids.indexOf(id)]}`),
    );
    writeFileSync(slots, moved.join('\n'));
    box.mount();
    expect(opened(handle)).toBe(ESTALE);
    box.unmount();
    writeFileSync(slots, lines.join('\n'));
  });

  test('a repository that vanishes costs what is not at hand, and comes back with it', async () => {
    box.mount();
    const names = readdirSync(small).filter((name) => name !== 'latest');
    const near = join(small, 'latest', 'file-0');
    const expected = readFileSync(join(box.dir, 'other/file-0'));
    expect(readFileSync(near).equals(expected)).toBe(true);
    renameSync(box.repo, `${box.repo}-away`);
    try {
      // Pages and blocks that are at hand are read on.
      expect(readFileSync(near).equals(expected)).toBe(true);
      expect(readdirSync(join(small, 'latest')).length).toBe(5);
      expect(codeOf(join(small, names[3]!, 'file-3'))).toBe('EIO');
      expect(codeOf(join(small, names[3]!, 'file-3'))).toBe('EIO');
      await until(() => /^errors +[1-9]/m.test(status()), 'word of it in the status');
    } finally {
      renameSync(`${box.repo}-away`, box.repo);
    }
    await until(() => codeOf(join(small, names[3]!, 'file-3')) === 'read', 'the repository to come back');
    for (let i = 0; i < 5; i++) {
      expect(readFileSync(join(small, 'latest', `file-${i}`))).toEqual(readFileSync(join(box.dir, `other/file-${i}`)));
    }
    // Said once, whatever it cost: one line a minute.
    const log = readFileSync(join(box.dir, 'state/rozen/log/mount.log'), 'utf8')
      .split('\n')
      .filter((line) => line !== '');
    const said = log.map((line) => line.slice(25));
    expect(said.length).toBe(new Set(said).size);
    box.unmount();
  });

  test('without a free descriptor it goes on with those it has', async () => {
    box.mount();
    const names = readdirSync(small).filter((name) => name !== 'latest');
    expect(readFileSync(join(small, 'latest', 'file-0')).length).toBe(20_000);
    const pid = server();
    const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
    const limit = (files: number) => execFileSync('prlimit', ['--pid', String(pid), `--nofile=${files}:`]);
    let free = 0;
    while (open.has(free)) free++;
    limit(free);
    // Content of archives that are not open yet: refused, or read in place of others; never a hang or an end.
    const codes = Array.from({ length: 4 }, (_, i) => codeOf(join(small, names[i + 1]!, `file-${i + 1}`)));
    expect(codes.every((code) => code === 'read' || code === 'EIO')).toBe(true);
    expect(codes).toContain('EIO');
    await until(() => status().includes('EMFILE'), 'word of it in the status');
    expect(readFileSync(join(small, 'latest', 'file-0')).length).toBe(20_000);
    limit(1024);
    for (let i = 0; i < 4; i++) {
      const path = join(small, names[i + 1]!, `file-${i + 1}`);
      await until(() => codeOf(path) === 'read', 'a descriptor');
      expect(readFileSync(path)).toEqual(readFileSync(join(box.dir, `other/file-${i + 1}`)));
    }
    expect(server()).toBe(pid);
    box.unmount();
  });
});
