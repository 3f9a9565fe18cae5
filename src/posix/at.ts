/**
 * Making files by name in an open folder: one short look-up a call, whatever the depth, and no way through a symlink that
 * somebody puts on the path meanwhile. Descriptors belong to the process, so one thread may open and another one use.
 * Linux: elsewhere openat takes its mode as a variadic argument.
 */
import { constants } from 'node:fs';
import { check, libc, PosixError } from './libc.ts';

const UTIME_OMIT = 0x3ffffffe;
/** Opens neither for reading nor for writing: needs no permission, and wakes no device. */
export const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;
const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | O_CLOEXEC;

const times = Buffer.from(new ArrayBuffer(32));
const words = new Int32Array(times.buffer);
words[2] = UTIME_OMIT;

/** A name as C wants it. */
export function cName(name: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(name.length + 1);
  bytes.set(name, 0);
  bytes[name.length] = 0;
  return bytes;
}

/** Opens `name` (ends with NUL) in a folder, never through a symlink. Answers the descriptor, or the errno negated. */
export function openAt(dirfd: number, name: Uint8Array, flags: number, mode: number): number {
  const c = libc();
  const fd = c.openat(dirfd, name, flags | constants.O_NOFOLLOW | O_CLOEXEC, mode);
  return fd >= 0 ? fd : -c.errno();
}

/** Opens the sub-folder `name` (without NUL). Throws PosixError: ENOTDIR or ELOOP when it is none, or a symlink. */
export function openFolderAt(dirfd: number, name: Uint8Array): number {
  return check(libc().openat(dirfd, cName(name), FOLDER, 0), 'open', name);
}

/** A descriptor that only stands for `name`, whatever it is: for its attributes, through `/proc/self/fd`. */
export function openPathAt(dirfd: number, name: Uint8Array): number {
  return check(libc().openat(dirfd, cName(name), O_PATH | constants.O_NOFOLLOW | O_CLOEXEC, 0), 'open', name);
}

/** Writes all of `bytes` at `offset`. */
export function writeAt(fd: number, bytes: Uint8Array, offset: number): void {
  const c = libc();
  let written = c.pwrite(fd, bytes, bytes.length, offset);
  while (written < bytes.length) {
    if (written < 0) throw new PosixError(c.errno(), 'write');
    const more = c.pwrite(fd, bytes.subarray(written), bytes.length - written, offset + written);
    written = more < 0 ? more : written + more;
  }
}

/** Sets the modification time of an open file; the access time stays. */
export function setModified(fd: number, seconds: number, ns: number): void {
  words[4] = seconds | 0;
  words[5] = Math.floor(seconds / 2 ** 32);
  words[6] = ns;
  check(libc().futimens(fd, times), 'futimens');
}

/** Closes a descriptor that was written to or only stood for something: a failure could not be helped any more. */
export function closeDescriptor(fd: number): void {
  libc().close(fd);
}
