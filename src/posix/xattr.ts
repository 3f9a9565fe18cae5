/** Extended attributes of a path, symlinks not followed. Filesystems without them behave as if there were none. */

import { ENODATA, ENOENT, EOPNOTSUPP, ERANGE } from './errno.ts';
import { check, cPath, libc, PosixError } from './libc.ts';

/** XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux. */
const LIMIT = 65536;
let scratch: Buffer | undefined;
const NONE: readonly Buffer[] = Object.freeze([]);
const linux = process.platform === 'linux';

function buffer(): Buffer {
  scratch ??= Buffer.allocUnsafeSlow(LIMIT);
  return scratch;
}

/** Names without their NUL. A file without any costs one call and no allocation. */
export function listXattrs(path: Buffer | string): readonly Buffer[] {
  if (!linux) return NONE;
  const c = libc();
  const into = buffer();
  const length = c.llistxattr(cPath(path), into, LIMIT);
  if (length === 0) return NONE;
  if (length < 0) {
    const errno = c.errno();
    if (errno === EOPNOTSUPP) return NONE;
    throw new PosixError(errno, 'llistxattr', path);
  }
  const names: Buffer[] = [];
  for (let at = 0; at < length; ) {
    const end = into.indexOf(0, at);
    if (end < 0 || end >= length) break;
    names.push(Buffer.from(into.subarray(at, end)));
    at = end + 1;
  }
  return names;
}

/** The value, or null when there is no such attribute (any more). */
export function getXattr(path: Buffer | string, name: Buffer | string): Buffer | null {
  if (!linux) return null;
  const c = libc();
  const into = buffer();
  const length = c.lgetxattr(cPath(path), cPath(name, 1), into, LIMIT);
  if (length >= 0) return Buffer.from(into.subarray(0, length));
  const errno = c.errno();
  if (errno === ENODATA || errno === EOPNOTSUPP) return null;
  if (errno === ERANGE) throw new PosixError(ERANGE, 'lgetxattr (value over 64 KiB)', path);
  throw new PosixError(errno, 'lgetxattr', path);
}

/** Sets or replaces. Throws PosixError; EOPNOTSUPP and EPERM are for the caller to weigh. */
export function setXattr(path: Buffer | string, name: Buffer | string, value: Uint8Array): void {
  check(libc().lsetxattr(cPath(path), cPath(name, 1), value, value.length, 0), 'lsetxattr', path);
}

/** Removes; one that is not there is no error. */
export function removeXattr(path: Buffer | string, name: Buffer | string): void {
  const c = libc();
  if (c.lremovexattr(cPath(path), cPath(name, 1)) < 0) {
    const errno = c.errno();
    if (errno !== ENODATA && errno !== ENOENT) throw new PosixError(errno, 'lremovexattr', path);
  }
}
