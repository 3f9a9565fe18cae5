/** What goes between the main thread and the workers of a restore. A batch is two arrays, whatever it holds. */
import type { ArchiveAccess } from '../../cache/frames.ts';
import type { ErrorCode } from '../../errors.ts';
import type { Wanted, Xattr } from './settle.ts';
import type { RestoreNotice } from './types.ts';

export interface WorkerSetup {
  verify: boolean;
  /** Begins the temporary names of this restore. */
  temporary: string;
  /** Written by the worker, read by the main thread for progress: files and bytes done. */
  done: Float64Array;
}

/** A piece of content. `archive` is a handle, 0: a hole. */
export interface Piece {
  offset: number;
  length: number;
  archive: number;
  streamOffset: number;
}

/** A regular file to restore. */
export interface FileItem extends Wanted {
  inode: number;
  name: Buffer;
  size: number;
  pieces: readonly Piece[];
}

export interface Batch {
  /** Descriptors of folders; files name them by place. */
  folders: Int32Array;
  /** Of each folder: the group of files that are made there. */
  groups: Uint32Array;
  numbers: Float64Array;
  bytes: Uint8Array;
  count: number;
}

export type ToWorker =
  | { kind: 'batch'; batch: Batch }
  | { kind: 'archive'; access: ArchiveAccess }
  | { kind: 'frame'; handle: number; offset: number; bytes: Uint8Array }
  | { kind: 'no-frame'; handle: number; offset: number; code: ErrorCode; message: string };

interface FileProblem {
  /** Place in the batch. */
  file: number;
  inode: number;
  kind: 'corrupt' | 'occupied' | 'failed';
  message: string;
}

export interface BatchResult {
  created: number;
  replaced: number;
  kept: number;
  bytesRestored: number;
  bytesKept: number;
  problems: FileProblem[];
  notices: RestoreNotice[];
  /** Why going on makes no sense, such as a full disk. */
  fatal: string | null;
}

export type FromWorker =
  | { kind: 'done'; result: BatchResult }
  | { kind: 'miss'; handle: number; offset: number; length: number }
  | { kind: 'broken'; message: string };

const FILE_NUMBERS = 11;
const PIECE_NUMBERS = 4;

export function encodeBatch(items: readonly { item: FileItem; folder: number }[]): Pick<Batch, 'numbers' | 'bytes'> {
  let count = 0;
  let size = 0;
  for (const { item } of items) {
    count += FILE_NUMBERS + item.pieces.length * PIECE_NUMBERS + item.xattrs.length * 2;
    size += item.name.length + 1;
    for (const { name, value } of item.xattrs) size += name.length + value.length;
  }
  const numbers = new Float64Array(count);
  const bytes = new Uint8Array(size);
  let n = 0;
  let b = 0;
  const put = (part: Uint8Array): void => {
    bytes.set(part, b);
    b += part.length;
  };
  for (const { item, folder } of items) {
    numbers[n++] = folder;
    numbers[n++] = item.inode;
    numbers[n++] = item.mode;
    numbers[n++] = item.uid;
    numbers[n++] = item.gid;
    numbers[n++] = item.size;
    numbers[n++] = item.mtimeSec;
    numbers[n++] = item.mtimeNs;
    numbers[n++] = item.name.length;
    numbers[n++] = item.pieces.length;
    numbers[n++] = item.xattrs.length;
    put(item.name);
    // The NUL that C wants behind a name.
    b++;
    for (const piece of item.pieces) {
      numbers[n++] = piece.offset;
      numbers[n++] = piece.length;
      numbers[n++] = piece.archive;
      numbers[n++] = piece.streamOffset;
    }
    for (const { name, value } of item.xattrs) {
      numbers[n++] = name.length;
      numbers[n++] = value.length;
      put(name);
      put(value);
    }
  }
  return { numbers, bytes };
}

/** The files of a batch in order. `nameZ` is the name with its NUL; byte strings are views of the batch. */
export function* decodeBatch(
  batch: Batch,
): Generator<{ item: FileItem; folder: number; nameZ: Buffer }, void, undefined> {
  const { numbers } = batch;
  const bytes = Buffer.from(batch.bytes.buffer, batch.bytes.byteOffset, batch.bytes.byteLength);
  let n = 0;
  let b = 0;
  for (let i = 0; i < batch.count; i++) {
    const folder = numbers[n]!;
    const nameLength = numbers[n + 8]!;
    const pieceCount = numbers[n + 9]!;
    const xattrCount = numbers[n + 10]!;
    const pieces: Piece[] = [];
    const xattrs: Xattr[] = [];
    const nameZ = bytes.subarray(b, b + nameLength + 1);
    const item: FileItem = {
      inode: numbers[n + 1]!,
      mode: numbers[n + 2]!,
      uid: numbers[n + 3]!,
      gid: numbers[n + 4]!,
      size: numbers[n + 5]!,
      mtimeSec: numbers[n + 6]!,
      mtimeNs: numbers[n + 7]!,
      name: nameZ.subarray(0, nameLength),
      pieces,
      xattrs,
    };
    b += nameLength + 1;
    n += FILE_NUMBERS;
    for (let p = 0; p < pieceCount; p++) {
      pieces.push({
        offset: numbers[n]!,
        length: numbers[n + 1]!,
        archive: numbers[n + 2]!,
        streamOffset: numbers[n + 3]!,
      });
      n += PIECE_NUMBERS;
    }
    for (let x = 0; x < xattrCount; x++) {
      const nameEnd = b + numbers[n]!;
      const valueEnd = nameEnd + numbers[n + 1]!;
      xattrs.push({ name: bytes.subarray(b, nameEnd), value: bytes.subarray(nameEnd, valueEnd) });
      b = valueEnd;
      n += 2;
    }
    yield { item, folder, nameZ };
  }
}
