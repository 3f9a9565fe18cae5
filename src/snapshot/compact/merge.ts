/**
 * Several data archives as one: their streams one after another, each from a block boundary on. Every block is opened, every chunk
 * held against its content id and every Merkle root recomputed before the archives may go: what is merged is known to be whole.
 */
import { randomBytes } from 'node:crypto';
import { setImmediate as breathe } from 'node:timers/promises';
import type { ChunkTable } from '../../archive/chunk-table.ts';
import {
  ARCHIVE_ID_SIZE,
  BLOCK_SIZE,
  HASH_SIZE,
  KIND_DATA,
  MAX_CHUNKS,
  MAX_STREAM,
  NO_RECORD,
} from '../../archive/format.ts';
import { blockHash, resealFrame } from '../../archive/frame.ts';
import { chunkIndexKey } from '../../archive/keys.ts';
import { MerkleTree } from '../../archive/merkle.ts';
import { memorySource, type OpenedArchive, openArchive, openChunkTable, parseHotIndex } from '../../archive/reader.ts';
import { padRecord } from '../../archive/records.ts';
import { ArchiveWriter } from '../../archive/writer.ts';
import type { ArchiveFacts } from '../../cache/archives.ts';
import { corrupt, RozenError } from '../../errors.ts';
import type { ForwardSource, Merge } from '../../repository/forward-record.ts';
import { dataName, indexName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import { ChunkColumns } from '../data/chunk-columns.ts';
import { Spool } from '../data/spool.ts';
import { ChunkHashes } from '../verify/chunk-hashes.ts';
import { openObject } from '../verify/object-file.ts';
import { proveMerged } from './prove.ts';

export const INDEX_LIMIT = 160 * 1024 * 1024;
/** Signals and timers are heard after so many blocks. */
const BREATHE_EACH = 32;
/** For a last block that is filled up. */
const STREAM_SLACK = 2 * BLOCK_SIZE;

export interface MergeOptions {
  repository: Repository;
  /** Folder of the spool. */
  folder: string;
  sources: readonly ArchiveFacts[];
  signal: AbortSignal | undefined;
  /** Gets sealed bytes that were read. */
  advance(bytes: number): void;
}

export interface Merged {
  spool: Spool;
  merge: Merge;
  hotIndex: Buffer;
  /** How many chunks it has. */
  chunks: number;
  /** What did not fit any more. */
  left: ArchiveFacts[];
}

/** An archive that cannot be merged, as it is not whole or not there. */
export class SourceDamaged extends Error {
  readonly source: ArchiveFacts;

  constructor(source: ArchiveFacts, cause: RozenError) {
    super(cause.message, { cause });
    this.source = source;
  }
}

/** Makes one archive of several, in the spool. Throws SourceDamaged, after which the spool is empty; 'interrupted', 'io'. */
export async function mergeArchives(options: MergeOptions): Promise<Merged> {
  const { repository, folder } = options;
  const { key, envelope } = await repository.newArchiveKey();
  const id = randomBytes(ARCHIVE_ID_SIZE);
  const spool = Spool.create(folder, { id, key, config: repository.config.number, own: false });
  const writer = ArchiveWriter.create({ sink: spool, kind: KIND_DATA, repositoryId: repository.id, key, envelope, id });
  key.fill(0);
  try {
    writer.begin();
    const merged = await new Merger(options, { spool, writer }).run();
    await proveMerged(repository, merged, options.signal);
    return merged;
  } catch (error) {
    writer.abort();
    spool.remove();
    throw error;
  }
}

interface OpenSource {
  facts: ArchiveFacts;
  archive: OpenedArchive;
  chunks: ChunkTable;
  /** Block hashes of CIDX and BIDX. */
  tables: [Buffer, Buffer];
}

class Merger {
  readonly #options: MergeOptions;
  readonly #spool: Spool;
  readonly #writer: ArchiveWriter;
  readonly #chunks = new ChunkColumns();
  readonly #sources: ForwardSource[] = [];
  /** The short block at the end of the last archive, sealed as if it were the last one here too. */
  #last: ReturnType<typeof resealFrame> | null = null;
  #contentIdKey!: Buffer;
  #indexKey!: Buffer;

  constructor(options: MergeOptions, { spool, writer }: { spool: Spool; writer: ArchiveWriter }) {
    this.#options = options;
    this.#spool = spool;
    this.#writer = writer;
  }

  async run(): Promise<Merged> {
    const { repository, sources } = this.#options;
    const secrets = await repository.loadSecrets();
    this.#contentIdKey = secrets.contentIdKey;
    this.#indexKey = secrets.indexKey;
    let taken = 0;
    for (; taken < sources.length; taken++) {
      const facts = sources[taken]!;
      try {
        const source = await this.#open(facts);
        if (!this.#fits(source)) break;
        this.#fillUp();
        await this.#append(source);
        source.archive.blockKey.fill(0);
      } catch (error) {
        if (!(error instanceof RozenError) || !DAMAGE.has(error.code)) throw error;
        throw new SourceDamaged(facts, error);
      }
    }
    if (this.#last !== null) this.#writer.append(this.#last.frame, this.#last.plaintext.length);
    const writer = repository.writer!;
    const key = chunkIndexKey(this.#indexKey, this.#writer.id);
    const archive = await this.#writer.finish({
      chunks: { key, list: this.#chunks.toTable() },
      writerId: writer.id,
      signWith: writer.signingSecret,
    });
    key.fill(0);
    const { id, size, headerHash, merkleRoot, envelope, hotIndex } = archive;
    const merge = { target: { id, size, headerHash, merkleRoot, envelope }, sources: this.#sources };
    return { spool: this.#spool, merge, hotIndex: hotIndex!, chunks: this.#chunks.count, left: sources.slice(taken) };
  }

  async #open(facts: ArchiveFacts): Promise<OpenSource> {
    const { store, unwrap } = { store: this.#options.repository.store, unwrap: this.#unwrap };
    const name = indexName(facts.id);
    const bytes = await store.get(name, INDEX_LIMIT);
    const archive = await openArchive(memorySource(bytes), { unwrap, expect: facts, hotIndex: true, name });
    archive.recordKey.fill(0);
    const index = parseHotIndex(bytes);
    const chunks = openChunkTable(index, this.#indexKey);
    const { bidx, size } = archive.trailer;
    const at = bidx.offset - (size - bytes.length);
    return { facts, archive, chunks, tables: [blockHash(index.cidx), blockHash(bytes.subarray(at, at + bidx.length))] };
  }

  readonly #unwrap = (envelope: Buffer): Promise<Buffer> => this.#options.repository.unwrap(envelope);

  #fits({ archive, chunks }: OpenSource): boolean {
    if (this.#sources.length === 0) return true;
    const { streamLength } = archive.blocks;
    return (
      this.#writer.streamLength + streamLength + STREAM_SLACK <= MAX_STREAM &&
      this.#chunks.count + chunks.count <= MAX_CHUNKS
    );
  }

  async #append({ facts, archive, chunks, tables }: OpenSource): Promise<void> {
    const { repository, signal, advance } = this.#options;
    const { blocks, header } = archive;
    const name = dataName(facts.id);
    const file = await openObject(repository.store, name);
    if (file === null || file.size !== facts.size)
      throw corrupt(`${name}: it is not as long as the signed record says`);
    const start = this.#writer.streamLength;
    const hashes = new ChunkHashes(this.#contentIdKey, chunks, (chunk, sound) => {
      if (!sound) throw corrupt(`${name}: chunk ${chunk} of its stream is not what its content id says`);
    });
    const merkle = new MerkleTree();
    merkle.add(blockHash(header.frame));
    try {
      for (let i = 0; i < blocks.count; i++) {
        if (signal?.aborted) throw new RozenError('interrupted', 'compact was interrupted', { hint: 'run it again' });
        const frame = await file.read(blocks.offset(i), blocks.length(i));
        const opened = resealFrame(
          archive.context,
          frame,
          { type: 'DATA', sequence: i + 1 },
          { context: this.#writer.context, sequence: this.#writer.sequence },
        );
        const { length } = opened.plaintext;
        if (length !== blocks.plainLength(i)) throw corrupt(`${name}: block ${i} holds ${length} bytes`);
        merkle.add(blockHash(frame));
        hashes.push(opened.plaintext, i * BLOCK_SIZE, i * BLOCK_SIZE + length);
        if (length === BLOCK_SIZE) this.#writer.append(opened.frame);
        else this.#last = opened;
        advance(frame.length);
        if (i % BREATHE_EACH === 0) await breathe();
      }
    } finally {
      file.close();
    }
    for (const hash of tables) merkle.add(hash);
    if (!hashes.done || !merkle.root().equals(facts.merkleRoot))
      throw corrupt(`${name}: its blocks are not those that the signed record names`);
    for (let i = 0; i < chunks.count; i++) {
      const { ordinals, offsets, lengths } = chunks;
      const place = { ordinal: ordinals[i]!, offset: start + offsets[i]!, length: lengths[i]! };
      this.#chunks.add(chunks.ids, i * HASH_SIZE, place);
    }
    const { id, size, headerHash, merkleRoot } = facts;
    this.#sources.push({ id, size, headerHash, merkleRoot, block: start / BLOCK_SIZE, blocks: blocks.count });
  }

  /** Only the last block of a stream may be short: behind what comes before another archive lies a record of padding. */
  #fillUp(): void {
    if (this.#last === null) return;
    const { plaintext, firstRecord } = this.#last;
    this.#last = null;
    const filled = Buffer.concat([plaintext, padRecord(this.#writer.streamLength + plaintext.length)]);
    const first = firstRecord === NO_RECORD ? plaintext.length : firstRecord;
    for (let at = 0; at < filled.length; at += BLOCK_SIZE)
      this.#writer.appendPlain('DATA', filled.subarray(at, at + BLOCK_SIZE), at === 0 ? first : NO_RECORD);
  }
}

/** What is wrong with one archive, and no reason to give up the others. */
export const DAMAGE = new Set(['corrupt', 'untrusted', 'unsupported', 'not-found', 'frozen']);
