import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { RangeSource } from '../../archive/reader.ts';
import { corrupt, RozenError } from '../../errors.ts';
import type { ObjectStore } from '../../store/object-store.ts';

/** An object that many small ranges are read of: one open file where the store is local. Close it. */
export interface ObjectFile extends RangeSource {
  readonly name: string;
  readonly size: number;
  close(): void;
}

/** Null when the object does not exist. */
export async function openObject(store: ObjectStore, name: string): Promise<ObjectFile | null> {
  const info = await store.stat(name);
  if (info === null) return null;
  const path = store.localPath(name);
  return path === null ? remoteFile(store, name, info.size) : localFile(name, path);
}

/** Requests to a remote store at once. */
export const PARALLEL_GETS = 16;
/** A long range comes in GETs of this size. */
const GET_SIZE = 8 * 1024 * 1024;
/** Whoever goes through a remote object in order finds so much of it on its way. */
const AHEAD_SIZE = 2 * 1024 * 1024;
const AHEAD = 4;
/** Smaller reads are looks at single places. */
const LOOK = 4096;

/** Bytes of a remote object by several GETs at once. */
export async function getParallel(
  store: ObjectStore,
  name: string,
  { offset, length }: { offset: number; length: number },
): Promise<Buffer> {
  const pieces: Promise<Buffer>[] = [];
  for (let at = 0; at < length; at += GET_SIZE) {
    pieces.push(store.getRange(name, offset + at, Math.min(GET_SIZE, length - at)));
  }
  const got = await Promise.all(pieces);
  return got.length === 1 ? got[0]! : Buffer.concat(got);
}

function remoteFile(store: ObjectStore, name: string, size: number): ObjectFile {
  /** By number: pieces of AHEAD_SIZE that were asked for. */
  const pieces = new Map<number, Promise<Buffer>>();
  const piece = (number: number): Promise<Buffer> => {
    let bytes = pieces.get(number);
    if (bytes === undefined) {
      const offset = number * AHEAD_SIZE;
      bytes = store.getRange(name, offset, Math.min(AHEAD_SIZE, size - offset));
      // Whoever comes to it meets the error.
      bytes.catch(() => {});
      pieces.set(number, bytes);
    }
    return bytes;
  };
  const read = async (offset: number, length: number): Promise<Buffer> => {
    const inside = offset >= 0 && length >= 0 && offset + length <= size;
    if (length <= LOOK || !inside) return store.getRange(name, offset, length);
    const first = Math.floor(offset / AHEAD_SIZE);
    const last = Math.floor((offset + length - 1) / AHEAD_SIZE);
    for (const number of pieces.keys()) if (number < first) pieces.delete(number);
    for (let ahead = first; ahead <= last + AHEAD && ahead * AHEAD_SIZE < size; ahead++) void piece(ahead);
    const parts: Buffer[] = [];
    for (let number = first; number <= last; number++) {
      const begin = number * AHEAD_SIZE;
      parts.push((await piece(number)).subarray(Math.max(0, offset - begin), offset + length - begin));
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  };
  return { name, size, read, suffix: (length) => store.getSuffix(name, length), close: () => pieces.clear() };
}

function localFile(name: string, path: string): ObjectFile {
  const fd = translate(name, () => openSync(path, 'r'));
  const { size } = fstatSync(fd);
  const read = async (offset: number, length: number): Promise<Buffer> => {
    if (offset < 0 || length < 0 || offset + length > size)
      throw corrupt(`${name}: ends at byte ${size}, expected at least ${offset + length}`);
    return translate(name, () => readRange(fd, offset, length, name));
  };
  return {
    name,
    size,
    read,
    suffix: async (length) => {
      const wanted = Math.min(length, size);
      return { bytes: await read(size - wanted, wanted), size };
    },
    close: () => closeSync(fd),
  };
}

/** Exactly these bytes of an open file; 'corrupt' when it ends before. */
export function readRange(fd: number, offset: number, length: number, name: string): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length; ) {
    const got = readSync(fd, bytes, done, length - done, offset + done);
    if (got === 0) throw corrupt(`${name}: ends at byte ${offset + done}, expected at least ${offset + length}`);
    done += got;
  }
  return bytes;
}

/** What the operating system refused becomes 'io', so that it can be a finding. */
export function translate<T>(name: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof RozenError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new RozenError('io', `${name}: cannot be read (${code})`, { cause: error, retryable: true });
  }
}
