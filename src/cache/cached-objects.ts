/** Whole small objects in the block cache: what a repository keeps of its signed records and keys (ObjectCache there). */
import type { BlockCache } from './block-cache.ts';
import { CLASS_KEEP, objectKey } from './cache-keys.ts';

interface CachedObjects {
  get(repositoryId: Uint8Array, name: string): Buffer | null;
  put(repositoryId: Uint8Array, name: string, bytes: Uint8Array): void;
  remove(repositoryId: Uint8Array, name: string): void;
}

export function cachedObjects(cache: BlockCache): CachedObjects {
  return {
    get(repositoryId, name) {
      const key = objectKey(repositoryId, name);
      const bytes = cache.get(key);
      if (bytes === null) return null;
      void cache.touch([key]);
      return Buffer.from(bytes);
    },
    put: (repositoryId, name, bytes) =>
      void cache.put([{ key: objectKey(repositoryId, name), bytes, class: CLASS_KEEP }]),
    remove: (repositoryId, name) => void cache.remove(objectKey(repositoryId, name)),
  };
}
