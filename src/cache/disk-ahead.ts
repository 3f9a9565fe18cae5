/**
 * What the kernel is told to read from the disk before anybody asks for it, of archives that lie on this machine: what comes next for a
 * reader that goes in order, and what lies around a random read. Nothing of this waits for the disk.
 */
import { type ArchiveAccess, hintFrames } from './frames.ts';
import { RecentBlocks } from './recent-blocks.ts';

/**
 * How far the disk reads ahead of a sequential reader, in sealed bytes: the more, the longer it goes on; told in steps, so that none of them
 * takes longer than half a millisecond. Measured, cold: 64 MiB at most are no faster than 16.
 */
const FIRST_WINDOW = 8 * 1024 * 1024;
const LAST_WINDOW = 16 * 1024 * 1024;
const STEP = 2 * 1024 * 1024;

/**
 * Random reads are seldom spread evenly: a database, a disk image or a catalogue of photos is read here and there within some MiB. Where
 * a second one comes into a region, blocks around it are read in groups of so many; one alone, as of the heads of many photos, reads
 * nothing else. Measured, 128 KiB each at random over 1 GiB, cold: 1,830 reads a second without, 2,150 with groups of 4 blocks, 2,500
 * with 8, 2,670 with 16; the first half second, in which nearly all comes from the disk, 960, 1,040, 920 and 880.
 */
const AROUND_BLOCKS = 16;
const REGION_BLOCKS = 64;
const KEPT = 128;

/** One thread's view. */
export class DiskAhead {
  readonly #hint: typeof hintFrames;
  /** The archive that is read in order: from where it will be read (-1 when that was told), where ends what was told, and how far that may be ahead. */
  #inOrder: ArchiveAccess | null = null;
  #inOrderAt = -1;
  #inOrderEnd = 0;
  #window = FIRST_WINDOW;
  /** Where a random read has been since `tell`. */
  #random: ArchiveAccess | null = null;
  #randomBlock = 0;
  readonly #regions = new RecentBlocks(KEPT);
  readonly #groups = new RecentBlocks(KEPT);

  constructor(hint = hintFrames) {
    this.#hint = hint;
  }

  /** A reader that goes through the archive in order is at this block. */
  sequential(access: ArchiveAccess, block: number): void {
    if (access.path === null) return;
    const at = access.blockOffsets?.[block] ?? access.size;
    if (this.#inOrder?.handle !== access.handle || this.#inOrderEnd < at || this.#inOrderEnd > at + 2 * LAST_WINDOW) {
      this.#inOrderEnd = at;
      this.#window = FIRST_WINDOW;
    }
    this.#inOrder = access;
    this.#inOrderAt = at;
  }

  /** A random read has taken a part of this block. */
  random(access: ArchiveAccess, block: number): void {
    if (access.path === null) return;
    this.#random = access;
    this.#randomBlock = block;
  }

  /** Tells the kernel, when a read has been answered: this costs tens of microseconds. */
  tell(): void {
    if (this.#inOrder !== null && this.#inOrderAt >= 0) this.#tellInOrder(this.#inOrder);
    this.#inOrderAt = -1;
    if (this.#random !== null) this.#tellRandom(this.#random);
    this.#random = null;
  }

  #tellInOrder(access: ArchiveAccess): void {
    const end = Math.min(this.#inOrderAt + this.#window, access.size);
    // Less than a step is told at the end of the archive only.
    if (end < this.#inOrderEnd + (end === access.size ? 1 : STEP)) return;
    this.#hint(access, this.#inOrderEnd, end - this.#inOrderEnd);
    this.#inOrderEnd = end;
    this.#window = Math.min(LAST_WINDOW, this.#window + STEP);
  }

  #tellRandom(access: ArchiveAccess): void {
    const block = this.#randomBlock;
    const region = block - (block % REGION_BLOCKS);
    if (!this.#regions.has(access.handle, region)) return this.#regions.add(access.handle, region);
    const first = block - (block % AROUND_BLOCKS);
    const offset = access.blockOffsets?.[first];
    if (offset === undefined || this.#groups.has(access.handle, first)) return;
    this.#groups.add(access.handle, first);
    this.#hint(access, offset, (access.blockOffsets?.[first + AROUND_BLOCKS] ?? access.size) - offset);
  }
}
