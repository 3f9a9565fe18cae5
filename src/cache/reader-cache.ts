/** The block cache in a reader thread: it reads there itself (no message, no copy by the main thread), and writes nothing. */
import { BlockCache } from './block-cache.ts';
import { frameKey } from './cache-keys.ts';
import { addFrameCache } from './frames.ts';

/** Keys are told in groups: a message costs more than a look-up. */
const GROUP = 32;

export interface ReaderCacheListener {
  report(message: string): void;
  /** Called for each frame that the cache had. */
  hit(): void;
  used(keys: Buffer[]): void;
  damaged(key: Buffer): void;
}

/** Opens the cache for `readFrame` of this thread. What cannot be opened is told: then all comes from the main thread. */
export function readCacheHere(folder: string, listener: ReaderCacheListener): void {
  let cache: BlockCache;
  try {
    cache = BlockCache.open({ folder, budget: null, report: listener.report, onDamage: listener.damaged });
  } catch (error) {
    listener.report(`${folder}: the cache cannot be read: ${error instanceof Error ? error.message : error}`);
    return;
  }
  let used: Buffer[] = [];
  addFrameCache({
    frame(access, offset) {
      const key = frameKey(access.id, offset);
      const bytes = cache.get(key);
      if (bytes === null) return null;
      listener.hit();
      used.push(key);
      if (used.length >= GROUP) {
        listener.used(used);
        used = [];
      }
      return bytes;
    },
  });
}
