import { randomBytes } from 'node:crypto';
import { RozenError } from '../errors.ts';
import { encodeBlockTable } from './block-table.ts';
import { encodeCbor } from './cbor.ts';
import { type Chunks, encodeChunkTable } from './chunk-table.ts';
import { type CodecSpec, DEFAULT_CODEC } from './codec/index.ts';
import {
  AEND_FRAME_SIZE,
  ARCHIVE_ID_SIZE,
  type ArchiveKind,
  BLOCK_SIZE,
  type FrameType,
  HASH_SIZE,
  KIND_DATA,
  MAX_ARCHIVE_SIZE,
  MAX_STREAM,
} from './format.ts';
import { blockHash, parseOuterHeader, type SealContext, sealFrame } from './frame.ts';
import { type ArchiveFlags, buildHeader, parseHeader } from './header.ts';
import { deriveArchiveKeys } from './keys.ts';
import { MerkleTree } from './merkle.ts';
import { type ScanResult, streamFrames } from './scan.ts';
import { decodeTrailer, encodeTrailer, type Place, type Signer } from './trailer.ts';

/** Where sealed bytes go. `append` is called strictly one after another; bytes handed over stay unchanged until it is done. */
export interface ArchiveSink {
  append(bytes: Uint8Array): void | Promise<void>;
  /** Reads what was appended, for the check of the tail. */
  readBack(offset: number, length: number): Uint8Array | Promise<Uint8Array>;
}

/** A finished archive, as an `archives` row and a snapshot record describe it. */
export interface SealedArchive {
  id: Buffer;
  kind: ArchiveKind;
  /** Bytes. */
  size: number;
  headerHash: Buffer;
  merkleRoot: Buffer;
  envelope: Buffer;
  /** Frames before AEND. */
  frames: number;
  /** Plaintext bytes of the stream (data archives). */
  streamLength: number;
  /** The bytes of the hot index object (.rix), for data archives. */
  hotIndex: Buffer | null;
}

export interface WriterOptions {
  sink: ArchiveSink;
  kind: ArchiveKind;
  repositoryId: Uint8Array;
  /** The archive's 32-byte key; the writer keeps only what it derives from it. */
  key: Uint8Array;
  /** An age file around that key. */
  envelope: Uint8Array;
  /** Random if left out. */
  id?: Uint8Array;
  /** For the frames that the writer seals itself. */
  codec?: CodecSpec;
  /** Default: none is set. */
  flags?: ArchiveFlags;
}

export interface FinishOptions {
  /** Data archives: the chunks in stream order, and the key that seals their table (`chunkIndexKey`). */
  chunks?: { key: Uint8Array; list: Chunks };
  /** Tree archives: the plaintext of ROOT. */
  root?: Uint8Array;
  writerId: Uint8Array;
  /** The writer's Ed25519 seed, or a function that signs. */
  signWith: Signer;
}

type State = 'open' | 'blocks' | 'index' | 'sealed' | 'failed';

/**
 * Writes one archive: AHDR, blocks, index frames, AEND, in this order and no other. The calls that add frames are
 * synchronous (a sink that takes time is waited for in `ready` and `finish`). After any failure every further call is refused.
 */
export class ArchiveWriter {
  readonly id: Buffer;
  readonly kind: ArchiveKind;
  readonly header: Buffer;
  readonly headerHash: Buffer;
  readonly envelope: Buffer;
  readonly #sink: ArchiveSink;
  readonly #repositoryId: Uint8Array;
  readonly #codec: CodecSpec;
  readonly #blockKey: Buffer;
  readonly #merkle = new MerkleTree();
  readonly #offsets: number[] = [];
  readonly #lengths: number[] = [];
  #state: State = 'open';
  #size = 0;
  #streamLength = 0;
  /** A block shorter than BLOCK_SIZE is the last of its stream. */
  #streamEnded = false;
  #pending: Promise<void> | null = null;

  private constructor(options: WriterOptions, header: Buffer) {
    const parsed = parseHeader(header);
    this.id = parsed.id;
    this.kind = parsed.kind;
    this.header = header;
    this.headerHash = parsed.headerHash;
    this.envelope = parsed.envelope;
    this.#sink = options.sink;
    this.#repositoryId = options.repositoryId;
    this.#codec = options.codec ?? DEFAULT_CODEC;
    const keys = deriveArchiveKeys(options.key, parsed.commitment);
    keys.record.fill(0);
    this.#blockKey = keys.block;
  }

  /** A new archive; nothing is written before `begin`. */
  static create(options: WriterOptions): ArchiveWriter {
    const { id = randomBytes(ARCHIVE_ID_SIZE), kind, repositoryId, envelope, key, flags } = options;
    const more = flags === undefined ? {} : { flags };
    return new ArchiveWriter(options, buildHeader({ id, kind, repositoryId, envelope, key, ...more }));
  }

  /**
   * Goes on with a data archive that a crash left without a tail. The scan tells which blocks are whole; what follows the
   * last of them (`size` of the new writer) is cut off by the caller before it appends. `lastPlainLength` is the plaintext length
   * of that last block: a short one was the end of its stream, so that only `finish` can follow.
   */
  static resume(
    options: Omit<WriterOptions, 'kind' | 'id' | 'envelope'>,
    scan: ScanResult,
    lastPlainLength = BLOCK_SIZE,
  ): ArchiveWriter {
    const header = scan.header;
    if (header === null || header.kind !== KIND_DATA)
      throw new RozenError('corrupt', 'only a data archive with its header can be resumed');
    if (header.flags.readCompatible !== 0) {
      throw new RozenError(
        'unsupported',
        `archive ${header.id.toString('hex')} was begun by a newer version and cannot be continued`,
      );
    }
    const { id, kind, envelope } = header;
    const writer = new ArchiveWriter({ ...options, id, kind, envelope }, header.frame);
    writer.#record(blockHash(header.frame), header.frame.length);
    writer.#state = 'blocks';
    const frames = streamFrames(scan);
    for (const [index, frame] of frames.entries()) {
      writer.#offsets.push(frame.offset);
      writer.#lengths.push(frame.length);
      writer.#record(frame.hash, frame.length);
      writer.#addToStream(index === frames.length - 1 ? lastPlainLength : BLOCK_SIZE);
    }
    return writer;
  }

  /** What a worker needs to seal the next frames. Its key is zeroed when the archive is finished or aborted. */
  get context(): SealContext {
    return { archiveId: this.id, key: this.#blockKey, headerHash: this.headerHash };
  }

  /** Bytes handed to the sink so far. */
  get size(): number {
    return this.#size;
  }

  /** The sequence of the next frame. */
  get sequence(): number {
    return this.#merkle.count;
  }

  /** Plaintext bytes of the blocks so far (data archives). */
  get streamLength(): number {
    return this.#streamLength;
  }

  get state(): State {
    return this.#state;
  }

  /** Writes AHDR. */
  begin(): Place {
    return this.#guard('open', () => {
      const place = this.#write(this.header);
      this.#state = 'blocks';
      return place;
    });
  }

  /**
   * Adds a DATA or PAGE frame that was sealed elsewhere. Its archive, type and sequence are checked. `plainLength` is the
   * plaintext length of a DATA block; one below BLOCK_SIZE ends the stream.
   */
  append(frame: Uint8Array, plainLength: number = BLOCK_SIZE): Place {
    return this.#guard('blocks', () => {
      const header = parseOuterHeader(frame, { archiveId: this.id });
      const expected = this.kind === KIND_DATA ? 'DATA' : 'PAGE';
      if (header.type !== expected)
        throw new RozenError('internal', `a ${header.type} frame among the ${expected} frames`);
      if (header.sequence !== this.sequence) {
        throw new RozenError('internal', `frame ${header.sequence} where ${this.sequence} is due`);
      }
      if (header.frameLength !== frame.length) {
        throw new RozenError('internal', `a frame of ${header.frameLength} bytes in ${frame.length}`);
      }
      if (this.kind === KIND_DATA) this.#addToStream(plainLength);
      const place = this.#write(frame);
      this.#offsets.push(place.offset);
      this.#lengths.push(place.length);
      return place;
    });
  }

  /** Seals the next block or page on this thread and adds it. */
  appendPlain(type: 'DATA' | 'PAGE', plaintext: Uint8Array, firstRecord?: number): Place {
    return this.append(this.#seal(type, plaintext, { firstRecord }), plaintext.length);
  }

  /** Waits until the sink has taken everything: the back-pressure of a slow sink. */
  async ready(): Promise<void> {
    while (this.#pending !== null) await this.#pending;
    if (this.#state === 'failed') throw new RozenError('internal', 'the archive failed before and takes no more');
  }

  /** Writes CIDX, ROOT, BIDX and AEND, then reads the tail back and compares it before the archive counts as sealed. */
  async finish(options: FinishOptions): Promise<SealedArchive> {
    const isData = this.kind === KIND_DATA;
    if (
      isData
        ? options.root !== undefined || options.chunks === undefined
        : options.root === undefined || options.chunks !== undefined
    ) {
      throw new RozenError('internal', isData ? 'a data archive ends with chunks' : 'a tree archive ends with a root');
    }
    const tail: Buffer[] = [];
    const add = (frame: Buffer): Place => {
      tail.push(frame);
      return this.#write(frame);
    };
    const begin = this.header.length;
    this.#guard('blocks', () => {
      this.#state = 'index';
    });
    const { frames, merkleRoot } = this.#guard('index', () => {
      const cidx = options.chunks === undefined ? null : add(this.#sealChunks(options.chunks));
      const root = options.root === undefined ? null : add(this.#seal('ROOT', options.root));
      const table = encodeBlockTable({
        begin,
        streamLength: this.#streamLength,
        offsets: this.#offsets,
        lengths: this.#lengths,
      });
      const bidx = add(this.#seal('BIDX', table, { cborHeader: encodeCbor({ header: this.header }) }));
      const merkleRoot = this.#merkle.root();
      const frames = this.sequence;
      const { writerId, signWith } = options;
      const cidxHash = cidx === null ? Buffer.alloc(HASH_SIZE) : blockHash(tail[0]!);
      const places = { cidx, root, bidx, cidxHash };
      const fields = { archiveId: this.id, ...places, frames, merkleRoot, writerId: Buffer.from(writerId) };
      add(encodeTrailer(fields, { repositoryId: this.#repositoryId, headerHash: this.headerHash }, signWith));
      return { frames, merkleRoot };
    });
    await this.ready();
    await this.#checkTail(Buffer.concat(tail));
    this.#state = 'sealed';
    this.#blockKey.fill(0);
    return {
      id: this.id,
      kind: this.kind,
      size: this.#size,
      headerHash: this.headerHash,
      merkleRoot,
      envelope: this.envelope,
      frames,
      streamLength: this.#streamLength,
      hotIndex: this.kind === KIND_DATA ? Buffer.concat([this.header, ...tail]) : null,
    };
  }

  /** Gives the archive up; every further call is refused. */
  abort(): void {
    this.#state = 'failed';
    this.#blockKey.fill(0);
  }

  async #checkTail(tail: Buffer): Promise<void> {
    try {
      const back = Buffer.from(await this.#sink.readBack(this.#size - tail.length, tail.length));
      if (!back.equals(tail))
        throw new RozenError('io', `archive ${this.id.toString('hex')}: its tail reads back changed`);
      const trailer = decodeTrailer(back.subarray(back.length - AEND_FRAME_SIZE));
      if (trailer.size !== this.#size)
        throw new RozenError('internal', `a trailer for ${trailer.size} bytes after ${this.#size}`);
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  #sealChunks(chunks: NonNullable<FinishOptions['chunks']>): Buffer {
    const plaintext = encodeChunkTable(chunks.list);
    const context = { archiveId: this.id, key: chunks.key, headerHash: this.headerHash };
    return sealFrame(context, { type: 'CIDX', sequence: this.sequence, plaintext, codec: this.#codec });
  }

  #seal(
    type: FrameType,
    plaintext: Uint8Array,
    more: { firstRecord?: number | undefined; cborHeader?: Uint8Array } = {},
  ): Buffer {
    if (this.#state !== 'blocks' && this.#state !== 'index') throw this.#outOfOrder();
    const { firstRecord, cborHeader } = more;
    return sealFrame(this.context, {
      type,
      sequence: this.sequence,
      plaintext,
      codec: this.#codec,
      ...(firstRecord === undefined ? {} : { firstRecord }),
      ...(cborHeader === undefined ? {} : { cborHeader }),
    });
  }

  #addToStream(plainLength: number): void {
    if (this.#streamEnded) throw new RozenError('internal', 'a block after the last block of the stream');
    if (plainLength < 1 || plainLength > BLOCK_SIZE)
      throw new RozenError('internal', `a block of ${plainLength} bytes`);
    if (this.#streamLength + plainLength > MAX_STREAM)
      throw new RozenError('internal', 'the stream is longer than an archive holds');
    this.#streamEnded = plainLength < BLOCK_SIZE;
    this.#streamLength += plainLength;
  }

  #record(hash: Uint8Array, length: number): void {
    this.#merkle.add(hash);
    this.#size += length;
  }

  #write(frame: Uint8Array): Place {
    const place = { offset: this.#size, length: frame.length };
    if (place.offset + place.length > MAX_ARCHIVE_SIZE)
      throw new RozenError('internal', 'the archive is larger than the format allows');
    this.#record(blockHash(frame), frame.length);
    if (this.#pending !== null) {
      this.#follow(this.#pending.then(() => this.#sink.append(frame)));
    } else {
      const result = this.#sink.append(frame);
      if (result !== undefined) this.#follow(result);
    }
    return place;
  }

  /** Keeps the chain of appends; its end clears itself, its failure fails the writer and shows in `ready`. */
  #follow(chain: Promise<void>): void {
    const link: Promise<void> = chain.then(
      () => {
        if (this.#pending === link) this.#pending = null;
      },
      (error) => {
        this.abort();
        throw error;
      },
    );
    link.catch(() => {});
    this.#pending = link;
  }

  #guard<T>(state: State, work: () => T): T {
    if (this.#state !== state) throw this.#outOfOrder();
    try {
      return work();
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  #outOfOrder(): RozenError {
    const why = this.#state === 'failed' ? 'failed before and takes no more' : `is in state "${this.#state}"`;
    return new RozenError('internal', `archive ${this.id.toString('hex')} ${why}`);
  }
}
