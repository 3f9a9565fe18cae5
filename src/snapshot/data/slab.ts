/**
 * Memory that the main thread and its workers share. A slab carries one batch of files (or one piece of a large file)
 * there and back: paths and expectations in, bytes, chunk cuts and ids out. A slot carries one block to be sealed. Only
 * small numbers travel as messages, no object per file.
 */
import { BLOCK_SIZE, HASH_SIZE } from '../../archive/format.ts';
import { sealedFrameLength } from '../../archive/frame.ts';

/** Bytes of file content in one slab; larger files come in pieces. */
export const SLAB_DATA = 4 * 1024 * 1024;
/** Files in one batch, so that a batch of tiny files takes some 10 ms of a worker. */
export const SLAB_FILES = 256;
/** Path bytes in one batch; one path always fits. */
export const SLAB_PATHS = 64 * 1024;
/** Chunks in one batch or piece: one for each file and one for each CHUNK_MIN of content, and room for sparse files. */
export const SLAB_CHUNKS = 1024;
/** The longest path that a file is opened by, NUL excluded (PATH_MAX). */
export const MAX_PATH = 4095;

/** Columns of `Slab.files`, one row of FILE_WIDTH numbers for each file. */
export const FILE = {
  /* in */
  pathEnd: 0,
  sparse: 1,
  trusted: 12,
  /* in: of the file that was walked; out: of the one that was read */
  dev: 4,
  ino: 5,
  /* out */
  status: 2,
  errno: 3,
  actualSize: 6,
  mtimeSec: 7,
  mtimeNs: 8,
  chunkEnd: 9,
  retries: 10,
  /** 1: its first chunk is the head of a media file. */
  media: 11,
} as const;
export const FILE_WIDTH = 13;

/** Columns of `Slab.chunks`. */
export const CHUNK = {
  /** Where its bytes lie in `Slab.data`. */
  at: 0,
  length: 1,
  /** Where they lie in the file. */
  offset: 2,
} as const;
export const CHUNK_WIDTH = 3;

/** FILE.status */
export const STATUS = {
  stored: 0,
  /** Different before and after each of the reads. */
  changed: 1,
  vanished: 2,
  /** FILE.errno says why, negative as in Node. */
  unreadable: 3,
  /** Grew beyond the room in the slab (or sparse): to be read piece by piece. */
  deferred: 4,
  /** A piece that is not the last one. */
  more: 5,
} as const;

export interface Slab {
  memory: SharedArrayBuffer;
  data: Uint8Array;
  paths: Uint8Array;
  files: Float64Array;
  chunks: Float64Array;
  /** Ids of the chunks, 32 bytes each. */
  ids: Uint8Array;
  /** Ids of the whole contents, 32 bytes for each file. */
  contentIds: Uint8Array;
}

const SIZES = {
  files: SLAB_FILES * FILE_WIDTH * 8,
  chunks: SLAB_CHUNKS * CHUNK_WIDTH * 8,
  ids: SLAB_CHUNKS * HASH_SIZE,
  contentIds: SLAB_FILES * HASH_SIZE,
};
const SLAB_SIZE = SIZES.files + SIZES.chunks + SIZES.ids + SIZES.contentIds + SLAB_PATHS + SLAB_DATA;

/** Views of a slab, in a new shared buffer or in one that came from the other thread. */
export function openSlab(memory: SharedArrayBuffer = new SharedArrayBuffer(SLAB_SIZE)): Slab {
  let end = 0;
  const take = (size: number): number => {
    end += size;
    return end - size;
  };
  const numbers = (size: number) => new Float64Array(memory, take(size), size / 8);
  const bytes = (size: number) => new Uint8Array(memory, take(size), size);
  return {
    memory,
    files: numbers(SIZES.files),
    chunks: numbers(SIZES.chunks),
    ids: bytes(SIZES.ids),
    contentIds: bytes(SIZES.contentIds),
    paths: bytes(SLAB_PATHS),
    data: bytes(SLAB_DATA),
  };
}

/** A sealed block may be longer than its plaintext: headers, hashes, tag. */
const FRAME_ROOM = sealedFrameLength(BLOCK_SIZE);

export interface Slot {
  memory: SharedArrayBuffer;
  plain: Uint8Array;
  frame: Uint8Array;
}

export function openSlot(memory: SharedArrayBuffer = new SharedArrayBuffer(BLOCK_SIZE + FRAME_ROOM)): Slot {
  return {
    memory,
    plain: new Uint8Array(memory, 0, BLOCK_SIZE),
    frame: new Uint8Array(memory, BLOCK_SIZE, FRAME_ROOM),
  };
}
