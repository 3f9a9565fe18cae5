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

/** Objects of a remote store that are gone through at once, where there are many: most are small, and then it is the waiting that counts. */
export const OBJECTS_AT_ONCE = 4;
/** A long range comes in GETs of this size. */
const GET_SIZE = 8 * 1024 * 1024;
/** Whoever goes through a remote object in order finds so many of them on their way. */
const AHEAD = 4;
/** Smaller reads are looks at single places; of an object that is not longer than this, one GET has all. */
const LOOK = 4096;
const SMALL = 512 * 1024;

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
  /** By number: pieces of GET_SIZE that were asked for. */
  const pieces = new Map<number, Promise<Buffer>>();
  let tail: Buffer = Buffer.alloc(0);
  const piece = (number: number): Promise<Buffer> => {
    let bytes = pieces.get(number);
    if (bytes === undefined) {
      const offset = number * GET_SIZE;
      bytes = store.getRange(name, offset, Math.min(GET_SIZE, size - offset));
      // Whoever comes to it meets the error.
      bytes.catch(() => {});
      pieces.set(number, bytes);
    }
    return bytes;
  };
  const read = async (offset: number, length: number): Promise<Buffer> => {
    const inside = offset >= 0 && length > 0 && offset + length <= size;
    if (!inside || (length <= LOOK && size > SMALL)) return store.getRange(name, offset, length);
    if (offset >= size - tail.length) {
      const at = offset - (size - tail.length);
      return tail.subarray(at, at + length);
    }
    const first = Math.floor(offset / GET_SIZE);
    const last = Math.floor((offset + length - 1) / GET_SIZE);
    for (const number of pieces.keys()) if (number < first) pieces.delete(number);
    for (let ahead = first; ahead <= last + AHEAD && ahead * GET_SIZE < size; ahead++) void piece(ahead);
    const parts: Buffer[] = [];
    for (let number = first; number <= last; number++) {
      const begin = number * GET_SIZE;
      parts.push((await piece(number)).subarray(Math.max(0, offset - begin), offset + length - begin));
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  };
  const suffix = async (length: number): Promise<{ bytes: Buffer; size: number }> => {
    const wanted = Math.min(length, size);
    if (wanted > 0 && size <= SMALL) return { bytes: await read(size - wanted, wanted), size };
    if (tail.length >= wanted) return { bytes: tail.subarray(tail.length - wanted), size };
    const got = await store.getSuffix(name, length);
    // Another size than a moment ago: for the reader to be surprised at.
    if (got.size === size) tail = got.bytes;
    return got;
  };
  return { name, size, read, suffix, close: () => pieces.clear() };
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
