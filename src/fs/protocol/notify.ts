/** Messages to the kernel that answer no request: "forget what you know about this". */
import { NOTIFY, OUT_HEADER, put64, putNode } from './abi.ts';

const INVAL_INODE_SIZE = 24;
const INVAL_ENTRY_SIZE = 16;

function message(code: number, size: number): { bytes: Buffer; words: Uint32Array } {
  const total = OUT_HEADER.SIZE + size;
  const memory = new ArrayBuffer((total + 7) & ~7);
  const words = new Uint32Array(memory);
  words[OUT_HEADER.LEN] = total;
  words[OUT_HEADER.ERROR] = code;
  return { bytes: Buffer.from(memory, 0, total), words };
}

/**
 * NOTIFY_INVAL_INODE: attributes, and the cached pages from `offset` to the end (of a folder: its listing). An offset
 * below 0 drops the attributes only.
 */
export function invalidateInode(slot: number, ino: number, offset: number): Buffer {
  const { bytes, words } = message(NOTIFY.INVAL_INODE, INVAL_INODE_SIZE);
  putNode(words, OUT_HEADER.WORDS, slot, ino);
  put64(words, OUT_HEADER.WORDS + 2, offset);
  return bytes;
}

/** NOTIFY_INVAL_ENTRY: one name in a folder. */
export function invalidateEntry(slot: number, ino: number, name: Uint8Array): Buffer {
  const { bytes, words } = message(NOTIFY.INVAL_ENTRY, INVAL_ENTRY_SIZE + name.length + 1);
  putNode(words, OUT_HEADER.WORDS, slot, ino);
  words[OUT_HEADER.WORDS + 2] = name.length;
  bytes.set(name, OUT_HEADER.SIZE + INVAL_ENTRY_SIZE);
  return bytes;
}
