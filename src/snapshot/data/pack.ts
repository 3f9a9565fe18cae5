/**
 * One open data archive: records and content go into 256 KiB blocks in shared memory, full blocks go to the workers, sealed
 * frames come back in any order and are appended to the spool in theirs.
 */
import { randomBytes } from 'node:crypto';
import type { CodecSpec } from '../../archive/codec/index.ts';
import {
  ARCHIVE_ID_SIZE,
  BLOCK_SIZE,
  COMPATIBLE_HEADS,
  KIND_DATA,
  MAX_CHUNKS,
  NO_RECORD,
} from '../../archive/format.ts';
import { holdsHeads } from '../../archive/header.ts';
import { chunkIndexKey } from '../../archive/keys.ts';
import { ArchiveWriter, type SealedArchive } from '../../archive/writer.ts';
import { RozenError } from '../../errors.ts';
import type { Repository } from '../../repository/repository.ts';
import { ChunkColumns } from './chunk-columns.ts';
import type { WorkerPool } from './pool.ts';
import { canGoOn, type Recovered, Spool } from './spool.ts';

export interface PackEnvironment {
  repository: Repository;
  spoolDir: string;
  codec: CodecSpec;
  /** Started when the first block is to be sealed. */
  pool(): WorkerPool;
  /** Called for every frame in the spool. */
  sealed(bytes: number): void;
  /** Sealing or writing failed in the background: nothing can go on. */
  fail(error: Error): void;
}

interface SealedBlock {
  slot: number;
  frameLength: number;
  plainLength: number;
}

export class Pack {
  /** In the deduplication index. */
  readonly number: number;
  /** For one large file. */
  readonly own: boolean;
  /** For heads of media files. */
  readonly heads: boolean;
  readonly chunks: ChunkColumns;
  /** Recovered and not to be continued: its stream has ended, or its recipients are not today's. */
  readonly complete: boolean;
  readonly #environment: PackEnvironment;
  readonly #writer: ArchiveWriter;
  readonly #spool: Spool;
  #position: number;
  /** Sequence of the next block to be given out, and of the next to be appended. */
  #nextSeal: number;
  #nextAppend: number;
  readonly #done = new Map<number, SealedBlock>();
  #drained: (() => void) | null = null;
  #introduced = false;
  #slot = -1;
  #fill = 0;
  #firstRecord = NO_RECORD;
  /** Bytes of the block that are content of large files. */
  #large = 0;

  private constructor(options: {
    environment: PackEnvironment;
    writer: ArchiveWriter;
    spool: Spool;
    number: number;
    chunks: ChunkColumns;
    complete: boolean;
    heads: boolean;
  }) {
    const { environment, writer, spool, number, chunks, complete, heads } = options;
    this.#environment = environment;
    this.#writer = writer;
    this.#spool = spool;
    this.number = number;
    this.own = spool.state.own;
    this.heads = heads;
    this.chunks = chunks;
    this.complete = complete;
    this.#position = writer.streamLength;
    this.#nextSeal = writer.sequence;
    this.#nextAppend = writer.sequence;
  }

  /** A new archive; its key and header are in the spool when this resolves. */
  static async create(
    environment: PackEnvironment,
    options: { number: number; own: boolean; heads: boolean },
  ): Promise<Pack> {
    const { repository, spoolDir, codec } = environment;
    const { key, envelope } = await repository.newArchiveKey();
    const id = randomBytes(ARCHIVE_ID_SIZE);
    const spool = Spool.create(spoolDir, { id, key, config: repository.config.number, own: options.own });
    const writer = ArchiveWriter.create({
      sink: spool,
      kind: KIND_DATA,
      repositoryId: repository.id,
      key,
      envelope,
      id,
      codec,
      flags: { incompatible: 0, readCompatible: 0, compatible: options.heads ? COMPATIBLE_HEADS : 0 },
    });
    key.fill(0);
    writer.begin();
    return new Pack({
      environment,
      writer,
      spool,
      number: options.number,
      chunks: new ChunkColumns(),
      complete: false,
      heads: options.heads,
    });
  }

  /** Goes on where a crash stopped. */
  static resume(environment: PackEnvironment, from: Extract<Recovered, { found: 'open' }>, number: number): Pack {
    const { repository, codec } = environment;
    const { spool, scan, chunks, lastPlainLength } = from;
    if (!scan.header!.repositoryId.equals(repository.id)) {
      throw new RozenError('corrupt', `${spool.path} belongs to another repository`, { hint: 'move it away' });
    }
    const { key, config } = spool.state;
    const writer = ArchiveWriter.resume(
      { sink: spool, repositoryId: repository.id, key, codec },
      scan,
      lastPlainLength,
    );
    key.fill(0);
    const complete = !canGoOn(lastPlainLength) || config !== repository.config.number;
    return new Pack({ environment, writer, spool, number, chunks, complete, heads: holdsHeads(scan.header!) });
  }

  /** Stream offset of the next byte. */
  get position(): number {
    return this.#position;
  }

  /** Whether this much content, in so many chunks, stays below a limit of the stream. */
  fits(bytes: number, chunks: number, limit: number): boolean {
    return this.#position + bytes <= limit && this.chunks.count + chunks <= MAX_CHUNKS;
  }

  /** Slots that `bytes` more of stream will take at most. */
  slotsFor(bytes: number): number {
    return Math.ceil(bytes / BLOCK_SIZE) + 1;
  }

  /** A record (its head, or all of it) begins here. */
  putRecord(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#slot < 0) this.#openBlock();
    if (this.#firstRecord === NO_RECORD) this.#firstRecord = this.#fill;
    this.put(bytes);
  }

  /** `large`: content of a file of which parts will be read. */
  put(bytes: Uint8Array, large = false): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#slot < 0) this.#openBlock();
      const take = Math.min(bytes.length - at, BLOCK_SIZE - this.#fill);
      const { plain } = this.#environment.pool().slots[this.#slot]!;
      plain.set(take === bytes.length ? bytes : bytes.subarray(at, at + take), this.#fill);
      at += take;
      this.#fill += take;
      if (large) this.#large += take;
      this.#position += take;
      if (this.#fill === BLOCK_SIZE) this.#sealBlock();
    }
  }

  /** Whether the stream holds these bytes at `offset`, if that part of it is still at hand; undefined if it is not. */
  compare(offset: number, bytes: Uint8Array, at: number, length: number): boolean | undefined {
    const start = this.#position - this.#fill;
    if (this.#slot < 0 || offset < start || offset + length > this.#position) return undefined;
    const { plain } = this.#environment.pool().slots[this.#slot]!;
    return (
      Buffer.compare(plain.subarray(offset - start, offset - start + length), bytes.subarray(at, at + length)) === 0
    );
  }

  /** Seals what is left and writes the tail. The spool then holds the whole archive. */
  async finish(): Promise<{ archive: SealedArchive; spool: Spool }> {
    if (this.#fill > 0) this.#sealBlock();
    if (this.#nextAppend < this.#nextSeal) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    const { repository } = this.#environment;
    const { indexKey } = await repository.loadSecrets();
    const writer = repository.writer!;
    const key = chunkIndexKey(indexKey, this.#writer.id);
    const archive = await this.#writer.finish({
      chunks: { key, list: this.chunks.toTable() },
      writerId: writer.id,
      signWith: writer.signingSecret,
    });
    key.fill(0);
    if (this.#introduced) this.#environment.pool().forgetArchive(this.number);
    return { archive, spool: this.#spool };
  }

  /** Stops writing; the spool stays for the next run. */
  abandon(): void {
    this.#writer.abort();
    this.#spool.close();
  }

  #openBlock(): void {
    this.#slot = this.#environment.pool().takeSlot();
    this.#fill = 0;
    this.#firstRecord = NO_RECORD;
    this.#large = 0;
  }

  #sealBlock(): void {
    const pool = this.#environment.pool();
    if (!this.#introduced) pool.addArchive(this.number, this.#writer.context);
    this.#introduced = true;
    const slot = this.#slot;
    const length = this.#fill;
    const sequence = this.#nextSeal++;
    this.#slot = -1;
    this.#fill = 0;
    const parts = this.#large > length / 2;
    pool.seal({ slot, archive: this.number, sequence, length, firstRecord: this.#firstRecord, parts }).then(
      (frameLength) => this.#append(sequence, { slot, frameLength, plainLength: length }),
      (error) => this.#environment.fail(error),
    );
  }

  #append(sequence: number, block: SealedBlock): void {
    this.#done.set(sequence, block);
    const pool = this.#environment.pool();
    try {
      for (;;) {
        const next = this.#done.get(this.#nextAppend);
        if (next === undefined) break;
        this.#done.delete(this.#nextAppend++);
        const { frame } = pool.slots[next.slot]!;
        this.#writer.append(frame.subarray(0, next.frameLength), next.plainLength);
        pool.releaseSlot(next.slot);
        this.#environment.sealed(next.frameLength);
      }
    } catch (error) {
      this.#environment.fail(error as Error);
      return;
    }
    if (this.#nextAppend === this.#nextSeal) this.#drained?.();
  }
}
