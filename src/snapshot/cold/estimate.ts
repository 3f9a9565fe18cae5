/** What things cost by a price table. Estimates: without tax, free tiers and discounts of volume. */

import type { ObjectInfo, ThawTier } from '../../store/object-store.ts';
import { uploadRequests } from '../../store/s3-parts.ts';
import { isFrozenClass } from '../../store/storage-class.ts';
import type { Download } from './packs.ts';
import type { ClassPrice, PriceTable } from './prices.ts';
import type { ColdPack } from './thaw.ts';

const GB = 1024 ** 3;
const MONTH_DAYS = 30;
const DAY_MS = 86_400_000;
/** Where trees lie, and what a thawed copy costs. A folder, which has no classes, counts as this too. */
const STANDARD = 'STANDARD';

/** Of the objects of one class. */
export interface ClassCost {
  storageClass: string;
  objects: number;
  bytes: number;
  /** Null where the table has no price. */
  perMonth: number | null;
  /** The requests that brought them there. */
  upload: number | null;
  /** What is still to be paid for when everything is deleted now: the minimum time of each object. */
  earlyDeletion: number | null;
}

/** Sums over a listing. @param now milliseconds since 1970 */
export async function storageCost(
  table: PriceTable,
  objects: AsyncIterable<ObjectInfo> | Iterable<ObjectInfo>,
  now: number,
): Promise<ClassCost[]> {
  const found = new Map<string, ClassCost>();
  const standard = table.classes.get(STANDARD)!;
  for await (const { size, modified, storageClass = STANDARD } of objects) {
    const price = table.classes.get(storageClass);
    const none = price === undefined ? null : 0;
    const sums = found.get(storageClass) ?? {
      storageClass,
      objects: 0,
      bytes: 0,
      perMonth: none,
      upload: none,
      earlyDeletion: none,
    };
    found.set(storageClass, sums);
    sums.objects++;
    sums.bytes += size;
    if (price === undefined) continue;
    const perMonth = monthly(price, standard, size);
    const days = Math.max(0, price.minimumDays - (now - modified) / DAY_MS);
    sums.perMonth! += perMonth;
    sums.upload! += (uploadRequests(size) * price.put) / 1000;
    sums.earlyDeletion! += (perMonth * days) / MONTH_DAYS;
  }
  return [...found.values()].sort((a, b) => (a.storageClass < b.storageClass ? -1 : 1));
}

function monthly(price: ClassPrice, standard: ClassPrice, size: number): number {
  const own = (Math.max(size, price.minimumSize) + price.overhead) / GB;
  return own * price.storage + (price.overheadStandard / GB) * standard.storage;
}

/** Thawing packs at one speed. */
export interface ThawCost {
  tier: ThawTier;
  /** Packs that are asked for, and their bytes: whole objects are thawed. */
  packs: number;
  bytes: number;
  /** Until the last one can be read; 0 when nothing is frozen. */
  hours: number;
  requests: number;
  retrieval: number;
  /** The copies, for the days that were asked for. */
  copies: number;
  total: number;
}

/** Null when a class has no such tier, or no price. What is hot or thawing already costs nothing more. */
export function thawCost(
  table: PriceTable,
  packs: readonly Pick<ColdPack, 'size' | 'state' | 'storageClass'>[],
  { tier, days }: { tier: ThawTier; days: number },
): ThawCost | null {
  const standard = table.classes.get(STANDARD)!;
  const cost: ThawCost = { tier, packs: 0, bytes: 0, hours: 0, requests: 0, retrieval: 0, copies: 0, total: 0 };
  for (const { size, state, storageClass } of packs) {
    if (state !== 'frozen') continue;
    const price = table.classes.get(storageClass ?? STANDARD)?.thaw[tier];
    if (price === undefined) return null;
    cost.packs++;
    cost.bytes += size;
    cost.hours = Math.max(cost.hours, price.hours);
    cost.requests += price.requests / 1000;
    cost.retrieval += (size / GB) * price.retrieval;
    cost.copies += ((size / GB) * standard.storage * days) / MONTH_DAYS;
  }
  cost.total = cost.requests + cost.retrieval + cost.copies;
  return cost;
}

/** Reading what is needed out of packs that can be read. */
export interface ReadCost {
  bytes: number;
  requests: number;
  /** Of classes that let themselves be paid for each GB that is read. */
  retrieval: number;
  gets: number;
  transfer: number;
  total: number;
}

/** Null when a class has no price. */
export function readCost(
  table: PriceTable,
  reads: readonly (Download & { storageClass: string | null })[],
): ReadCost | null {
  const cost: ReadCost = { bytes: 0, requests: 0, retrieval: 0, gets: 0, transfer: 0, total: 0 };
  for (const { bytes, requests, storageClass } of reads) {
    const price = table.classes.get(storageClass ?? STANDARD);
    if (price === undefined) return null;
    cost.bytes += bytes;
    cost.requests += requests;
    cost.retrieval += (bytes / GB) * price.retrieval;
    cost.gets += (requests * price.get) / 1000;
  }
  cost.transfer = (cost.bytes / GB) * table.transferOut;
  cost.total = cost.retrieval + cost.gets + cost.transfer;
  return cost;
}

/** Every data archive as it stands in a listing, taken for frozen when its class is: what was thawed lately, a listing does not say. */
export function listedPacks(objects: readonly ObjectInfo[]): Pick<ColdPack, 'size' | 'state' | 'storageClass'>[] {
  return objects
    .filter(({ name }) => name.startsWith('data/'))
    .map(({ size, storageClass = STANDARD }) => ({
      size,
      storageClass,
      state: isFrozenClass(storageClass) ? 'frozen' : 'hot',
    }));
}
