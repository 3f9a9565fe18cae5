/** The decoded blocks that a worker has at hand: files come in the order of the stream, so a few are enough. */
import { BLOCK_SIZE } from '../../archive/format.ts';
import { openFrame } from '../../archive/frame.ts';
import { sealContext } from '../../cache/blocks.ts';
import { type ArchiveAccess, readFrame } from '../../cache/frames.ts';
import { corrupt } from '../../errors.ts';

const KEPT = 6;

interface Slot {
  handle: number;
  block: number;
  target: Buffer;
  length: number;
  used: number;
}

export class BlockWindow {
  readonly #archives = new Map<number, ArchiveAccess>();
  readonly #slots: Slot[] = [];
  #clock = 0;

  addArchive(access: ArchiveAccess): void {
    this.#archives.set(access.handle, access);
  }

  archive(handle: number): ArchiveAccess {
    return this.#archives.get(handle)!;
  }

  /**
   * The plaintext of a block, valid until five others were asked for; at least `upTo` bytes. Throws Miss, 'corrupt' and 'io'.
   */
  block(handle: number, block: number, upTo: number): Buffer {
    let slot = this.#slots.find((it) => it.handle === handle && it.block === block);
    if (slot === undefined) slot = this.#decode(handle, block);
    slot.used = ++this.#clock;
    if (slot.length < upTo) {
      const { object } = this.#archives.get(handle)!;
      throw corrupt(`${object}: block ${block} ends at ${slot.length}, content goes on to ${upTo}`);
    }
    return slot.target;
  }

  #decode(handle: number, block: number): Slot {
    const access = this.#archives.get(handle)!;
    const offset = access.blockOffsets?.[block];
    const length = access.blockLengths?.[block];
    if (offset === undefined || length === undefined) throw corrupt(`${access.object}: it has no block ${block}`);
    const frame = readFrame(access, offset, length);
    const slot = this.#oldest();
    // While it is being written it is no block.
    slot.handle = 0;
    slot.length = openFrame(sealContext(access), frame, { type: 'DATA', sequence: block + 1 }, slot.target).length;
    slot.handle = handle;
    slot.block = block;
    return slot;
  }

  #oldest(): Slot {
    if (this.#slots.length < KEPT) {
      const slot = { handle: 0, block: 0, target: Buffer.allocUnsafeSlow(BLOCK_SIZE), length: 0, used: 0 };
      this.#slots.push(slot);
      return slot;
    }
    return this.#slots.reduce((oldest, slot) => (slot.used < oldest.used ? slot : oldest));
  }
}
