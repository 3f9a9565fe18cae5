import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keyedBlake3 } from '../../../src/archive/crypto/blake3.ts';
import { cutChunk, gearTable } from '../../../src/snapshot/data/chunker.ts';
import { FileScanner } from '../../../src/snapshot/data/scan.ts';
import { CHUNK, CHUNK_WIDTH, FILE, FILE_WIDTH, openSlab, SLAB_DATA, STATUS } from '../../../src/snapshot/data/slab.ts';
import { noise } from './harness.ts';

const MIB = 1024 * 1024;
const KEY = Buffer.alloc(32, 3);
const gear = gearTable(Buffer.alloc(32, 4));
const slabs = [openSlab(), openSlab()];
const scanner = new FileScanner({ slabs, gear, contentIdKey: KEY });

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'rozen-scan-'));
});
afterAll(() => {
  scanner.close();
  rmSync(folder, { recursive: true, force: true });
});

function describeFiles(paths: readonly string[], options: { sparse?: boolean; slab?: number } = {}): void {
  const slab = slabs[options.slab ?? 0]!;
  let end = 0;
  for (const [i, path] of paths.entries()) {
    const bytes = Buffer.from(path);
    slab.paths.set(bytes, end);
    end += bytes.length;
    slab.files[i * FILE_WIDTH + FILE.pathEnd] = end;
    const { dev = 0, ino = 0 } = lstatSync(path, { throwIfNoEntry: false }) ?? {};
    slab.files[i * FILE_WIDTH + FILE.dev] = dev;
    slab.files[i * FILE_WIDTH + FILE.ino] = ino;
    slab.files[i * FILE_WIDTH + FILE.trusted] = folder.length;
    slab.files[i * FILE_WIDTH + FILE.sparse] = options.sparse === true ? 1 : 0;
  }
}

interface Piece {
  offset: number;
  bytes: Buffer;
  id: Buffer;
}

function chunksOf(slabIndex: number, from: number, to: number): Piece[] {
  const slab = slabs[slabIndex]!;
  const pieces: Piece[] = [];
  for (let i = from; i < to; i++) {
    const row = i * CHUNK_WIDTH;
    const at = slab.chunks[row + CHUNK.at]!;
    const bytes = Buffer.from(slab.data.subarray(at, at + slab.chunks[row + CHUNK.length]!));
    pieces.push({
      offset: slab.chunks[row + CHUNK.offset]!,
      bytes,
      id: Buffer.from(slab.ids.subarray(i * 32, i * 32 + 32)),
    });
  }
  return pieces;
}

/** Reads a file through `open` and `piece`, as the data writer does. */
function readWhole(path: string, sparse: boolean, meanwhile = (): void => {}) {
  let slab = 0;
  describeFiles([path], { sparse });
  meanwhile();
  const pieces: Piece[] = [];
  for (let count = scanner.open(slab); ; count = scanner.piece(slab)) {
    pieces.push(...chunksOf(slab, 0, count));
    if (slabs[slab]!.files[FILE.status] !== STATUS.more) break;
    slab = 1 - slab;
  }
  const { files, contentIds } = slabs[slab]!;
  return {
    pieces,
    status: files[FILE.status],
    size: files[FILE.actualSize],
    contentId: Buffer.from(contentIds.subarray(0, 32)),
  };
}

function status(index: number): number {
  return slabs[0]!.files[index * FILE_WIDTH + FILE.status]!;
}

describe('scan', () => {
  it('reads a batch: contents, cuts and ids', () => {
    const contents = [noise(10, 1), noise(700_000, 2), Buffer.from('x'), noise(131_072, 3)];
    const paths = contents.map((bytes, i) => {
      const path = join(folder, `batch-${i}`);
      writeFileSync(path, bytes);
      return path;
    });
    describeFiles(paths);
    scanner.scan(0, paths.length);
    let first = 0;
    for (const [i, bytes] of contents.entries()) {
      const { files, contentIds } = slabs[0]!;
      const end = files[i * FILE_WIDTH + FILE.chunkEnd]!;
      const pieces = chunksOf(0, first, end);
      first = end;
      expect(status(i)).toBe(STATUS.stored);
      expect(Buffer.concat(pieces.map((piece) => piece.bytes)).equals(bytes)).toBe(true);
      for (const piece of pieces) expect(piece.id.equals(keyedBlake3(KEY, piece.bytes))).toBe(true);
      expect(keyedBlake3(KEY, bytes).equals(contentIds.subarray(i * 32, i * 32 + 32))).toBe(true);
    }
  });

  it('reads any mixture of data and holes, piece by piece', () => {
    const extent = fc.record({
      gap: fc.nat({ max: 3 * MIB }),
      length: fc.oneof(fc.integer({ min: 1, max: 20_000 }), fc.integer({ min: 1, max: 6 * MIB })),
    });
    fc.assert(
      fc.property(fc.array(extent, { maxLength: 12 }), fc.nat({ max: MIB }), fc.boolean(), (extents, tail, sparse) => {
        const path = join(folder, 'mixture');
        const fd = openSync(path, 'w');
        let at = 0;
        for (const { gap, length } of extents) {
          at += gap;
          writeSync(fd, noise(length, at + 1), 0, length, at);
          at += length;
        }
        closeSync(fd);
        truncateSync(path, at + tail);
        const whole = readFileSync(path);
        const { pieces, status: verdict, size, contentId } = readWhole(path, sparse);
        expect(verdict).toBe(STATUS.stored);
        expect(size).toBe(whole.length);
        expect(contentId.equals(keyedBlake3(KEY, whole))).toBe(true);
        const back = Buffer.alloc(whole.length);
        let end = 0;
        for (const { offset, bytes, id } of pieces) {
          expect(offset).toBeGreaterThanOrEqual(end);
          end = offset + bytes.length;
          back.set(bytes, offset);
          expect(id.equals(keyedBlake3(KEY, bytes))).toBe(true);
        }
        expect(back.equals(whole)).toBe(true);
        if (!sparse) {
          // One run of data: the cuts are those of the whole, wherever pieces end.
          let start = 0;
          for (const { offset, bytes } of pieces) {
            expect(offset).toBe(start);
            expect(bytes.length).toBe(cutChunk(gear, whole, start, whole.length, true));
            start += bytes.length;
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('reads thousands of tiny ranges', () => {
    const path = join(folder, 'comb');
    const fd = openSync(path, 'w');
    for (let i = 0; i < 3000; i++) writeSync(fd, `tooth ${i}`, i * 16_384);
    closeSync(fd);
    const { pieces, status: verdict } = readWhole(path, true);
    expect(verdict).toBe(STATUS.stored);
    expect(pieces.length).toBe(3000);
    expect(pieces[2999]!.offset).toBe(2999 * 16_384);
  });

  it('leaves to the piecewise way what does not fit any more', () => {
    const paths = ['fits', 'grown', 'after'].map((name) => join(folder, name));
    writeFileSync(paths[0]!, noise(SLAB_DATA - 1000, 1));
    writeFileSync(paths[1]!, noise(2000, 2));
    writeFileSync(paths[2]!, noise(999, 3));
    describeFiles(paths);
    scanner.scan(0, 3);
    expect([0, 1, 2].map(status)).toEqual([STATUS.stored, STATUS.deferred, STATUS.stored]);
  });

  it('is not caught by a fifo, folder or symlink in the place of a file', () => {
    const paths = ['fifo', 'folder', 'link', 'nothing'].map((name) => join(folder, name));
    execFileSync('mkfifo', [paths[0]!]);
    mkdirSync(paths[1]!);
    execFileSync('ln', ['-s', 'batch-0', paths[2]!]);
    describeFiles(paths);
    scanner.scan(0, paths.length);
    expect(paths.map((_, i) => status(i))).toEqual(paths.map(() => STATUS.vanished));
    for (const path of paths) {
      expect(readWhole(path, false)).toMatchObject({ status: STATUS.vanished, pieces: [] });
    }
  });

  it('reads what has replaced a file, but nothing that a symlink on the way leads to', () => {
    const names = ['own', 'replaced', 'elsewhere', 'linked', 'up'];
    const path = (name: string): string => join(folder, 'race', name, 'file');
    const secret = join(folder, 'secret folder');
    mkdirSync(secret);
    writeFileSync(join(secret, 'file'), 'secret');
    const swaps: Record<string, () => void> = {
      own: () => {},
      replaced: () => {
        writeFileSync(`${path('replaced')}.tmp`, 'new');
        renameSync(`${path('replaced')}.tmp`, path('replaced'));
      },
      elsewhere: () => rmSync(path('elsewhere')),
      linked: () => {
        renameSync(join(folder, 'race/linked'), join(folder, 'race/aside'));
        symlinkSync(secret, join(folder, 'race/linked'));
      },
      // Another one of the same source: not where it was walked, either.
      up: () => {
        renameSync(join(folder, 'race/up'), join(folder, 'race/aside 2'));
        symlinkSync('replaced', join(folder, 'race/up'));
      },
    };
    for (const large of [false, true]) {
      for (const name of names) {
        mkdirSync(join(folder, 'race', name), { recursive: true });
        writeFileSync(path(name), name);
      }
      const expected = [STATUS.stored, STATUS.stored, STATUS.vanished, STATUS.vanished, STATUS.vanished];
      if (!large) {
        describeFiles(names.map(path));
        for (const name of names) swaps[name]!();
        scanner.scan(0, names.length);
        expect(names.map((_, i) => status(i))).toEqual(expected);
        expect(chunksOf(0, 0, 2).map(({ bytes }) => String(bytes))).toEqual(['own', 'new']);
      } else {
        const found = names.map((name) => readWhole(path(name), false, swaps[name]));
        expect(found.map((it) => it.status)).toEqual(expected);
        expect(found.map(({ pieces }) => String(Buffer.concat(pieces.map(({ bytes }) => bytes))))).toEqual([
          'own',
          'new',
          '',
          '',
          '',
        ]);
      }
      rmSync(join(folder, 'race'), { recursive: true });
    }
  });

  it('says why it cannot read', () => {
    const path = join(folder, 'secret');
    writeFileSync(path, 'x');
    chmodSync(path, 0);
    chmodSync(folder, 0o755);
    const isRoot = process.geteuid!() === 0;
    if (isRoot) process.seteuid!(65534);
    try {
      describeFiles([path]);
      scanner.scan(0, 1);
      expect(status(0)).toBe(STATUS.unreadable);
      expect(slabs[0]!.files[FILE.errno]).toBe(-13);
      expect(readWhole(path, false).status).toBe(STATUS.unreadable);
    } finally {
      if (isRoot) process.seteuid!(0);
    }
  });

  it('reads what belongs to others, where O_NOATIME is refused', () => {
    const path = join(folder, 'theirs');
    writeFileSync(path, 'readable by all');
    chmodSync(path, 0o644);
    const isRoot = process.geteuid!() === 0;
    if (isRoot) process.seteuid!(65534);
    try {
      describeFiles([path]);
      scanner.scan(0, 1);
      expect(status(0)).toBe(STATUS.stored);
    } finally {
      if (isRoot) process.seteuid!(0);
    }
  });
});
