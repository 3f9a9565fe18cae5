/** What HeadObject says of an object in a cold class. */
import type { ColdState, ThawTier } from './object-store.ts';
import type { S3Head } from './s3-client.ts';
import { isFrozenClass } from './storage-class.ts';

/** As RestoreObject calls them. */
export const TIER_NAMES: Readonly<Record<ThawTier, string>> = {
  standard: 'Standard',
  bulk: 'Bulk',
  expedited: 'Expedited',
};

/** S3 leaves the class out when it is this one. */
const STANDARD = 'STANDARD';

/**
 * The header x-amz-restore is `ongoing-request="true"` while a copy is on its way, `ongoing-request="false", expiry-date="…"` when
 * it is there, and absent without one. @param now milliseconds since 1970
 */
export function coldStateOf(head: S3Head, now: number): ColdState {
  const { size, modified, restore = '' } = head;
  const storageClass = head.storageClass ?? STANDARD;
  const known = { size, modified, storageClass, until: null };
  if (!isFrozenClass(storageClass)) return { ...known, state: 'hot' };
  if (/ongoing-request="true"/.test(restore)) return { ...known, state: 'thawing' };
  if (!/ongoing-request="false"/.test(restore)) return { ...known, state: 'frozen' };
  const until = Date.parse(/expiry-date="([^"]*)"/.exec(restore)?.[1] ?? '');
  // A server that gives no time has a copy all the same.
  if (Number.isNaN(until)) return { ...known, state: 'hot' };
  return until > now ? { ...known, state: 'hot', until } : { ...known, state: 'frozen' };
}
