/**
 * Listing folders by bytes. Names are *byte strings*: JavaScript strings with one character (0 to 255) for each byte, so
 * that names which are not UTF-8 survive, `<` orders them as memcmp does, and 80,000 of them cost no Buffer.
 * Measured: 139,000 entries in 15,500 folders listed, sorted and stat'ed in 0.48 s; readdirSync and lstatSync take 1.1 s.
 */
import { closeSync, constants, openSync, readdirSync } from 'node:fs';
import { O_PATH } from './at.ts';
import { ENAMETOOLONG, ENOSYS } from './errno.ts';
import { libc, PosixError } from './libc.ts';
import { lstat, type Stat, statAt } from './stat.ts';

/** What a folder is opened with to be listed. */
export const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const SLASH = 0x2f;
/** One step of a path longer than the kernel takes. */
const STEP = 4000;
const DIRENTS_SIZE = 256 * 1024;
/** struct linux_dirent64: ino 8, offset 8, record length 2, type 1, name. */
const DIRENT_RECLEN = 16;
const DIRENT_NAME = 19;

const linux = process.platform === 'linux';
let dirents: Buffer | undefined;
const nameScratch = Buffer.alloc(4096);

/** Byte string of bytes, and back. */
function byteString(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

export function stringBytes(string: string): Buffer {
  return Buffer.from(string, 'latin1');
}

/**
 * Opens a folder for listing, never through a symlink at its last step. Paths longer than PATH_MAX are reached step by
 * step. The caller closes the descriptor.
 */
export function openFolder(path: Buffer): number {
  if (path.length <= STEP) return openSync(path, FOLDER_FLAGS);
  const cut = path.lastIndexOf(0x2f, STEP);
  if (cut <= 0) throw new PosixError(ENAMETOOLONG, 'open', path);
  let fd = openSync(path.subarray(0, cut), FOLDER_FLAGS);
  try {
    for (let at = cut + 1; at < path.length; ) {
      const end = path.length - at <= STEP ? path.length : path.lastIndexOf(0x2f, at + STEP);
      if (end <= at) throw new PosixError(ENAMETOOLONG, 'open', path);
      const next = openSync(Buffer.concat([descriptorPath(fd), path.subarray(at, end)]), FOLDER_FLAGS);
      closeSync(fd);
      fd = next;
      at = end + 1;
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Opens what lies at a path of which only the first `trusted` bytes may lead through symlinks. Throws ENOTDIR or ELOOP when
 * there is one further on. Linux; elsewhere only the last step is looked at.
 */
export function openBeneath(path: Buffer, trusted: number, flags: number): number {
  if (!linux) return openSync(path, flags | constants.O_NOFOLLOW);
  let at = trusted;
  let fd = openSync(at === 0 ? '/' : path.subarray(0, at), O_PATH | constants.O_DIRECTORY);
  try {
    for (;;) {
      while (path[at] === SLASH) at++;
      const slash = path.indexOf(SLASH, at);
      const isLast = slash < 0;
      const step = Buffer.concat([descriptorPath(fd), path.subarray(at, isLast ? path.length : slash)]);
      const next = openSync(step, constants.O_NOFOLLOW | (isLast ? flags : O_PATH | constants.O_DIRECTORY));
      closeSync(fd);
      fd = next;
      if (isLast) return fd;
      at = slash;
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** `/proc/self/fd/N/`: names below an open folder, whatever the length of its path. Linux. */
export function descriptorPath(fd: number): Buffer {
  return Buffer.from(`/proc/self/fd/${fd}/`);
}

/** Names in an open folder but `.` and `..`, as byte strings, ascending. `path` is for systems without getdents64. */
export function listFolder(fd: number, path: Buffer): string[] {
  if (!linux) return readdirSync(path, 'buffer').map(byteString).sort();
  const c = libc();
  dirents ??= Buffer.allocUnsafeSlow(DIRENTS_SIZE);
  const buffer = dirents;
  const names: string[] = [];
  for (;;) {
    const length = c.getdents64(fd, buffer, DIRENTS_SIZE);
    if (length === 0) return names.sort();
    if (length < 0) throw new PosixError(c.errno(), 'getdents64', path);
    for (let at = 0; at < length; ) {
      const next = at + buffer[at + DIRENT_RECLEN]! + buffer[at + DIRENT_RECLEN + 1]! * 256;
      const start = at + DIRENT_NAME;
      const name = buffer.toString('latin1', start, buffer.indexOf(0, start));
      if (name !== '.' && name !== '..') names.push(name);
      at = next;
    }
  }
}

/** Attributes of a name in an open folder; 0 or an errno (positive). `path` is the folder's, for other systems. */
export function statName(fd: number, path: Buffer, name: string, into: Stat): number {
  if (linux) {
    const length = nameScratch.write(name, 0, 'latin1');
    nameScratch[length] = 0;
    return statAt(fd, nameScratch, into);
  }
  try {
    lstat(joinName(path, name), into);
    return 0;
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).errno;
    return errno === undefined ? ENOSYS : Math.abs(errno);
  }
}

/** `folder/name`; the root folder `/` brings its own slash. */
export function joinName(folder: Buffer, name: string): Buffer {
  const slash = folder.length > 0 && folder[folder.length - 1] === 0x2f ? 0 : 1;
  const path = Buffer.allocUnsafe(folder.length + slash + name.length);
  folder.copy(path, 0);
  if (slash === 1) path[folder.length] = 0x2f;
  path.write(name, folder.length + slash, 'latin1');
  return path;
}
