/**
 * What the kernel is told to read from the disk before anybody asks for it, of archives that lie on this machine: what comes next for a
 * reader that goes in order, and what lies around a random read. Nothing of this waits for the disk.
 */
import { type ArchiveAccess, hintFrames } from './frames.ts';

/**
 * How many sealed bytes are read ahead of a sequential reader: twice as many each time it has read half of them. Measured, 1
 * GiB of binaries, cold: 16 MiB at most 1.53 s, 64 MiB 1.40 s.
 */
const FIRST_HINT = 8 * 1024 * 1024;
const LAST_HINT = 64 * 1024 * 1024;

/**
 * Random reads are seldom spread evenly: a database, a disk image or a catalogue of photos is read here and there within a few MiB. Blocks
 * are read around one in groups of so many. Measured, 128 KiB each at random over 1 GiB, cold: 1,830 reads a second without, 2,150
 * with 4 blocks, 2,500 with 8, 2,670 with 16; the first half second, in which nearly all comes from the disk, 960, 1,040, 920 and 880.
 */
const AROUND_BLOCKS = 8;
const GROUPS_KEPT = 64;

/** One thread's view. */
export class DiskAhead {
  /** The archive that is read in order, and up to which offset the kernel has been told. */
  #inOrder: ArchiveAccess | null = null;
  #inOrderEnd = 0;
  #hintSize = FIRST_HINT;
  /** Where a random read has been since `tell`. */
  #random: ArchiveAccess | null = null;
  #randomBlock = 0;
  /** Groups that were told lately: archive and first block. */
  readonly #told = new Float64Array(GROUPS_KEPT * 2).fill(-1);
  #nextTold = 0;

  /** A reader that goes through the archive in order is at this block. */
  sequential(access: ArchiveAccess, block: number): void {
    if (access.path === null) return;
    const at = access.blockOffsets?.[block] ?? access.size;
    if (this.#inOrder?.handle !== access.handle || this.#inOrderEnd < at || this.#inOrderEnd > at + 2 * LAST_HINT) {
      this.#inOrderEnd = at;
      this.#hintSize = FIRST_HINT;
    }
    this.#inOrder = access;
    if (this.#inOrderEnd - at > this.#hintSize / 2) return;
    hintFrames(access, this.#inOrderEnd, this.#hintSize);
    this.#inOrderEnd += this.#hintSize;
    this.#hintSize = Math.min(LAST_HINT, this.#hintSize * 2);
  }

  /** A random read has taken a part of this block. */
  random(access: ArchiveAccess, block: number): void {
    if (access.path === null) return;
    this.#random = access;
    this.#randomBlock = block;
  }

  /** Tells the kernel of the last random read: when it has been answered, as this costs some 20 µs. */
  tell(): void {
    const access = this.#random;
    if (access === null) return;
    this.#random = null;
    const first = this.#randomBlock - (this.#randomBlock % AROUND_BLOCKS);
    const offset = access.blockOffsets?.[first];
    if (offset === undefined || this.#wasTold(access.handle, first)) return;
    hintFrames(access, offset, (access.blockOffsets?.[first + AROUND_BLOCKS] ?? access.size) - offset);
  }

  /** Whether this was asked lately; from now on it was. */
  #wasTold(handle: number, first: number): boolean {
    const told = this.#told;
    for (let at = 0; at < told.length; at += 2) if (told[at + 1] === first && told[at] === handle) return true;
    told[this.#nextTold] = handle;
    told[this.#nextTold + 1] = first;
    this.#nextTold = (this.#nextTold + 2) % told.length;
    return false;
  }
}
