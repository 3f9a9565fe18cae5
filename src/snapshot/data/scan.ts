/**
 * Reading files: content, chunk cuts and ids into a slab, and whether the file held still meanwhile. Runs in a worker;
 * every call is synchronous. Measured on warm small files: open, statx, read, statx, close take 12 µs together.
 */
import { closeSync, readSync } from 'node:fs';
import { Blake3Stream, keyedBlake3 } from '../../archive/crypto/blake3.ts';
import { CHUNK_MIN, HASH_SIZE } from '../../archive/format.ts';
import { type DataRange, dataRanges } from '../../posix/holes.ts';
import { emptyStat, fstat, type Stat } from '../../posix/stat.ts';
import { cutChunk, type Gear } from './chunker.ts';
import { headLength, isMedia } from './media.ts';
import { OpenAhead, openReplacement, openSource } from './open-ahead.ts';
import { CHUNK, CHUNK_WIDTH, FILE, FILE_WIDTH, SLAB_CHUNKS, SLAB_DATA, type Slab, STATUS } from './slab.ts';

/** A file that changes while it is read is read this often in all. */
export const READS = 3;

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
/** Zeros hashed in one go, and in one piece: a hole of a terabyte must not stop the worker for minutes. */
const ZEROS = new Uint8Array(256 * 1024);
const ZEROS_PER_PIECE = 512 * 1024 * 1024;

/** Chunks that one slab of data can hold. */
const RANGE_CHUNKS = SLAB_DATA / CHUNK_MIN;

interface OpenFile {
  fd: number;
  before: Stat;
  ranges: DataRange[];
  /** The range that is being read, how far the file is read and hashed. */
  range: number;
  position: number;
  hashed: number;
  hasher: Blake3Stream;
  media: boolean;
  /** Bytes after the last cut, which begin the next piece. */
  carry: Uint8Array;
  carried: number;
  short: boolean;
}

/** errno of the answer: ENOENT, ENOTDIR and ELOOP (a symlink now) mean that the file of the walk is not there any more. */
function statusOf(error: unknown): { status: number; errno: number } {
  const { code, errno } = error as NodeJS.ErrnoException;
  if (typeof errno !== 'number') throw error;
  const gone = code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ENXIO';
  return { status: gone ? STATUS.vanished : STATUS.unreadable, errno };
}

function isRegular(stat: Stat): boolean {
  return (stat.mode & S_IFMT) === S_IFREG;
}

/** Attributes of an open file, into `stat`; opened anew when it is not the one that was walked. The caller goes on with the descriptor that this answers. */
function statWalked(slab: Slab, file: number, fd: number, stat: Stat): number {
  const { files } = slab;
  const row = file * FILE_WIDTH;
  const { dev, ino } = fstat(fd, stat);
  if (files[row + FILE.ino] === ino && files[row + FILE.dev] === dev) return fd;
  const other = openReplacement(pathOf(slab, file), files[row + FILE.trusted]!);
  closeSync(fd);
  fstat(other, stat);
  return other;
}

function pathOf({ files, paths }: Slab, file: number): Buffer {
  const start = file === 0 ? 0 : files[(file - 1) * FILE_WIDTH + FILE.pathEnd]!;
  return Buffer.from(paths.subarray(start, files[file * FILE_WIDTH + FILE.pathEnd]!));
}

function isSame(a: Stat, b: Stat): boolean {
  return (
    a.size === b.size &&
    a.mtimeNs === b.mtimeNs &&
    a.ctimeNs === b.ctimeNs &&
    a.mtimeSec === b.mtimeSec &&
    a.ctimeSec === b.ctimeSec
  );
}

/** Reads until `length` bytes are there or the file ends; returns how many came. */
function readFully(fd: number, target: Uint8Array, at: number, length: number, position: number): number {
  let got = 0;
  while (got < length) {
    const n = readSync(fd, target, at + got, length - got, position + got);
    if (n === 0) break;
    got += n;
  }
  return got;
}

export class FileScanner {
  readonly #slabs: Slab[];
  readonly #gear: Gear;
  readonly #key: Uint8Array;
  readonly #idBytes: number;
  readonly #before = emptyStat();
  readonly #after = emptyStat();
  #carry = new Uint8Array(0);
  #file: OpenFile | null = null;

  constructor(options: { slabs: Slab[]; gear: Gear; contentIdKey: Uint8Array; idBytes?: number }) {
    this.#slabs = options.slabs;
    this.#gear = options.gear;
    this.#key = options.contentIdKey;
    this.#idBytes = options.idBytes ?? HASH_SIZE;
  }

  /** Reads `count` files of a slab, one after another into its data. Returns the number of chunks. */
  scan(slabIndex: number, count: number): number {
    const slab = this.#slabs[slabIndex]!;
    const ahead = new OpenAhead(count, (i) => pathOf(slab, i));
    try {
      return this.#scan(slab, count, ahead);
    } finally {
      ahead.close();
    }
  }

  #scan(slab: Slab, count: number, ahead: OpenAhead): number {
    const { files } = slab;
    let fill = 0;
    let chunks = 0;
    for (let i = 0; i < count; i++) {
      const row = i * FILE_WIDTH;
      const size = this.#readSmall(slab, i, ahead, fill);
      files[row + FILE.media] = 0;
      if (size >= 0) {
        const first = chunks;
        const media = isMedia(slab.data, fill, fill + size);
        files[row + FILE.media] = media ? 1 : 0;
        chunks = this.#cutSmall(slab, fill, { size, head: media ? headLength(size) : 0 }, chunks);
        const one = chunks === first + 1 ? slab.ids.subarray(first * HASH_SIZE, chunks * HASH_SIZE) : null;
        slab.contentIds.set(one ?? this.#id(slab.data.subarray(fill, fill + size)), i * HASH_SIZE);
        fill += size;
      }
      files[row + FILE.chunkEnd] = chunks;
    }
    return chunks;
  }

  /** Reads one file to `fill`; returns its length, or -1 when there is nothing to store. */
  #readSmall(slab: Slab, file: number, ahead: OpenAhead, fill: number): number {
    const { files } = slab;
    const row = file * FILE_WIDTH;
    const room = SLAB_DATA - fill;
    let fd = -1;
    try {
      fd = ahead.take(file);
      const before = this.#before;
      fd = statWalked(slab, file, fd, before);
      for (let retries = 0; ; retries++) {
        if (retries > 0) fstat(fd, before);
        if (!isRegular(before)) return this.#fail(files, row, STATUS.vanished, 0);
        if (before.size > room || files[row + FILE.sparse] === 1) return this.#fail(files, row, STATUS.deferred, 0);
        const got = readFully(fd, slab.data, fill, before.size, 0);
        const after = fstat(fd, this.#after);
        const still = isSame(before, after);
        if (!still && retries + 1 < READS) continue;
        this.#describe(files, row, { stat: after, size: got, status: still ? STATUS.stored : STATUS.changed });
        files[row + FILE.retries] = retries;
        return got;
      }
    } catch (error) {
      const { status, errno } = statusOf(error);
      return this.#fail(files, row, status, errno);
    } finally {
      if (fd >= 0) closeSync(fd);
    }
  }

  /** `head`: bytes of the first chunk, 0 when it is cut like any other. */
  #cutSmall(slab: Slab, start: number, { size, head }: { size: number; head: number }, firstChunk: number): number {
    let chunk = firstChunk;
    for (let at = start; at < start + size; ) {
      const isHead = at === start && head > 0;
      const length = isHead ? head : size <= CHUNK_MIN ? size : cutChunk(this.#gear, slab.data, at, start + size, true);
      this.#put(slab, chunk++, { at, length, offset: at - start });
      at += length;
    }
    return chunk;
  }

  /** Opens the file in row 0 of a slab and gives its first piece. */
  open(slabIndex: number): number {
    this.close();
    const slab = this.#slabs[slabIndex]!;
    const { files } = slab;
    files[FILE.chunkEnd] = 0;
    let fd = -1;
    try {
      fd = openSource(pathOf(slab, 0));
      const before = emptyStat();
      fd = statWalked(slab, 0, fd, before);
      if (!isRegular(before)) {
        closeSync(fd);
        this.#fail(files, 0, STATUS.vanished, 0);
        return 0;
      }
      // Never larger than what a piece leaves: less than CHUNK_MAX, which is less than half a slab.
      if (this.#carry.length === 0) this.#carry = new Uint8Array(SLAB_DATA / 2);
      this.#file = {
        fd,
        before,
        ranges:
          files[FILE.sparse] === 1
            ? dataRanges(fd, before.size)
            : before.size > 0
              ? [{ offset: 0, length: before.size }]
              : [],
        range: 0,
        position: 0,
        hashed: 0,
        hasher: Blake3Stream.keyed(this.#key),
        media: false,
        carry: this.#carry,
        carried: 0,
        short: false,
      };
    } catch (error) {
      if (fd >= 0) closeSync(fd);
      const { status, errno } = statusOf(error);
      this.#fail(files, 0, status, errno);
      return 0;
    }
    return this.piece(slabIndex);
  }

  /** The next piece of the open file: STATUS.more, or the last one with the verdict. Returns the number of chunks. */
  piece(slabIndex: number): number {
    const slab = this.#slabs[slabIndex]!;
    const file = this.#file!;
    try {
      const { chunks, done } = this.#fillPiece(slab, file);
      slab.files[FILE.chunkEnd] = chunks;
      slab.files[FILE.media] = file.media ? 1 : 0;
      slab.files[FILE.status] = STATUS.more;
      if (!done) return chunks;
      const after = fstat(file.fd, this.#after);
      const still = !file.short && isSame(file.before, after);
      this.#describe(slab.files, 0, { stat: after, size: file.hashed, status: still ? STATUS.stored : STATUS.changed });
      slab.contentIds.set(this.#cut(file.hasher.digest()), 0);
      this.close();
      return chunks;
    } catch (error) {
      this.close();
      const { status, errno } = statusOf(error);
      this.#fail(slab.files, 0, status, errno);
      slab.files[FILE.chunkEnd] = 0;
      return 0;
    }
  }

  #fillPiece(slab: Slab, file: OpenFile): { chunks: number; done: boolean } {
    const { data } = slab;
    data.set(file.carry.subarray(0, file.carried));
    let fill = file.carried;
    let cut = 0;
    let chunks = 0;
    let zeros = ZEROS_PER_PIECE;
    for (;;) {
      const range = file.ranges[file.range];
      // Holes count as zeros in the content id.
      const hole = Math.min((range?.offset ?? file.before.size) - file.hashed, zeros);
      if (hole > 0 && !file.short) {
        this.#hashZeros(file, hole);
        zeros -= hole;
        if (zeros === 0) break;
      }
      if (range === undefined || file.short) return { chunks, done: true };
      if (file.position < range.offset) file.position = range.offset;
      const end = range.offset + range.length;
      const want = Math.min(end - file.position, SLAB_DATA - fill);
      const got = readFully(file.fd, data, fill, want, file.position);
      file.hasher.update(data.subarray(fill, fill + got));
      fill += got;
      file.position += got;
      file.hashed = file.position;
      file.short = got < want;
      const last = file.short || file.position === end;
      // The first bytes of the file: never what a piece before has left over.
      if (chunks === 0 && file.position === fill && isMedia(data, 0, fill)) {
        file.media = true;
        cut = headLength(fill);
        this.#put(slab, chunks++, { at: 0, length: cut, offset: 0 });
      }
      for (;;) {
        const length = cutChunk(this.#gear, data, cut, fill, last);
        if (length === 0) break;
        this.#put(slab, chunks++, { at: cut, length, offset: file.position - (fill - cut) });
        cut += length;
      }
      if (!last) break;
      file.range++;
      // Another range may bring RANGE_CHUNKS; the table is full before the data only when ranges are tiny.
      if (SLAB_DATA - fill < CHUNK_MIN || chunks > SLAB_CHUNKS - RANGE_CHUNKS) break;
    }
    file.carried = fill - cut;
    file.carry.set(data.subarray(cut, fill));
    return { chunks, done: false };
  }

  #hashZeros(file: OpenFile, count: number): void {
    for (let left = count; left > 0; left -= ZEROS.length) {
      file.hasher.update(left < ZEROS.length ? ZEROS.subarray(0, left) : ZEROS);
    }
    file.hashed += count;
  }

  /** Closes the open file, if any. */
  close(): void {
    if (this.#file !== null) closeSync(this.#file.fd);
    this.#file = null;
  }

  #put(slab: Slab, chunk: number, place: { at: number; length: number; offset: number }): void {
    const row = chunk * CHUNK_WIDTH;
    slab.chunks[row + CHUNK.at] = place.at;
    slab.chunks[row + CHUNK.length] = place.length;
    slab.chunks[row + CHUNK.offset] = place.offset;
    slab.ids.set(this.#id(slab.data.subarray(place.at, place.at + place.length)), chunk * HASH_SIZE);
  }

  #id(bytes: Uint8Array): Buffer {
    return this.#cut(keyedBlake3(this.#key, bytes));
  }

  #cut(id: Buffer): Buffer {
    return this.#idBytes < HASH_SIZE ? id.fill(0, this.#idBytes) : id;
  }

  #describe(files: Float64Array, row: number, what: { stat: Stat; size: number; status: number }): void {
    files[row + FILE.status] = what.status;
    files[row + FILE.errno] = 0;
    files[row + FILE.dev] = what.stat.dev;
    files[row + FILE.ino] = what.stat.ino;
    files[row + FILE.actualSize] = what.size;
    files[row + FILE.mtimeSec] = what.stat.mtimeSec;
    files[row + FILE.mtimeNs] = what.stat.mtimeNs;
    files[row + FILE.retries] = 0;
  }

  #fail(files: Float64Array, row: number, status: number, errno: number): -1 {
    files[row + FILE.status] = status;
    files[row + FILE.errno] = errno;
    files[row + FILE.retries] = 0;
    return -1;
  }
}
