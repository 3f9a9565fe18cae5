/**
 * How a file lies in the streams of archives: FHDR, then FCNT records with the content of its new chunks, then FEND. What is
 * known already, or a hole, is an extent and an entry of the tally, and costs no content. A file without any new chunk writes
 * no record at all.
 *
 * Of a file of ALIGN_FROM or more, content lies in phase: stream offset and file offset leave the same rest modulo the block
 * size, so that an aligned read touches one block.
 */
import { ALIGN_FROM, BLOCK_SIZE, HASH_SIZE } from '../../archive/format.ts';
import {
  type ChunkEntry,
  contentRecord,
  contentRecordSize,
  fileEndRecord,
  fileHeaderRecord,
  padRecord,
} from '../../archive/records.ts';
import type { Pack } from './pack.ts';
import { CHUNK, CHUNK_WIDTH, type Slab } from './slab.ts';
import { type FileToStore, HOLE, type StoredExtent } from './types.ts';

/** A tally of this many chunks is written at once, so that no list grows with the size of a file. */
const TALLY_PART = 1024;
const TALLY_PART_BYTES = 64 * 1024;
/** Shorter runs of new content among known chunks are not padded into phase. */
const ALIGN_RUN = 4 * BLOCK_SIZE;
/** In a tally, an entry with this id is a hole: its length is ordinal × 2^32 + length. */
const HOLE_ID = Buffer.alloc(HASH_SIZE);

/** What is known about a chunk: where it lies, or (archive HOLE) under which ordinal it is new. */
export interface Lookup {
  archive: number;
  streamOffset: number;
  ordinal: number;
}

/** What a layout asks of the data writer. All synchronous. */
export interface LayoutHost {
  /** The answer is valid until the next call. */
  lookup(slab: Slab, chunk: number): Lookup;
  /** An open pack that takes `bytes` more of this file in `chunks` chunks; null when one must be made first. */
  packFor(layout: FileLayout, bytes: number, chunks: number): Pack | null;
  /** The open pack for heads of media files; null when one must be made first. */
  headPackFor(bytes: number): Pack | null;
  /** Whether such heads go to packs of their own. */
  readonly separateHeads: boolean;
  readonly freeSlots: number;
}

export class FileLayout {
  readonly file: FileToStore;
  /** As it was when the reading began. */
  readonly size: number;
  readonly extents: StoredExtent[] = [];
  newBytes = 0;
  /** Chunks that were known already, but for the head of a media file. */
  duplicates = 0;
  /** Its first chunk is the head of a media file; known when the first chunks are there. */
  media = false;
  /** The archive of the last chunk, laid or found; HOLE before the first. */
  lastArchive = HOLE;
  /** Where its records go; null before its first new chunk, but for a head. */
  pack: Pack | null = null;
  #headPack: Pack | null = null;
  /** Of a head that lies apart; 0 without one. */
  #headEnd = 0;
  readonly #host: LayoutHost;
  readonly #link: Uint8Array;
  /** The pack that holds its FHDR and all since then. */
  #begunIn: Pack | null = null;
  /** How far the file is laid out. */
  #position = 0;
  #chunks = 0;
  /** All of it lies in FCNT records of one stream, in order: the tally may be left out. */
  #plain = true;
  #tally: ChunkEntry[] = [];
  /** Chunks in the parts of the tally that are written. */
  #tallied = 0;

  constructor(host: LayoutHost, file: FileToStore, options: { size: number; link: Uint8Array }) {
    this.file = file;
    this.size = options.size;
    this.#host = host;
    this.#link = options.link;
  }

  /**
   * Lays out the chunks `from`..`to` of a slab. Returns the first one that must wait for a pack or for slots, `to` when all
   * are laid; the caller provides what is missing and calls again from there.
   */
  place(slab: Slab, from: number, to: number): number {
    const { chunks } = slab;
    let at = from;
    while (at < to) {
      if (this.pack !== null && !this.#writeFullTallies(this.pack)) return at;
      const row = at * CHUNK_WIDTH;
      const offset = chunks[row + CHUNK.offset]!;
      const length = chunks[row + CHUNK.length]!;
      if (offset > this.#position) this.#addHole(offset - this.#position);
      const found = this.#host.lookup(slab, at);
      const isHead = this.media && offset === 0;
      if (found.archive !== HOLE) {
        this.#plain = false;
        if (!isHead) this.duplicates++;
        this.#note({ id: idOf(slab, at), ordinal: found.ordinal, length });
        this.#addExtent(found.archive, found.streamOffset, length);
        at++;
      } else {
        const apart = isHead && this.#host.separateHeads;
        const run = this.#newRun(slab, at, apart ? at + 1 : to, found.ordinal);
        if (!(apart ? this.#placeHead(slab, at, run) : this.#placeRun(slab, at, run))) return at;
        at += run.length;
      }
    }
    return to;
  }

  /**
   * Writes the tally. `size` is what was read; `contentId` its id. False when it must wait for slots: call again.
   */
  finish(size: number, contentId: Uint8Array): boolean {
    if (size > this.#position) this.#addHole(size - this.#position);
    const pack = this.pack ?? this.#headPack;
    if (pack === null) return true;
    if (!this.#writeFullTallies(pack)) return false;
    if (this.#host.freeSlots < pack.slotsFor(TALLY_PART_BYTES)) return false;
    const whole = this.#plain && this.#tallied === 0;
    pack.putRecord(
      fileEndRecord({
        link: this.#link,
        size,
        first: whole ? 0 : this.#tallied,
        ...(whole ? {} : { chunks: this.#tally }),
        ...(whole && this.#chunks === 1 ? {} : { contentId }),
      }),
    );
    this.#tally = [];
    return true;
  }

  /** The next new content goes to this pack; returns the one before, which is full. */
  moveTo(pack: Pack): Pack | null {
    const left = this.pack;
    this.pack = pack;
    return left;
  }

  /** The chunks from `at` on that are new and lie side by side in slab and file. No chunk comes twice in a run. */
  #newRun(slab: Slab, at: number, to: number, ordinal: number): ChunkEntry[] {
    const { chunks } = slab;
    const run: ChunkEntry[] = [];
    let end = chunks[at * CHUNK_WIDTH + CHUNK.at]!;
    let offset = chunks[at * CHUNK_WIDTH + CHUNK.offset]!;
    for (let chunk = at; chunk < to; chunk++) {
      const row = chunk * CHUNK_WIDTH;
      if (chunks[row + CHUNK.at] !== end || chunks[row + CHUNK.offset] !== offset) break;
      const id = idOf(slab, chunk);
      if (chunk > at) {
        if (run.some((one) => one.id.equals(id))) break;
        const found = this.#host.lookup(slab, chunk);
        if (found.archive !== HOLE) break;
        ordinal = found.ordinal;
      }
      const length = chunks[row + CHUNK.length]!;
      run.push({ id, ordinal, length });
      end += length;
      offset += length;
    }
    return run;
  }

  #placeRun(slab: Slab, from: number, run: ChunkEntry[]): boolean {
    const length = lengthOf(run);
    const headSize = contentRecordSize(run.length);
    // Two blocks for padding, one for FHDR.
    const bytes = headSize + length + 3 * BLOCK_SIZE;
    const pack = this.#host.packFor(this, bytes, run.length);
    if (pack === null || this.#host.freeSlots < pack.slotsFor(bytes)) return false;
    this.#begin(pack);
    this.pack = pack;
    if (this.size >= ALIGN_FROM && (length >= ALIGN_RUN || this.#position <= this.#headEnd)) {
      pack.putRecord(padRecord(pack.position, BLOCK_SIZE + headSize - (this.#position % BLOCK_SIZE)));
    }
    this.#putRun(pack, slab, from, run);
    return true;
  }

  /** Heads lie side by side, without padding: two of them share a block. */
  #placeHead(slab: Slab, from: number, run: ChunkEntry[]): boolean {
    const length = lengthOf(run);
    const bytes = contentRecordSize(run.length) + length + BLOCK_SIZE;
    const pack = this.#host.headPackFor(bytes);
    if (pack === null || this.#host.freeSlots < pack.slotsFor(bytes)) return false;
    this.#headPack = pack;
    this.#headEnd = length;
    this.#begin(pack);
    this.#putRun(pack, slab, from, run);
    return true;
  }

  #putRun(pack: Pack, slab: Slab, from: number, run: ChunkEntry[]): void {
    const start = slab.chunks[from * CHUNK_WIDTH + CHUNK.at]!;
    const length = lengthOf(run);
    pack.putRecord(contentRecord(this.#link, run));
    const first = this.#position;
    for (const chunk of run) {
      const offset = pack.position + this.#position - first;
      pack.chunks.add(chunk.id, 0, { ordinal: chunk.ordinal, offset, length: chunk.length });
      this.#note(chunk);
      this.#addExtent(pack.number, offset, chunk.length);
    }
    pack.put(slab.data.subarray(start, start + length), this.size >= ALIGN_FROM);
    this.newBytes += length;
  }

  #begin(pack: Pack): void {
    if (this.#begunIn === pack) return;
    if (this.#begunIn !== null) this.#plain = false;
    this.#begunIn = pack;
    const { folder, name } = this.file;
    pack.putRecord(fileHeaderRecord({ link: this.#link, size: this.size, folder, name }));
  }

  /** Writes the parts of the tally that are full; false when there are no slots for it. */
  #writeFullTallies(pack: Pack): boolean {
    while (this.#tally.length >= TALLY_PART) {
      if (this.#host.freeSlots < pack.slotsFor(TALLY_PART_BYTES)) return false;
      const chunks = this.#tally.splice(0, TALLY_PART);
      this.#begin(pack);
      pack.putRecord(fileEndRecord({ link: this.#link, size: this.size, first: this.#tallied, chunks, more: true }));
      this.#tallied += chunks.length;
    }
    return true;
  }

  #addHole(length: number): void {
    this.#plain = false;
    this.#tally.push({ id: HOLE_ID, ordinal: Math.floor(length / 2 ** 32), length: length % 2 ** 32 });
    this.extents.push({ offset: this.#position, length, archive: HOLE, streamOffset: 0 });
    this.#position += length;
  }

  #note(chunk: ChunkEntry): void {
    this.#tally.push(chunk);
    this.#chunks++;
  }

  #addExtent(archive: number, streamOffset: number, length: number): void {
    const last = this.extents.at(-1);
    if (last !== undefined && last.archive === archive && last.streamOffset + last.length === streamOffset) {
      last.length += length;
    } else {
      this.extents.push({ offset: this.#position, length, archive, streamOffset });
    }
    this.#position += length;
    this.lastArchive = archive;
  }
}

function lengthOf(run: readonly ChunkEntry[]): number {
  return run.reduce((sum, chunk) => sum + chunk.length, 0);
}

/** A copy: the slab is used again before the tally is written. */
function idOf(slab: Slab, chunk: number): Buffer {
  return Buffer.from(slab.ids.subarray(chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE));
}
