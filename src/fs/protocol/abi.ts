/**
 * The Linux FUSE kernel ABI (include/uapi/linux/fuse.h), as far as a read-only filesystem meets it: every number and
 * every offset, in the order of that header, with the protocol version that brought it where that is later than 7.12.
 * Linux speaks 7.31 since 5.2 and 7.45 in 6.18.
 *
 * Offsets into structures are counted in 32-bit words, because all structures are aligned to 8 bytes and are read and
 * written through Uint32Arrays (little-endian hosts only; `mount` checks that). 64-bit values become numbers: exact
 * below 2^53.
 */
import type { Attr } from '../vfs.ts';

export const KERNEL_MAJOR = 7;
/** The newest minor version this file knows. */
export const KERNEL_MINOR = 45;
/** 7.31 (Linux 5.2): the oldest one that gives cached symlinks, no-opendir, max_pages and explicit invalidation. */
export const KERNEL_MINOR_MIN = 31;

const TWO_32 = 2 ** 32;

/** INIT flags; those from bit 32 on lie in `flags2` (7.36). */
export const INIT_FLAGS = {
  ASYNC_READ: 1 << 0,
  POSIX_LOCKS: 1 << 1,
  FILE_OPS: 1 << 2,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  SPLICE_WRITE: 1 << 7, // 7.14
  SPLICE_MOVE: 1 << 8, // 7.14
  SPLICE_READ: 1 << 9, // 7.14
  FLOCK_LOCKS: 1 << 10, // 7.17
  HAS_IOCTL_DIR: 1 << 11, // 7.18
  AUTO_INVAL_DATA: 1 << 12, // 7.20
  DO_READDIRPLUS: 1 << 13, // 7.21
  READDIRPLUS_AUTO: 1 << 14, // 7.21
  ASYNC_DIO: 1 << 15, // 7.22
  WRITEBACK_CACHE: 1 << 16, // 7.23
  NO_OPEN_SUPPORT: 1 << 17, // 7.23
  PARALLEL_DIROPS: 1 << 18, // 7.25
  HANDLE_KILLPRIV: 1 << 19, // 7.26
  POSIX_ACL: 1 << 20, // 7.26
  ABORT_ERROR: 1 << 21, // 7.27
  MAX_PAGES: 1 << 22, // 7.28
  CACHE_SYMLINKS: 1 << 23, // 7.28
  NO_OPENDIR_SUPPORT: 1 << 24, // 7.29
  EXPLICIT_INVAL_DATA: 1 << 25, // 7.30
  MAP_ALIGNMENT: 1 << 26, // 7.31
  SUBMOUNTS: 1 << 27, // 7.32
  HANDLE_KILLPRIV_V2: 1 << 28, // 7.33
  SETXATTR_EXT: 1 << 29, // 7.33
  INIT_EXT: 1 << 30, // 7.36
} as const;

export const INIT_FLAGS2 = {
  SECURITY_CTX: 1 << 0, // 7.36
  HAS_INODE_DAX: 1 << 1, // 7.36
  CREATE_SUPP_GROUP: 1 << 2, // 7.38
  HAS_EXPIRE_ONLY: 1 << 3, // 7.38
  DIRECT_IO_ALLOW_MMAP: 1 << 4, // 7.39
  PASSTHROUGH: 1 << 5, // 7.40
  NO_EXPORT_SUPPORT: 1 << 6, // 7.40
  HAS_RESEND: 1 << 7, // 7.40
  ALLOW_IDMAP: 1 << 8, // 7.42
  OVER_IO_URING: 1 << 9, // 7.42
  REQUEST_TIMEOUT: 1 << 10, // 7.43
} as const;

export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41, // 7.15
  BATCH_FORGET: 42, // 7.16
  FALLOCATE: 43, // 7.19
  READDIRPLUS: 44, // 7.21
  RENAME2: 45, // 7.23
  LSEEK: 46, // 7.24
  COPY_FILE_RANGE: 47, // 7.28
  SETUPMAPPING: 48, // 7.31
  REMOVEMAPPING: 49, // 7.31
  SYNCFS: 50, // 7.34
  TMPFILE: 51, // 7.37
  STATX: 52, // 7.39
  COPY_FILE_RANGE_64: 53, // 7.45
} as const;

/** Notification codes; they stand in the error field of a header whose `unique` is 0. */
export const NOTIFY = {
  POLL: 1,
  INVAL_INODE: 2,
  INVAL_ENTRY: 3,
  STORE: 4, // 7.15
  RETRIEVE: 5, // 7.15
  DELETE: 6, // 7.18
  RESEND: 7, // 7.40
  INC_EPOCH: 8, // 7.44
  PRUNE: 9, // 7.45
} as const;

/** The read buffer must hold this, or the two headers and max_write, whichever is more. */
export const MIN_READ_BUFFER = 8192;
/** max_write that we answer: nothing is ever written, so requests stay as small as they can. */
const MAX_WRITE = 4096;
/** FUSE_MAX_MAX_PAGES: 256 pages, so a read asks for 1 MiB at most. */
export const MAX_PAGES = 256;
/** Names on Linux; the protocol itself would take 1024. */
export const NAME_MAX = 255;

// struct fuse_in_header
export const IN_HEADER = {
  LEN: 0,
  OPCODE: 1,
  UNIQUE: 2,
  NODEID: 4,
  UID: 6,
  GID: 7,
  PID: 8,
  EXTLEN: 9,
  WORDS: 10,
  SIZE: 40,
} as const;
// struct fuse_out_header
export const OUT_HEADER = { LEN: 0, ERROR: 1, UNIQUE: 2, WORDS: 4, SIZE: 16 } as const;

/**
 * Payloads of requests (fuse_*_in): word offsets from the beginning of the request, and its least size in bytes, header
 * included.
 */
export const IN = {
  FORGET: { NLOOKUP: 10, SIZE: 48 },
  GETATTR: { FLAGS: 10, FH: 12, SIZE: 56 },
  OPEN: { FLAGS: 10, SIZE: 48 },
  READ: { FH: 10, OFFSET: 12, LENGTH: 14, READ_FLAGS: 15, FLAGS: 18, SIZE: 80 },
  GETXATTR: { LENGTH: 10, SIZE: 48 },
  ACCESS: { MASK: 10, SIZE: 48 },
  INIT: { MAJOR: 10, MINOR: 11, MAX_READAHEAD: 12, FLAGS: 13, FLAGS2: 14, SIZE: 56, SIZE_EXT: 104 },
  INTERRUPT: { UNIQUE: 10, SIZE: 48 },
  BATCH_FORGET: { COUNT: 10, SIZE: 48 },
  LSEEK: { FH: 10, OFFSET: 12, WHENCE: 14, SIZE: 64 },
  STATX: { FLAGS: 10, FH: 12, SX_FLAGS: 14, SX_MASK: 15, SIZE: 64 },
} as const;

/** Sizes in bytes of the replies' structures. */
export const ENTRY_OUT_SIZE = 128;
export const ATTR_OUT_SIZE = 104;
export const STATX_OUT_SIZE = 288;
export const STATFS_OUT_SIZE = 80;
export const GETXATTR_OUT_SIZE = 8;
export const LSEEK_OUT_SIZE = 8;
export const INIT_OUT_SIZE = 64;
/** struct fuse_dirent up to its name; direntplus puts an entry_out before it. */
export const DIRENT_NAME = 24;

/** A node id is slot × 2^40 + inode, and so is st_ino. */
export function nodeSlot(high: number): number {
  return high >>> 8;
}

export function nodeIno(low: number, high: number): number {
  return (high & 0xff) * TWO_32 + low;
}

export function putNode(words: Uint32Array, at: number, slot: number, ino: number): void {
  words[at] = ino;
  words[at + 1] = ((slot << 8) | (Math.floor(ino / TWO_32) & 0xff)) >>> 0;
}

/** Writes an integer of either sign below 2^53 as 64 bits. */
export function put64(words: Uint32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = Math.floor(value / TWO_32);
}

/** Reads 64 bits as unsigned; inexact from 2^53 on. */
export function get64(words: Uint32Array, at: number): number {
  return words[at + 1]! * TWO_32 + words[at]!;
}

/** How owners and permissions are shown, when not as they were. */
export interface OwnerMap {
  uid?: number | undefined;
  gid?: number | undefined;
  /** Bits that are taken away from the permissions. */
  umask?: number | undefined;
}

/** Time-outs in seconds. 2^31-1 is "for ever": what the kernel can hold on every architecture. */
const FOR_EVER = 0x7fffffff;
/**
 * Folders that Rozen changes, and links in them, say so by notification; they may be trusted this long without one. Not at
 * all would cost every path through `latest` a request.
 */
const VOLATILE = 1;

function timeout(attr: Attr): number {
  if (!attr.volatile) return FOR_EVER;
  return (attr.mode & 0o170000) === 0o100000 ? 0 : VOLATILE;
}

/** The timeout of "there is no such name" in an unchanging folder. */
export const NEGATIVE_TIMEOUT = FOR_EVER;
/** What st_blksize says: the size of a block of the archive, the best unit of reading. */
const BLOCK_SIZE = 262144;

/** struct fuse_attr, 88 bytes. */
function putAttr(w: Uint32Array, at: number, attr: Attr, map: OwnerMap): void {
  putNode(w, at, attr.slot, attr.ino);
  put64(w, at + 2, attr.size);
  put64(w, at + 4, attr.blocks);
  put64(w, at + 6, attr.mtimeSec); // atime: archives keep none
  put64(w, at + 8, attr.mtimeSec);
  put64(w, at + 10, attr.ctimeSec);
  w[at + 12] = attr.mtimeNs;
  w[at + 13] = attr.mtimeNs;
  w[at + 14] = attr.ctimeNs;
  w[at + 15] = map.umask === undefined ? attr.mode : attr.mode & ~(map.umask & 0o777);
  w[at + 16] = attr.nlink;
  w[at + 17] = map.uid ?? attr.uid;
  w[at + 18] = map.gid ?? attr.gid;
  w[at + 19] = attr.rdev;
  w[at + 20] = BLOCK_SIZE;
  w[at + 21] = 0;
}

/** struct fuse_entry_out, 128 bytes. */
export function putEntry(w: Uint32Array, at: number, attr: Attr, map: OwnerMap): void {
  const valid = timeout(attr);
  putNode(w, at, attr.slot, attr.ino);
  put64(w, at + 2, attr.generation);
  w[at + 4] = valid;
  w[at + 5] = 0;
  w[at + 6] = valid;
  w[at + 7] = 0;
  w[at + 8] = 0;
  w[at + 9] = 0;
  putAttr(w, at + 10, attr, map);
}

/** An entry_out that says "no such name" (node 0), to be remembered for `valid` seconds. */
export function putNoEntry(w: Uint32Array, at: number, valid: number): void {
  w.fill(0, at, at + ENTRY_OUT_SIZE / 4);
  w[at + 4] = valid;
}

/** struct fuse_attr_out, 104 bytes. */
export function putAttrOut(w: Uint32Array, at: number, attr: Attr, map: OwnerMap): void {
  w[at] = timeout(attr);
  w[at + 1] = 0;
  w[at + 2] = 0;
  w[at + 3] = 0;
  putAttr(w, at + 4, attr, map);
}

/** STATX_BASIC_STATS and STATX_BTIME: what is filled. */
const STATX_MASK = 0x7ff | 0x800;

/** struct fuse_statx_out, 288 bytes (7.39): the time-out, 16 spare bytes, then struct statx of 256. */
export function putStatx(w: Uint32Array, at: number, attr: Attr, map: OwnerMap): void {
  w.fill(0, at, at + STATX_OUT_SIZE / 4);
  w[at] = timeout(attr);
  const s = at + 8;
  w[s] = STATX_MASK;
  w[s + 1] = BLOCK_SIZE;
  w[s + 4] = attr.nlink;
  w[s + 5] = map.uid ?? attr.uid;
  w[s + 6] = map.gid ?? attr.gid;
  w[s + 7] = map.umask === undefined ? attr.mode : attr.mode & ~(map.umask & 0o777);
  putNode(w, s + 8, attr.slot, attr.ino);
  put64(w, s + 10, attr.size);
  put64(w, s + 12, attr.blocks);
  putStatxTime(w, s + 16, attr.mtimeSec, attr.mtimeNs);
  putStatxTime(w, s + 20, attr.btimeSec, attr.btimeNs);
  putStatxTime(w, s + 24, attr.ctimeSec, attr.ctimeNs);
  putStatxTime(w, s + 28, attr.mtimeSec, attr.mtimeNs);
  w[s + 32] = (attr.rdev >>> 8) & 0xfff;
  w[s + 33] = (attr.rdev & 0xff) | ((attr.rdev >>> 12) & 0xfff00);
}

function putStatxTime(w: Uint32Array, at: number, seconds: number, ns: number): void {
  put64(w, at, seconds);
  w[at + 2] = ns;
}

/** struct fuse_dirent up to its name; `at` in words. The name follows at once, padded to 8 bytes. */
export function putDirent(w: Uint32Array, at: number, attr: Attr, cookie: number, nameLength: number): void {
  putNode(w, at, attr.slot, attr.ino);
  put64(w, at + 2, cookie);
  w[at + 4] = nameLength;
  w[at + 5] = (attr.mode >>> 12) & 0xf;
}

/** Size of a directory entry in a reply, in bytes. */
export function direntSize(nameLength: number, plus: boolean): number {
  return (DIRENT_NAME + (plus ? ENTRY_OUT_SIZE : 0) + nameLength + 7) & ~7;
}

/** struct fuse_init_out, 64 bytes. */
export interface InitOut {
  minor: number;
  maxReadahead: number;
  flags: number;
  flags2: number;
  maxBackground: number;
  congestionThreshold: number;
}

export function putInit(w: Uint32Array, at: number, out: InitOut): void {
  w.fill(0, at, at + INIT_OUT_SIZE / 4);
  w[at] = KERNEL_MAJOR;
  w[at + 1] = out.minor;
  w[at + 2] = out.maxReadahead;
  w[at + 3] = out.flags;
  w[at + 4] = (out.maxBackground & 0xffff) | (out.congestionThreshold << 16);
  w[at + 5] = MAX_WRITE;
  w[at + 6] = 1; // time_gran in ns (7.23)
  w[at + 7] = MAX_PAGES; // (7.28)
  w[at + 8] = out.flags2; // (7.36)
}
