/**
 * A page of a tree: columns of up to a few thousand rows, read in place. Decoding checks everything once and builds no
 * object per row; `num` and `start`/`end` then read single fields without allocating. Layout: docs/FORMAT-TREES.md.
 */
import { corrupt } from '../../errors.ts';
import { MAX_PAGE } from '../format.ts';
import { CHILD, type Column, type Field, schemaByNumber, type TreeSchema } from './schema.ts';

export const PAGE_HEADER_SIZE = 8;
export const COLUMN_HEADER_SIZE = 16;
export const PAGE_OFFSETS = { tree: 0, level: 1, columns: 2, rows: 4 } as const;
export const COLUMN_OFFSETS = { encoding: 0, width: 1, reserved: 2, heapLength: 4, base: 8 } as const;

/** base + offset; base + offset + the column that the schema names; lengths (base + offset) and a heap. */
export const ENCODING = { plain: 0, relative: 1, bytes: 2 } as const;
/** Offsets take at most 7 bytes: more than any safe integer needs. */
const MAX_WIDTH = 7;
/** More levels than any tree of 2^53 rows has. */
export const MAX_LEVEL = 15;

/** Of each width in bytes: the number of offsets that it can tell. */
export const WIDTH_RANGE: readonly number[] = [1, 2 ** 8, 2 ** 16, 2 ** 24, 2 ** 32, 2 ** 40, 2 ** 48, 2 ** 56];

/** Bytes of a name on Linux, and of the name of an attribute. */
const MAX_NAME = 255;
const SLASH = 0x2f;
const DOT = 0x2e;

const NO_ENDS = new Uint32Array(0);

/** One decoded page. `bytes` is the plaintext itself and must not change while the page lives. */
export class Page {
  readonly schema: TreeSchema;
  readonly level: number;
  /** Rows in this page. */
  readonly count: number;
  /** Rows of the tree at and below this page; equals `count` in a leaf. */
  readonly total: number;
  readonly bytes: Buffer;
  /** Only above the leaves: rows of the tree before child i, for i from 0 to count. */
  readonly ranks: Float64Array | null;
  readonly #bases: Float64Array;
  /** Position of the first byte plane; for byte strings with one length, of the heap. */
  readonly #starts: Int32Array;
  readonly #widths: Uint8Array;
  /** Column to add, -1: none. */
  readonly #relative: Int8Array;
  /** Ends of the byte strings as positions in `bytes`, shifted by one; empty when all have the same length. */
  readonly #ends: Uint32Array[];

  /** Use `decodePage`. Checks whatever it reads. */
  constructor(bytes: Buffer, what: string) {
    if (bytes.length < PAGE_HEADER_SIZE || bytes.length > MAX_PAGE)
      throw corrupt(`${what}: a page of ${bytes.length} bytes`);
    const schema = schemaByNumber(bytes[PAGE_OFFSETS.tree]!);
    if (schema === undefined) throw corrupt(`${what}: unknown tree ${bytes[PAGE_OFFSETS.tree]}`);
    this.schema = schema;
    this.bytes = bytes;
    this.level = bytes[PAGE_OFFSETS.level]!;
    if (this.level > MAX_LEVEL) throw corrupt(`${what}: level ${this.level}`);
    const columns = this.level === 0 ? schema.columns : schema.interior;
    const count = bytes.readUInt32LE(PAGE_OFFSETS.rows);
    // Keys are distinct, so every row takes a byte at least: this also bounds what is allocated below.
    if (count === 0 || count > bytes.length) throw corrupt(`${what}: ${count} rows`);
    this.count = count;
    const n = columns.length;
    if (bytes.readUInt16LE(PAGE_OFFSETS.columns) !== n) throw corrupt(`${what}: wrong number of columns`);
    this.#bases = new Float64Array(n);
    this.#starts = new Int32Array(n);
    this.#widths = new Uint8Array(n);
    this.#relative = new Int8Array(n).fill(-1);
    this.#ends = [];
    this.#readColumns(columns, what);
    checkKeys(this, what);
    this.ranks = this.level === 0 ? null : rankTable(this);
    this.total = this.ranks === null ? count : this.ranks[count]!;
    if (this.total > Number.MAX_SAFE_INTEGER) throw corrupt(`${what}: row counts overflow`);
  }

  #readColumns(columns: readonly Column[], what: string): void {
    const { bytes, count } = this;
    const lows: number[] = [];
    const highs: number[] = [];
    let position = PAGE_HEADER_SIZE + columns.length * COLUMN_HEADER_SIZE;
    if (position > bytes.length) throw corrupt(`${what}: cut in its column table`);
    for (let c = 0; c < columns.length; c++) {
      const column = columns[c]!;
      const at = PAGE_HEADER_SIZE + c * COLUMN_HEADER_SIZE;
      const encoding = bytes[at + COLUMN_OFFSETS.encoding]!;
      const width = bytes[at + COLUMN_OFFSETS.width]!;
      const heap = bytes.readUInt32LE(at + COLUMN_OFFSETS.heapLength);
      const base =
        bytes.readInt32LE(at + COLUMN_OFFSETS.base + 4) * 2 ** 32 + bytes.readUInt32LE(at + COLUMN_OFFSETS.base);
      const wrong =
        column.kind === 'bytes'
          ? encoding !== ENCODING.bytes
          : heap !== 0 || !(encoding === ENCODING.plain || (encoding === ENCODING.relative && column.relativeTo >= 0));
      if (
        wrong ||
        width > MAX_WIDTH ||
        bytes.readUInt16LE(at + COLUMN_OFFSETS.reserved) !== 0 ||
        !Number.isSafeInteger(base)
      ) {
        throw corrupt(`${what}: column ${column.name} has a malformed header`);
      }
      if (width * count + heap > bytes.length - position) throw corrupt(`${what}: cut in column ${column.name}`);
      this.#bases[c] = base;
      this.#widths[c] = width;
      this.#starts[c] = position;
      if (column.kind === 'bytes') {
        this.#ends.push(this.#readLengths(c, heap, `${what}: column ${column.name}`));
        if (column.names !== null) checkNames(this, c, column.names, what);
        lows.push(0);
        highs.push(0);
      } else {
        let low = base;
        let high = base + WIDTH_RANGE[width]! - 1;
        if (encoding === ENCODING.relative) {
          this.#relative[c] = column.relativeTo;
          low += lows[column.relativeTo]!;
          high += highs[column.relativeTo]!;
        }
        // Only a column whose header allows a value outside of its limits must be looked through.
        if (!(low >= column.min && high <= column.max)) {
          low = column.min;
          high = column.max;
          for (let row = 0; row < count; row++) {
            const value = this.num(c, row);
            if (!(value >= low && value <= high))
              throw corrupt(`${what}: column ${column.name} exceeds its limits in row ${row}`);
          }
        }
        this.#ends.push(NO_ENDS);
        lows.push(low);
        highs.push(high);
      }
      position += width * count + heap;
    }
    if (position !== bytes.length) throw corrupt(`${what}: ${bytes.length - position} bytes after its columns`);
  }

  #readLengths(c: number, heap: number, what: string): Uint32Array {
    const { count } = this;
    const width = this.#widths[c]!;
    const base = this.#bases[c]!;
    if (base < 0) throw corrupt(`${what} has a negative length`);
    const heapStart = this.#starts[c]! + width * count;
    if (width === 0) {
      if (base * count !== heap) throw corrupt(`${what}: its lengths do not add up`);
      return NO_ENDS;
    }
    const ends = new Uint32Array(count + 1);
    let end = heapStart;
    ends[0] = end;
    for (let row = 0; row < count; row++) {
      end += this.num(c, row);
      // Checked in every row: a sum beyond 2^32 would wrap in the table.
      if (end > heapStart + heap) throw corrupt(`${what}: its lengths do not add up`);
      ends[row + 1] = end;
    }
    if (end !== heapStart + heap) throw corrupt(`${what}: its lengths do not add up`);
    return ends;
  }

  /** The number in a column of kind 'number'; `row` must be below `count`. */
  num(column: number, row: number): number {
    let value = this.#bases[column]!;
    const width = this.#widths[column]!;
    if (width !== 0) {
      const { bytes, count } = this;
      let at = this.#starts[column]! + row;
      let low = bytes[at]!;
      if (width > 1) {
        at += count;
        low |= bytes[at]! << 8;
        if (width > 2) {
          at += count;
          low |= bytes[at]! << 16;
          let scale = 2 ** 24;
          for (let k = 3; k < width; k++) {
            at += count;
            value += bytes[at]! * scale;
            scale *= 256;
          }
        }
      }
      value += low;
    }
    const other = this.#relative[column]!;
    return other < 0 ? value : value + this.num(other, row);
  }

  /** Where the byte string of a column of kind 'bytes' begins in `bytes`. */
  start(column: number, row: number): number {
    return this.#widths[column] === 0 ? this.#starts[column]! + row * this.#bases[column]! : this.#ends[column]![row]!;
  }

  /** Where it ends. */
  end(column: number, row: number): number {
    return this.#widths[column] === 0
      ? this.#starts[column]! + (row + 1) * this.#bases[column]!
      : this.#ends[column]![row + 1]!;
  }

  /** The byte string itself, sharing the memory of the page. Allocates the view. */
  slice(column: number, row: number): Buffer {
    return this.bytes.subarray(this.start(column, row), this.end(column, row));
  }

  /** Negative, zero or positive, as the byte string of `row` sorts before, with or after `other` (as memcmp, shorter first). */
  compareBytes(column: number, row: number, other: Uint8Array): number {
    const { bytes } = this;
    const start = this.start(column, row);
    const length = this.end(column, row) - start;
    const common = Math.min(length, other.length);
    for (let i = 0; i < common; i++) {
      const difference = bytes[start + i]! - other[i]!;
      if (difference !== 0) return difference;
    }
    return length - other.length;
  }

  /** All fields of a row, key first; byte strings are views into the page. For callers that are in no hurry. */
  fields(row: number): Field[] {
    const columns = this.level === 0 ? this.schema.columns : this.schema.interior;
    return columns.map((column, c) => (column.kind === 'bytes' ? this.slice(c, row) : this.num(c, row)));
  }
}

/** Names become paths: what no file system could have named must never reach one. */
function checkNames(page: Page, column: number, names: 'file' | 'attribute', what: string): void {
  const { bytes, count } = page;
  const start = page.start(column, 0);
  const end = page.end(column, count - 1);
  const nul = bytes.indexOf(0, start);
  const slash = names === 'file' ? bytes.indexOf(SLASH, start) : -1;
  let wrong = (nul >= 0 && nul < end) || (slash >= 0 && slash < end);
  for (let row = 0; row < count; row++) {
    const at = page.start(column, row);
    const length = page.end(column, row) - at;
    if (length < 1 || length > MAX_NAME) wrong = true;
    else if (length <= 2 && names === 'file' && bytes[at] === DOT && (length === 1 || bytes[at + 1] === DOT))
      wrong = true;
  }
  if (wrong) throw corrupt(`${what}: impossible ${names} names`);
}

/** Rows i and i + 1 of the same page: keys must ascend strictly. */
function checkKeys(page: Page, what: string): void {
  const { count } = page;
  const { keys, columns } = page.schema;
  const secondIsBytes = keys > 1 && columns[1]!.kind === 'bytes';
  let previous = page.num(0, 0);
  for (let row = 1; row < count; row++) {
    const current = page.num(0, row);
    let order = current - previous;
    if (order === 0 && keys > 1) {
      order = secondIsBytes ? compareRows(page, 1, row) : page.num(1, row) - page.num(1, row - 1);
      if (order === 0 && keys > 2) order = page.num(2, row) - page.num(2, row - 1);
    }
    if (!(order > 0)) throw corrupt(`${what}: the key of row ${row} does not ascend`);
    previous = current;
  }
}

function compareRows(page: Page, column: number, row: number): number {
  const { bytes } = page;
  let a = page.start(column, row - 1);
  let b = page.end(column, row - 1);
  const aLength = b - a;
  const bLength = page.end(column, row) - page.start(column, row);
  b = page.start(column, row);
  const common = Math.min(aLength, bLength);
  for (const stop = a + common; a < stop; a++, b++) {
    const difference = bytes[b]! - bytes[a]!;
    if (difference !== 0) return difference;
  }
  return bLength - aLength;
}

function rankTable(page: Page): Float64Array {
  const column = page.schema.keys + CHILD.count;
  const ranks = new Float64Array(page.count + 1);
  let sum = 0;
  for (let row = 0; row < page.count; row++) {
    sum += page.num(column, row);
    ranks[row + 1] = sum;
  }
  return ranks;
}

/**
 * Checks the plaintext of a PAGE frame and makes it readable. Throws 'corrupt', naming `what`, for whatever does not
 * hold: structure, limits of every column, order of the keys. Measured: 15–40 µs per 1,000 inode
 * rows, 60–80 µs per 1,000 names with long common beginnings.
 */
export function decodePage(bytes: Uint8Array, what = 'tree page'): Page {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return new Page(buffer, what);
}
