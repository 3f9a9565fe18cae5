/** One reply under construction, used again and again: a reader owns one, and nothing is allocated per request. */
import {
  type Attr,
  type DirectoryEntry,
  type DirectorySink,
  emptyAttr,
  type ReadRange,
  type ReadSink,
} from '../vfs.ts';
import {
  DIRENT_NAME,
  direntSize,
  ENTRY_OUT_SIZE,
  MAX_PAGES,
  NAME_MAX,
  OUT_HEADER,
  type OwnerMap,
  putDirent,
  putEntry,
  putNoEntry,
} from './abi.ts';

/** The largest payload: a read of MAX_PAGES pages (pages of 64 KiB exist, but we never answer more than 1 MiB). */
export const MAX_PAYLOAD = MAX_PAGES * 4096;
/** writev takes 1024 pieces; more than this many are copied together. */
export const MAX_PIECES = 512;
const DOT = 0x2e;

export class Reply implements DirectorySink, ReadSink {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  readonly attr: Attr = emptyAttr();
  readonly map: OwnerMap;
  /** Bytes to send, header included; 0 when the request wants no answer. */
  length = 0;
  /** Content of a read, to be sent after the header by one writev; empty when all lies in `bytes`. */
  readonly pieces: Uint8Array[] = [];
  /** What went wrong beyond a plain errno, for the log. */
  problem: unknown = undefined;
  /** Readdir options of the running request, so that no object is made for it. */
  readonly listing: { cookie: number; attributes: boolean; sink: DirectorySink };
  readonly range: ReadRange;
  private readonly header: Uint8Array;
  private readonly releases: (() => void)[] = [];
  private limit = 0;
  private plus = false;

  constructor(map: OwnerMap = {}) {
    const memory = new ArrayBuffer(OUT_HEADER.SIZE + MAX_PAYLOAD);
    this.bytes = Buffer.from(memory);
    this.words = new Uint32Array(memory);
    this.header = this.bytes.subarray(0, OUT_HEADER.SIZE);
    this.map = map;
    this.listing = { cookie: 0, attributes: false, sink: this };
    this.range = { offset: 0, size: 0, sink: this, direct: false };
  }

  /** Drops what an earlier attempt left, and addresses the answer. */
  begin(uniqueLow: number, uniqueHigh: number): void {
    this.release();
    this.length = 0;
    this.problem = undefined;
    this.words[OUT_HEADER.UNIQUE] = uniqueLow;
    this.words[OUT_HEADER.UNIQUE + 1] = uniqueHigh;
  }

  /** An errno as in errno.h, positive; 0 says "done" without content. */
  error(errno: number): void {
    this.dropPieces();
    this.words[OUT_HEADER.LEN] = OUT_HEADER.SIZE;
    this.words[OUT_HEADER.ERROR] = -errno;
    this.length = OUT_HEADER.SIZE;
  }

  /** Sends `size` bytes that already lie in `bytes` after the header. */
  done(size: number): void {
    this.length = OUT_HEADER.SIZE + size;
    this.words[OUT_HEADER.LEN] = this.length;
    this.words[OUT_HEADER.ERROR] = 0;
  }

  /** Sends a copy of `payload`. */
  payload(payload: Uint8Array): void {
    this.bytes.set(payload, OUT_HEADER.SIZE);
    this.done(payload.length);
  }

  beginListing(cookie: number, limit: number, plus: boolean): void {
    this.length = OUT_HEADER.SIZE;
    this.limit = OUT_HEADER.SIZE + Math.min(limit, MAX_PAYLOAD);
    this.plus = plus;
    this.listing.cookie = cookie;
    this.listing.attributes = plus;
  }

  add(entry: DirectoryEntry): boolean {
    const { source, start, end, attr } = entry;
    const nameLength = end - start;
    // The kernel would fail the whole listing with EIO for such a name.
    if (nameLength <= 0 || nameLength > NAME_MAX) return true;
    let at = this.length;
    const next = at + direntSize(nameLength, this.plus);
    if (next > this.limit) return false;
    const words = this.words;
    if (this.plus) {
      // The kernel counts no lookup for "." and "..", so these must not name a node.
      const dots = source[start] === DOT && (nameLength === 1 || (nameLength === 2 && source[start + 1] === DOT));
      if (dots || !attr.complete) putNoEntry(words, at >> 2, 0);
      else putEntry(words, at >> 2, attr, this.map);
      at += ENTRY_OUT_SIZE;
    }
    putDirent(words, at >> 2, attr, entry.cookie, nameLength);
    // The padding first: the name then overwrites its part of the last 8 bytes.
    words[(next >> 2) - 2] = 0;
    words[(next >> 2) - 1] = 0;
    const bytes = this.bytes;
    at += DIRENT_NAME;
    for (let i = start; i < end; i++) bytes[at++] = source[i]!;
    this.length = next;
    return true;
  }

  endListing(): void {
    this.done(this.length - OUT_HEADER.SIZE);
  }

  beginRead(offset: number, size: number): void {
    this.length = OUT_HEADER.SIZE;
    this.limit = OUT_HEADER.SIZE + Math.min(size, MAX_PAYLOAD);
    this.range.offset = offset;
    this.range.size = this.limit - OUT_HEADER.SIZE;
    this.pieces.push(this.header);
  }

  push(bytes: Uint8Array): void {
    const room = this.limit - this.length;
    const piece = bytes.length > room ? bytes.subarray(0, room) : bytes;
    if (piece.length === 0) return;
    if (this.pieces.length === 0) this.bytes.set(piece, this.length);
    else if (this.pieces.length < MAX_PIECES) this.pieces.push(piece);
    else {
      let at = OUT_HEADER.SIZE;
      for (let i = 1; i < this.pieces.length; i++) {
        this.bytes.set(this.pieces[i]!, at);
        at += this.pieces[i]!.length;
      }
      this.bytes.set(piece, at);
      this.pieces.length = 0;
    }
    this.length += piece.length;
  }

  onRelease(release: () => void): void {
    this.releases.push(release);
  }

  endRead(): void {
    this.done(this.length - OUT_HEADER.SIZE);
  }

  /** Gives back what the pieces point into. Call it after the reply was written or dropped; again does nothing. */
  release(): void {
    this.dropPieces();
  }

  private dropPieces(): void {
    this.pieces.length = 0;
    const releases = this.releases;
    for (let i = 0; i < releases.length; i++) releases[i]!();
    releases.length = 0;
  }
}
