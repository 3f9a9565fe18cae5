/**
 * Columns of 32-bit numbers as four byte planes (all lowest bytes, then all second bytes, …): the high planes are nearly
 * constant and vanish under zstd, so no variable-width coding is needed.
 */

/** Writes `values` at `at`; takes 4 bytes for each. Returns the offset after it. */
export function writePlanes(target: Buffer, at: number, values: Uint32Array): number {
  const count = values.length;
  for (let i = 0; i < count; i++) {
    const value = values[i]!;
    target[at + i] = value;
    target[at + count + i] = value >>> 8;
    target[at + 2 * count + i] = value >>> 16;
    target[at + 3 * count + i] = value >>> 24;
  }
  return at + 4 * count;
}

/** Reads what `writePlanes` wrote into `values`; the caller has checked that `source` holds it. */
export function readPlanes(source: Uint8Array, at: number, values: Uint32Array): number {
  const count = values.length;
  for (let i = 0; i < count; i++) {
    values[i] =
      source[at + i]! |
      (source[at + count + i]! << 8) |
      (source[at + 2 * count + i]! << 16) |
      (source[at + 3 * count + i]! << 24);
  }
  return at + 4 * count;
}

/** A 64-bit number below 2^53; larger ones give NaN, which fails every check of a range. */
export function readUint53(source: Buffer, at: number): number {
  const high = source.readUInt32LE(at + 4);
  return high < 2 ** 21 ? high * 2 ** 32 + source.readUInt32LE(at) : Number.NaN;
}

export function writeUint53(target: Buffer, value: number, at: number): void {
  target.writeUInt32LE(value % 2 ** 32, at);
  target.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}
