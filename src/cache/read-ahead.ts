/**
 * How far to fetch beyond what was asked for. Readers that go through an archive in order, each by its own pace, are told
 * from others by where they ask; whether they read one file or many that lie side by side is the same here.
 */

/** A reader that goes through an archive in order. Offsets of the object, in bytes. */
interface Stream {
  /** Where the reader is: the end of what it asked for last. */
  at: number;
  /** What was asked for, or will be by the answer, ends here. */
  until: number;
  window: number;
  /** Where the reader was when the window grew last. */
  grown: number;
  used: number;
}

export interface ReadAheadOptions {
  /** Fetched at each request, at least, what was asked for included: 0 for that alone. */
  first: number;
  /** The window of a reader that turned out to go in order. */
  begin: number;
  most: number;
  /** A window twice as large as this moves on by so much at least, a much larger one by an eighth, up to `longStep`. */
  step: number;
  longStep: number;
}

/** Content: a random reader costs one block, a sequential one has 32 MiB under way, in GETs of up to 4 MiB: with 16 MiB a restore over 50 ms
 * took a quarter longer, and with GETs of 1 MiB a read took 15 % more of the processor. */
export const AHEAD_OF_CONTENT: ReadAheadOptions = {
  first: 0,
  begin: 2 * 1024 * 1024,
  most: 32 * 1024 * 1024,
  step: 1024 * 1024,
  longStep: 4 * 1024 * 1024,
};

/** Pages: small, and who reads one reads its neighbours. They are asked for only when they are missing. */
export const AHEAD_OF_PAGES: ReadAheadOptions = {
  first: 256 * 1024,
  begin: 256 * 1024,
  most: 8 * 1024 * 1024,
  step: 0,
  longStep: 0,
};

/** Blocks come out of order from several threads, and small files go back into the block before: so much is still in order. */
const BACKWARD = 1024 * 1024;
const FORWARD = 256 * 1024;
/** Readers of one archive that are kept apart. */
const STREAMS = 8;

export class ReadAhead {
  readonly #options: ReadAheadOptions;
  readonly #streams: Stream[] = [];
  #clock = 0;

  constructor(options: ReadAheadOptions) {
    this.#options = options;
  }

  /**
   * A reader wants the bytes from `offset` to `end`. Answers what to fetch beside them, from … to (exclusive): nothing when
   * both are equal.
   */
  want(offset: number, end: number): { from: number; to: number } {
    const { first, begin, most, step, longStep } = this.#options;
    const stream = this.#streams.find(({ at, until }) => offset >= at - BACKWARD && offset <= until + FORWARD);
    if (stream === undefined) {
      const until = Math.max(end, offset + first);
      if (this.#streams.length >= STREAMS) this.#forgetOldest();
      this.#streams.push({ at: end, until, window: begin, grown: end, used: ++this.#clock });
      return { from: end, to: until };
    }
    stream.used = ++this.#clock;
    // The same again, by another thread or the next small file, is no progress.
    if (end <= stream.at) return { from: end, to: Math.max(end, offset + first) };
    stream.at = end;
    stream.until = Math.max(stream.until, end);
    // It grows when half of it was read: what is fetched in vain stays in proportion to what was read. Fourfold, as each step waits for an
    // answer of the store: a reader of a large file has its whole window after three of them.
    if (stream.window < most && stream.at - stream.grown >= stream.window / 2) {
      stream.window = Math.min(most, stream.window * 4);
      stream.grown = stream.at;
    }
    const from = stream.until;
    // The window moves on in whole steps, not block by block.
    const unit = Math.max(1, Math.min(step, stream.window / 2), Math.min(longStep, stream.window / 8));
    const goal = from + Math.floor((stream.at + stream.window - from) / unit) * unit;
    if (goal <= from) return { from: end, to: Math.max(end, offset + first) };
    stream.until = goal;
    return { from: Math.max(from, end), to: goal };
  }

  #forgetOldest(): void {
    const oldest = this.#streams.reduce((a, b) => (b.used < a.used ? b : a));
    this.#streams.splice(this.#streams.indexOf(oldest), 1);
  }
}
