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

function remoteFile(store: ObjectStore, name: string, size: number): ObjectFile {
  return {
    name,
    size,
    read: (offset, length) => store.getRange(name, offset, length),
    suffix: (length) => store.getSuffix(name, length),
    close: () => {},
  };
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
