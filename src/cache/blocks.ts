/**
 * Content of data archives, read through the shared slots. A reader pushes slices of decoded blocks, pinned until the
 * reply is written; and between requests it decodes the blocks that a sequential reader will want next.
 */

import { BLOCK_SIZE, PART_SIZE } from '../archive/format.ts';
import { openFrame, type SealContext, UnsealedFrame } from '../archive/frame.ts';
import { corrupt, RozenError } from '../errors.ts';
import { DiskAhead } from './disk-ahead.ts';
import { type ArchiveAccess, placeInStream, readFrame, reading } from './frames.ts';
import { Miss } from './miss.ts';
import { RecentBlocks } from './recent-blocks.ts';
import type { BlockSlots } from './slots.ts';
import type { Piece, PieceTasks } from './tasks.ts';

/**
 * How far Rozen decodes ahead of a sequential reader. Measured with 128 KiB requests on 2 cores: without it cores never
 * overlap (0.45-0.57 GB/s), with 3 or 4 blocks 0.84-1.0 GB/s. With 1 MiB requests 3 are 2 % faster than 4, and 8 another 2 % slower:
 * what is decoded long before it is sent has left the processor's caches.
 */
const AHEAD_BLOCKS = 3;
/** So many blocks in a row are in memory: somebody reads on. */
const SEQUENCE = 3;

/** A read of more of a block than this has it decoded whole. */
const PART_LIMIT = BLOCK_SIZE / 2;

/** Whoever fetches is told of a reader's progress each so many blocks. */
const TELL_EACH = 2;

/** Whoever reads so much of a block at once reads a large file: what came before its end has been read, and the kernel keeps it. */
const STREAMING = 64 * 1024;
/** So many blocks that were lately opened in part are remembered. */
const TOUCHED_KEPT = 32;
/** Two parts are what a read that crosses into another block takes. */
const KEPT_SCRATCH = 2;

export interface PieceSink {
  push(bytes: Uint8Array): void;
}

/** What is counted per thread. */
export interface BlockMeter {
  /** A frame was read from the store's file: `sealed` bytes of it. */
  frame(sealed: number): void;
  /** Work of a fraction of a millisecond begins: a decoding, or waiting for another thread's. `ahead`: nobody waits for it. */
  busy(ahead?: boolean): void;
  /** Calls another thread to `help`; false when none has time for it. */
  call?(): boolean;
  /** Less than a block was decoded for a read; `helping`: of another thread. */
  part?(helping?: boolean): void;
  /** A read has failed outside of the slots, which count what fails in them. */
  failed?(): void;
  /** A reader that goes through an archive that is not on this machine, in order, is at this block. */
  inOrder?(access: ArchiveAccess, block: number): void;
}

export class BlockReader {
  readonly #slots: BlockSlots;
  readonly #meter: BlockMeter;
  /** Where to decode ahead: the archive, the next block to try and the first one beyond. */
  #ahead: ArchiveAccess | null = null;
  #aheadNext = 0;
  #aheadEnd = 0;
  #inOrder = false;
  readonly #disk = new DiskAhead();
  /** Blocks that were lately opened in part. Whoever comes back to one, or goes on to the next, gets it whole. */
  readonly #touched = new RecentBlocks(TOUCHED_KEPT);
  /** What parts of blocks are decoded into, until they are released: fresh memory would take as long as a quarter of the decoding. */
  readonly #scratch: Buffer[] = [];
  #scratchUsed = 0;
  readonly #tasks: PieceTasks | null;
  /** A piece has been posted since the last `release`. */
  #shared = false;
  /** By handle: what others may ask to help with. */
  readonly #known = new Map<number, ArchiveAccess>();
  /** What `inOrder` was told last. */
  #told: ArchiveAccess | null = null;
  #toldBlock = 0;

  /** `tasks`: shares random reads with other threads. */
  constructor(slots: BlockSlots, meter: BlockMeter, tasks: PieceTasks | null = null) {
    this.#slots = slots;
    this.#meter = meter;
    this.#tasks = tasks;
  }

  /** `help` may read this archive. */
  know(access: ArchiveAccess): void {
    this.#known.set(access.handle, access);
  }

  /** Decodes a piece of a random read for another thread; false when none is asked for. */
  help(): boolean {
    return this.#tasks?.help(this.#decodePiece) ?? false;
  }

  /**
   * Pushes `length` bytes of the stream that a row means from `offset` on, in order. The pieces lie in slots whose
   * numbers are added to `held`, also when this throws, and in memory of this reader: give them back by `release` before
   * something else is read by it. `direct`: nobody else keeps what is read.
   *
   * @throws Miss when a frame is not on this machine; RozenError 'corrupt' when bytes fail their check or the stream ends
   * before the range, 'io' when the file cannot be read.
   */
  read(
    access: ArchiveAccess,
    range: { offset: number; length: number; direct: boolean },
    held: number[],
    sink: PieceSink,
  ): void {
    let at = placeInStream(access, range.offset, range.length);
    const first = Math.floor(at / BLOCK_SIZE);
    const end = at + range.length;
    const last = Math.floor((end - 1) / BLOCK_SIZE);
    // Where the blocks that are wanted end in the archive.
    const until = (access.blockOffsets?.[last] ?? 0) + (access.blockLengths?.[last] ?? 0);
    const shared = this.#share(access, at, end);
    // Then all of it is random, and stays so when a piece comes back undone: its block may have been touched by this very read.
    const random = shared < end;
    while (at < end) {
      const block = Math.floor(at / BLOCK_SIZE);
      const from = at - block * BLOCK_SIZE;
      const upTo = Math.min((at < shared ? shared : end) - block * BLOCK_SIZE, BLOCK_SIZE);
      const piece = at === shared ? this.#tasks!.collect() : null;
      if (piece !== null) {
        sink.push(piece);
        at += piece.length;
        continue;
      }
      let unsealed: UnsealedFrame | null = null;
      if (upTo - from <= PART_LIMIT && (random || this.#isRandom(access.handle, at, first))) {
        this.#meter.busy();
        this.#disk.random(access, block);
        this.#touched.add(access.handle, block);
        this.#scratch[this.#scratchUsed] ??= Buffer.allocUnsafeSlow(BLOCK_SIZE);
        const memory = this.#scratch[this.#scratchUsed]!;
        const part = this.#counted(() => {
          unsealed = this.#unseal(access, { block, until });
          return unsealed.part(from, upTo, memory);
        });
        if (part !== null) {
          this.#scratchUsed++;
          this.#meter.part?.();
          sink.push(part);
          at = block * BLOCK_SIZE + upTo;
          continue;
        }
      }
      if (!this.#slots.ready(access.handle, block)) this.#meter.busy();
      const decode = (target: Buffer): number =>
        unsealed?.whole(target) ?? this.#decode(access, { block, until }, target);
      const slot = this.#slots.acquire(access.handle, block, decode);
      let bytes: Buffer;
      if (slot >= 0) {
        held.push(slot);
        bytes = this.#slots.bytes(slot);
        if (upTo === BLOCK_SIZE) this.#slots.spent(slot, !range.direct && upTo - from >= STREAMING);
      } else {
        const target = Buffer.allocUnsafeSlow(BLOCK_SIZE);
        bytes = target.subarray(
          0,
          this.#counted(() => decode(target)),
        );
      }
      if (bytes.length < upTo) {
        throw corrupt(`${access.object}: block ${block} ends at ${bytes.length}, content goes on to ${upTo}`);
      }
      sink.push(bytes.subarray(from, upTo));
      this.#noteSequential(access, block);
      at = block * BLOCK_SIZE + upTo;
    }
  }

  release(held: number[]): void {
    for (let i = 0; i < held.length; i++) this.#slots.release(held[i]!);
    held.length = 0;
    if (this.#shared) this.#tasks!.withdraw();
    this.#shared = false;
    this.#scratchUsed = 0;
    if (this.#scratch.length > KEPT_SCRATCH) this.#scratch.length = KEPT_SCRATCH;
  }

  /**
   * Posts the latter piece of a random read, if another thread can help: what lies in its second block, or what is behind the middle of
   * its parts. Returns where it begins in the stream, or `end` when nothing is posted.
   */
  #share(access: ArchiveAccess, at: number, end: number): number {
    const tasks = this.#tasks;
    if (tasks === null || this.#shared || end - at <= PART_SIZE || end - at > PART_LIMIT) return end;
    const first = Math.floor(at / BLOCK_SIZE);
    const block = Math.floor((end - 1) / BLOCK_SIZE);
    const start = block > first ? block * BLOCK_SIZE : Math.ceil((at + end) / 2 / PART_SIZE) * PART_SIZE;
    if (start >= end || !this.#isRandom(access.handle, at, first)) return end;
    if (block > first && !this.#isRandom(access.handle, start, first)) return end;
    this.#meter.busy();
    const [from, upTo] = [start - block * BLOCK_SIZE, end - block * BLOCK_SIZE];
    if (!tasks.post({ handle: access.handle, block, from, upTo })) return end;
    this.#shared = true;
    if (this.#meter.call?.() === true) return start;
    tasks.withdraw();
    return end;
  }

  readonly #decodePiece = ({ handle, block, from, upTo }: Piece, memory: Buffer): Buffer | null => {
    const access = this.#known.get(handle);
    if (access === undefined) return null;
    const unsealed = this.#unseal(access, { block, until: 0 });
    const part = unsealed.part(from, upTo, memory);
    if (part !== null) this.#meter.part?.(true);
    return part;
  };

  /**
   * What is done between requests: the disk is told of what may be read next, and one block is decoded ahead if a reader goes through an
   * archive in order. True when one did since the last call.
   */
  workAhead(): boolean {
    this.#disk.tell();
    const inOrder = this.#inOrder;
    this.#inOrder = false;
    if (this.#ahead !== null) this.#decodeAhead(this.#ahead);
    return inOrder;
  }

  #decodeAhead(access: ArchiveAccess): void {
    while (this.#aheadNext < this.#aheadEnd) {
      const block = this.#aheadNext++;
      try {
        const ahead = this.#slots.ahead(access.handle, block, (target) => {
          this.#meter.busy(true);
          return this.#decode(access, { block, until: 0 }, target);
        });
        if (ahead) return;
      } catch (error) {
        // Whoever really reads the block will meet the error and tell of it.
        this.#ahead = null;
        if (!(error instanceof RozenError) && (error as Error).name !== 'Miss') throw error;
        return;
      }
    }
    this.#ahead = null;
  }

  /**
   * That the three blocks before this one are in memory is the sign of a sequential reader, whichever thread served it and
   * whether it reads one file or many in pack order. A random reader shows it by chance only: a read of 128 KiB that crosses
   * into this block has itself brought the one before (with two blocks as the sign, 11 % of all that random reads of 1 GiB
   * decoded was decoded in vain, and 16 MiB asked of the disk each time; with three 2 %).
   */
  #noteSequential(access: ArchiveAccess, block: number): void {
    for (let before = 1; before <= SEQUENCE; before++) {
      if (block < before || !this.#slots.has(access.handle, block - before)) return;
    }
    if (
      access.path === null &&
      (access.handle !== this.#told?.handle || block >= this.#toldBlock + TELL_EACH || block < this.#toldBlock)
    ) {
      this.#told = access;
      this.#toldBlock = block;
      this.#meter.inOrder?.(access, block);
    }
    const count = access.blockOffsets?.length ?? 0;
    const end = Math.min(block + 1 + AHEAD_BLOCKS, count);
    if (this.#ahead?.handle !== access.handle || this.#aheadNext <= block || this.#aheadNext > end)
      this.#aheadNext = block + 1;
    this.#ahead = access;
    this.#aheadEnd = end;
    this.#inOrder = true;
    this.#disk.sequential(access, block);
  }

  /**
   * That nobody has looked lately at the block that holds `at`, nor come to it from the one before, but for the read that began with
   * block `first`. Whoever enters a block in its middle may be the second of two threads that go on in order: then two blocks before it are
   * in memory (one alone is by chance, 6 % of all random reads of 1 GiB).
   */
  #isRandom(handle: number, at: number, first: number): boolean {
    const block = Math.floor(at / BLOCK_SIZE);
    if (this.#slots.has(handle, block) || this.#touched.has(handle, block)) return false;
    const before = this.#slots.has(handle, block - 1);
    if (at > block * BLOCK_SIZE) return !before || !this.#slots.has(handle, block - 2);
    return !before && (block > first || !this.#touched.has(handle, block - 1));
  }

  #counted<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      // A Miss is no failure.
      if (!(error instanceof Miss)) this.#meter.failed?.();
      throw error;
    }
  }

  #decode(access: ArchiveAccess, { block, until }: { block: number; until: number }, target: Buffer): number {
    const expect = { type: 'DATA', sequence: block + 1, tagOnly: true } as const;
    return reading(
      access,
      () => openFrame(sealContext(access), this.#frame(access, block, until), expect, target).length,
    );
  }

  #unseal(access: ArchiveAccess, { block, until }: { block: number; until: number }): UnsealedFrame {
    return reading(access, () => new UnsealedFrame(sealContext(access), this.#frame(access, block, until), block + 1));
  }

  #frame(access: ArchiveAccess, block: number, until: number): Buffer {
    const { blockOffsets, blockLengths } = access;
    if (blockOffsets === null || blockLengths === null) throw corrupt(`${access.object}: it has no block table`);
    const offset = blockOffsets[block];
    const length = blockLengths[block];
    if (offset === undefined || length === undefined) {
      throw corrupt(`${access.object}: block ${block} lies beyond its ${blockOffsets.length} blocks`);
    }
    const frame = readFrame(access, offset, length, until);
    this.#meter.frame(length);
    return frame;
  }
}

/** Numbers of the blocks that hold a range of the stream that a row means. */
export function* blocksOf(access: ArchiveAccess, streamOffset: number, length: number): Generator<number> {
  const start = placeInStream(access, streamOffset, length);
  const last = Math.floor((start + length - 1) / BLOCK_SIZE);
  for (let block = Math.floor(start / BLOCK_SIZE); block <= last; block++) yield block;
}

const contexts = new WeakMap<ArchiveAccess, SealContext>();

/** What opens frames of this archive. */
export function sealContext(access: ArchiveAccess): SealContext {
  let context = contexts.get(access);
  if (context === undefined) {
    context = { archiveId: access.id, key: access.blockKey, headerHash: access.headerHash };
    contexts.set(access, context);
  }
  return context;
}
