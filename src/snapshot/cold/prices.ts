/** The price table: what `prices.toml` says, checked. All prices are in its currency; sizes in bytes, a GB is 2^30 of them. */
import { RozenError } from '../../errors.ts';
import { THAW_TIERS, type ThawTier } from '../../store/object-store.ts';

/** Thawing from one class at one speed. */
interface ThawPrice {
  /** Until it can be read. */
  hours: number;
  /** For each GB. */
  retrieval: number;
  /** For each 1,000 objects. */
  requests: number;
}

export interface ClassPrice {
  /** For each GB and month of 30 days. */
  storage: number;
  /** For each 1,000 requests that write, and that read. */
  put: number;
  get: number;
  /** For each GB that is read. */
  retrieval: number;
  minimumDays: number;
  minimumSize: number;
  /** Bytes more for each object, at the price of this class and at that of STANDARD. */
  overhead: number;
  overheadStandard: number;
  thaw: Partial<Record<ThawTier, ThawPrice>>;
}

export interface PriceTable {
  name: string;
  /** YYYY-MM-DD */
  date: string;
  currency: string;
  /** For each GB that is fetched. */
  transferOut: number;
  classes: ReadonlyMap<string, ClassPrice>;
}

const CLASS_KEYS: Readonly<Record<string, Exclude<keyof ClassPrice, 'thaw'>>> = {
  storage: 'storage',
  put: 'put',
  get: 'get',
  retrieval: 'retrieval',
  'minimum-days': 'minimumDays',
  'minimum-size': 'minimumSize',
  overhead: 'overhead',
  'overhead-standard': 'overheadStandard',
};
const THAW_KEYS: Readonly<Record<string, keyof ThawPrice>> = {
  hours: 'hours',
  retrieval: 'retrieval',
  requests: 'requests',
};

/** Checks a parsed table; every key must be known, every price a number. Throws 'usage' that names `path` and the key. */
export function readPriceTable(document: unknown, path: string): PriceTable {
  const wrong = (key: string, must: string) =>
    new RozenError('usage', `${path}: ${key} must be ${must}`, {
      hint: '`rozen cost --print-prices` prints a table to begin with',
    });
  const table = (key: string, value: unknown): Record<string, unknown> => {
    if (!isTable(value)) throw wrong(key, 'a table');
    return value;
  };
  const numbers = <K extends string>(
    key: string,
    given: Record<string, unknown>,
    { keys, required }: { keys: Readonly<Record<string, K>>; required: readonly string[] },
  ): Record<K, number> => {
    for (const name of required) if (!(name in given)) throw wrong(`${key}.${name}`, 'given');
    const read = Object.fromEntries(Object.values(keys).map((name) => [name, 0])) as Record<K, number>;
    for (const [name, value] of Object.entries(given)) {
      const known = Object.hasOwn(keys, name) ? keys[name] : undefined;
      if (known === undefined) throw wrong(`${key}.${name}`, `one of ${Object.keys(keys).join(', ')}`);
      if (typeof value !== 'number' || !(value >= 0 && value < 1e12))
        throw wrong(`${key}.${name}`, 'a number, 0 or more');
      read[known] = value;
    }
    return read;
  };
  const text = (key: string, value: unknown): string => {
    if (typeof value !== 'string' || value === '') throw wrong(key, 'a text');
    return value;
  };
  const { name, date, currency, classes, ...rest } = table('the file', document);
  const { transferOut } = numbers('the file', rest, { keys: { 'transfer-out': 'transferOut' }, required: [] });
  const read = new Map<string, ClassPrice>();
  for (const [className, value] of Object.entries(table('classes', classes))) {
    const key = `classes.${className}`;
    const { thaw = {}, ...prices } = table(key, value);
    const price: ClassPrice = { ...numbers(key, prices, { keys: CLASS_KEYS, required: ['storage'] }), thaw: {} };
    for (const [tier, given] of Object.entries(table(`${key}.thaw`, thaw))) {
      const place = `${key}.thaw.${tier}`;
      if (!isTier(tier)) throw wrong(place, `one of ${THAW_TIERS.join(', ')}`);
      price.thaw[tier] = numbers(place, table(place, given), { keys: THAW_KEYS, required: ['hours'] });
    }
    read.set(className, price);
  }
  if (!read.has('STANDARD')) throw wrong('classes.STANDARD', 'given: trees and thawed copies lie in it');
  return {
    name: text('name', name),
    date: dateText(date, wrong),
    currency: text('currency', currency),
    transferOut,
    classes: read,
  };
}

function dateText(value: unknown, wrong: (key: string, must: string) => RozenError): string {
  const day = value instanceof Date && !Number.isNaN(value.getTime()) ? value.toISOString().slice(0, 10) : value;
  if (typeof day !== 'string' || !/^\d{4}-\d{2}-\d{2}$/.test(day)) throw wrong('date', 'a day, such as 2026-05-01');
  return day;
}

function isTier(text: string): text is ThawTier {
  return (THAW_TIERS as readonly string[]).includes(text);
}

function isTable(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
}
