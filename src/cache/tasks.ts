/**
 * The latter piece of a random read, decoded by a thread that has nothing else to do: whoever reads alone posts it, decodes the former
 * piece meanwhile, and then takes what the other has made; when nobody has begun by then, it takes the piece back.
 *
 * Each thread has one cell: free → posted (by its owner) → taken (by another thread) → done, or declined (the owner decodes it itself, and
 * meets what is wrong with it). Bytes that were made stay valid until the owner posts again.
 */

/** Shared by structured clone. */
export interface TaskMemory {
  control: SharedArrayBuffer;
  data: SharedArrayBuffer;
}

/** Bytes of one block of an archive. */
export interface Piece {
  /** See `ArchiveAccess`. */
  handle: number;
  block: number;
  from: number;
  upTo: number;
}

/** Decodes a piece into `memory`, where the result must lie; null when that cannot be done. */
export type PieceWork = (piece: Piece, memory: Buffer) => Buffer | null;

/** Threads beyond these neither post nor help. */
const CELLS = 16;

/** Words of a cell: its state, a `Piece`, and where in the cell's bytes the result lies. 64 bytes, so that no two share a cache line. */
const CELL_WORDS = 16;
const STATE = 0;
const HANDLE = 1;
const BLOCK = 2;
const FROM = 3;
const UPTO = 4;
const START = 5;
const LENGTH = 6;

const FREE = 0;
const POSTED = 1;
const TAKEN = 2;
const DONE = 3;
const DECLINED = 4;

/** How often a piece that is being decoded is looked at before its owner sleeps: some 100 µs. */
const SPINS = 2000;
/** A thread that died over a piece must not stop its owner. */
const WAIT_LIMIT_MS = 1000;

/** `pieceSize`: bytes that decoding a piece may take. The memory is taken from the system as it is used. */
export function createTaskMemory(pieceSize: number): TaskMemory {
  return { control: new SharedArrayBuffer(CELLS * CELL_WORDS * 4), data: new SharedArrayBuffer(CELLS * pieceSize) };
}

/** One thread's view. */
export class PieceTasks {
  readonly #words: Int32Array;
  readonly #memory: Buffer[] = [];
  readonly #own: number;

  /** `thread`: 0, 1, … */
  constructor(memory: TaskMemory, thread: number) {
    this.#words = new Int32Array(memory.control);
    const size = memory.data.byteLength / CELLS;
    for (let cell = 0; cell < CELLS; cell++) this.#memory.push(Buffer.from(memory.data, cell * size, size));
    this.#own = thread < CELLS ? thread * CELL_WORDS : -1;
  }

  /** Offers a piece. False when the last one is still being decoded. */
  post(piece: Piece): boolean {
    const words = this.#words;
    const at = this.#own;
    if (at < 0 || Atomics.load(words, at + STATE) === TAKEN) return false;
    words[at + HANDLE] = piece.handle;
    words[at + BLOCK] = piece.block;
    words[at + FROM] = piece.from;
    words[at + UPTO] = piece.upTo;
    Atomics.store(words, at + STATE, POSTED);
    return true;
  }

  /** What was made of the piece that was posted; null when its owner must decode it. Waits for one that is being decoded. */
  collect(): Buffer | null {
    const words = this.#words;
    const at = this.#own;
    if (this.withdraw()) return null;
    for (let spin = 0; spin < SPINS && Atomics.load(words, at + STATE) === TAKEN; spin++);
    if (Atomics.load(words, at + STATE) === TAKEN) Atomics.wait(words, at + STATE, TAKEN, WAIT_LIMIT_MS);
    if (Atomics.load(words, at + STATE) !== DONE) return null;
    const start = words[at + START]!;
    return this.#memory[at / CELL_WORDS]!.subarray(start, start + words[at + LENGTH]!);
  }

  /** Takes back what nobody has begun. False when somebody has. */
  withdraw(): boolean {
    return this.#own >= 0 && Atomics.compareExchange(this.#words, this.#own + STATE, POSTED, FREE) === POSTED;
  }

  /** Decodes a piece of another thread, if one is posted: true. What `work` throws is met again by the piece's owner. */
  help(work: PieceWork): boolean {
    const words = this.#words;
    for (let cell = 0; this.#own >= 0 && cell < CELLS; cell++) {
      const at = cell * CELL_WORDS;
      if (Atomics.load(words, at + STATE) !== POSTED || at === this.#own) continue;
      if (Atomics.compareExchange(words, at + STATE, POSTED, TAKEN) !== POSTED) continue;
      const made = this.#work(cell, work);
      Atomics.store(words, at + STATE, made ? DONE : DECLINED);
      Atomics.notify(words, at + STATE);
      return true;
    }
    return false;
  }

  #work(cell: number, work: PieceWork): boolean {
    const words = this.#words;
    const at = cell * CELL_WORDS;
    const memory = this.#memory[cell]!;
    const [handle, block, from, upTo] = words.subarray(at + HANDLE, at + UPTO + 1);
    let made: Buffer | null;
    try {
      made = work({ handle: handle!, block: block!, from: from!, upTo: upTo! }, memory);
    } catch {
      return false;
    }
    if (made === null) return false;
    words[at + START] = made.byteOffset - memory.byteOffset;
    words[at + LENGTH] = made.length;
    return true;
  }
}
