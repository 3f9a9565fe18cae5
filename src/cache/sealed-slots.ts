/**
 * Frames of content that were fetched, still sealed, in memory that all threads share: the main thread puts in what came, and any
 * reader takes it from there, before the block cache has it on its disk and without asking there. What does not fit, or is gone, is read from
 * the block cache, or fetched again.
 */
import { BLOCK_SIZE } from '../archive/format.ts';
import { maxFrameLength } from '../archive/frame.ts';
import type { ArchiveAccess, FrameCache } from './frames.ts';
import { firstAt } from './ranges.ts';
import { BlockSlots, createSlotMemory, type SlotMemory } from './slots.ts';

/** 64 MiB, twice what is fetched ahead of a sequential reader. */
const SLOTS = 256;

export function createSealedMemory(): SlotMemory {
  const slotSize = maxFrameLength('DATA', BLOCK_SIZE);
  return createSlotMemory({ bytes: SLOTS * slotSize, slotSize });
}

type Place = Pick<ArchiveAccess, 'handle' | 'blockOffsets'>;

/** One thread's view. */
export class SealedSlots implements FrameCache {
  readonly #slots: BlockSlots;
  #pinned = -1;

  constructor(memory: SlotMemory) {
    this.#slots = new BlockSlots(memory);
  }

  /** False when there is no room for it. */
  put(archive: Place, offset: number, frame: Buffer): boolean {
    const block = blockAt(archive, offset);
    if (block < 0) return false;
    this.#slots.ahead(archive.handle, block, (target) => frame.copy(target));
    return this.#slots.has(archive.handle, block);
  }

  has(archive: Place, offset: number): boolean {
    const block = blockAt(archive, offset);
    return block >= 0 && this.#slots.ready(archive.handle, block);
  }

  /** Valid until the next call. Decoded blocks are kept elsewhere, so that each frame is wanted once. */
  frame(archive: Place, offset: number): Buffer | null {
    if (this.#pinned >= 0) this.#slots.release(this.#pinned);
    const block = blockAt(archive, offset);
    this.#pinned = block < 0 ? -1 : this.#slots.peek(archive.handle, block);
    if (this.#pinned < 0) return null;
    this.#slots.spent(this.#pinned, true);
    return this.#slots.bytes(this.#pinned);
  }
}

function blockAt({ blockOffsets }: Place, offset: number): number {
  if (blockOffsets === null) return -1;
  const block = firstAt(blockOffsets, offset);
  return blockOffsets[block] === offset ? block : -1;
}
