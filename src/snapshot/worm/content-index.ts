/** Finds numbers by content id: open addressing over the first 48 bits, 16 bytes a content. */
export class ContentIndex {
  #keys: Float64Array;
  #values: Float64Array;
  #mask: number;
  #count = 0;

  constructor(expected: number) {
    let capacity = 1024;
    while (capacity < expected * 2) capacity *= 2;
    this.#mask = capacity - 1;
    this.#keys = new Float64Array(capacity).fill(-1);
    this.#values = new Float64Array(capacity);
  }

  add(id: Buffer, value: number): void {
    if (this.#count * 2 > this.#mask) this.#grow();
    this.#put(id.readUIntLE(0, 6), value);
    this.#count++;
  }

  /** The first value under this id that `fits`; the caller looks at the whole id. -1 when there is none. */
  find(id: Buffer, fits: (value: number) => boolean): number {
    const key = id.readUIntLE(0, 6);
    for (let slot = this.#slot(key); this.#keys[slot] !== -1; slot = (slot + 1) & this.#mask) {
      if (this.#keys[slot] === key && fits(this.#values[slot]!)) return this.#values[slot]!;
    }
    return -1;
  }

  #slot(key: number): number {
    return (key % 2 ** 32) & this.#mask;
  }

  #put(key: number, value: number): void {
    let slot = this.#slot(key);
    while (this.#keys[slot] !== -1) slot = (slot + 1) & this.#mask;
    this.#keys[slot] = key;
    this.#values[slot] = value;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#mask = keys.length * 2 - 1;
    this.#keys = new Float64Array(keys.length * 2).fill(-1);
    this.#values = new Float64Array(keys.length * 2);
    for (const [slot, key] of keys.entries()) if (key !== -1) this.#put(key, values[slot]!);
  }
}
