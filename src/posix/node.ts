/** Making special files and setting times to the nanosecond. */
import { check, cPath, libc } from './libc.ts';

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;

/** `mode` with its file type (S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK); `rdev` encoded as in Stat. Subject to umask. */
export function makeNode(path: Buffer | string, mode: number, rdev = 0): void {
  check(libc().mknod(cPath(path), mode, rdev), 'mknod', path);
}

const times = Buffer.from(new ArrayBuffer(32));
const words = new Int32Array(times.buffer);

function put(at: number, seconds: number, ns: number): void {
  words[at] = seconds | 0;
  words[at + 1] = Math.floor(seconds / 2 ** 32);
  words[at + 2] = ns;
  words[at + 3] = 0;
}

/** Sets access and modification time of the path itself (symlinks not followed). */
export function setTimes(
  path: Buffer | string,
  time: { atimeSec: number; atimeNs: number; mtimeSec: number; mtimeNs: number },
): void {
  put(0, time.atimeSec, time.atimeNs);
  put(4, time.mtimeSec, time.mtimeNs);
  check(libc().utimensat(AT_FDCWD, cPath(path), times, AT_SYMLINK_NOFOLLOW), 'utimensat', path);
}
