/** Names of what the block cache holds. The first byte tells the kind; below 0x10 the database's own iteration skips keys. */
import { ARCHIVE_ID_SIZE } from '../archive/format.ts';

const FRAME = 0x10;
const TAIL = 0x11;
const OBJECT = 0x12;

const FRAME_KEY_SIZE = 1 + ARCHIVE_ID_SIZE + 8;

/** A sealed frame, by archive and file offset. */
export function frameKey(id: Uint8Array, offset: number): Buffer {
  const key = Buffer.allocUnsafe(FRAME_KEY_SIZE);
  key[0] = FRAME;
  key.set(id, 1);
  key.writeUInt32BE(Math.floor(offset / 2 ** 32), 1 + ARCHIVE_ID_SIZE);
  key.writeUInt32BE(offset >>> 0, 1 + ARCHIVE_ID_SIZE + 4);
  return key;
}

export function isFrameKey(key: Uint8Array): boolean {
  return key[0] === FRAME;
}

/** The end of an archive, or of its hot index: what opens it. */
export function tailKey(id: Uint8Array, hotIndex: boolean): Buffer {
  return Buffer.from([TAIL, ...id, hotIndex ? 1 : 0]);
}

/** A small object of a repository, whole. */
export function objectKey(repositoryId: Uint8Array, name: string): Buffer {
  return Buffer.concat([Buffer.from([OBJECT]), repositoryId, Buffer.from(name)]);
}

/** Content blocks go first; what names and opens things (pages, tails, records) goes last. */
export const CLASS_BLOCK = 0;
export const CLASS_KEEP = 1;
export type CacheClass = typeof CLASS_BLOCK | typeof CLASS_KEEP;

export type CacheKind = 'blocks' | 'pages' | 'tails' | 'objects';

/** What a key names, as `cache stats` counts it; `data` tells blocks of content from pages and headers. */
export function kindOf(key: Uint8Array, data: boolean): CacheKind {
  if (key[0] === FRAME) return data ? 'blocks' : 'pages';
  return key[0] === TAIL ? 'tails' : 'objects';
}
