/**
 * Records in the stream of a data archive: enough to salvage files by name when every tree is lost. Normal reading never
 * looks at them: extents point at the bytes between. Every record begins with
 *
 *   offset  size  field
 *        0     4  type, ASCII
 *        4     4  b, length of the body that follows this header
 *        8     4  c, length of the content that follows the body
 *
 *   FHDR  a file begins.   body: link id 16, file size 8, folder length 2, name length 2, folder, name (bytes as in the source); c = 0
 *   FCNT  chunks of it.    body: link id 16, count 4, count × (content id 32, ordinal 4, length 4); c = sum of the lengths
 *   FEND  its tally.       body: link id 16, file size 8, index of the first chunk listed 8, count 4, flags 4, count × (content id 32,
 *                          ordinal 4, length 4), then the whole-content id 32 if flag 1; c = 0. Flag 2: more tallies follow.
 *                          A tally of no chunks stands for "the chunks of its FCNT records in this stream, in order".
 *   PAD_  nothing.         b = 0; c zeros
 *
 * A type that is not known is skipped by its lengths. Encoders and the parser stand side by side here.
 */
import { randomBytes } from 'node:crypto';
import { corrupt, RozenError } from '../errors.ts';
import type { Chunk } from './chunk-table.ts';
import { readUint53, writeUint53 } from './columns.ts';
import {
  BLOCK_SIZE,
  HASH_SIZE,
  LINK_ID_SIZE,
  MAX_CHUNK,
  MAX_RECORD_BODY,
  MAX_RECORD_CONTENT,
  NO_RECORD,
  RECORD_HEADER_SIZE,
} from './format.ts';

const FHDR_FIXED = LINK_ID_SIZE + 8 + 2 + 2;
const FCNT_FIXED = LINK_ID_SIZE + 4;
const FEND_FIXED = LINK_ID_SIZE + 8 + 8 + 4 + 4;
const CHUNK_ENTRY = HASH_SIZE + 4 + 4;
const FLAG_CONTENT_ID = 1;
const FLAG_MORE = 2;

/** Chunks that one tally can list; a longer list goes on in the next FEND. */
export const MAX_TALLY = Math.floor((MAX_RECORD_BODY - FEND_FIXED - HASH_SIZE) / CHUNK_ENTRY);

export type ChunkEntry = Omit<Chunk, 'offset'>;

/** Link ids that compress: 12 random bytes for a run, then a counter. Unique, not secret. */
export class LinkIds {
  readonly #prefix = randomBytes(12);
  #next = 0;

  next(): Buffer {
    const id = Buffer.allocUnsafe(LINK_ID_SIZE);
    this.#prefix.copy(id);
    id.writeUInt32BE(this.#next++, 12);
    return id;
  }
}

/* ---- Encoders: each gives the bytes before the content ------------------------------------------------------- */

function begin(type: string, bodyLength: number, contentLength: number): Buffer {
  if (bodyLength > MAX_RECORD_BODY || contentLength > MAX_RECORD_CONTENT) {
    throw new RozenError('internal', `a ${type} record of ${bodyLength} and ${contentLength} bytes`);
  }
  // Every byte is written: here, by the caller.
  const bytes = Buffer.allocUnsafe(RECORD_HEADER_SIZE + bodyLength);
  bytes.write(type, 0, 'latin1');
  bytes.writeUInt32LE(bodyLength, 4);
  bytes.writeUInt32LE(contentLength, 8);
  return bytes;
}

/** FHDR. Of a folder longer than 65,535 bytes only the end is kept: it is a help for salvage, not the tree. */
export function fileHeaderRecord(file: {
  link: Uint8Array;
  size: number;
  folder: Uint8Array;
  name: Uint8Array;
}): Buffer {
  const folder = file.folder.subarray(Math.max(0, file.folder.length - 0xffff));
  const name = file.name.subarray(0, 0xffff);
  const bytes = begin('FHDR', FHDR_FIXED + folder.length + name.length, 0);
  let at = RECORD_HEADER_SIZE;
  bytes.set(file.link, at);
  writeUint53(bytes, file.size, at + 16);
  bytes.writeUInt16LE(folder.length, at + 24);
  bytes.writeUInt16LE(name.length, at + 26);
  at += FHDR_FIXED;
  bytes.set(folder, at);
  bytes.set(name, at + folder.length);
  return bytes;
}

/** Bytes of an FCNT record before its content. */
export function contentRecordSize(chunks: number): number {
  return RECORD_HEADER_SIZE + FCNT_FIXED + chunks * CHUNK_ENTRY;
}

/** FCNT without its content: the bytes of the chunks follow, in this order. */
export function contentRecord(link: Uint8Array, chunks: readonly ChunkEntry[]): Buffer {
  const content = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const bytes = begin('FCNT', FCNT_FIXED + chunks.length * CHUNK_ENTRY, content);
  bytes.set(link, RECORD_HEADER_SIZE);
  bytes.writeUInt32LE(chunks.length, RECORD_HEADER_SIZE + LINK_ID_SIZE);
  writeChunks(bytes, RECORD_HEADER_SIZE + FCNT_FIXED, chunks);
  return bytes;
}

/**
 * FEND. `chunks` is left out when the file is its FCNT records in this stream and nothing else; otherwise it lists all chunks,
 * also those that lie in other archives, in several records if there are more than MAX_TALLY.
 */
export function fileEndRecord(file: {
  link: Uint8Array;
  size: number;
  chunks?: readonly ChunkEntry[];
  /** Whole-content id, for files of more than one chunk. */
  contentId?: Uint8Array | undefined;
  /** Index in the file of `chunks[0]`, for a tally that is written part by part; `more`: this is not the last part. */
  first?: number;
  more?: boolean;
}): Buffer {
  const { link, size, chunks = [], contentId, first: base = 0 } = file;
  const records: Buffer[] = [];
  let first = 0;
  do {
    const part = chunks.slice(first, first + MAX_TALLY);
    const more = file.more === true || first + part.length < chunks.length;
    const hasId = !more && contentId !== undefined;
    const bytes = begin('FEND', FEND_FIXED + part.length * CHUNK_ENTRY + (hasId ? HASH_SIZE : 0), 0);
    const at = RECORD_HEADER_SIZE;
    bytes.set(link, at);
    writeUint53(bytes, size, at + 16);
    writeUint53(bytes, base + first, at + 24);
    bytes.writeUInt32LE(part.length, at + 32);
    bytes.writeUInt32LE((hasId ? FLAG_CONTENT_ID : 0) | (more ? FLAG_MORE : 0), at + 36);
    const end = writeChunks(bytes, at + FEND_FIXED, part);
    if (hasId) bytes.set(contentId, end);
    records.push(bytes);
    first += part.length;
  } while (first < chunks.length);
  return records.length === 1 ? records[0]! : Buffer.concat(records);
}

function writeChunks(bytes: Buffer, at: number, chunks: readonly ChunkEntry[]): number {
  for (const chunk of chunks) {
    bytes.set(chunk.id, at);
    bytes.writeUInt32LE(chunk.ordinal, at + HASH_SIZE);
    bytes.writeUInt32LE(chunk.length, at + HASH_SIZE + 4);
    at += CHUNK_ENTRY;
  }
  return at;
}

/**
 * PAD_, whole, so that `offset` (the stream offset where it begins) plus its length plus `following` is a multiple of BLOCK_SIZE:
 * `following` is the length of the record heads that come before the content which is to be aligned. Empty if nothing is to be done.
 */
export function padRecord(offset: number, following = 0): Buffer {
  const past = (offset + following) % BLOCK_SIZE;
  if (past === 0) return Buffer.alloc(0);
  let length = BLOCK_SIZE - past;
  // Not even a header fits: one block more. It is zeros, and compresses to nothing.
  if (length < RECORD_HEADER_SIZE) length += BLOCK_SIZE;
  const bytes = Buffer.alloc(length);
  begin('PAD_', 0, length - RECORD_HEADER_SIZE).copy(bytes);
  return bytes;
}

/* ---- Parser ----------------------------------------------------------------------------------------------------- */

/** One decoded block of the stream. Blocks come in order; some may be missing. */
export interface StreamBlock {
  /** Stream offset of its first byte. */
  offset: number;
  bytes: Uint8Array;
  /** From its inner header: where the first record begins in it, or NO_RECORD. */
  firstRecord: number;
}

export type RecordEvent =
  | { event: 'file'; offset: number; link: Buffer; size: number; folder: Buffer; name: Buffer }
  /** All bytes of a chunk have passed. `bytes` only if content was asked for. */
  | { event: 'chunk'; link: Buffer; id: Buffer; ordinal: number; offset: number; length: number; bytes?: Buffer }
  | {
      event: 'end';
      offset: number;
      link: Buffer;
      size: number;
      /** Index of the first chunk listed. */
      first: number;
      /** Empty: the chunks of the FCNT records. */
      chunks: ChunkEntry[];
      contentId: Buffer | null;
      more: boolean;
    }
  /** A record that began at `offset` and never ended: a crash, or damage. Its chunks that were whole have been told. */
  | { event: 'torn'; offset: number; type: string };

interface OpenRecord {
  type: string;
  offset: number;
  /** Bytes of the header and body wanted before they can be read. */
  wanted: number;
  head: Buffer[];
  headLength: number;
  /** Content bytes that follow, and how many passed. */
  content: number;
  passed: number;
  link: Buffer;
  chunks: ChunkEntry[];
  chunkIndex: number;
  chunkPassed: number;
  chunkBytes: Buffer[];
}

/**
 * Parses a stream that is pushed block by block. Every block says where the first record begins in it: if that is not where
 * the record before ends, that one is torn (a crash, a lost block), and parsing goes on from there.
 */
export class RecordParser {
  readonly #content: boolean;
  #open: OpenRecord | null = null;
  /** Where the next byte is expected. */
  #position = 0;
  /** The place in the stream is known: records can be read. */
  #synced = false;

  constructor(options: { content: boolean } = { content: false }) {
    this.#content = options.content;
  }

  push(block: StreamBlock): RecordEvent[] {
    const events: RecordEvent[] = [];
    const bytes = Buffer.from(block.bytes.buffer, block.bytes.byteOffset, block.bytes.byteLength);
    const first = block.firstRecord === NO_RECORD ? bytes.length : block.firstRecord;
    if (first > bytes.length) throw corrupt(`stream block at ${block.offset}: first record at ${first}`);
    let at = 0;
    if (!this.#synced || block.offset !== this.#position) {
      this.#tear(events);
      if (block.firstRecord === NO_RECORD) {
        this.#synced = false;
        return events;
      }
      this.#synced = true;
      at = first;
    }
    // The front of the block belongs to the record that is open, up to the first one that begins here.
    if (this.#open !== null && at < first) at = this.#feed(bytes, at, first, block.offset, events);
    if (this.#open !== null ? first < bytes.length : at < first) {
      this.#tear(events);
      at = first;
    }
    while (at < bytes.length) {
      this.#open ??= newRecord(block.offset + at);
      const before = at;
      at = this.#feed(bytes, at, bytes.length, block.offset, events);
      if (at === before) break;
      if (!this.#synced) return events;
    }
    this.#position = block.offset + bytes.length;
    return events;
  }

  /** The stream is over. */
  end(): RecordEvent[] {
    const events: RecordEvent[] = [];
    this.#tear(events);
    return events;
  }

  #tear(events: RecordEvent[]): void {
    if (this.#open !== null) events.push({ event: 'torn', offset: this.#open.offset, type: this.#open.type });
    this.#open = null;
  }

  /** Gives the open record what it wants of bytes[at, end); returns where it stopped. A record that ends is closed. */
  #feed(bytes: Buffer, at: number, end: number, base: number, events: RecordEvent[]): number {
    const record = this.#open!;
    while (at < end && record.headLength < record.wanted) {
      const take = Math.min(end - at, record.wanted - record.headLength);
      record.head.push(Buffer.from(bytes.subarray(at, at + take)));
      record.headLength += take;
      at += take;
      if (record.headLength === record.wanted && !this.#headComplete(record, events)) {
        // Not a record: the place in the stream is lost until a block tells the next one.
        this.#tear(events);
        this.#synced = false;
        return at;
      }
    }
    if (record.headLength < record.wanted) return at;
    while (record.passed < record.content && at < end) {
      const take = this.#feedContent(record, bytes, at, end, base, events);
      at += take;
      record.passed += take;
    }
    if (record.passed === record.content) this.#open = null;
    return at;
  }

  #feedContent(
    record: OpenRecord,
    bytes: Buffer,
    at: number,
    end: number,
    base: number,
    events: RecordEvent[],
  ): number {
    const left = Math.min(end - at, record.content - record.passed);
    const chunk = record.chunks[record.chunkIndex];
    if (chunk === undefined) return left;
    const take = Math.min(left, chunk.length - record.chunkPassed);
    if (this.#content) record.chunkBytes.push(Buffer.from(bytes.subarray(at, at + take)));
    record.chunkPassed += take;
    if (record.chunkPassed === chunk.length) {
      const offset = base + at + take - chunk.length;
      const event: RecordEvent = { event: 'chunk', link: record.link, ...chunk, offset };
      if (this.#content) event.bytes = Buffer.concat(record.chunkBytes);
      events.push(event);
      record.chunkIndex++;
      record.chunkPassed = 0;
      record.chunkBytes = [];
    }
    return take;
  }

  /** Header or body is complete: false if it makes no sense. */
  #headComplete(record: OpenRecord, events: RecordEvent[]): boolean {
    const head = record.head.length === 1 ? record.head[0]! : Buffer.concat(record.head);
    record.head = [head];
    if (record.wanted === RECORD_HEADER_SIZE) {
      record.type = head.toString('latin1', 0, 4);
      const body = head.readUInt32LE(4);
      record.content = head.readUInt32LE(8);
      if (!/^[A-Z_]{4}$/.test(record.type) || body > MAX_RECORD_BODY || record.content > MAX_RECORD_CONTENT)
        return false;
      record.wanted += body;
      if (body > 0) return true;
    }
    return readBody(record, head.subarray(RECORD_HEADER_SIZE), events);
  }
}

function newRecord(offset: number): OpenRecord {
  return {
    type: '',
    offset,
    wanted: RECORD_HEADER_SIZE,
    head: [],
    headLength: 0,
    content: 0,
    passed: 0,
    link: Buffer.alloc(0),
    chunks: [],
    chunkIndex: 0,
    chunkPassed: 0,
    chunkBytes: [],
  };
}

function readBody(record: OpenRecord, body: Buffer, events: RecordEvent[]): boolean {
  const link = body.subarray(0, LINK_ID_SIZE);
  switch (record.type) {
    case 'FHDR': {
      if (body.length < FHDR_FIXED || record.content !== 0) return false;
      const size = readUint53(body, 16);
      const folder = body.readUInt16LE(24);
      const name = body.readUInt16LE(26);
      if (Number.isNaN(size) || body.length !== FHDR_FIXED + folder + name) return false;
      const names = body.subarray(FHDR_FIXED);
      const { offset } = record;
      events.push({
        event: 'file',
        offset,
        link,
        size,
        folder: names.subarray(0, folder),
        name: names.subarray(folder),
      });
      return true;
    }
    case 'FCNT': {
      if (body.length < FCNT_FIXED) return false;
      const count = body.readUInt32LE(LINK_ID_SIZE);
      if (body.length !== FCNT_FIXED + count * CHUNK_ENTRY) return false;
      record.link = link;
      record.chunks = readChunks(body, FCNT_FIXED, count);
      let sum = 0;
      for (const chunk of record.chunks) {
        if (chunk.length < 1 || chunk.length > MAX_CHUNK) return false;
        sum += chunk.length;
      }
      return sum === record.content;
    }
    case 'FEND': {
      if (body.length < FEND_FIXED || record.content !== 0) return false;
      const size = readUint53(body, 16);
      const first = readUint53(body, 24);
      const count = body.readUInt32LE(32);
      const flags = body.readUInt32LE(36);
      const hasId = (flags & FLAG_CONTENT_ID) !== 0;
      const end = FEND_FIXED + count * CHUNK_ENTRY;
      if (Number.isNaN(size) || Number.isNaN(first) || body.length !== end + (hasId ? HASH_SIZE : 0)) return false;
      events.push({
        event: 'end',
        offset: record.offset,
        link,
        size,
        first,
        chunks: readChunks(body, FEND_FIXED, count),
        contentId: hasId ? body.subarray(end) : null,
        more: (flags & FLAG_MORE) !== 0,
      });
      return true;
    }
    default:
      // PAD_, and records of a later version: their lengths are enough.
      return true;
  }
}

function readChunks(body: Buffer, at: number, count: number): ChunkEntry[] {
  const chunks: ChunkEntry[] = [];
  for (let i = 0; i < count; i++, at += CHUNK_ENTRY) {
    chunks.push({
      id: body.subarray(at, at + HASH_SIZE),
      ordinal: body.readUInt32LE(at + HASH_SIZE),
      length: body.readUInt32LE(at + HASH_SIZE + 4),
    });
  }
  return chunks;
}

/** Parses a stream that is at hand as a sequence of blocks. */
export function* parseRecords(
  blocks: Iterable<StreamBlock>,
  options: { content: boolean } = { content: false },
): Generator<RecordEvent> {
  const parser = new RecordParser(options);
  for (const block of blocks) yield* parser.push(block);
  yield* parser.end();
}
