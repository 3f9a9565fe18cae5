/** The package fuse-native, an optional dependency: loaded when a mount asks for it, and by this file alone. */
import { createRequire } from 'node:module';
import { RozenError } from '../../errors.ts';

/** Attributes as fuse-native takes them: 32 bits for all but size and blocks, times in whole milliseconds from 1970 on. */
export interface NativeStat {
  mode: number;
  uid: number;
  gid: number;
  size: number;
  nlink: number;
  ino: number;
  rdev: number;
  blksize: number;
  blocks: number;
  atime: number;
  mtime: number;
  ctime: number;
}

interface NativeStatfs {
  bsize: number;
  frsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  favail: number;
  namemax: number;
}

/** `errno` 0, or negative as in errno.h. */
type Done<T extends unknown[] = []> = (errno: number, ...values: T) => void;

/** The calls that a read-only filesystem answers. All run in the main thread; paths are decoded UTF-8. */
export interface NativeOperations {
  getattr(path: string, done: Done<[NativeStat?]>): void;
  readdir(path: string, done: Done<[string[]?, NativeStat[]?]>): void;
  readlink(path: string, done: Done<[string?]>): void;
  open(path: string, flags: number, done: Done<[number?]>): void;
  read(path: string, fd: number, buffer: Buffer, length: number, offset: number, done: (count: number) => void): void;
  release(path: string, fd: number, done: Done): void;
  statfs(path: string, done: Done<[NativeStatfs?]>): void;
  /** `room` is where the value goes; of no length when only its size is asked for. Done gets the length, or an errno. */
  getxattr(path: string, name: string, room: Buffer, done: (length: number) => void): void;
  listxattr(path: string, room: Buffer, done: (length: number) => void): void;
}

export interface NativeMount {
  mount(done: (error: Error | null | undefined) => void): void;
}

interface FuseInstance extends NativeMount {
  _fuseOptions(): string;
  _op_getxattr(signal: Signal, path: string, name: string, room: Buffer): void;
  _op_listxattr(signal: Signal, path: string, room: Buffer): void;
}
type Signal = (result: number, memory: ArrayBufferLike) => void;
type FuseClass = new (mountpoint: string, operations: object, settings: object) => FuseInstance;

/** fuse-native copies mount point and options into buffers of this size, and cuts off what is longer. */
export const OPTIONS_LIMIT = 1023;

let loaded: FuseClass | undefined;

/** Loads the package and libfuse 2. Says what is missing. */
export function loadFuseNative(require: (name: string) => unknown = createRequire(import.meta.url)): void {
  if (loaded !== undefined) return;
  try {
    loaded = require('fuse-native') as FuseClass;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'MODULE_NOT_FOUND' && message.includes("'fuse-native'")) {
      throw new RozenError('unsupported', '--driver fuse-native: the package fuse-native is not installed', {
        hint: 'npm install fuse-native, or leave --driver out',
        cause,
      });
    }
    if (/libfuse|\.dylib|osxfuse|macfuse/i.test(message)) {
      const hint =
        process.platform === 'darwin'
          ? 'install macFUSE (https://macfuse.io)'
          : 'install libfuse 2 (Debian and Ubuntu: apt install libfuse2), or leave --driver out';
      throw new RozenError('unsupported', `--driver fuse-native: libfuse 2 is missing (${firstLine(message)})`, {
        hint,
        cause,
      });
    }
    throw new RozenError('unsupported', `--driver fuse-native: fuse-native does not load (${firstLine(message)})`, {
      hint: 'npm rebuild fuse-native, or leave --driver out',
      cause,
    });
  }
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0]!;
}

/**
 * A mount that is ready to be made. Three of the package's own methods are replaced: it knows no way to give libfuse
 * `ro`, `use_ino` or time-outs of a second; and of extended attributes it does not say how much room there is, so that a
 * value that is too long would be sent from memory beyond its buffer.
 */
export function nativeMount(mountpoint: string, options: readonly string[], operations: NativeOperations): NativeMount {
  loadFuseNative();
  const { getxattr, listxattr, ...plain } = operations;
  // What is named here is announced to libfuse; the replaced methods below answer.
  const announced = { ...plain, getxattr: () => {}, listxattr: () => {} };
  // Without a limit of its own: a fetch has a deadline, and ends in EIO.
  const fuse = new loaded!(mountpoint, announced, { timeout: false });
  fuse._fuseOptions = () => `-o${options.join(',')}`;
  fuse._op_getxattr = (signal, path, name, room) =>
    getxattr(path, name, room, (length) => signal(length, room.buffer as ArrayBufferLike));
  fuse._op_listxattr = (signal, path, room) =>
    listxattr(path, room, (length) => signal(length, room.buffer as ArrayBufferLike));
  return fuse;
}
