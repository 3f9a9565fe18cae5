/**
 * Reading an archive from its front without any key: crash recovery, scrubbing, salvage. The header hash of each frame
 * makes its length trustworthy, its block hash tells whether it is whole; after damage the scan looks for the next header.
 */
import { RozenError } from '../errors.ts';
import { blake3 } from './crypto/blake3.ts';
import {
  AEND_FRAME_SIZE,
  BLOCK_SIZE,
  FRAME_OVERHEAD,
  FRAME_TYPES,
  HASH_SIZE,
  MAX_CBOR_HEADER,
  OUTER_HEADER_SIZE,
} from './format.ts';
import { blockHash, type OuterHeader, openFrameHeader, readOuterHeader, type SealContext } from './frame.ts';
import { type ArchiveHeader, parseHeader } from './header.ts';
import { MerkleTree } from './merkle.ts';
import type { RangeSource } from './reader.ts';
import { type RecordEvent, RecordParser } from './records.ts';
import { decodeTrailer, type Trailer } from './trailer.ts';

export interface ScannedFrame {
  type: string;
  sequence: number;
  offset: number;
  length: number;
  /** Its block hash, which fits its bytes. */
  hash: Buffer;
}

export interface ScanResult {
  id: Buffer | null;
  /** AHDR, if it is whole. */
  header: ArchiveHeader | null;
  /** Why there is no header although bytes are there. */
  headerError: RozenError | null;
  /** All whole frames, in the order of their offsets. */
  frames: ScannedFrame[];
  /** Ranges that belong to no whole frame. */
  damage: { offset: number; length: number }[];
  /** Where the unbroken run of frames from the front (sequences 0, 1, 2, …) ends. */
  end: number;
  /** AEND, if it is there and stands at the very end. */
  trailer: Trailer | null;
  /** True if there is no trailer, or anything but whole frames in sequence before it. */
  torn: boolean;
  /** The Merkle root over the frames before AEND, to be compared with the trailer's and with signed places. */
  merkleRoot: Buffer;
  size: number;
}

const WINDOW = 4 * 1024 * 1024;

/** A moving window over a source, so that a scan makes few large reads. */
class Window {
  readonly #source: RangeSource;
  readonly size: number;
  /**
   * Bytes that may still be hashed in vain for frames whose block hash does not fit. Crafted headers that overlap could claim
   * 64 MiB every 88 bytes: when this is used up, such a frame is skipped by the length its header claims.
   */
  budget: number;
  #offset = 0;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(source: RangeSource, size: number) {
    this.#source = source;
    this.size = size;
    this.budget = size + 1024 * 1024 * 1024;
  }

  /** `length` bytes from `offset`, fewer at the end. The view is valid until the next call. */
  async at(offset: number, length: number): Promise<Buffer> {
    const wanted = Math.max(0, Math.min(length, this.size - offset));
    const from = offset - this.#offset;
    if (from < 0 || from + wanted > this.#bytes.length) {
      const size = Math.min(Math.max(wanted, WINDOW), this.size - offset);
      this.#bytes = size > 0 ? await this.#source.read(offset, size) : Buffer.alloc(0);
      this.#offset = offset;
      if (this.#bytes.length !== Math.max(0, size)) {
        throw new RozenError('io', `a read of ${size} bytes at ${offset} gave ${this.#bytes.length}`, {
          retryable: true,
        });
      }
      return this.#bytes.subarray(0, wanted);
    }
    return this.#bytes.subarray(from, from + wanted);
  }
}

/** Scans a whole archive, or what a crash left of one. Never throws for damage: the result tells. */
export async function scanArchive(source: RangeSource): Promise<ScanResult> {
  const { size } = await source.suffix(1);
  const window = new Window(source, size);
  const scan: ScanResult = {
    id: null,
    header: null,
    headerError: null,
    frames: [],
    damage: [],
    end: 0,
    trailer: null,
    torn: true,
    merkleRoot: Buffer.alloc(0),
    size,
  };
  const merkle = new MerkleTree();
  let at = 0;
  let lost = -1;
  while (at < size) {
    const found = await frameAt(window, at, scan.id);
    if (found === null || typeof found === 'number') {
      if (lost < 0) lost = at;
      at = await nextCandidate(window, found ?? at + 1, scan.id);
      continue;
    }
    if (lost >= 0) {
      scan.damage.push({ offset: lost, length: at - lost });
      lost = -1;
    }
    note(scan, merkle, found, at);
    at += found.header.frameLength;
  }
  if (lost >= 0) scan.damage.push({ offset: lost, length: size - lost });
  scan.merkleRoot = merkle.root();
  const last = scan.frames.at(-1);
  scan.torn =
    scan.trailer === null ||
    scan.damage.length > 0 ||
    scan.header === null ||
    scan.end !== size ||
    last?.type !== 'AEND';
  return scan;
}

interface FoundFrame {
  header: OuterHeader;
  bytes: Buffer;
}

/** The whole frame at `offset`; null if there is none of this archive, or the offset where to go on looking. */
async function frameAt(window: Window, offset: number, id: Buffer | null): Promise<FoundFrame | number | null> {
  let head = await window.at(offset, OUTER_HEADER_SIZE + HASH_SIZE);
  if (head.length < FRAME_OVERHEAD - HASH_SIZE) return null;
  const cborLength = head.readUInt32LE(28);
  if (cborLength > MAX_CBOR_HEADER) return null;
  if (cborLength > 0) head = await window.at(offset, OUTER_HEADER_SIZE + HASH_SIZE + cborLength);
  const header = readOuterHeader(head);
  if (typeof header === 'string') return null;
  if (id !== null && !header.archiveId.equals(id)) return null;
  if (offset + header.frameLength > window.size) return null;
  // The view `head` may go stale with the next read: the header is read again from the whole frame.
  const bytes = await window.at(offset, header.frameLength);
  const end = bytes.length - HASH_SIZE;
  if (blake3(bytes.subarray(0, end)).compare(bytes, end) !== 0) {
    window.budget -= bytes.length;
    return window.budget > 0 ? null : offset + bytes.length;
  }
  return { header: readOuterHeader(bytes) as OuterHeader, bytes };
}

/** The next offset where a frame of this archive (or any frame, before its id is known) may begin; the size if none. */
async function nextCandidate(window: Window, from: number, id: Buffer | null): Promise<number> {
  let at = from;
  while (at < window.size) {
    const bytes = await window.at(at, WINDOW);
    let best = -1;
    if (id !== null) {
      const hit = bytes.indexOf(id, 4);
      if (hit >= 4) best = hit - 4;
    } else {
      for (const type of FRAME_TYPES) {
        const hit = bytes.indexOf(type, 0, 'latin1');
        if (hit >= 0 && (best < 0 || hit < best)) best = hit;
      }
    }
    if (best >= 0) return at + best;
    if (at + bytes.length >= window.size) break;
    // The pattern may straddle the end of this window.
    at += bytes.length - 32;
  }
  return window.size;
}

function note(scan: ScanResult, merkle: MerkleTree, found: FoundFrame, offset: number): void {
  const { header, bytes } = found;
  scan.id ??= Buffer.from(header.archiveId);
  const hash = Buffer.from(blockHash(bytes));
  const { type, sequence } = header;
  const inOrder = scan.end === offset && sequence === scan.frames.length;
  scan.frames.push({ type, sequence, offset, length: bytes.length, hash });
  if (inOrder) scan.end = offset + bytes.length;
  if (type === 'AHDR') {
    try {
      scan.header ??= parseHeader(bytes);
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
      scan.headerError = error;
    }
  }
  if (type !== 'AEND') {
    merkle.add(hash);
  } else if (bytes.length === AEND_FRAME_SIZE && offset + bytes.length === scan.size) {
    try {
      const trailer = decodeTrailer(bytes);
      if (trailer.size === scan.size) scan.trailer = trailer;
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
    }
  }
}

/** The DATA frames of a scan that follow each other without a gap from the front: what a resumed archive keeps. */
export function streamFrames(scan: ScanResult): ScannedFrame[] {
  const frames: ScannedFrame[] = [];
  for (const frame of scan.frames) {
    if (frame.offset + frame.length > scan.end) break;
    if (frame.type === 'AHDR') continue;
    if (frame.type !== 'DATA' || frame.sequence !== frames.length + 1) break;
    frames.push(frame);
  }
  return frames;
}

/**
 * The records of a data archive, block by block, from the DATA frames that a scan found (`frames`, all by default). A frame
 * that does not open counts as lost, and records go on where the next one begins. With `content`, the bytes of chunks come too.
 */
export async function* scanStream(
  source: RangeSource,
  scan: ScanResult,
  options: { key: Uint8Array; frames?: ScannedFrame[]; content?: boolean },
): AsyncGenerator<RecordEvent> {
  if (scan.header === null)
    throw scan.headerError ?? new RozenError('corrupt', 'an archive without its header cannot be opened');
  const context: SealContext = { archiveId: scan.header.id, key: options.key, headerHash: scan.header.headerHash };
  const parser = new RecordParser({ content: options.content ?? false });
  const window = new Window(source, scan.size);
  for (const frame of options.frames ?? scan.frames) {
    if (frame.type !== 'DATA') continue;
    const bytes = await window.at(frame.offset, frame.length);
    let events: RecordEvent[];
    try {
      const opened = openFrameHeader(context, bytes, { type: 'DATA', sequence: frame.sequence });
      const offset = (frame.sequence - 1) * BLOCK_SIZE;
      events = parser.push({ offset, bytes: opened.plaintext, firstRecord: opened.firstRecord });
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'corrupt') throw error;
      continue;
    }
    yield* events;
  }
  yield* parser.end();
}
