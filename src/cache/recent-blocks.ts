/** The blocks (or groups of them) of archives that one thread has lately met, the last `capacity` of them. */
export class RecentBlocks {
  readonly #keys: Float64Array;
  #next = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity);
  }

  has(handle: number, block: number): boolean {
    return this.#keys.includes(keyOf(handle, block));
  }

  add(handle: number, block: number): void {
    this.#keys[this.#next] = keyOf(handle, block);
    this.#next = (this.#next + 1) % this.#keys.length;
  }
}

/** Handles begin with 1, so no key is 0. */
function keyOf(handle: number, block: number): number {
  return handle * 2 ** 20 + block;
}
