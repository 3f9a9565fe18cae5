/**
 * Memory that is used again: large buffers that are made, filled and dropped cost page faults, and a garbage collection for each 64 MiB
 * of them (measured: a quarter of the main thread's time while it fetches).
 */
export class MemoryPool {
  readonly #size: number;
  readonly #most: number;
  readonly #free: Buffer[] = [];

  /** Keeps up to `most` pieces of `size` bytes that nobody uses. */
  constructor(size: number, most: number) {
    this.#size = size;
    this.#most = most;
  }

  /** At least `length` bytes, whatever they hold; give them back, or forget them. */
  take(length: number): Buffer {
    if (length > this.#size) return Buffer.allocUnsafeSlow(length);
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#size);
  }

  /** What `take` gave, and nobody looks at any more. */
  give(memory: Buffer): void {
    if (memory.length === this.#size && this.#free.length < this.#most) this.#free.push(memory);
  }
}
