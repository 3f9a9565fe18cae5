/** Small tables of inode numbers that hold nothing per file where they can. */

const PIECE_BITS = 1 << 16;

/** A bitmap in pieces: a lineage whose numbers have grown large costs only what is used. */
export class InodeSet {
  readonly #pieces = new Map<number, Uint32Array>();

  add(inode: number): void {
    const at = Math.floor(inode / PIECE_BITS);
    let piece = this.#pieces.get(at);
    if (piece === undefined) {
      piece = new Uint32Array(PIECE_BITS / 32);
      this.#pieces.set(at, piece);
    }
    const bit = inode % PIECE_BITS;
    piece[bit >>> 5]! |= 1 << (bit & 31);
  }

  has(inode: number): boolean {
    const piece = this.#pieces.get(Math.floor(inode / PIECE_BITS));
    const bit = inode % PIECE_BITS;
    return piece !== undefined && (piece[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }
}

interface Link {
  inode: number;
  record: number;
}

/** Entries with several names that the walk has met, by (device, inode number) of the source. */
export class LinkTable {
  readonly #devices = new Map<number, Map<number, Link>>();

  /** The inode number in the snapshot, 0 when this is the first name. */
  get(dev: number, ino: number): number {
    return this.#devices.get(dev)?.get(ino)?.inode ?? 0;
  }

  /** The record of that inode, -1 when its row stays. */
  record(dev: number, ino: number): number {
    return this.#devices.get(dev)?.get(ino)?.record ?? -1;
  }

  set(dev: number, ino: number, inode: number, record: number): void {
    let links = this.#devices.get(dev);
    if (links === undefined) {
      links = new Map();
      this.#devices.set(dev, links);
    }
    links.set(ino, { inode, record });
  }
}
