/**
 * The calls of libfuse over a Vfs: path → node, one synchronous attempt, and again after each Miss. What this interface
 * cannot say (bytes of names, 64-bit inode numbers, nanoseconds, holes) is cut to what it can.
 */
import { Miss } from '../../cache/miss.ts';
import { RozenError } from '../../errors.ts';
import { EIO, ENODATA, ERANGE, EROFS, ESTALE } from '../../posix/errno.ts';
import type { OwnerMap } from '../protocol/abi.ts';
import { describeProblem } from '../protocol/dispatch.ts';
import { type Attr, emptyAttr, FsError, type Vfs, type VfsHost } from '../vfs.ts';
import type { NativeOperations, NativeStat } from './package.ts';
import type { NodePlace, Resolver } from './resolver.ts';

/** How often one call may meet a miss before it is given up. */
const MAX_ATTEMPTS = 4096;
const BLOCK_SIZE = 262144;
const TWO_32 = 2 ** 32;
/** An odd number: slot × this is another number for every slot, modulo 2^32. */
const SPREAD = 0x9e3779b1;

export interface OperationsOptions {
  host: VfsHost;
  resolver: Resolver;
  map: OwnerMap;
  /** Told of each call and its result; null for silence. */
  trace: ((line: string) => void) | null;
}

/**
 * st_ino in 32 bits: the inode, moved by a distance that each slot has for itself. Within a snapshot numbers differ, and
 * the same file has another one in each snapshot; two files of two snapshots may share one.
 */
export function foldNode(slot: number, ino: number): number {
  return ((Math.imul(slot, SPREAD) >>> 0) + (ino % TWO_32)) % TWO_32 || 1;
}

export function nativeOperations({ host, resolver, map, trace }: OperationsOptions): NativeOperations {
  const { vfs } = host;
  /** Nodes of open files. */
  const files = new Map<number, NodePlace>();
  let lastFile = 0;

  function errnoOf(error: unknown, what: string): number {
    if (error instanceof FsError) return error.errno > 0 && error.errno < 512 ? error.errno : EIO;
    host.report(`${what}: ${describeProblem(error)}`);
    return EIO;
  }

  /** Runs `work` until nothing is missing any more, then tells its value or a negative errno. */
  function attempt<T>(what: string, work: (vfs: Vfs) => T, done: (errno: number, value?: T) => void, tries = 0): void {
    let value: T;
    try {
      vfs.pump();
      value = work(vfs);
    } catch (error) {
      if (error instanceof Miss) {
        const fetched =
          tries < MAX_ATTEMPTS
            ? host.resolve(error)
            : Promise.reject(new RozenError('internal', 'fetching makes no progress'));
        fetched.then(
          () => attempt(what, work, done, tries + 1),
          (refusal) => finish(what, -errnoOf(refusal, what), undefined, done),
        );
        return;
      }
      finish(what, -errnoOf(error, what), undefined, done);
      return;
    }
    finish(what, 0, value, done);
  }

  function finish<T>(
    what: string,
    errno: number,
    value: T | undefined,
    done: (errno: number, value?: T) => void,
  ): void {
    trace?.(`${what} = ${errno === 0 ? (typeof value === 'number' ? value : 'ok') : errno}`);
    done(errno, value);
  }

  function stat(attr: Attr): NativeStat {
    const changed = milliseconds(attr.ctimeSec, attr.ctimeNs);
    const modified = milliseconds(attr.mtimeSec, attr.mtimeNs);
    return {
      mode: map.umask === undefined ? attr.mode : attr.mode & ~(map.umask & 0o777),
      uid: map.uid ?? attr.uid,
      gid: map.gid ?? attr.gid,
      size: attr.size,
      nlink: attr.nlink,
      ino: foldNode(attr.slot, attr.ino),
      rdev: attr.rdev,
      blksize: BLOCK_SIZE,
      blocks: attr.blocks,
      atime: modified,
      mtime: modified,
      ctime: changed,
    };
  }

  /** Puts a value or a list into the room for it, as getxattr(2) says; tells its length or a negative errno. */
  function fill(value: Uint8Array | null, room: Buffer): number {
    if (value === null) return -ENODATA;
    if (room.length === 0) return value.length;
    if (value.length > room.length) return -ERANGE;
    room.set(value);
    return value.length;
  }

  return {
    getattr(path, done) {
      const attr = emptyAttr();
      attempt(
        `GETATTR ${JSON.stringify(path)}`,
        () => {
          const { slot, ino } = resolver.resolve(vfs, path);
          vfs.getattr(slot, ino, attr);
          return stat(attr);
        },
        done,
      );
    },

    readdir(path, done) {
      const names: string[] = [];
      const stats: NativeStat[] = [];
      // Goes on where a miss has stopped it.
      let cookie = 0;
      attempt(
        `READDIR ${JSON.stringify(path)}`,
        () => {
          const { slot, ino } = resolver.resolve(vfs, path);
          for (let before = -1; before !== names.length; ) {
            before = names.length;
            vfs.readdir(slot, ino, {
              cookie,
              attributes: false,
              sink: {
                add(entry) {
                  names.push(Buffer.from(entry.source.subarray(entry.start, entry.end)).toString());
                  stats.push(listed(entry.attr));
                  cookie = entry.cookie;
                  return true;
                },
              },
            });
          }
          return names.length;
        },
        (errno) => (errno === 0 ? done(0, names, stats) : done(errno)),
      );
    },

    readlink(path, done) {
      attempt(
        `READLINK ${JSON.stringify(path)}`,
        () => {
          const { slot, ino } = resolver.resolve(vfs, path);
          return Buffer.from(vfs.readlink(slot, ino)).toString();
        },
        done,
      );
    },

    open(path, flags, done) {
      attempt(
        `OPEN ${JSON.stringify(path)}`,
        () => {
          if ((flags & 3) !== 0) throw new FsError(EROFS);
          const { slot, ino } = resolver.resolve(vfs, path);
          do lastFile = (lastFile % 0x7fffffff) + 1;
          while (files.has(lastFile));
          files.set(lastFile, { slot, ino });
          return lastFile;
        },
        done,
      );
    },

    read(path, fd, buffer, length, offset, done) {
      attempt(
        `READ ${JSON.stringify(path)} at ${offset} for ${length}`,
        () => {
          const file = files.get(fd);
          if (file === undefined) throw new FsError(ESTALE);
          return readInto(vfs, file, { buffer, offset, length });
        },
        (errno, count) => {
          done(errno === 0 ? count! : errno);
          // After the reply, which waits for the end of this turn.
          setImmediate(() => vfs.idle());
        },
      );
    },

    release(_path, fd, done) {
      files.delete(fd);
      done(0);
    },

    statfs(path, done) {
      attempt(
        `STATFS ${JSON.stringify(path)}`,
        () => {
          let { blocks, blockSize, files: count } = vfs.statfs();
          // The counts have 32 bits; the unit grows where they are not enough.
          for (; blocks >= TWO_32; blocks = Math.ceil(blocks / 2)) blockSize *= 2;
          const size = { bsize: blockSize, frsize: blockSize, blocks, bfree: 0, bavail: 0 };
          return { ...size, files: Math.min(count, TWO_32 - 1), ffree: 0, favail: 0, namemax: 255 };
        },
        done,
      );
    },

    getxattr(path, name, room, done) {
      attempt(
        `GETXATTR ${JSON.stringify(path)} ${JSON.stringify(name)} for ${room.length}`,
        () => {
          const { slot, ino } = resolver.resolve(vfs, path);
          return fill(vfs.getxattr(slot, ino, Buffer.from(name)), room);
        },
        (errno, length) => done(errno === 0 ? length! : errno),
      );
    },

    listxattr(path, room, done) {
      attempt(
        `LISTXATTR ${JSON.stringify(path)} for ${room.length}`,
        () => {
          const { slot, ino } = resolver.resolve(vfs, path);
          return fill(vfs.listxattr(slot, ino), room);
        },
        (errno, length) => done(errno === 0 ? length! : errno),
      );
    },
  };
}

/** Whole milliseconds since 1970; what lies before shows as 1970. */
function milliseconds(sec: number, ns: number): number {
  return Math.max(0, sec * 1000 + Math.floor(ns / 1e6));
}

/** Number and type, which is all that a listing needs. */
function listed({ slot, ino, mode }: Attr): NativeStat {
  const nothing = { uid: 0, gid: 0, size: 0, nlink: 1, rdev: 0, blksize: 0, blocks: 0, atime: 0, mtime: 0, ctime: 0 };
  return { ...nothing, mode, ino: foldNode(slot, ino) };
}

function readInto(
  vfs: Vfs,
  { slot, ino }: NodePlace,
  range: { buffer: Buffer; offset: number; length: number },
): number {
  const { buffer, offset, length } = range;
  const releases: (() => void)[] = [];
  let at = 0;
  try {
    vfs.read(slot, ino, {
      offset,
      size: length,
      // libfuse 2 has the kernel forget a file's pages when it is opened again.
      direct: true,
      sink: {
        push(bytes) {
          const piece = bytes.length > length - at ? bytes.subarray(0, length - at) : bytes;
          buffer.set(piece, at);
          at += piece.length;
        },
        onRelease: (release) => {
          releases.push(release);
        },
      },
    });
    return at;
  } finally {
    for (const release of releases) release();
  }
}
