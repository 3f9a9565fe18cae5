/**
 * The calls of the C library that Node does not offer. Everything here is synchronous and thin: paths are
 * NUL-terminated Buffers, results are what C returns, and `errno()` must be read right after a failed call.
 * The other files of this folder give these calls a shape worth using.
 */
import { createRequire } from 'node:module';
import { getSystemErrorName } from 'node:util';
import { EINVAL, ENAMETOOLONG, ENOSYS } from './errno.ts';

export * from './errno.ts';

/** Every signature in one place; types are koffi's. 64-bit results come as numbers (BigInt beyond 2^53). */
const SIGNATURES = {
  statx: 'int statx(int dirfd, const void *path, int flags, unsigned int mask, void *out)',
  llistxattr: 'long llistxattr(const void *path, void *list, size_t size)',
  lgetxattr: 'long lgetxattr(const void *path, const void *name, void *value, size_t size)',
  lsetxattr: 'int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)',
  lremovexattr: 'int lremovexattr(const void *path, const void *name)',
  getdents64: 'long getdents64(int fd, void *out, size_t size)',
  lseek: 'int64_t lseek(int fd, int64_t offset, int whence)',
  posix_fadvise: 'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  mknod: 'int mknod(const void *path, unsigned int mode, uint64_t dev)',
  utimensat: 'int utimensat(int dirfd, const void *path, const void *times, int flags)',
  futimens: 'int futimens(int fd, const void *times)',
  flock: 'int flock(int fd, int operation)',
  mount: 'int mount(const void *source, const void *target, const void *type, unsigned long flags, const void *data)',
  umount2: 'int umount2(const void *target, int flags)',
  socketpair: 'int socketpair(int domain, int type, int protocol, void *fds)',
  recvmsg: 'long recvmsg(int fd, void *message, int flags)',
  fcntl: 'int fcntl(int fd, int command, long argument)',
  poll: 'int poll(void *fds, unsigned long count, int timeout)',
  openat: 'int openat(int dirfd, const void *path, int flags, unsigned int mode)',
  pwrite: 'long pwrite(int fd, const void *buffer, size_t size, int64_t offset)',
  close: 'int close(int fd)',
  read: 'long read(int fd, void *buffer, size_t size)',
  pread: 'long pread(int fd, void *buffer, size_t size, int64_t offset)',
  write: 'long write(int fd, const void *buffer, size_t size)',
  writev: 'long writev(int fd, const void *vector, int count)',
  _exit: 'void _exit(int code)',
} as const;

type Call = (...args: (number | bigint | Uint8Array | null)[]) => number;
export type Libc = Record<keyof typeof SIGNATURES, Call> & { errno(): number; address(bytes: Uint8Array): bigint };

interface Koffi {
  load(path: null): { func(signature: string): Call };
  errno(): number;
  address(value: Uint8Array): bigint;
}

let bound: Libc | undefined;

/** The bound calls; koffi is loaded by the first one who asks (about 6 ms). A call this system lacks gives ENOSYS. */
export function libc(): Libc {
  if (bound === undefined) {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi;
    const library = koffi.load(null);
    const calls: Record<string, unknown> = { errno: () => koffi.errno(), address: (b: Uint8Array) => koffi.address(b) };
    for (const [name, signature] of Object.entries(SIGNATURES)) {
      try {
        calls[name] = library.func(signature);
      } catch {
        calls[name] = () => {
          throw new PosixError(ENOSYS, name);
        };
      }
    }
    bound = calls as Libc;
  }
  return bound;
}

/** A failed call, in the shape of Node's own system errors (`code` 'EACCES', `errno` negative). */
export class PosixError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  /** `errno` as in errno.h, positive. */
  constructor(errno: number, syscall: string, path?: Uint8Array | string) {
    const code = errno > 0 && errno < 4096 ? getSystemErrorName(-errno) : 'EUNKNOWN';
    const place = path === undefined ? '' : ` '${typeof path === 'string' ? path : Buffer.from(path).toString()}'`;
    super(`${code}: ${syscall}${place}`);
    this.code = code;
    this.errno = -errno;
    this.syscall = syscall;
  }
}

const PATH_MAX = 4096;
const scratch = [Buffer.alloc(PATH_MAX), Buffer.alloc(PATH_MAX)] as const;

/**
 * A path as C wants it, in one of two scratch buffers of this thread (valid until the same `which` is used again).
 * Longer paths are to be reached through `/proc/self/fd/N/rest`.
 */
export function cPath(path: Uint8Array | string, which: 0 | 1 = 0): Buffer {
  const buffer = scratch[which];
  let length: number;
  if (typeof path === 'string') {
    length = Buffer.byteLength(path);
    if (length < PATH_MAX) buffer.write(path, 0, 'utf8');
  } else {
    length = path.length;
    if (length < PATH_MAX) buffer.set(path, 0);
  }
  if (length >= PATH_MAX) throw new PosixError(ENAMETOOLONG, 'path', path);
  buffer[length] = 0;
  const end = buffer.indexOf(0);
  if (end !== length) throw new PosixError(EINVAL, 'path with a NUL', path);
  return buffer;
}

/** Throws when `result` is negative; else gives it back. */
export function check(result: number, syscall: string, path?: Uint8Array | string): number {
  if (result < 0) throw new PosixError(libc().errno(), syscall, path);
  return result;
}
