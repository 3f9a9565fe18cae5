/**
 * One request in, one reply out: the whole read-only filesystem as the kernel sees it. Synchronous, without state and
 * without trust in the request: whatever bytes come in, the answer is a reply, an errno or nothing.
 */
import { constants } from 'node:fs';
import { Miss } from '../../cache/miss.ts';
import { RozenError } from '../../errors.ts';
import { EINVAL, EIO, ENAMETOOLONG, ENODATA, ENOENT, ENOSYS, ENOTTY, ERANGE, EROFS } from '../../posix/errno.ts';
import { FsError, type Vfs } from '../vfs.ts';
import {
  ATTR_OUT_SIZE,
  ENTRY_OUT_SIZE,
  GETXATTR_OUT_SIZE,
  get64,
  IN,
  IN_HEADER,
  LSEEK_OUT_SIZE,
  NAME_MAX,
  NEGATIVE_TIMEOUT,
  OPCODE,
  OUT_HEADER,
  put64,
  putAttrOut,
  putEntry,
  putNoEntry,
  putStatx,
  STATFS_OUT_SIZE,
  STATX_OUT_SIZE,
} from './abi.ts';
import { MAX_PAYLOAD, type Reply } from './reply.ts';
import type { Request } from './request.ts';

const PAYLOAD = OUT_HEADER.WORDS;
const O_ACCMODE = 3;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** "a", "system." … no longer than the kernel's own limit. */
const XATTR_NAME_MAX = 255;

/**
 * Answers `request` from `vfs` into `reply`.
 *
 * @throws Miss when something is not on this machine; nothing else. The caller fetches it and runs the same request
 * again. `reply.length` is 0 afterwards for requests that want no answer; `reply.problem` holds an unexpected error.
 */
export function dispatch(request: Request, vfs: Vfs, reply: Reply): void {
  if (!request.valid) {
    // Without a whole header there is nobody to answer; a wrong length is answered, so that nobody waits for ever.
    reply.begin(0, 0);
    if (request.length >= IN_HEADER.SIZE) {
      reply.begin(request.words[IN_HEADER.UNIQUE]!, request.words[IN_HEADER.UNIQUE + 1]!);
      if (wantsReply(request.opcode)) reply.error(EIO);
    }
    return;
  }
  reply.begin(request.words[IN_HEADER.UNIQUE]!, request.words[IN_HEADER.UNIQUE + 1]!);
  try {
    answer(request, vfs, reply);
  } catch (error) {
    if (error instanceof Miss) {
      reply.begin(0, 0);
      throw error;
    }
    fail(reply, error);
  }
}

/** Turns an error into an errno; what is not an expected refusal is kept for the log. */
export function fail(reply: Reply, error: unknown): void {
  if (error instanceof FsError) {
    reply.error(error.errno > 0 && error.errno < 512 ? error.errno : EIO);
    return;
  }
  reply.problem = error;
  reply.error(EIO);
}

/** The text of `reply.problem` for the log: what and where, without a stack when Rozen itself has said it. */
export function describeProblem(problem: unknown): string {
  if (problem instanceof RozenError) return problem.message;
  return problem instanceof Error ? (problem.stack ?? problem.message) : String(problem);
}

function wantsReply(opcode: number): boolean {
  return opcode !== OPCODE.FORGET && opcode !== OPCODE.BATCH_FORGET && opcode !== OPCODE.INTERRUPT;
}

function answer(request: Request, vfs: Vfs, reply: Reply): void {
  const { slot, ino } = request;
  switch (request.opcode) {
    case OPCODE.LOOKUP:
      return lookup(request, vfs, reply);
    case OPCODE.READ:
      return read(request, vfs, reply);
    case OPCODE.READDIRPLUS:
      return readdir(request, vfs, reply, true);
    case OPCODE.READDIR:
      return readdir(request, vfs, reply, false);
    case OPCODE.GETATTR:
      vfs.getattr(slot, ino, reply.attr);
      putAttrOut(reply.words, PAYLOAD, reply.attr, reply.map);
      return reply.done(ATTR_OUT_SIZE);
    case OPCODE.GETXATTR:
    case OPCODE.LISTXATTR:
      return xattr(request, vfs, reply);
    case OPCODE.READLINK: {
      const target = vfs.readlink(slot, ino);
      return target.length > 4095 ? reply.error(ENAMETOOLONG) : reply.payload(target);
    }
    case OPCODE.STATX:
      vfs.getattr(slot, ino, reply.attr);
      putStatx(reply.words, PAYLOAD, reply.attr, reply.map);
      return reply.done(STATX_OUT_SIZE);
    case OPCODE.LSEEK:
      return lseek(request, vfs, reply);
    case OPCODE.STATFS:
      return statfs(vfs, reply);
    // Node ids hold no state: there is nothing to forget. An interrupt concerns only requests that wait for a miss, and
    // those lie with the main thread, which is told by the reader.
    case OPCODE.FORGET:
    case OPCODE.BATCH_FORGET:
    case OPCODE.INTERRUPT:
      return;
    // "Not implemented" is remembered by the kernel: one answer each, then files and folders are opened without us.
    case OPCODE.OPEN:
      if (request.length >= IN.OPEN.SIZE && (request.words[IN.OPEN.FLAGS]! & O_ACCMODE) !== 0)
        return reply.error(EROFS);
      return reply.error(ENOSYS);
    case OPCODE.OPENDIR:
    case OPCODE.ACCESS:
    case OPCODE.FLUSH:
    case OPCODE.FSYNC:
    case OPCODE.FSYNCDIR:
    case OPCODE.POLL:
    case OPCODE.BMAP:
    case OPCODE.SYNCFS:
      return reply.error(ENOSYS);
    case OPCODE.RELEASE:
    case OPCODE.RELEASEDIR:
    case OPCODE.DESTROY:
      return reply.error(0);
    case OPCODE.IOCTL:
      return reply.error(ENOTTY);
    case OPCODE.SETATTR:
    case OPCODE.SYMLINK:
    case OPCODE.MKNOD:
    case OPCODE.MKDIR:
    case OPCODE.UNLINK:
    case OPCODE.RMDIR:
    case OPCODE.RENAME:
    case OPCODE.RENAME2:
    case OPCODE.LINK:
    case OPCODE.WRITE:
    case OPCODE.SETXATTR:
    case OPCODE.REMOVEXATTR:
    case OPCODE.CREATE:
    case OPCODE.TMPFILE:
    case OPCODE.FALLOCATE:
    case OPCODE.COPY_FILE_RANGE:
    case OPCODE.COPY_FILE_RANGE_64:
      return reply.error(EROFS);
    default:
      return reply.error(ENOSYS);
  }
}

function lookup(request: Request, vfs: Vfs, reply: Reply): void {
  const name = request.name(IN_HEADER.SIZE);
  if (name === null || name.length === 0) return reply.error(EINVAL);
  if (name.length > NAME_MAX) return reply.error(ENAMETOOLONG);
  const slot = request.slot;
  const attr = reply.attr;
  const words = reply.words;
  // Slot 0 holds the folders that Rozen itself changes: there a name may appear later.
  attr.volatile = slot === 0;
  if (vfs.lookup(slot, request.ino, name, attr)) putEntry(words, PAYLOAD, attr, reply.map);
  else if (attr.volatile) return reply.error(ENOENT);
  else putNoEntry(words, PAYLOAD, NEGATIVE_TIMEOUT);
  reply.done(ENTRY_OUT_SIZE);
}

function read(request: Request, vfs: Vfs, reply: Reply): void {
  if (request.length < IN.READ.SIZE) return reply.error(EINVAL);
  reply.beginRead(get64(request.words, IN.READ.OFFSET), request.words[IN.READ.LENGTH]!);
  reply.range.direct = (request.words[IN.READ.FLAGS]! & constants.O_DIRECT) !== 0;
  vfs.read(request.slot, request.ino, reply.range);
  reply.endRead();
}

function readdir(request: Request, vfs: Vfs, reply: Reply, plus: boolean): void {
  if (request.length < IN.READ.SIZE) return reply.error(EINVAL);
  reply.beginListing(get64(request.words, IN.READ.OFFSET), request.words[IN.READ.LENGTH]!, plus);
  vfs.readdir(request.slot, request.ino, reply.listing);
  reply.endListing();
}

function xattr(request: Request, vfs: Vfs, reply: Reply): void {
  if (request.length < IN.GETXATTR.SIZE) return reply.error(EINVAL);
  let value: Uint8Array | null;
  if (request.opcode === OPCODE.LISTXATTR) value = vfs.listxattr(request.slot, request.ino);
  else {
    const name = request.name(IN.GETXATTR.SIZE);
    if (name === null || name.length === 0 || name.length > XATTR_NAME_MAX) return reply.error(EINVAL);
    value = vfs.getxattr(request.slot, request.ino, name);
  }
  if (value === null) return reply.error(ENODATA);
  const room = request.words[IN.GETXATTR.LENGTH]!;
  if (room === 0) {
    reply.words[PAYLOAD] = value.length;
    reply.words[PAYLOAD + 1] = 0;
    return reply.done(GETXATTR_OUT_SIZE);
  }
  if (value.length > room || value.length > MAX_PAYLOAD) return reply.error(ERANGE);
  reply.payload(value);
}

function lseek(request: Request, vfs: Vfs, reply: Reply): void {
  if (request.length < IN.LSEEK.SIZE) return reply.error(EINVAL);
  const whence = request.words[IN.LSEEK.WHENCE]!;
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return reply.error(EINVAL);
  put64(reply.words, PAYLOAD, vfs.lseek(request.slot, request.ino, get64(request.words, IN.LSEEK.OFFSET), whence));
  reply.done(LSEEK_OUT_SIZE);
}

/** struct fuse_statfs_out: a full disk that nobody can write to, as every read-only filesystem says. */
function statfs(vfs: Vfs, reply: Reply): void {
  const { blocks, blockSize, files } = vfs.statfs();
  const words = reply.words;
  words.fill(0, PAYLOAD, PAYLOAD + STATFS_OUT_SIZE / 4);
  put64(words, PAYLOAD, blocks);
  put64(words, PAYLOAD + 6, files);
  words[PAYLOAD + 10] = blockSize;
  words[PAYLOAD + 11] = 255;
  words[PAYLOAD + 12] = blockSize;
  reply.done(STATFS_OUT_SIZE);
}
