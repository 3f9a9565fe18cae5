import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataRanges } from '../../../src/posix/holes.ts';
import { lstat } from '../../../src/posix/stat.ts';
import { getXattr, listXattrs } from '../../../src/posix/xattr.ts';
import { compareFolders } from '../../e2e/compare.ts';
import { makeOddTree, noise } from '../../e2e/odd-tree.ts';
import { endAll, isRoot, type Mounted, mountObstacle, run, serveAt, workFolder } from './mounted.ts';

const koffi = createRequire(import.meta.url)('koffi');
const MiB = 1 << 20;

describe.skipIf(mountObstacle() !== null)('a folder served through the kernel driver', () => {
  let dir: string;
  let source: string;
  let mounted: Mounted;
  let mirror: string;

  beforeAll(async () => {
    dir = workFolder();
    source = join(dir, 'source');
    makeOddTree(source, { privileged: isRoot });
    writeFileSync(join(source, 'huge'), noise(100_000));
    truncateSync(join(source, 'huge'), 2 ** 41);
    writeFileSync(join(source, 'large'), noise(9 * MiB + 12345));
    mkdirSync(join(source, 'private'));
    mounted = await serveAt({ host: 'mirror', init: { root: source }, mountpoint: join(dir, 'mnt') });
    mirror = mounted.dir;
  });
  afterAll(() => endAll(dir));

  test('is the same to diff, rsync and find', () => {
    const options = { folderSizes: true };
    // A hole of 2 TiB is not for diff: all folders, without the files beside them.
    for (const entry of readdirSync(source, { withFileTypes: true })) {
      if (!entry.isDirectory()) continue;
      expect(compareFolders(join(source, entry.name), join(mirror, entry.name), options)).toEqual([]);
    }
    expect(lstat(join(mirror, 'huge')).size).toBe(2 ** 41);
    expect(lstat(join(mirror, 'huge')).blocks).toBe(lstat(join(source, 'huge')).blocks);
  });

  test('has the same names, also those that are not UTF-8, and the same links', async () => {
    const names = (from: string): string[] => readdirSync(from, 'latin1').sort();
    expect(names(mirror)).toEqual(names(source));
    const format = '%P %y %m %U %G %s %T@ %l %n %b\\n';
    const listing = async (from: string) =>
      (await run('find', [from, '-printf', format])).split('\n').sort().join('\n');
    expect((await listing(mirror)) === (await listing(source))).toBe(true);
    expect(await run('du', ['-s', mirror])).toBe((await run('du', ['-s', source])).replace(source, mirror));
  });

  test('shows attributes, capabilities and ACLs', () => {
    for (const name of ['attributes', 'attributes/plain', 'attributes/with acl', 'attributes/default acl', 'case']) {
      const names = listXattrs(join(source, name)).map(String).sort();
      expect(listXattrs(join(mirror, name)).map(String).sort()).toEqual(names);
      for (const attribute of names) {
        expect(getXattr(join(mirror, name), attribute)).toEqual(getXattr(join(source, name), attribute));
      }
    }
    expect(getXattr(join(mirror, 'case'), 'user.none')).toBeNull();
  });

  test('shows birth times', () => {
    const [ours, theirs] = [lstat(join(mirror, 'case')), lstat(join(source, 'case'))];
    expect([ours.btimeSec, ours.btimeNs]).toEqual([theirs.btimeSec, theirs.btimeNs]);
    expect(theirs.btimeSec).toBeGreaterThan(0);
  });

  test('inode numbers have 64 bits, and hard links share one', () => {
    const first = statSync(join(mirror, 'links/first'), { bigint: true });
    const second = statSync(join(mirror, 'links/second'), { bigint: true });
    expect(first.ino).toBe(second.ino);
    expect(BigInt.asUintN(64, first.ino) >> 40n).toBe(0x800005n);
    expect(first.nlink).toBe(3n);
  });

  test('finds holes', () => {
    for (const name of [
      'all hole',
      'hole at the end',
      'hole at the start',
      'holes between',
      'zeros that are not holes',
    ]) {
      const ranges = [source, mirror].map((from) => {
        const fd = openSync(join(from, 'sizes', name), 'r');
        const found = dataRanges(fd, fstatSync(fd).size);
        closeSync(fd);
        return found;
      });
      expect(ranges[1]).toEqual(ranges[0]);
    }
  });

  test('cp stays sparse', async () => {
    await run('cp', ['--sparse=auto', join(mirror, 'sizes/holes between'), join(dir, 'copy')]);
    expect(statSync(join(dir, 'copy')).blocks).toBe(statSync(join(source, 'sizes/holes between')).blocks);
    expect(readFileSync(join(dir, 'copy')).equals(readFileSync(join(source, 'sizes/holes between')))).toBe(true);
  });

  test('reads beyond 4 GiB and 1 TiB', () => {
    const fd = openSync(join(mirror, 'huge'), 'r');
    const bytes = Buffer.alloc(10, 1);
    expect(readSync(fd, bytes, 0, 10, 2 ** 40 + 5)).toBe(10);
    expect(bytes.equals(Buffer.alloc(10))).toBe(true);
    expect(readSync(fd, bytes, 0, 10, 2 ** 41 - 3)).toBe(3);
    expect(readSync(fd, bytes, 0, 10, 2 ** 41)).toBe(0);
    closeSync(fd);
  });

  test('reads directly, through pipes, and by mapping', async () => {
    const large = readFileSync(join(source, 'large'));
    expect(readFileSync(join(mirror, 'large')).equals(large)).toBe(true);
    await run('dd', [`if=${join(mirror, 'large')}`, `of=${join(dir, 'direct')}`, 'iflag=direct', 'bs=1M']);
    expect(readFileSync(join(dir, 'direct')).equals(large)).toBe(true);
    await run('sh', ['-c', 'cat "$1" | cat > "$2"', 'sh', join(mirror, 'large'), join(dir, 'piped')]);
    expect(readFileSync(join(dir, 'piped')).equals(large)).toBe(true);
    const libc = koffi.load(null);
    const mmap = libc.func('void *mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)');
    const munmap = libc.func('int munmap(void *at, size_t length)');
    const fd = openSync(join(mirror, 'large'), 'r');
    const at = mmap(null, large.length, 1, 2, fd, 0);
    closeSync(fd);
    expect(Buffer.from(koffi.view(at, large.length)).equals(large)).toBe(true);
    munmap(at, large.length);
  });

  test('many readers at random places see the right bytes', async () => {
    const large = readFileSync(join(source, 'large'));
    const file = await open(join(mirror, 'large'), constants.O_RDONLY | constants.O_DIRECT);
    let state = 1;
    const random = (limit: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return state % limit;
    };
    const reader = async (): Promise<void> => {
      for (let i = 0; i < 100; i++) {
        const offset = random(large.length);
        const length = random(i % 5 === 0 ? 2 * MiB : 20_000) + 1;
        const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
        expect(large.subarray(offset, offset + length).equals(buffer.subarray(0, bytesRead))).toBe(true);
      }
    };
    await Promise.all(Array.from({ length: 16 }, reader));
    await file.close();
  });

  test.skipIf(!isRoot)('file handles outlive the server', async () => {
    const libc = koffi.load(null);
    const nameToHandle = libc.func(
      'int name_to_handle_at(int dir, const char *path, void *handle, void *mount, int flags)',
    );
    const openHandle = libc.func('int open_by_handle_at(int mount, void *handle, int flags)');
    const place = join(dir, 'exported');
    const exported = () => serveAt({ host: 'mirror', init: { root: source }, mountpoint: place });
    const first = await exported();
    const handle = Buffer.alloc(136);
    handle.writeUInt32LE(128, 0);
    expect(nameToHandle(-100, join(place, 'links/first'), handle, Buffer.alloc(4), 0)).toBe(0);
    await first.end();
    const second = await exported();
    const root = openSync(place, 'r');
    const fd = openHandle(root, handle, 0);
    expect(fd).toBeGreaterThan(0);
    expect(readFileSync(fd).equals(readFileSync(join(source, 'links/first')))).toBe(true);
    closeSync(fd);
    // The generation is part of a handle: another one is stale.
    handle.writeUInt32LE(handle.readUInt32LE(8 + 8) ^ 1, 8 + 8);
    expect(openHandle(root, handle, 0)).toBe(-1);
    expect(koffi.errno()).toBe(116);
    closeSync(root);
    await second.end();
  });

  test('a folder of 100,000 entries', async () => {
    const made = await serveAt({ host: 'made-up', init: { flat: 100_000 }, mountpoint: join(dir, 'flat') });
    const names = readdirSync(join(made.dir, 'flat'));
    expect(names.length).toBe(100_000);
    expect(new Set(names).size).toBe(100_000);
    expect((await run('sh', ['-c', `ls -l ${made.dir}/flat | wc -l`])).trim()).toBe('100001');
    expect(statSync(join(made.dir, 'flat', 'f0099999')).size).toBe(1000);
    await made.end();
  });

  test('seekdir comes back to the same entry', () => {
    const libc = koffi.load(null);
    const opendir = libc.func('void *opendir(const char *path)');
    const readdir = libc.func('void *readdir(void *dir)');
    const telldir = libc.func('long telldir(void *dir)');
    const seekdir = libc.func('void seekdir(void *dir, long at)');
    const closedir = libc.func('int closedir(void *dir)');
    const handle = opendir(join(mirror, 'many'));
    const next = (): string | null => {
      const entry = readdir(handle);
      return entry === null ? null : koffi.decode(entry, 19, 'char', 64).toString();
    };
    const places: [number, string | null][] = [];
    for (let i = 0; i < 3002; i++) places.push([telldir(handle), next()]);
    expect(next()).toBeNull();
    for (const i of [2999, 5, 1500, 0, 3001, 777]) {
      seekdir(handle, places[i]![0]);
      expect(next()).toBe(places[i]![1]);
    }
    closedir(handle);
  });

  test('refuses every change', async () => {
    for (const [command, ...args] of [
      ['touch', 'new'],
      ['rm', 'case'],
      ['mkdir', 'new'],
      ['mv', 'case', 'new'],
      ['ln', 'case', 'new'],
      ['chmod', '600', 'case'],
      ['setfattr', '-n', 'user.a', '-v', 'b', 'case'],
      ['truncate', '-s', '0', 'case'],
    ]) {
      const paths = args.map((arg) => (['new', 'case'].includes(arg!) ? join(mirror, arg!) : arg!));
      await expect(run(command!, paths)).rejects.toThrow(/Read-only file system/);
    }
  });

  test('says what it holds in statfs', async () => {
    const [type, blocks, free] = (await run('stat', ['-f', '-c', '%T %b %f', mirror])).trim().split(' ');
    expect([type, blocks, free]).toEqual(['fuseblk', '1000', '0']);
  });

  test('missing names', () => {
    expect(statSync(join(mirror, 'none'), { throwIfNoEntry: false })).toBeUndefined();
    expect(statSync(join(mirror, 'none'), { throwIfNoEntry: false })).toBeUndefined();
    expect(() => statSync(join(mirror, 'case/none'))).toThrow(/ENOTDIR/);
    expect(() => statSync(join(mirror, 'n'.repeat(300)))).toThrow(/ENAMETOOLONG/);
  });

  test.skipIf(!isRoot)('permissions and ACLs are enforced for others', async () => {
    const shared = await serveAt({
      host: 'mirror',
      init: { root: source },
      mountpoint: join(dir, 'shared'),
      allowOther: true,
    });
    const cat = (user: number, name: string) => run('cat', [join(shared.dir, name)], { user });
    await expect(cat(65534, 'modes/400')).rejects.toThrow(/Permission denied/);
    expect(await cat(65534, 'modes/444')).toBe('444\n');
    // u:1234:rw by ACL; the file itself is made 0600 for the group and others.
    expect(await cat(1234, 'attributes/with acl')).toBe('content\n');
    await expect(run('ls', [mirror], { user: 65534 })).rejects.toThrow(/Permission denied/);
    await shared.end();
  });

  test.skipIf(!isRoot)('serves an unprivileged user', async () => {
    // Some machines give it to root only.
    chmodSync('/dev/fuse', 0o666);
    const place = join(dir, 'theirs');
    mkdirSync(place);
    await run('chown', ['65534:65534', place]);
    const theirs = await serveAt({
      host: 'mirror',
      init: { root: join(source, 'sizes') },
      mountpoint: place,
      user: 65534,
    });
    expect(await run('diff', ['-r', join(source, 'sizes'), place], { user: 65534 })).toBe('');
    expect(await run('findmnt', ['-n', '-o', 'FSTYPE,OPTIONS', place])).toMatch(/fuse\.rozen.*ro,nosuid,nodev/);
    await run('fusermount3', ['-u', place], { user: 65534 });
    expect(await theirs.exited).toBe(0);
  });
});
