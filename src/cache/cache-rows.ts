/** The rows of the block cache beside its values: what a value costs, which goes first, and the sums. */
import { type CacheClass, CLASS_BLOCK, CLASS_KEEP } from './cache-keys.ts';

/** Of the database; a value of more than a part of one gets pages of its own. */
const PAGE = 4096;
const PAGE_HEADER = 16;
/** What a value costs beside its own pages: its rows in three tables. */
const ROW_COST = 256;

export interface Totals {
  /** By class. */
  bytes: number[];
  counts: number[];
}

export interface Entry {
  class: CacheClass;
  cost: number;
  /** Milliseconds since 1970. */
  stamp: number;
}

/** Before every key of a value. */
export const FIRST_KEY = Buffer.from([0x10]);
export const ENTRY_SIZE = 16;
const TOTALS_SIZE = 4 * 8;
/** In front of the key of the value. */
export const ORDER_PREFIX = 9;
/** Order keys begin with the class plus this, so that iteration does not take them for the database's own. */
const ORDER_BASE = 0x10;
export const FIRST_ORDER = Buffer.from([ORDER_BASE]);

export function encodeEntry({ class: kind, cost, stamp }: Entry): Buffer {
  const row = Buffer.alloc(ENTRY_SIZE);
  row[0] = kind;
  row.writeUInt32LE(cost, 4);
  row.writeDoubleLE(stamp, 8);
  return row;
}

export function decodeEntry(row: Buffer): Entry {
  return {
    class: row[0] === CLASS_BLOCK ? CLASS_BLOCK : CLASS_KEEP,
    cost: row.readUInt32LE(4),
    stamp: row.readDoubleLE(8),
  };
}

export function orderKey({ class: kind, stamp }: Entry, key: Buffer): Buffer {
  const row = Buffer.alloc(ORDER_PREFIX + key.length);
  row[0] = ORDER_BASE + kind;
  row.writeUInt32BE(Math.floor(stamp / 2 ** 32), 1);
  row.writeUInt32BE(stamp >>> 0, 5);
  row.set(key, ORDER_PREFIX);
  return row;
}

export function costOf(length: number): number {
  return Math.ceil((length + PAGE_HEADER) / PAGE) * PAGE + ROW_COST;
}

export function encodeTotals({ bytes, counts }: Totals): Buffer {
  const row = Buffer.alloc(TOTALS_SIZE);
  [...bytes, ...counts].forEach((value, i) => {
    row.writeDoubleLE(value, i * 8);
  });
  return row;
}

/** Zeros for a row that is not there. */
export function decodeTotals(row: Buffer | undefined): Totals {
  if (row === undefined || row.length !== TOTALS_SIZE) return { bytes: [0, 0], counts: [0, 0] };
  const at = (i: number) => Math.max(0, row.readDoubleLE(i * 8) || 0);
  return { bytes: [at(0), at(1)], counts: [at(2), at(3)] };
}
