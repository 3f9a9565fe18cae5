import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataRanges, punchHole } from '../../src/posix/holes.ts';
import { lockFile } from '../../src/posix/lock.ts';
import { makeFolders } from '../../src/posix/make-folders.ts';
import { makeNode, setTimes } from '../../src/posix/node.ts';
import { fstat, lstat } from '../../src/posix/stat.ts';
import { getXattr, listXattrs, removeXattr, setXattr } from '../../src/posix/xattr.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'rozen-posix-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test('lstat agrees with Node, to the nanosecond', () => {
  const file = join(dir, 'a');
  writeFileSync(file, 'hello');
  setTimes(file, { atimeSec: 5, atimeNs: 7, mtimeSec: -3, mtimeNs: 999_999_999 });
  symlinkSync('nowhere', join(dir, 'link'));
  for (const path of [file, dir, join(dir, 'link'), '/dev/null', '/proc/self/status']) {
    const ours = lstat(Buffer.from(path));
    const node = lstatSync(path, { bigint: true });
    expect([ours.ino, ours.mode, ours.nlink, ours.uid, ours.gid, ours.size, ours.blocks, ours.dev, ours.rdev]).toEqual(
      [node.ino, node.mode, node.nlink, node.uid, node.gid, node.size, node.blocks, node.dev, node.rdev].map(Number),
    );
    expect(BigInt(ours.mtimeSec) * 1_000_000_000n + BigInt(ours.mtimeNs)).toBe(node.mtimeNs);
  }
  const times = lstat(file);
  expect([times.atimeSec, times.atimeNs, times.mtimeSec, times.mtimeNs]).toEqual([5, 7, -3, 999_999_999]);
  expect(() => lstat(join(dir, 'none'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  expect(() => lstat(Buffer.from('a\0b'))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  expect(() => lstat(Buffer.alloc(5000, 97))).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
  const fd = openSync(file, 'r');
  expect(fstat(fd)).toEqual(lstat(file));
  closeSync(fd);
});

test.skipIf(!existsSync('/dev/shm'))('times that no number holds are cut, where a file system takes them', () => {
  const file = join(mkdtempSync('/dev/shm/rozen-posix-'), 'far');
  writeFileSync(file, '');
  for (const sec of [2 ** 62, -(2 ** 62)]) {
    setTimes(file, { atimeSec: 0, atimeNs: 0, mtimeSec: sec, mtimeNs: 0 });
    expect(Math.abs(lstat(file).mtimeSec)).toBeLessThan(2 ** 52);
  }
  rmSync(dirname(file), { recursive: true });
});

test('xattrs', () => {
  const file = join(dir, 'x');
  writeFileSync(file, '');
  expect(listXattrs(file)).toEqual([]);
  setXattr(file, 'user.one', Buffer.from([1, 0, 2]));
  setXattr(file, 'user.empty', Buffer.alloc(0));
  expect(listXattrs(file).map(String).sort()).toEqual(['user.empty', 'user.one']);
  expect(getXattr(file, 'user.one')).toEqual(Buffer.from([1, 0, 2]));
  expect(getXattr(file, 'user.empty')).toEqual(Buffer.alloc(0));
  expect(getXattr(file, 'user.none')).toBeNull();
  removeXattr(file, 'user.one');
  removeXattr(file, 'user.one');
  expect(getXattr(file, 'user.one')).toBeNull();
  expect(() => listXattrs(join(dir, 'none'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
});

test('holes', () => {
  const fd = openSync(join(dir, 'sparse'), 'w+');
  ftruncateSync(fd, 10 << 20);
  expect(dataRanges(fd, 10 << 20)).toEqual([]);
  writeSync(fd, Buffer.alloc(65536, 1), 0, 65536, 4 << 20);
  expect(dataRanges(fd, 10 << 20)).toEqual([{ offset: 4 << 20, length: 65536 }]);
  expect(dataRanges(fd, 0)).toEqual([]);
  expect(punchHole(fd, 4 << 20, 65536)).toBe(true);
  expect(dataRanges(fd, 10 << 20)).toEqual([]);
  closeSync(fd);
});

test('special files', () => {
  makeNode(join(dir, 'fifo'), 0o010644);
  expect(lstat(join(dir, 'fifo')).mode & 0o170000).toBe(0o010000);
  if (process.getuid?.() === 0) {
    makeNode(join(dir, 'null'), 0o020600, lstat('/dev/null').rdev);
    expect(lstat(join(dir, 'null')).rdev).toBe(lstat('/dev/null').rdev);
  }
});

test('a lock is held once, and freed by death', async () => {
  const path = join(dir, 'lock');
  const release = await lockFile(path);
  await expect(lockFile(path)).rejects.toThrow(expect.objectContaining({ code: 'locked' }));
  await expect(lockFile(path)).rejects.toThrow(String(process.pid));
  const waiting = lockFile(path, { wait: 5000 });
  release();
  release();
  (await waiting)();
  const child = spawn('flock', [path, '-c', 'echo held; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  await expect(lockFile(path)).rejects.toThrow(expect.objectContaining({ code: 'locked' }));
  child.kill('SIGKILL');
  (await lockFile(path, { wait: 5000 }))();
});

describe('makeFolders', () => {
  test('makes what is missing, of any bytes, and answers the topmost', () => {
    const top = Buffer.concat([Buffer.from(`${dir}/made-`), Buffer.from([0xff])]);
    const path = Buffer.concat([top, Buffer.from('/a//b/')]);
    expect(makeFolders(path)).toEqual(top);
    expect(lstat(path).mode & 0o7777).toBe(0o700);
    expect(makeFolders(path)).toBeUndefined();
    expect(makeFolders(Buffer.concat([path, Buffer.from('c')]), 0o711)).toEqual(
      Buffer.concat([path, Buffer.from('c')]),
    );
  });

  test('ends where nothing can be made, with the reason', () => {
    expect(() => makeFolders('/proc/rozen/state')).toThrow(
      expect.objectContaining({ code: 'ENOENT', path: '/proc/rozen' }),
    );
    const file = join(dir, 'no-folder');
    writeFileSync(file, '');
    expect(() => makeFolders(join(file, 'a/b'))).toThrow(expect.objectContaining({ code: 'ENOTDIR' }));
    expect(() => makeFolders(file)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    symlinkSync('nowhere', join(dir, 'dangling'));
    expect(() => makeFolders(join(dir, 'dangling'))).toThrow(expect.objectContaining({ code: 'EEXIST' }));
  });
});
