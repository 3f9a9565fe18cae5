/** Opening the block cache for whoever needs it: only remote stores do, and the database is loaded for them alone. */
import { isRemote, type ObjectStore } from '../store/object-store.ts';
import type { BlockCache } from './block-cache.ts';

const DEFAULT_CACHE_BYTES = 4 * 1024 ** 3;

/** The cache in `folder` for a remote store, null for others; also null, and told, when the folder cannot be used. */
export async function openCache(
  store: ObjectStore,
  options: { folder: string; budget?: number | undefined; report: (message: string) => void },
): Promise<BlockCache | null> {
  if (!isRemote(store)) return null;
  const { BlockCache } = await import('./block-cache.ts');
  const { folder, budget = DEFAULT_CACHE_BYTES, report } = options;
  try {
    return BlockCache.open({ folder, budget, report });
  } catch (error) {
    report(`${folder}: nothing is cached: ${error instanceof Error ? error.message : String(error)}`);
    return null;
  }
}
