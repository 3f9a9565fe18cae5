/**
 * The deduplication index of one repository on this machine: which chunk lies where, for all acknowledged data archives.
 * An LMDB environment, shared by all sets and processes; nothing in it is precious, `sync` brings it back from the store.
 *
 *   chunks    content id 32 [ordinal u16 BE, if not 0]  →  archive u32, length u32, stream offset u48, ordinal u16 (LE)
 *   archives  number u32 BE  →  CBOR of what a snapshot needs to know
 *   numbers   archive id 16  →  number u32 LE
 *   meta      'next' → the next number u32 LE. Numbers are never used twice.
 */
import { chmodSync } from 'node:fs';
import { asMap, decodeCbor, encodeCbor, field } from '../../archive/cbor.ts';
import { ARCHIVE_ID_SIZE, HASH_SIZE, KIND_DATA, MAX_ENVELOPE, MAX_INDEX_BODY } from '../../archive/format.ts';
import { openChunkTable, parseHotIndex } from '../../archive/reader.ts';
import { verifyTrailer } from '../../archive/trailer.ts';
import type { SealedArchive } from '../../archive/writer.ts';
import { inWords, type LmdbDatabase, type LmdbRoot, openLmdb } from '../../cache/lmdb.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { listArchives } from '../../repository/archive-listing.ts';
import { DATA_PREFIX, dataName, INDEX_PREFIX, indexName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';

/** Where a chunk lies. */
export interface ChunkPlace {
  archive: number;
  streamOffset: number;
  length: number;
  ordinal: number;
}

/** Columns of chunks, in any order: what `ChunkTable` and `ChunkColumns` both can be read as. */
export interface ChunkRows {
  count: number;
  id(row: number): Uint8Array;
  offset(row: number): number;
  length(row: number): number;
  ordinal(row: number): number;
}

export interface SyncResult {
  added: number;
  removed: number;
  /** Archives whose index object is there and whose content is gone or was cut: nothing is deduplicated against them. */
  lost: string[];
  /** Index objects that are damaged or signed by nobody who may: nothing is deduplicated against their archives. */
  ignored: { name: string; error: RozenError }[];
}

const PLACE_SIZE = 16;
/** Index objects fetched at once by `sync`. */
const FETCHES = 8;
/** Header, chunk table, block table and trailer of the largest archive. */
const MAX_HOT_INDEX = 2 * MAX_INDEX_BODY + 1024 * 1024;
const NEXT = Buffer.from('next');

export class DedupIndex {
  readonly #repository: Repository;
  readonly #path: string;
  readonly #root: LmdbRoot;
  readonly #chunks: LmdbDatabase;
  readonly #archives: LmdbDatabase;
  readonly #numbers: LmdbDatabase;
  readonly #meta: LmdbDatabase;
  readonly #key = Buffer.alloc(HASH_SIZE);
  readonly #longKey = Buffer.alloc(HASH_SIZE + 2);
  /** Nothing is known: lookups need not ask. */
  #empty: boolean;

  private constructor(repository: Repository, path: string, root: LmdbRoot) {
    this.#repository = repository;
    this.#path = path;
    this.#root = root;
    const database = (name: string) => root.openDB({ name, encoding: 'binary', keyEncoding: 'binary' });
    this.#chunks = database('chunks');
    this.#archives = database('archives');
    this.#numbers = database('numbers');
    this.#meta = database('meta');
    this.#empty = this.#isEmpty();
  }

  /** `path` is a folder of its own; made with mode 700 if absent. */
  static async open(options: { repository: Repository; path: string }): Promise<DedupIndex> {
    makeFolders(options.path);
    chmodSync(options.path, 0o700);
    const root = openLmdb(options.path, { maxDbs: 8 });
    return inWords(options.path, () => new DedupIndex(options.repository, options.path, root));
  }

  /** Where a chunk with this id and ordinal lies; `ids` holds the id at `at`. */
  find(ids: Uint8Array, at: number, ordinal: number): ChunkPlace | undefined {
    if (this.#empty) return undefined;
    const value = this.#chunks.getBinaryFast(this.#chunkKey(ids, at, ordinal));
    if (value === undefined) return undefined;
    return {
      archive: value.readUInt32LE(0),
      length: value.readUInt32LE(4),
      streamOffset: value.readUIntLE(8, 6),
      ordinal: value.readUInt16LE(14),
    };
  }

  /** What a snapshot needs to know about an acknowledged archive (`hotIndex` is null); undefined for an unknown number. */
  archive(number: number): SealedArchive | undefined {
    const bytes = this.#archives.getBinary(numberKey(number));
    return bytes === undefined ? undefined : decodeArchive(bytes);
  }

  /** The number of an acknowledged archive. */
  numberOf(archiveId: Uint8Array): number | undefined {
    return this.#numbers.getBinary(Buffer.from(archiveId))?.readUInt32LE(0);
  }

  #change<T>(work: () => T): T {
    return inWords(this.#path, () => this.#root.transactionSync(work));
  }

  /** A number for an archive that is being written. */
  reserve(): number {
    return this.#change(() => this.#takeNumber());
  }

  /** Enters an acknowledged archive under its number, all or nothing; chunks known from older archives now point here. */
  add(number: number, archive: SealedArchive, chunks: ChunkRows): void {
    const order = sortedById(chunks);
    this.#change(() => {
      const value = Buffer.alloc(PLACE_SIZE);
      value.writeUInt32LE(number, 0);
      for (const row of order) {
        value.writeUInt32LE(chunks.length(row), 4);
        value.writeUIntLE(chunks.offset(row), 8, 6);
        value.writeUInt16LE(chunks.ordinal(row), 14);
        this.#chunks.putSync(this.#chunkKey(chunks.id(row), 0, chunks.ordinal(row)), value);
      }
      this.#archives.putSync(numberKey(number), encodeArchive(archive));
      const reference = Buffer.alloc(4);
      reference.writeUInt32LE(number);
      this.#numbers.putSync(archive.id, reference);
    });
    this.#empty = false;
  }

  /**
   * Makes the index agree with the store: loads the chunk tables of archives that appeared, after checking that an enrolled
   * writer signed them, and drops those that vanished or were merged into others. Needs no identity.
   */
  async sync(): Promise<SyncResult> {
    const result: SyncResult = { added: 0, removed: 0, lost: [], ignored: [] };
    const { forwards, store } = this.#repository;
    const present = await listArchives(store, INDEX_PREFIX);
    // Listed afterwards: an archive is stored before its index is.
    const data = await listArchives(store, DATA_PREFIX);
    // Asked afterwards: the record of a merge stands before the index object of what was made.
    await forwards.refresh();
    const merged: string[] = [];
    for (const key of present.keys()) {
      const target = forwards.known(idOf(key))?.target.id.toString('hex');
      if (target !== undefined && present.has(target)) merged.push(key);
    }
    const wanted = new Map(present);
    for (const key of merged) wanted.delete(key);
    for (const key of wanted.keys()) {
      const number = this.numberOf(idOf(key));
      const size = data.get(key)?.size;
      if (size !== undefined && (number === undefined || this.archive(number)?.size === size)) continue;
      result.lost.push(dataName(idOf(key)));
      wanted.delete(key);
      present.delete(key);
    }
    const missing = [...wanted.entries()].filter(([key]) => this.numberOf(idOf(key)) === undefined);
    const work = missing.values();
    const fetcher = async (): Promise<void> => {
      for (const [key, { name }] of work) {
        try {
          await this.#load(name, data.get(key)!.size);
          result.added++;
        } catch (error) {
          if (!(error instanceof RozenError) || !IGNORED.has(error.code)) throw error;
          result.ignored.push({ name, error });
        }
      }
    };
    await Promise.all(Array.from({ length: FETCHES }, fetcher));
    // What was merged goes once its chunks are known from where they lie now: then nothing refers to it any more.
    const kept = new Set(present.keys());
    for (const key of merged) {
      const target = forwards.known(idOf(key))!.target;
      if (this.numberOf(target.id) !== undefined) kept.delete(key);
    }
    result.removed = this.#removeAllBut(kept, (id) => forwards.known(id) !== null);
    this.#empty = this.#isEmpty();
    return result;
  }

  async close(): Promise<void> {
    await this.#root.close();
  }

  async #load(name: string, storedSize: number): Promise<void> {
    const bytes = await this.#repository.store.get(name, MAX_HOT_INDEX);
    await this.enter(name, bytes, storedSize);
  }

  /**
   * Checks the bytes of an index object and enters its archive; returns the number. Errors name `name`. An archive that has
   * not `storedSize` bytes is 'corrupt'.
   */
  async enter(name: string, bytes: Uint8Array, storedSize?: number): Promise<number> {
    const { header, trailer, cidx } = parseHotIndex(bytes);
    if (storedSize !== undefined && trailer.size !== storedSize)
      throw corrupt(`${name}: its archive has ${storedSize} bytes, not ${trailer.size}`);
    const { id: repositoryId } = this.#repository;
    if (!header.repositoryId.equals(repositoryId)) throw untrusted(name, 'it belongs to another repository');
    if (indexName(header.id) !== name) throw untrusted(name, `it is the index of archive ${header.id.toString('hex')}`);
    const publicKey = await this.#writerKey(trailer.writerId);
    if (!verifyTrailer(trailer, { repositoryId, headerHash: header.headerHash }, publicKey)) {
      throw untrusted(name, 'its signature is not by the writer it names');
    }
    const { indexKey } = await this.#repository.loadSecrets();
    const table = openChunkTable({ header, cidx }, indexKey);
    const archive: SealedArchive = {
      id: header.id,
      kind: header.kind,
      size: trailer.size,
      headerHash: header.headerHash,
      merkleRoot: Buffer.from(trailer.merkleRoot),
      envelope: header.envelope,
      frames: trailer.frames,
      streamLength: 0,
      hotIndex: null,
    };
    const known = this.numberOf(archive.id);
    if (known !== undefined) return known;
    const number = this.reserve();
    this.add(number, archive, {
      count: table.count,
      id: (row) => table.ids.subarray(row * HASH_SIZE, (row + 1) * HASH_SIZE),
      offset: (row) => table.offsets[row]!,
      length: (row) => table.lengths[row]!,
      ordinal: (row) => table.ordinals[row]!,
    });
    return number;
  }

  async #writerKey(writerId: Uint8Array): Promise<Buffer> {
    try {
      return this.#repository.writerPublicKey(writerId);
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'untrusted') throw error;
      await this.#repository.refresh();
      return this.#repository.writerPublicKey(writerId);
    }
  }

  /**
   * Forgets the chunks of archives that are not in `present`. What is said of an archive stays where `merged` says so: another run may
   * just be about to refer to it, and may.
   */
  #removeAllBut(present: ReadonlySet<string>, merged: (id: Buffer) => boolean): number {
    const gone = new Map<number, Buffer>();
    for (const { key, value } of this.#numbers.getRange({})) {
      const id = Buffer.from(key as Buffer);
      if (!present.has(id.toString('hex'))) gone.set((value as Buffer).readUInt32LE(0), id);
    }
    if (gone.size === 0) return 0;
    const chunks: Buffer[] = [];
    for (const { key, value } of this.#chunks.getRange({})) {
      if (gone.has((value as Buffer).readUInt32LE(0))) chunks.push(Buffer.from(key as Buffer));
    }
    this.#change(() => {
      for (const key of chunks) this.#chunks.removeSync(key);
      for (const [number, id] of gone) {
        if (!merged(id)) this.#archives.removeSync(numberKey(number));
        this.#numbers.removeSync(id);
      }
    });
    return gone.size;
  }

  #takeNumber(): number {
    const next = this.#meta.getBinary(NEXT)?.readUInt32LE(0) ?? 1;
    const value = Buffer.alloc(4);
    value.writeUInt32LE(next + 1);
    this.#meta.putSync(NEXT, value);
    return next;
  }

  #chunkKey(ids: Uint8Array, at: number, ordinal: number): Buffer {
    const key = ordinal === 0 ? this.#key : this.#longKey;
    for (let i = 0; i < HASH_SIZE; i++) key[i] = ids[at + i]!;
    if (ordinal !== 0) key.writeUInt16BE(ordinal, HASH_SIZE);
    return key;
  }

  #isEmpty(): boolean {
    for (const _ of this.#archives.getKeys({ limit: 1 })) return false;
    return true;
  }
}

function idOf(key: string): Buffer {
  return Buffer.from(key, 'hex');
}

/** Everything else (the network, the disk, no key) stops the sync. */
const IGNORED = new Set(['corrupt', 'untrusted', 'unsupported', 'not-found']);

function untrusted(name: string, why: string): RozenError {
  return new RozenError('untrusted', `${name}: ${why}`);
}

function numberKey(number: number): Buffer {
  const key = Buffer.alloc(4);
  key.writeUInt32BE(number);
  return key;
}

/** Rows in the order of their ids: LMDB then fills its pages one after another (20 % faster, and fuller pages). */
function sortedById(chunks: ChunkRows): Uint32Array {
  const prefix = new Float64Array(chunks.count);
  for (let row = 0; row < chunks.count; row++) {
    const id = chunks.id(row);
    prefix[row] = ((id[0]! << 16) | (id[1]! << 8) | id[2]!) * 2 ** 24 + ((id[3]! << 16) | (id[4]! << 8) | id[5]!);
  }
  return Uint32Array.from(prefix.keys()).sort((a, b) => prefix[a]! - prefix[b]!);
}

function encodeArchive(archive: SealedArchive): Buffer {
  const { id, size, headerHash, merkleRoot, envelope, frames, streamLength } = archive;
  return encodeCbor({ id, size, headerHash, merkleRoot, envelope, frames, streamLength });
}

function decodeArchive(bytes: Buffer): SealedArchive {
  const map = asMap(decodeCbor(bytes, { what: 'deduplication index' }), 'deduplication index');
  return {
    id: field.bytes(map, 'id', ARCHIVE_ID_SIZE),
    kind: KIND_DATA,
    size: field.uint(map, 'size'),
    headerHash: field.bytes(map, 'headerHash', HASH_SIZE),
    merkleRoot: field.bytes(map, 'merkleRoot', HASH_SIZE),
    envelope: field.bytes(map, 'envelope', undefined, MAX_ENVELOPE),
    frames: field.uint(map, 'frames'),
    streamLength: field.uint(map, 'streamLength'),
    hotIndex: null,
  };
}
