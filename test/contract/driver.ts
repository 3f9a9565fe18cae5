/**
 * What every driver must do: a folder with all odd cases, served by another process, looked at through the kernel. What a
 * driver cannot know is said by its capabilities, and the source is cut to that before it is compared.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { unmount } from '../../src/fs/kernel/umount.ts';
import type { Driver } from '../../src/fs/serving.ts';
import { dataRanges } from '../../src/posix/holes.ts';
import { lstat, type Stat } from '../../src/posix/stat.ts';
import { getXattr, listXattrs } from '../../src/posix/xattr.ts';
import { makeOddTree, noise } from '../e2e/odd-tree.ts';
import {
  endAll,
  isMounted,
  isRoot,
  type Mounted,
  run,
  type Serving,
  serveAt,
  until,
  workFolder,
} from '../fs/kernel/mounted.ts';

const koffi = createRequire(import.meta.url)('koffi');
const MiB = 1 << 20;
/** Copies a file by one of the calls that keep the bytes in the kernel. */
const COPY = fileURLToPath(new URL('./copy.py', import.meta.url));
/** Of NODE st_ino in the mirror: slot 0x800005, see mirror.mjs. */
const MIRROR_SLOT = 0x800005n;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

export interface DriverCapabilities {
  /** Names and link targets are bytes; else what is not UTF-8 shows as U+FFFD. */
  byteNames: boolean;
  /** st_ino is (slot, inode) in 64 bits; else some number that differs within a snapshot. */
  wideInodes: boolean;
  /** Times in nanoseconds, of any year; else whole milliseconds, from 1970 on. */
  exactTimes: boolean;
  birthTimes: boolean;
  /** SEEK_DATA and SEEK_HOLE. */
  holes: boolean;
  /** ACLs are enforced, not only shown. */
  acls: boolean;
  /** open_by_handle_at works, also after the server was started anew. */
  handles: boolean;
}

export function driverContract(driver: Driver, capable: DriverCapabilities, obstacle: string | null): void {
  describe.skipIf(obstacle !== null)(`a folder served by the driver ${driver}`, () => {
    let dir: string;
    let source: string;
    let mounted: Mounted;
    let mirror: string;
    let count = 0;

    beforeAll(async () => {
      dir = workFolder();
      source = join(dir, 'source');
      makeOddTree(source, { privileged: isRoot });
      writeFileSync(join(source, 'huge'), noise(100_000));
      truncateSync(join(source, 'huge'), 2 ** 41);
      writeFileSync(join(source, 'large'), noise(9 * MiB + 12345));
      for (const name of ['missing-1', 'missing-2', 'never-3', 'broken-4'])
        writeFileSync(join(source, name), name.repeat(1000));
      for (let i = 10; i < 40; i++) writeFileSync(join(source, `missing-${i}`), `${i}`.repeat(100_000));
      mounted = await start();
      mirror = mounted.dir;
    });
    afterAll(() => endAll(dir));

    function start(more: Partial<Serving> & { delay?: number; root?: string } = {}): Promise<Mounted> {
      const { delay, root = source, ...rest } = more;
      const mountpoint = join(dir, `mnt${count++}`);
      return serveAt({ host: 'mirror', init: { root, delay }, mountpoint, driver, ...rest });
    }
    const umount = ({ dir: place }: Mounted) => (isRoot ? run('umount', [place]) : run('fusermount3', ['-u', place]));

    /** A path or link target as the driver can tell it. */
    const told = (bytes: Buffer): string => (capable.byteNames ? bytes.toString('latin1') : bytes.toString());

    function line(stat: Stat, target: string): string {
      const { mode, uid, gid, size, blocks, nlink, rdev, mtimeSec, mtimeNs, ctimeSec, ctimeNs } = stat;
      const time = (sec: number, ns: number) => {
        if (capable.exactTimes) return `${sec}.${ns}`;
        return String(Math.max(0, sec * 1000 + Math.floor(ns / 1e6)));
      };
      const times = `${time(mtimeSec, mtimeNs)} ${time(ctimeSec, ctimeNs)}`;
      return `${mode.toString(8)} ${uid}:${gid} ${size} ${blocks} ${nlink} ${rdev} ${times} ${target}`;
    }

    /** One line per entry; the root last. `exact`: names are those of the source. */
    function listing(root: string): string[] {
      const lines: string[] = [];
      const walk = (folder: Buffer, shown: string): void => {
        for (const name of readdirSync(folder, { encoding: 'buffer' })) {
          const path = Buffer.concat([folder, Buffer.from('/'), name]);
          const stat = lstat(path);
          const link = (stat.mode & S_IFMT) === S_IFLNK ? told(readlinkSync(path, { encoding: 'buffer' })) : '';
          lines.push(`${shown}/${told(name)} ${line(stat, link)}`);
          // Far over PATH_MAX: `find` and `diff` go there, this walk need not.
          if ((stat.mode & S_IFMT) === 0o040000 && path.length < 3000) walk(path, `${shown}/${told(name)}`);
        }
      };
      walk(Buffer.from(root), '');
      return lines.sort();
    }

    test('has the same names, kinds, owners, sizes, times and links', () => {
      const [ours, theirs] = [listing(mirror), listing(source)];
      expect(theirs.length).toBeGreaterThan(3000);
      const known = new Set(theirs);
      expect(ours.filter((entry) => !known.has(entry))).toEqual([]);
      expect(ours.length).toBe(theirs.length);
    });

    test('has the same content', async () => {
      const files = execFileSync('find', [source, '-type', 'f', '-printf', '%P\\0'], { maxBuffer: 2 ** 24 });
      let compared = 0;
      for (let at = 0, end = 0; at < files.length; at = end + 1) {
        end = files.indexOf(0, at);
        const name = files.subarray(at, end);
        const path = Buffer.concat([Buffer.from(`${source}/`), name]);
        const stat = path.length < 4000 ? lstat(path) : null;
        if (stat === null || (stat.mode & S_IFMT) !== S_IFREG || stat.size > 2 ** 30) continue;
        if (/^(missing|never|broken)-/.test(name.toString('latin1'))) continue;
        const seen = capable.byteNames ? name : Buffer.from(name.toString());
        if (!readFileSync(Buffer.concat([Buffer.from(`${mirror}/`), seen])).equals(readFileSync(path)))
          throw new Error(`${name} differs`);
        compared++;
      }
      expect(compared).toBeGreaterThan(3000);
      expect(await run('du', ['-s', mirror])).toBe((await run('du', ['-s', source])).replace(source, mirror));
      expect(await run('sh', ['-c', `cd ${mirror}/deep && find . -name bottom | wc -l`])).toBe('1\n');
    });

    test('tells the kinds of entries with their names', () => {
      const kinds = (from: string) =>
        readdirSync(from, { withFileTypes: true })
          .map((entry) => `${entry.name} ${entry.isDirectory()} ${entry.isSymbolicLink()} ${entry.isFIFO()}`)
          .sort();
      expect(kinds(mirror)).toEqual(kinds(source));
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

    test('gives attributes only where there is room for them', () => {
      const libc = koffi.load(null);
      const get = libc.func('long lgetxattr(const char *path, const char *name, void *value, size_t size)');
      const list = libc.func('long llistxattr(const char *path, void *value, size_t size)');
      const path = join(mirror, 'attributes/plain');
      expect(get(path, 'user.binary', Buffer.alloc(200), 200)).toBe(200);
      expect(get(path, 'user.binary', null, 0)).toBe(200);
      expect([get(path, 'user.binary', Buffer.alloc(199), 199), koffi.errno()]).toEqual([-1, 34]);
      expect([list(path, Buffer.alloc(5), 5), koffi.errno()]).toEqual([-1, 34]);
    });

    test.runIf(capable.birthTimes)('shows birth times', () => {
      const [ours, theirs] = [lstat(join(mirror, 'case')), lstat(join(source, 'case'))];
      expect([ours.btimeSec, ours.btimeNs]).toEqual([theirs.btimeSec, theirs.btimeNs]);
      expect(theirs.btimeSec).toBeGreaterThan(0);
    });

    test('inode numbers differ, and hard links share one', () => {
      const inode = (name: string) => statSync(join(mirror, name), { bigint: true }).ino;
      expect(inode('links/first')).toBe(inode('links/second'));
      expect(statSync(join(mirror, 'links/first')).nlink).toBe(3);
      const many = readdirSync(join(mirror, 'many')).map((name) => inode(`many/${name}`));
      expect(new Set(many).size).toBe(3000);
      if (capable.wideInodes) expect(BigInt.asUintN(64, inode('links/first')) >> 40n).toBe(MIRROR_SLOT);
      const listed = execFileSync('ls', ['-i', join(mirror, 'links')]).toString();
      expect(listed.trim().split(/\s+/)[0]).toBe(String(BigInt.asUintN(64, inode('links/fifo too'))));
    });

    test('finds holes', () => {
      const places = ['all hole', 'hole at the end', 'hole at the start', 'holes between', 'zeros that are not holes'];
      for (const name of places) {
        const [theirs, ours] = [source, mirror].map((from) => {
          const fd = openSync(join(from, 'sizes', name), 'r');
          const { size } = fstatSync(fd);
          const found = dataRanges(fd, size);
          closeSync(fd);
          return capable.holes ? found : size;
        });
        expect(ours).toEqual(theirs);
      }
    });

    test('cp stays sparse', async () => {
      // Without SEEK_DATA cp must be told to look for zeros.
      const sparse = capable.holes ? 'auto' : 'always';
      await run('cp', [`--sparse=${sparse}`, join(mirror, 'sizes/holes between'), join(dir, 'copy')]);
      expect(statSync(join(dir, 'copy')).blocks).toBe(statSync(join(source, 'sizes/holes between')).blocks);
      expect(readFileSync(join(dir, 'copy')).equals(readFileSync(join(source, 'sizes/holes between')))).toBe(true);
    });

    test('reads beyond 4 GiB and 1 TiB', () => {
      const fd = openSync(join(mirror, 'huge'), 'r');
      const bytes = Buffer.alloc(10, 1);
      for (const offset of [2 ** 32 - 5, 2 ** 32 + 5, 2 ** 40 + 5]) {
        expect(readSync(fd, bytes.fill(1), 0, 10, offset)).toBe(10);
        expect(bytes.equals(Buffer.alloc(10))).toBe(true);
      }
      expect(readSync(fd, bytes, 0, 10, 2 ** 41 - 3)).toBe(3);
      expect(readSync(fd, bytes, 0, 10, 2 ** 41)).toBe(0);
      closeSync(fd);
    });

    test('reads directly, through pipes, by mapping, sendfile and splice', async () => {
      const large = readFileSync(join(source, 'large'));
      const path = join(mirror, 'large');
      expect(readFileSync(path).equals(large)).toBe(true);
      await run('dd', [`if=${path}`, `of=${join(dir, 'direct')}`, 'iflag=direct', 'bs=1M']);
      expect(readFileSync(join(dir, 'direct')).equals(large)).toBe(true);
      await run('sh', ['-c', 'cat "$1" | cat > "$2"', 'sh', path, join(dir, 'piped')]);
      expect(readFileSync(join(dir, 'piped')).equals(large)).toBe(true);
      for (const call of ['sendfile', 'splice', 'copy_file_range']) {
        await run('python3', [COPY, call, path, join(dir, call)]);
        expect(readFileSync(join(dir, call)).equals(large)).toBe(true);
      }
      const libc = koffi.load(null);
      const mmap = libc.func('void *mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)');
      const munmap = libc.func('int munmap(void *at, size_t length)');
      const fd = openSync(path, 'r');
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

    test.runIf(isRoot && capable.handles)('file handles outlive the server', async () => {
      const libc = koffi.load(null);
      const nameToHandle = libc.func(
        'int name_to_handle_at(int dir, const char *path, void *handle, void *mount, int flags)',
      );
      const openHandle = libc.func('int open_by_handle_at(int mount, void *handle, int flags)');
      const place = join(dir, 'exported');
      const first = await start({ mountpoint: place });
      const handle = Buffer.alloc(136);
      handle.writeUInt32LE(128, 0);
      expect(nameToHandle(-100, join(place, 'links/first'), handle, Buffer.alloc(4), 0)).toBe(0);
      await first.end();
      const second = await start({ mountpoint: place });
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
      const made = await serveAt({
        host: 'made-up',
        init: { flat: 100_000 },
        mountpoint: join(dir, 'flat'),
        driver,
      });
      const names = readdirSync(join(made.dir, 'flat'));
      expect(names.length).toBe(100_000);
      expect(new Set(names).size).toBe(100_000);
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

    test('says what it holds in statfs', () => {
      const { blocks, bfree, bsize, ffree } = statfsSync(mirror);
      expect({ blocks, bfree, bsize, ffree }).toEqual({ blocks: 1000, bfree: 0, bsize: 4096, ffree: 0 });
    });

    test('missing names', () => {
      expect(statSync(join(mirror, 'none'), { throwIfNoEntry: false })).toBeUndefined();
      expect(statSync(join(mirror, 'none'), { throwIfNoEntry: false })).toBeUndefined();
      expect(() => statSync(join(mirror, 'case/none'))).toThrow(/ENOTDIR/);
      expect(() => statSync(join(mirror, 'n'.repeat(300)))).toThrow(/ENAMETOOLONG/);
    });

    test('owners and permissions can be shown as others', async () => {
      const map = { uid: 4242, gid: 4343, umask: 0o077 };
      const mapped = await start({ map, allowOther: isRoot });
      const stat = lstat(join(mapped.dir, 'modes/755'));
      expect([stat.uid, stat.gid, stat.mode & 0o7777]).toEqual([4242, 4343, 0o700]);
      if (isRoot) {
        const cat = (user: number, name: string) => run('cat', [join(mapped.dir, name)], { user });
        expect(await cat(4242, 'modes/444')).toBe('444\n');
        await expect(cat(65534, 'modes/444')).rejects.toThrow(/Permission denied/);
        // The ACL speaks of user 1234, of the owners that were: here it must open nothing.
        await expect(cat(1234, 'attributes/with acl')).rejects.toThrow(/Permission denied/);
      }
      await mapped.end();
    });

    test.runIf(isRoot)('permissions are enforced for others, and nobody comes in without --allow-other', async () => {
      const shared = await start({ allowOther: true });
      const cat = (user: number, name: string) => run('cat', [join(shared.dir, name)], { user });
      await expect(cat(65534, 'modes/400')).rejects.toThrow(/Permission denied/);
      expect(await cat(65534, 'modes/444')).toBe('444\n');
      // u:1234:rw by ACL; the mode alone would let only the owner and the group in.
      chmodSync(join(source, 'attributes/with acl'), 0o660);
      if (capable.acls) expect(await cat(1234, 'attributes/with acl')).toBe('content\n');
      await expect(run('ls', [mirror], { user: 65534 })).rejects.toThrow(/Permission denied/);
      await shared.end();
    });

    test('what is missing is fetched, and the call runs again', async () => {
      const slow = await start({ delay: 50 });
      const expected = readFileSync(join(source, 'missing-1'), 'utf8');
      const contents = await Promise.all([0, 1, 2].map(() => readFile(join(slow.dir, 'missing-1'), 'utf8')));
      expect(contents).toEqual([expected, expected, expected]);
      const errno = (name: string) => readFile(join(slow.dir, name)).then(String, (error) => error.code);
      expect(await errno('never-3')).toBe('EIO');
      expect(await errno('broken-4')).toBe('EIO');
      await until(() => slow.errors.includes('made-up failure'), 'word of the failure');
      expect(slow.errors).toContain('READ');
      // The rest goes on.
      expect(readFileSync(join(slow.dir, 'case'), 'utf8')).toBe('content\n');
      await slow.end();
    });

    test('a trace has one line per request', async () => {
      const traced = await start({ trace: true });
      readFileSync(join(traced.dir, 'case'));
      await until(() => traced.errors.includes('READ '), 'trace of a read');
      expect(traced.errors).toMatch(/^\S+.* = \S+/m);
      await traced.end();
    });

    test('ends when it is unmounted from outside', async () => {
      const standing = await start();
      await umount(standing);
      expect(await standing.exited).toBe(0);
      expect(standing.output).toContain('"reason":"unmounted"');
      expect(standing.errors).toContain('closed');
    });

    test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('ends by %s', async (signal) => {
      const standing = await start();
      standing.child.kill(signal);
      expect(await standing.exited).toBe(0);
      expect(standing.output).toContain(`"signal":"${signal}"`);
      expect(isMounted(standing.dir)).toBe(false);
    });

    test('process.exit and uncaught errors leave no mount and do not hang', async () => {
      const leaving = await start();
      leaving.command('exit');
      expect(await leaving.exited).toBe(7);
      expect(isMounted(leaving.dir)).toBe(false);
      const failing = await start();
      failing.command('throw');
      expect(await failing.exited).toBe(1);
      expect(failing.output).toContain('made-up');
      expect(isMounted(failing.dir)).toBe(false);
    });

    test('a signal ends a busy mount and says who held it', async () => {
      const standing = await start();
      const holder = await hold(join(standing.dir, 'case'));
      standing.child.kill('SIGTERM');
      expect(await standing.exited).toBe(0);
      expect(standing.output).toContain(`sleep (${holder.pid}, open file ${standing.dir}/case)`);
      expect(isMounted(standing.dir)).toBe(false);
      await holder.free();
    });

    test('umount refuses a busy mount, naming the holder; lazily it goes at once and ends with the holder', async () => {
      const standing = await start();
      const holder = await hold(join(standing.dir, 'case'));
      await expect(unmount(standing.dir)).rejects.toThrow(`sleep (${holder.pid}, open file ${standing.dir}/case)`);
      expect(readFileSync(join(standing.dir, 'case'), 'utf8')).toBe('content\n');
      expect((await unmount(standing.dir, { lazy: true })).holders).toContain(String(holder.pid));
      expect(isMounted(standing.dir)).toBe(false);
      expect(standing.child.exitCode).toBeNull();
      await holder.free();
      expect(await standing.exited).toBe(0);
    });

    test('a killed server leaves a stale mount, and the next mount or umount cleans up', async () => {
      const killed = await start();
      killed.child.kill('SIGKILL');
      await killed.exited;
      expect(isMounted(killed.dir)).toBe(true);
      expect(() => readdirSync(killed.dir)).toThrow(/ENOTCONN/);
      const second = await start({ mountpoint: killed.dir });
      expect(readFileSync(join(second.dir, 'case'), 'utf8')).toBe('content\n');
      second.child.kill('SIGKILL');
      await second.exited;
      expect((await unmount(second.dir)).stale).toBe(true);
      expect(isMounted(second.dir)).toBe(false);
      expect(readdirSync(second.dir)).toEqual([]);
    });

    test('refuses places where it must not lie', async () => {
      await expect(start({ mountpoint: mirror })).rejects.toThrow(/already a mount of Rozen/);
      await expect(start({ mountpoint: source })).rejects.toThrow(/not empty/);
      await expect(start({ mountpoint: join(source, 'case') })).rejects.toThrow(/not a folder/);
      const mountpoint = join(dir, 'clear');
      await expect(start({ mountpoint, keepClearOf: [mountpoint] })).rejects.toThrow(/needed to serve/);
    });

    test.runIf(isRoot)('serves an unprivileged user', async () => {
      // Some machines give it to root only.
      chmodSync('/dev/fuse', 0o666);
      const place = join(dir, 'theirs');
      mkdirSync(place);
      await run('chown', ['65534:65534', place]);
      const theirs = await start({ root: join(source, 'sizes'), mountpoint: place, user: 65534 });
      expect(await run('diff', ['-r', join(source, 'sizes'), place], { user: 65534 })).toBe('');
      expect(await run('findmnt', ['-n', '-o', 'FSTYPE,OPTIONS', place])).toMatch(/fuse\.rozen.*ro,nosuid,nodev/);
      await run('fusermount3', ['-u', place], { user: 65534 });
      expect(await theirs.exited).toBe(0);
    });

    test('streams the same bytes again and again', async () => {
      const whole = readFileSync(join(source, 'large'));
      for (let i = 0; i < 3; i++) {
        let at = 0;
        for await (const piece of createReadStream(join(mirror, 'large'), { highWaterMark: 70_001 })) {
          expect((piece as Buffer).equals(whole.subarray(at, at + piece.length))).toBe(true);
          at += piece.length;
        }
        expect(at).toBe(whole.length);
      }
    });
  });
}

/** Held open by `hold`; ended by `free`. */
export async function hold(path: string): Promise<{ pid: number; free(): Promise<void> }> {
  const child = spawn('sh', ['-c', 'exec 3< "$1"; echo held; exec sleep 1000', 'sh', path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  // Until then it is called sh.
  const isSleep = () => readFileSync(`/proc/${child.pid}/comm`, 'utf8') === 'sleep\n';
  if (process.platform === 'linux') await until(isSleep, 'the holder of a mount');
  const gone = new Promise((resolve) => child.on('exit', resolve));
  return {
    pid: child.pid!,
    free: async () => {
      child.kill('SIGKILL');
      await gone;
    },
  };
}
