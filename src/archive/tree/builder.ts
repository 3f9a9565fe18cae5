/** Rows on their way into a page: growable columns, and the encoder that stands against decodePage. */
import { RozenError } from '../../errors.ts';
import { MAX_PAGE } from '../format.ts';
import {
  COLUMN_HEADER_SIZE,
  COLUMN_OFFSETS,
  ENCODING,
  PAGE_HEADER_SIZE,
  PAGE_OFFSETS,
  type Page,
  WIDTH_RANGE,
} from './page.ts';
import { type Column, type Field, MAX_ROW_BYTES, type TreeSchema } from './schema.ts';

/** Numbers of one column. */
interface Numbers {
  kind: 'number';
  values: Float64Array<ArrayBuffer>;
}

/** Byte strings of one column: string i is heap[ends[i] .. ends[i + 1]]. */
interface Strings {
  kind: 'bytes';
  ends: Float64Array<ArrayBuffer>;
  heap: Buffer;
}

/** How a column of numbers will be written. */
interface Plan {
  encoding: number;
  base: number;
  width: number;
}

function widthFor(range: number): number {
  let width = 0;
  while (range >= WIDTH_RANGE[width]!) width++;
  return width;
}

/**
 * Collects rows of one tree and level in key order and encodes runs of them as pages. `push` and `pushFrom` check fields
 * against the schema, not the order of keys: their caller merges sorted inputs and knows it.
 */
export class PageBuilder {
  readonly schema: TreeSchema;
  readonly level: number;
  readonly columns: readonly Column[];
  count = 0;
  #capacity = 256;
  readonly #data: (Numbers | Strings)[];
  /** Bytes of strings per row, for cutting where the weight is. */
  #rowBytes: Float64Array<ArrayBuffer> = new Float64Array(256);
  #stringBytes = 0;
  /** What a row takes beside its strings: an estimate, refreshed whenever a quarter more rows have come. */
  #rowCost: number;
  #costNext = 0;

  constructor(schema: TreeSchema, level: number) {
    this.schema = schema;
    this.level = level;
    this.columns = level === 0 ? schema.columns : schema.interior;
    this.#rowCost = this.columns.length;
    this.#data = this.columns.map((column) =>
      column.kind === 'number'
        ? { kind: 'number', values: new Float64Array(this.#capacity) }
        : { kind: 'bytes', ends: new Float64Array(this.#capacity + 1), heap: Buffer.alloc(1024) },
    );
  }

  /** About as many bytes as the rows would take in one page. */
  get weight(): number {
    if (this.count >= this.#costNext) this.#refreshCost();
    return PAGE_HEADER_SIZE + this.columns.length * COLUMN_HEADER_SIZE + this.count * this.#rowCost + this.#stringBytes;
  }

  /** Adds a row given as its fields, key first. */
  push(key: readonly Field[], value: readonly Field[]): void {
    this.#reserve(this.count + 1);
    const { keys } = this.schema;
    const { columns } = this;
    if (key.length !== keys || key.length + value.length !== columns.length) {
      throw new RozenError('internal', `tree ${this.schema.name}: a row of ${key.length} + ${value.length} fields`);
    }
    let strings = 0;
    for (let c = 0; c < columns.length; c++) {
      const field = (c < keys ? key[c] : value[c - keys])!;
      const data = this.#data[c]!;
      if (data.kind === 'number') {
        const column = columns[c]!;
        if (typeof field !== 'number' || !Number.isInteger(field) || field < column.min || field > column.max) {
          throw new RozenError('internal', `tree ${this.schema.name}: ${String(field)} is no ${column.name}`);
        }
        data.values[this.count] = field;
      } else {
        if (typeof field === 'number') {
          throw new RozenError('internal', `tree ${this.schema.name}: ${columns[c]!.name} must be bytes`);
        }
        strings += field.length;
        if (strings > MAX_ROW_BYTES) {
          throw new RozenError('internal', `tree ${this.schema.name}: a row of more than ${MAX_ROW_BYTES} bytes`);
        }
        const from = data.ends[this.count]!;
        reserveHeap(data, from + field.length).set(field, from);
        data.ends[this.count + 1] = from + field.length;
      }
    }
    this.#rowBytes[this.count++] = strings;
    this.#stringBytes += strings;
  }

  /** Adds rows `from` to `to` (exclusive) of a page of the same tree and level. */
  pushFrom(page: Page, from: number, to: number): void {
    const added = to - from;
    if (added <= 0) return;
    this.#reserve(this.count + added);
    this.#rowBytes.fill(0, this.count, this.count + added);
    for (let c = 0; c < this.columns.length; c++) {
      const data = this.#data[c]!;
      if (data.kind === 'number') {
        for (let i = 0; i < added; i++) data.values[this.count + i] = page.num(c, from + i);
        continue;
      }
      const start = page.start(c, from);
      const stop = page.end(c, to - 1);
      const at = data.ends[this.count]!;
      reserveHeap(data, at + stop - start).set(page.bytes.subarray(start, stop), at);
      for (let i = 0; i < added; i++) {
        data.ends[this.count + i + 1] = at + page.end(c, from + i) - start;
        this.#rowBytes[this.count + i]! += page.end(c, from + i) - page.start(c, from + i);
      }
      this.#stringBytes += stop - start;
    }
    this.count += added;
  }

  /** Rows from the front whose weight stays within `limit`, one at least. */
  rowsWithin(limit: number): number {
    const overhead = PAGE_HEADER_SIZE + this.columns.length * COLUMN_HEADER_SIZE;
    let sum = overhead;
    for (let row = 0; row < this.count; row++) {
      sum += this.#rowCost + this.#rowBytes[row]!;
      if (sum > limit) return Math.max(row, 1);
    }
    return this.count;
  }

  /** The key of a row; byte strings are copies. */
  keyAt(row: number): Field[] {
    const key: Field[] = [];
    for (let c = 0; c < this.schema.keys; c++) {
      const data = this.#data[c]!;
      key.push(
        data.kind === 'number'
          ? data.values[row]!
          : Buffer.from(data.heap.subarray(data.ends[row]!, data.ends[row + 1]!)),
      );
    }
    return key;
  }

  /** A column of numbers, as far as rows are filled. */
  numbers(column: number): Float64Array {
    const data = this.#data[column]!;
    if (data.kind !== 'number') throw new RozenError('internal', 'no column of numbers');
    return data.values.subarray(0, this.count);
  }

  /** The page that holds the first `rows` rows. */
  encode(rows: number): Buffer {
    const { columns } = this;
    const plans: Plan[] = [];
    let size = PAGE_HEADER_SIZE + columns.length * COLUMN_HEADER_SIZE;
    for (let c = 0; c < columns.length; c++) {
      const plan = this.#plan(c, rows);
      const data = this.#data[c]!;
      size += plan.width * rows + (data.kind === 'bytes' ? data.ends[rows]! : 0);
      plans.push(plan);
    }
    if (size > MAX_PAGE) throw new RozenError('internal', `tree ${this.schema.name}: a page of ${size} bytes`);
    const page = Buffer.alloc(size);
    page[PAGE_OFFSETS.tree] = this.schema.number;
    page[PAGE_OFFSETS.level] = this.level;
    page.writeUInt16LE(columns.length, PAGE_OFFSETS.columns);
    page.writeUInt32LE(rows, PAGE_OFFSETS.rows);
    let position = PAGE_HEADER_SIZE + columns.length * COLUMN_HEADER_SIZE;
    for (let c = 0; c < columns.length; c++) {
      const plan = plans[c]!;
      const data = this.#data[c]!;
      const at = PAGE_HEADER_SIZE + c * COLUMN_HEADER_SIZE;
      page[at + COLUMN_OFFSETS.encoding] = plan.encoding;
      page[at + COLUMN_OFFSETS.width] = plan.width;
      const high = Math.floor(plan.base / 2 ** 32);
      page.writeUInt32LE(plan.base - high * 2 ** 32, at + COLUMN_OFFSETS.base);
      page.writeInt32LE(high, at + COLUMN_OFFSETS.base + 4);
      this.#writePlanes(page, { position, column: c, plan, rows });
      position += plan.width * rows;
      if (data.kind === 'bytes') {
        const length = data.ends[rows]!;
        page.writeUInt32LE(length, at + COLUMN_OFFSETS.heapLength);
        page.set(data.heap.subarray(0, length), position);
        position += length;
      }
    }
    return page;
  }

  /** Forgets the first `rows` rows. */
  drop(rows: number): void {
    const { count } = this;
    for (const data of this.#data) {
      if (data.kind === 'number') {
        data.values.copyWithin(0, rows, count);
        continue;
      }
      const from = data.ends[rows]!;
      data.heap.copyWithin(0, from, data.ends[count]!);
      for (let row = rows; row <= count; row++) data.ends[row - rows] = data.ends[row]! - from;
    }
    for (let row = 0; row < rows; row++) this.#stringBytes -= this.#rowBytes[row]!;
    this.#rowBytes.copyWithin(0, rows, count);
    this.count = count - rows;
    this.#costNext = 0;
  }

  #plan(c: number, rows: number): Plan {
    const data = this.#data[c]!;
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    if (data.kind === 'bytes') {
      for (let row = 0; row < rows; row++) {
        const length = data.ends[row + 1]! - data.ends[row]!;
        if (length < low) low = length;
        if (length > high) high = length;
      }
      return { encoding: ENCODING.bytes, base: low, width: widthFor(high - low) };
    }
    const { values } = data;
    for (let row = 0; row < rows; row++) {
      const value = values[row]!;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const plain: Plan = { encoding: ENCODING.plain, base: low, width: widthFor(high - low) };
    const other = this.columns[c]!.relativeTo;
    return other < 0 || plain.width === 0 ? plain : this.#planRelative(values, this.numbers(other), rows, plain);
  }

  /** Differences are worth it where they change less often from row to row: that is what the compressor lives on. */
  #planRelative(values: Float64Array, others: Float64Array, rows: number, plain: Plan): Plan {
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    let changes = 0;
    let relativeChanges = 0;
    let previous = Number.NaN;
    for (let row = 0; row < rows; row++) {
      const value = values[row]!;
      const difference = value - others[row]!;
      if (row > 0 && value !== values[row - 1]) changes++;
      if (row > 0 && difference !== previous) relativeChanges++;
      previous = difference;
      if (difference < low) low = difference;
      if (difference > high) high = difference;
    }
    const exact =
      low >= Number.MIN_SAFE_INTEGER && high <= Number.MAX_SAFE_INTEGER && high - low <= Number.MAX_SAFE_INTEGER;
    if (!exact || relativeChanges >= changes) return plain;
    return { encoding: ENCODING.relative, base: low, width: widthFor(high - low) };
  }

  #writePlanes(page: Buffer, to: { position: number; column: number; plan: Plan; rows: number }): void {
    const { position, column, plan, rows } = to;
    const { width, base } = plan;
    if (width === 0) return;
    const data = this.#data[column]!;
    const others = plan.encoding === ENCODING.relative ? this.numbers(this.columns[column]!.relativeTo) : null;
    for (let row = 0; row < rows; row++) {
      let rest =
        (data.kind === 'bytes'
          ? data.ends[row + 1]! - data.ends[row]!
          : others === null
            ? data.values[row]!
            : data.values[row]! - others[row]!) - base;
      let at = position + row;
      for (let k = 0; k < width; k++, at += rows) {
        page[at] = rest % 256;
        rest = Math.floor(rest / 256);
      }
    }
  }

  #refreshCost(): void {
    this.#costNext = this.count + 16 + (this.count >> 2);
    if (this.count === 0) return;
    let cost = 0;
    for (let c = 0; c < this.columns.length; c++) cost += this.#plan(c, this.count).width;
    this.#rowCost = cost;
  }

  #reserve(rows: number): void {
    if (rows <= this.#capacity) return;
    while (this.#capacity < rows) this.#capacity *= 2;
    for (const data of this.#data) {
      if (data.kind === 'number') data.values = grown(data.values, this.#capacity);
      else data.ends = grown(data.ends, this.#capacity + 1);
    }
    this.#rowBytes = grown(this.#rowBytes, this.#capacity);
  }
}

function grown(values: Float64Array, length: number): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(length);
  larger.set(values);
  return larger;
}

function reserveHeap(data: Strings, length: number): Buffer {
  if (length > data.heap.length) {
    const larger = Buffer.alloc(Math.max(length, data.heap.length * 2));
    larger.set(data.heap);
    data.heap = larger;
  }
  return data.heap;
}

/** One page from whole rows (key and value fields), which must ascend strictly. */
export function encodePage(schema: TreeSchema, level: number, rows: Iterable<readonly Field[]>): Buffer {
  const builder = new PageBuilder(schema, level);
  for (const row of rows) builder.push(row.slice(0, schema.keys), row.slice(schema.keys));
  if (builder.count === 0) throw new RozenError('internal', 'a page needs a row');
  return builder.encode(builder.count);
}
