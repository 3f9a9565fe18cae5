import { randomBytes } from 'node:crypto';
import type { Chunk } from '../../src/archive/chunk-table.ts';
import type { CodecSpec } from '../../src/archive/codec/index.ts';
import { keyedBlake3 } from '../../src/archive/crypto/blake3.ts';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { BLOCK_SIZE, KIND_DATA, KIND_TREE, NO_RECORD } from '../../src/archive/format.ts';
import { chunkIndexKey } from '../../src/archive/keys.ts';
import type { RangeSource } from '../../src/archive/reader.ts';
import {
  type ChunkEntry,
  contentRecord,
  fileEndRecord,
  fileHeaderRecord,
  LinkIds,
  type StreamBlock,
} from '../../src/archive/records.ts';
import { type ArchiveSink, ArchiveWriter, type SealedArchive } from '../../src/archive/writer.ts';

/** Everything secret about a test archive. */
export interface Secrets {
  key: Buffer;
  envelope: Buffer;
  repositoryId: Buffer;
  indexKey: Buffer;
  contentKey: Buffer;
  writerId: Buffer;
  signing: { secret: Buffer; public: Buffer };
}

/** The envelope of a test archive is no age file: opening it is the caller's business, here a table look-up. */
export function makeSecrets(): Secrets {
  return {
    key: randomBytes(32),
    envelope: Buffer.concat([Buffer.from('envelope '), randomBytes(60)]),
    repositoryId: randomBytes(16),
    indexKey: randomBytes(32),
    contentKey: randomBytes(32),
    writerId: randomBytes(16),
    signing: generateSigningKey(),
  };
}

export class MemorySink implements ArchiveSink {
  readonly parts: Buffer[] = [];
  size = 0;

  append(bytes: Uint8Array): void {
    this.parts.push(Buffer.from(bytes));
    this.size += bytes.length;
  }

  readBack(offset: number, length: number): Buffer {
    return this.bytes().subarray(offset, offset + length);
  }

  bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}

/** A source that counts. */
export class CountingSource implements RangeSource {
  readonly #bytes: Buffer;
  reads = 0;
  suffixes = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    this.reads++;
    return this.#bytes.subarray(offset, offset + length);
  }

  async suffix(length: number): Promise<{ bytes: Buffer; size: number }> {
    this.suffixes++;
    return { bytes: this.#bytes.subarray(Math.max(0, this.#bytes.length - length)), size: this.#bytes.length };
  }
}

export interface SampleFile {
  folder: string;
  name: string;
  /** Contents of its chunks, in order. */
  chunks: Buffer[];
}

export interface SampleStream {
  blocks: StreamBlock[];
  chunks: Chunk[];
  bytes: Buffer;
}

/** The stream of these files, cut into blocks: for each file FHDR, one FCNT for each chunk, FEND. */
export function makeStream(files: SampleFile[], contentKey: Buffer): SampleStream {
  const parts: Buffer[] = [];
  const starts: number[] = [];
  const chunks: Chunk[] = [];
  const links = new LinkIds();
  let offset = 0;
  const add = (bytes: Buffer, isRecord: boolean) => {
    if (isRecord) starts.push(offset);
    parts.push(bytes);
    offset += bytes.length;
  };
  for (const file of files) {
    const link = links.next();
    const size = file.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    add(fileHeaderRecord({ link, size, folder: Buffer.from(file.folder), name: Buffer.from(file.name) }), true);
    const entries: ChunkEntry[] = [];
    for (const content of file.chunks) {
      const entry = { id: keyedBlake3(contentKey, content), ordinal: 0, length: content.length };
      entries.push(entry);
      add(contentRecord(link, [entry]), true);
      chunks.push({ ...entry, offset });
      add(content, false);
    }
    const whole = entries.length > 1 ? keyedBlake3(contentKey, Buffer.concat(file.chunks)) : undefined;
    add(fileEndRecord({ link, size, contentId: whole, ...(whole === undefined ? {} : { chunks: entries }) }), true);
  }
  const bytes = Buffer.concat(parts);
  return { blocks: cutBlocks(bytes, starts), chunks, bytes };
}

/** Cuts a stream into blocks; `starts` are the offsets where records begin, ascending. */
export function cutBlocks(bytes: Buffer, starts: number[]): StreamBlock[] {
  const blocks: StreamBlock[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_SIZE) {
    const block = bytes.subarray(at, at + BLOCK_SIZE);
    const first = starts.find((start) => start >= at);
    const inside = first !== undefined && first < at + block.length;
    blocks.push({ offset: at, bytes: block, firstRecord: inside ? first - at : NO_RECORD });
  }
  return blocks;
}

export async function writeDataArchive(
  stream: SampleStream,
  secrets: Secrets,
  options: { codec?: CodecSpec; id?: Buffer; envelope?: Buffer } = {},
): Promise<{ bytes: Buffer; sealed: SealedArchive }> {
  const { codec = { codec: 'zstd' }, id, envelope = secrets.envelope } = options;
  const sink = new MemorySink();
  const { repositoryId, key } = secrets;
  const writer = ArchiveWriter.create({ sink, kind: KIND_DATA, repositoryId, key, envelope, codec, ...(id && { id }) });
  writer.begin();
  for (const block of stream.blocks) writer.appendPlain('DATA', block.bytes, block.firstRecord);
  const sealed = await writer.finish({
    chunks: { key: chunkIndexKey(secrets.indexKey, writer.id), list: stream.chunks },
    writerId: secrets.writerId,
    signWith: secrets.signing.secret,
  });
  return { bytes: sink.bytes(), sealed };
}

export async function writeTreeArchive(
  pages: Buffer[],
  root: Buffer,
  secrets: Secrets,
  options: { codec?: CodecSpec; envelope?: Buffer } = {},
): Promise<{ bytes: Buffer; sealed: SealedArchive }> {
  const { codec = { codec: 'zstd' }, envelope = secrets.envelope } = options;
  const sink = new MemorySink();
  const { repositoryId, key } = secrets;
  const writer = ArchiveWriter.create({ sink, kind: KIND_TREE, repositoryId, key, envelope, codec });
  writer.begin();
  for (const page of pages) writer.appendPlain('PAGE', page);
  const sealed = await writer.finish({ root, writerId: secrets.writerId, signWith: secrets.signing.secret });
  return { bytes: sink.bytes(), sealed };
}

/** Bytes that compress to about half. */
export function textLike(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = 97 + ((state >>> 24) % 16);
  }
  return bytes;
}
