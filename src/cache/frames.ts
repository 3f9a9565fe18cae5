/**
 * Sealed frames of open archives, synchronously: from a local file in place, from what was fetched lately, or from the
 * block cache. One instance of this state per thread; an archive is known by its handle, which the main thread gives out.
 */
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { type ArchiveKind, KIND_DATA } from '../archive/format.ts';
import { maxFrameLength } from '../archive/frame.ts';
import { corrupt, RozenError } from '../errors.ts';
import { willNeed } from '../posix/advice.ts';
import { check, libc } from '../posix/libc.ts';
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
  /**
   * The part of the stream that the row means, in bytes: all of it, or what an archive became that was merged into this one. Stream
   * offsets of extents count from `streamStart`; see `placeInStream`.
   */
  streamStart: number;
  streamEnd: number;
}

/** Where a range of content lies in the stream of the archive. 'corrupt' when it ends beyond what the row means. */
export function placeInStream(access: ArchiveAccess, offset: number, length: number): number {
  const place = access.streamStart + offset;
  if (place + length > access.streamEnd)
    throw corrupt(
      `${access.object}: content ends at ${place + length} in its stream, what was merged at ${access.streamEnd}`,
    );
  return place;
}

/** Where frames of remote archives lie on this machine; any thread may have one. */
export interface FrameCache {
  /** The frame, valid until the next call; null when it is not there. */
  frame(access: ArchiveAccess, offset: number): Buffer | null;
}

const MAX_FILES = 128;
/** Fetched frames that one thread keeps, in bytes: what is read ahead for two readers at once, and a half more. */
const MAX_FETCHED = 96 * 1024 * 1024;

/** Open files by handle, the oldest first. */
const files = new Map<number, number>();

/** Frames that were fetched, by handle and offset; `arrivals` has them with the oldest first. */
const fetched = new Map<number, Map<number, Buffer>>();
const arrivals: { handle: number; offset: number; bytes: Buffer }[] = [];
let firstArrival = 0;
let fetchedBytes = 0;

const caches = new Set<FrameCache>();

/** From now on `readFrame` of this thread looks there too. */
export function addFrameCache(cache: FrameCache): void {
  caches.add(cache);
}

export function removeFrameCache(cache: FrameCache): void {
  caches.delete(cache);
}

/**
 * The frame at `offset`, `length` bytes, still sealed; valid until the next call. Throws Miss when it must be fetched (together with what
 * follows, `until` that offset), 'corrupt' when the archive is too short for it, 'io' when its file is gone or cannot be read.
 */
export function readFrame(access: ArchiveAccess, offset: number, length: number, until = 0): Buffer {
  const inside = length > 0 && length <= maxFrameLength('PAGE') && offset >= 0 && offset + length <= access.size;
  if (!inside)
    throw corrupt(`${access.object}: a frame of ${length} bytes at ${offset}, but the archive has ${access.size}`);
  if (access.path !== null) return readFile(access, offset, length);
  const kept = fetched.get(access.handle)?.get(offset);
  if (kept?.length === length) return kept;
  for (const cache of caches) {
    const cached = cache.frame(access, offset);
    if (cached?.length === length) return cached;
  }
  throw missFrame(access.handle, offset, length, until);
}

/**
 * Tells the kernel that these bytes of a local archive will be read soon. No error: this is a hint. Threads read a large file in turn,
 * each by a descriptor of its own, so that to the kernel none of them is sequential.
 */
export function hintFrames(access: ArchiveAccess, offset: number, length: number): void {
  if (access.path === null) return;
  try {
    willNeed(openFile(access), offset, length);
  } catch {
    // Whoever really reads the file will meet the error and tell of it.
  }
}

/** Whether `readFrame` has been given this frame by `keepFetched` and still holds it. */
export function isFetched(handle: number, offset: number, length: number): boolean {
  return fetched.get(handle)?.get(offset)?.length === length;
}

/** Keeps a fetched frame for `readFrame` of this thread; what came first goes first when there is too much. */
export function keepFetched(handle: number, offset: number, bytes: Buffer): void {
  let frames = fetched.get(handle);
  if (frames === undefined) {
    frames = new Map();
    fetched.set(handle, frames);
  }
  const before = frames.get(offset);
  if (before?.length === bytes.length) return;
  frames.set(offset, bytes);
  arrivals.push({ handle, offset, bytes });
  fetchedBytes += bytes.length;
  while (fetchedBytes > MAX_FETCHED && firstArrival < arrivals.length - 1) dropOldest();
  if (firstArrival < COMPACT) return;
  arrivals.splice(0, firstArrival);
  firstArrival = 0;
}

/** Forgets a frame, so that it is fetched anew. */
export function dropFetched(handle: number, offset: number): void {
  fetched.get(handle)?.delete(offset);
}

function dropOldest(): void {
  const { handle, offset, bytes } = arrivals[firstArrival]!;
  arrivals[firstArrival++] = NOTHING;
  fetchedBytes -= bytes.length;
  const frames = fetched.get(handle);
  if (frames?.get(offset) === bytes) frames.delete(offset);
  if (frames?.size === 0) fetched.delete(handle);
}

/** So many dropped arrivals are taken out of the list together. */
const COMPACT = 1024;
const NOTHING = { handle: 0, offset: 0, bytes: Buffer.alloc(0) };

/** Closes the files and drops the fetched frames of these archives, in this thread. */
export function closeArchives(handles: Iterable<number>): void {
  const gone = new Set(handles);
  for (const handle of gone) {
    forgetFile(handle);
    fetched.delete(handle);
  }
  const left = arrivals.slice(firstArrival).filter(({ handle }) => !gone.has(handle));
  arrivals.length = 0;
  firstArrival = 0;
  for (const arrival of left) arrivals.push(arrival);
  fetchedBytes = left.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** Of this thread: fresh memory for each frame would cost 30 µs, a tenth of the decoding. */
let scratch = Buffer.allocUnsafeSlow(512 * 1024);

function readFile(access: ArchiveAccess, offset: number, length: number): Buffer {
  if (scratch.length < length) scratch = Buffer.allocUnsafeSlow(length);
  const bytes = scratch.subarray(0, length);
  let done = 0;
  try {
    const fd = openFile(access);
    // By the C library: fs.readSync takes 2 µs more.
    const { pread } = libc();
    while (done < length) {
      const read = check(pread(fd, bytes.subarray(done), length - done, offset + done), 'pread', access.path!);
      if (read === 0) break;
      done += read;
    }
  } catch (cause) {
    // A disk that went away and came back is read through a new descriptor only.
    forgetFile(access.handle);
    // Merged into another archive, maybe: the main thread knows, or finds it missing.
    const gone = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    if (gone && access.kind === KIND_DATA) throw missFrame(access.handle, offset, length);
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

/**
 * What `work` makes of frames of an archive. Once more when it finds them damaged in a file that is no longer the archive's, as a good copy took
 * its place since it was opened.
 */
export function reading<T>(access: ArchiveAccess, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!isReplaced(access, error)) throw error;
    forgetFile(access.handle);
    return work();
  }
}

function isReplaced({ handle, path }: ArchiveAccess, error: unknown): boolean {
  const fd = files.get(handle);
  if (fd === undefined || path === null || !(error instanceof RozenError) || error.code !== 'corrupt') return false;
  const [open, there] = [fstatSync(fd), statSync(path, { throwIfNoEntry: false })];
  return there !== undefined && (there.ino !== open.ino || there.dev !== open.dev);
}

/** Closes what was removed from its folder since it was opened (a compaction's sources), so that the disk gets its space back. */
export function closeRemoved(): void {
  for (const [handle, fd] of files) if (fstatSync(fd).nlink === 0) forgetFile(handle);
}

function forgetFile(handle: number): void {
  const fd = files.get(handle);
  files.delete(handle);
  if (fd !== undefined) closeSync(fd);
}
