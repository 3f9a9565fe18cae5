/**
 * Sealed frames of open archives, synchronously: from a local file in place, or from what was fetched before. One
 * instance of this state per thread; an archive is known by its handle, which the main thread gives out.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import type { ArchiveKind } from '../archive/format.ts';
import { maxFrameLength } from '../archive/frame.ts';
import { corrupt, RozenError } from '../errors.ts';
import { libc } from '../posix/libc.ts';
import { missFrame } from './miss.ts';

/** An open archive: all that any thread needs to read it. Plain data; the arrays may lie in shared memory. */
export interface ArchiveAccess {
  /** Number of this archive in this process, whatever snapshot or row it was opened through. Never used again. */
  handle: number;
  /** The snapshot and row that it was asked for by. */
  scope: string;
  row: number;
  id: Uint8Array;
  kind: ArchiveKind;
  /** Name of the object in its store. */
  object: string;
  /** The object as a local file, read in place; null when it must be fetched. */
  path: string | null;
  /** Bytes. */
  size: number;
  /** BLAKE3 of its AHDR frame. */
  headerHash: Uint8Array;
  blockKey: Uint8Array;
  /** File offset and length of each block; null for tree archives, whose pages are named by pointers. */
  blockOffsets: Float64Array | null;
  blockLengths: Uint32Array | null;
}

const MAX_FILES = 128;
/** Fetched frames that one thread keeps, in bytes. */
const MAX_FETCHED = 64 * 1024 * 1024;

/** Open files by handle, the oldest first. */
const files = new Map<number, number>();

/** Bytes of an archive that were fetched, the oldest first. */
interface Range {
  handle: number;
  offset: number;
  bytes: Buffer;
}
const fetched = new Set<Range>();
let fetchedBytes = 0;

/**
 * The frame at `offset`, `length` bytes, still sealed. Throws Miss when it must be fetched, 'corrupt' when the archive is
 * too short for it, 'io' when its file is gone or cannot be read.
 */
export function readFrame(access: ArchiveAccess, offset: number, length: number): Buffer {
  const inside = length > 0 && length <= maxFrameLength('PAGE') && offset >= 0 && offset + length <= access.size;
  if (!inside)
    throw corrupt(`${access.object}: a frame of ${length} bytes at ${offset}, but the archive has ${access.size}`);
  if (access.path !== null) return readFile(access, offset, length);
  for (const range of fetched) {
    if (range.handle !== access.handle || offset < range.offset) continue;
    const from = offset - range.offset;
    if (from + length <= range.bytes.length) return range.bytes.subarray(from, from + length);
  }
  throw missFrame(access.handle, offset, length);
}

const POSIX_FADV_WILLNEED = 3;

/**
 * Tells the kernel that these bytes of a local archive will be read soon; it reads them in the background. No error: this is a
 * hint. Threads read a large file in turn, each by a descriptor of its own, so that to the kernel none of them is sequential.
 */
export function hintFrames(access: ArchiveAccess, offset: number, length: number): void {
  if (access.path === null || process.platform !== 'linux') return;
  try {
    libc().posix_fadvise(openFile(access), offset, length, POSIX_FADV_WILLNEED);
  } catch {
    // Whoever really reads the file will meet the error and tell of it.
  }
}

/** Keeps bytes of an archive for `readFrame`; what came first goes first when there is too much. */
export function keepFetched(handle: number, offset: number, bytes: Buffer): void {
  fetched.add({ handle, offset, bytes });
  fetchedBytes += bytes.length;
  for (const range of fetched) {
    if (fetchedBytes <= MAX_FETCHED || fetched.size === 1) break;
    fetched.delete(range);
    fetchedBytes -= range.bytes.length;
  }
}

/** Closes the files and drops the fetched bytes of these archives, in this thread. */
export function closeArchives(handles: Iterable<number>): void {
  const gone = new Set(handles);
  for (const handle of gone) forgetFile(handle);
  for (const range of fetched) {
    if (!gone.has(range.handle)) continue;
    fetched.delete(range);
    fetchedBytes -= range.bytes.length;
  }
}

function readFile(access: ArchiveAccess, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  let done = 0;
  try {
    const fd = openFile(access);
    while (done < length) {
      const read = readSync(fd, bytes, done, length - done, offset + done);
      if (read === 0) break;
      done += read;
    }
  } catch (cause) {
    // A disk that went away and came back is read through a new descriptor only.
    forgetFile(access.handle);
    throw new RozenError('io', `${access.object}: cannot be read (${(cause as NodeJS.ErrnoException).code})`, {
      hint: `see whether ${access.path} is there and readable`,
      cause,
      retryable: true,
    });
  }
  if (done < length)
    throw corrupt(`${access.object}: cut off at ${offset + done}, a frame goes on to ${offset + length}`);
  return bytes;
}

function openFile(access: ArchiveAccess): number {
  let fd = files.get(access.handle);
  if (fd !== undefined) return fd;
  if (files.size >= MAX_FILES) forgetFile(files.keys().next().value!);
  for (;;) {
    try {
      fd = openSync(access.path!, 'r');
      files.set(access.handle, fd);
      return fd;
    } catch (error) {
      // Too many open files, here or on the whole machine: then with as many as there may be.
      const { code } = error as NodeJS.ErrnoException;
      if ((code !== 'EMFILE' && code !== 'ENFILE') || files.size === 0) throw error;
      forgetFile(files.keys().next().value!);
    }
  }
}

function forgetFile(handle: number): void {
  const fd = files.get(handle);
  files.delete(handle);
  if (fd !== undefined) closeSync(fd);
}
