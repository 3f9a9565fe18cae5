/** Local files held against stored content: by chunk ids, which costs no read of a block; by bytes where those are lost. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import type { ChunkTable } from '../../archive/chunk-table.ts';
import { keyedBlake3 } from '../../archive/crypto/blake3.ts';
import { HASH_SIZE, MAX_CHUNK } from '../../archive/format.ts';
import { openChunkTable, parseHotIndex } from '../../archive/reader.ts';
import { verifyTrailer } from '../../archive/trailer.ts';
import type { ArchiveFacts } from '../../cache/archives.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { indexName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import type { Attributes } from '../view/attributes.ts';
import { type ContentTrees, type Extent, fileExtents } from '../view/content.ts';
import { lowerBound } from './data-check.ts';

const INDEX_LIMIT = 160 * 1024 * 1024;
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const ZEROS_SIZE = 1024 * 1024;

export interface Difference {
  from: number;
  to: number;
}

type File = Pick<Attributes, 'inode' | 'version' | 'size'>;

/** The stored content of a file in order. */
export type ReadStored = (file: File) => AsyncIterable<Buffer>;

export class LocalContent {
  /** Bytes of local files that were read. */
  bytes = 0;
  readonly #repository: Repository;
  readonly #trees: ContentTrees;
  readonly #read: ReadStored | null;
  readonly #tables = new Map<number, Promise<ChunkTable | null>>();
  #buffer: Buffer = Buffer.alloc(0);
  readonly #zeros = Buffer.alloc(ZEROS_SIZE);
  #contentIdKey: Buffer = Buffer.alloc(0);

  /** `read` is asked for content whose chunk table is lost; without it, such content counts as different. */
  constructor(repository: Repository, trees: ContentTrees, read: ReadStored | null) {
    this.#repository = repository;
    this.#trees = trees;
    this.#read = read;
  }

  /** The first range in which a local file of the same size differs; null when it does not. `tick` may throw to stop. */
  async difference(local: Buffer, file: File, tick: () => void): Promise<Difference | null> {
    this.#contentIdKey = (await this.#repository.loadSecrets()).contentIdKey;
    const fd = openSync(local, OPEN_FLAGS);
    try {
      for (const extent of await fileExtents(this.#trees, file)) {
        const table = extent.row === 0 ? null : await this.#table(extent.row);
        let found: Difference | null;
        if (extent.row === 0) found = this.#zeroDifference(fd, extent, tick);
        else if (table !== null) found = this.#chunkDifference(fd, extent, table, tick);
        else return await this.#byteDifference(fd, file, tick);
        if (found !== null) return found;
      }
      return null;
    } finally {
      closeSync(fd);
    }
  }

  /** Null when the file is shorter than it was. */
  #take(fd: number, offset: number, length: number): Buffer | null {
    if (this.#buffer.length < length) this.#buffer = Buffer.allocUnsafeSlow(length);
    for (let done = 0; done < length; ) {
      const got = readSync(fd, this.#buffer, done, length - done, offset + done);
      if (got === 0) return null;
      done += got;
    }
    this.bytes += length;
    return this.#buffer.subarray(0, length);
  }

  #zeroDifference(fd: number, { offset, length }: Extent, tick: () => void): Difference | null {
    for (let at = offset; at < offset + length; at += ZEROS_SIZE) {
      tick();
      const size = Math.min(ZEROS_SIZE, offset + length - at);
      if (!this.#take(fd, at, size)?.equals(this.#zeros.subarray(0, size))) return { from: at, to: at + size };
    }
    return null;
  }

  #chunkDifference(fd: number, extent: Extent, table: ChunkTable, tick: () => void): Difference | null {
    const { offset, length, streamOffset } = extent;
    let chunk = lowerBound(table.offsets, streamOffset);
    for (let at = 0; at < length; chunk++) {
      tick();
      const size = table.lengths[chunk];
      if (size === undefined || table.offsets[chunk] !== streamOffset + at || at + size > length || size > MAX_CHUNK)
        throw corrupt(`the extent at ${offset} is not made of whole chunks`);
      const bytes = this.#take(fd, offset + at, size);
      const id = table.ids.subarray(chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE);
      if (bytes === null || !keyedBlake3(this.#contentIdKey, bytes).equals(id))
        return { from: offset + at, to: offset + at + size };
      at += size;
    }
    return null;
  }

  async #byteDifference(fd: number, file: File, tick: () => void): Promise<Difference | null> {
    if (this.#read === null) return { from: 0, to: file.size };
    let at = 0;
    for await (const piece of this.#read(file)) {
      tick();
      if (!this.#take(fd, at, piece.length)?.equals(piece)) return { from: at, to: at + piece.length };
      at += piece.length;
    }
    return null;
  }

  #table(row: number): Promise<ChunkTable | null> {
    let table = this.#tables.get(row);
    if (table === undefined) {
      table = this.#load(row);
      this.#tables.set(row, table);
    }
    return table;
  }

  /** The chunk table of what a row means, after its writer's signature was checked; null when it is lost or damaged. */
  async #load(row: number): Promise<ChunkTable | null> {
    const facts = await this.#trees.archives.facts(row);
    const { forwards } = this.#repository;
    try {
      return await this.#chunks(facts);
    } catch (error) {
      if (!(error instanceof RozenError) || (error.code !== 'corrupt' && error.code !== 'not-found')) throw error;
      const merged = error.code === 'not-found' ? await forwards.find(facts.id) : forwards.known(facts.id);
      if (merged === null) return null;
      const { target, start, end } = merged;
      const table = await this.#chunks(target).catch(() => null);
      return table === null ? null : partOf(table, start, end);
    }
  }

  async #chunks(facts: Pick<ArchiveFacts, 'id' | 'headerHash'>): Promise<ChunkTable | null> {
    const repository = this.#repository;
    const index = parseHotIndex(await repository.store.get(indexName(facts.id), INDEX_LIMIT));
    const { headerHash } = index.header;
    const key = repository.writerPublicKey(index.trailer.writerId);
    if (
      !headerHash.equals(facts.headerHash) ||
      !verifyTrailer(index.trailer, { repositoryId: repository.id, headerHash }, key)
    )
      return null;
    return openChunkTable(index, (await repository.loadSecrets()).indexKey);
  }
}

/** The chunks in a part of a stream, in offsets from its beginning. */
function partOf(table: ChunkTable, start: number, end: number): ChunkTable {
  const first = lowerBound(table.offsets, start);
  const last = lowerBound(table.offsets, end);
  return {
    count: last - first,
    ids: table.ids.subarray(first * HASH_SIZE, last * HASH_SIZE),
    ordinals: table.ordinals.subarray(first, last),
    offsets: table.offsets.slice(first, last).map((offset) => offset - start),
    lengths: table.lengths.subarray(first, last),
  };
}
