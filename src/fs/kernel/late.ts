/**
 * Requests that met a miss and whose bytes have come: a reader that has nothing to do answers them, so that the thread that fetches
 * goes on fetching. A ring in shared memory, as a message would not wake a reader that sleeps (lead.ts).
 */
import type { Request } from '../protocol/request.ts';

const ENTRIES = 32;
/** Word 0: entries that are ready. The entries begin here. */
const PENDING = 0;
const FIRST = 16;
/** 32-bit words of an entry: state, length, then the bytes of a request; a READ has 80. */
const ENTRY_WORDS = 32;
const STATE = 0;
const LENGTH = 1;
const BYTES = 2;

const FREE = 0;
const TAKEN = 1;
const READY = 2;

export function createLateMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer((FIRST + ENTRIES * ENTRY_WORDS) * 4);
}

/** One thread's view. */
export class LateRequests {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
    this.#bytes = new Uint8Array(memory);
  }

  /** Where it lies, for `takeBack`; 0 when it does not fit. */
  push(raw: Uint8Array): number {
    if (raw.length > (ENTRY_WORDS - BYTES) * 4) return 0;
    for (let at = FIRST; at < this.#words.length; at += ENTRY_WORDS) {
      if (Atomics.compareExchange(this.#words, at + STATE, FREE, TAKEN) !== FREE) continue;
      this.#bytes.set(raw, (at + BYTES) * 4);
      this.#words[at + LENGTH] = raw.length;
      Atomics.store(this.#words, at + STATE, READY);
      Atomics.add(this.#words, PENDING, 1);
      return at;
    }
    return 0;
  }

  /** Takes back what was pushed. False when somebody has taken it meanwhile. */
  takeBack(at: number): boolean {
    if (Atomics.compareExchange(this.#words, at + STATE, READY, FREE) !== READY) return false;
    Atomics.sub(this.#words, PENDING, 1);
    return true;
  }

  /** Moves a request to `request`; false when there is none. */
  pop(request: Request): boolean {
    if (Atomics.load(this.#words, PENDING) === 0) return false;
    for (let at = FIRST; at < this.#words.length; at += ENTRY_WORDS) {
      if (Atomics.compareExchange(this.#words, at + STATE, READY, TAKEN) !== READY) continue;
      const bytes = (at + BYTES) * 4;
      request.load(this.#bytes.subarray(bytes, bytes + this.#words[at + LENGTH]!));
      Atomics.store(this.#words, at + STATE, FREE);
      Atomics.sub(this.#words, PENDING, 1);
      return true;
    }
    return false;
  }
}
