/**
 * What all threads see without a message: the epoch that says "the main thread has posted something", each thread's
 * counters (written by that thread alone, so plain stores do), and the texts of `.rozen/status` that were handed out.
 */

const MAX_THREADS = 64;
const COUNTERS = 16;
/** Status texts kept: whoever looked it up among the last ones may read it, from whichever thread. */
const TEXTS = 16;
const TEXT_SIZE = 16 * 1024;

const EPOCH = 0;
const SERIAL = 1;
const FIRST_TEXT = 2;
const WORDS = FIRST_TEXT + TEXTS * 2 + (TEXTS % 2);

const COUNTERS_AT = WORDS * 4;
const TEXTS_AT = COUNTERS_AT + MAX_THREADS * COUNTERS * 8;

/** Counters of a thread. Bytes and counts below 2^53. */
export const COUNT = {
  requests: 0,
  bytesRead: 1,
  pagesDecoded: 2,
  framesRead: 3,
  sealedBytes: 4,
  misses: 5,
  // About remote stores; but for the hits, the main thread alone counts it.
  cacheHits: 6,
  fetchedFrames: 7,
  storeRequests: 8,
  requestsAhead: 9,
  fetchedBytes: 10,
  failedRequests: 11,
  cacheBytes: 12,
  // Of random reads.
  partsDecoded: 13,
  partsShared: 14,
  partsFailed: 15,
} as const;

export function createBoardMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(TEXTS_AT + TEXTS * TEXT_SIZE);
}

export class Board {
  readonly #words: Int32Array;
  readonly #counters: Float64Array;
  readonly #texts: Buffer;
  readonly #own: number;

  /** `thread` 0 is the main thread, reader n is n + 1. */
  constructor(memory: SharedArrayBuffer, thread: number) {
    this.#words = new Int32Array(memory, 0, WORDS);
    this.#counters = new Float64Array(memory, COUNTERS_AT, MAX_THREADS * COUNTERS);
    this.#texts = Buffer.from(memory, TEXTS_AT, TEXTS * TEXT_SIZE);
    this.#own = (thread % MAX_THREADS) * COUNTERS;
  }

  get epoch(): number {
    return Atomics.load(this.#words, EPOCH);
  }

  /** After posting: every thread looks into its port before its next request. */
  advance(): void {
    Atomics.add(this.#words, EPOCH, 1);
  }

  count(counter: number, amount = 1): void {
    const at = this.#own + counter;
    this.#counters[at] = this.#counters[at]! + amount;
  }

  put(counter: number, value: number): void {
    this.#counters[this.#own + counter] = value;
  }

  /** Sum over all threads. */
  total(counter: number): number {
    let sum = 0;
    for (let at = counter; at < this.#counters.length; at += COUNTERS) sum += this.#counters[at]!;
    return sum;
  }

  /** Keeps a text (cut to TEXT_SIZE); its number names it for `text` until TEXTS more were kept. */
  keepText(text: string): { serial: number; length: number } {
    const serial = Atomics.add(this.#words, SERIAL, 1) >>> 0;
    const index = serial % TEXTS;
    const at = FIRST_TEXT + index * 2;
    Atomics.store(this.#words, at + 1, 0);
    Atomics.store(this.#words, at, serial | 0);
    const length = this.#texts.subarray(index * TEXT_SIZE, (index + 1) * TEXT_SIZE).write(text);
    Atomics.store(this.#words, at + 1, length);
    return { serial, length };
  }

  /** A copy of the text with this number; null when it is gone. */
  text(serial: number): Buffer | null {
    const index = serial % TEXTS;
    const at = FIRST_TEXT + index * 2;
    if (Atomics.load(this.#words, at) >>> 0 !== serial) return null;
    const length = Atomics.load(this.#words, at + 1);
    const start = index * TEXT_SIZE;
    const copy = Buffer.from(this.#texts.subarray(start, start + length));
    return length > 0 && Atomics.load(this.#words, at) >>> 0 === serial ? copy : null;
  }
}
