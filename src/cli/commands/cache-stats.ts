import { existsSync } from 'node:fs';
import type { Context } from '../context.ts';
import { formatCount, formatSize } from '../display.ts';
import { type CacheOptions, cacheFolder } from './cache-clear.ts';

export async function run(context: Context, _args: string[], options: CacheOptions): Promise<undefined> {
  const folder = cacheFolder(options);
  const { BlockCache, cacheFileSize, cachePath } = await import('../../cache/block-cache.ts');
  const { out } = context;
  // Looking at a cache makes none.
  const cache = existsSync(cachePath(folder))
    ? BlockCache.open({ folder, budget: null, report: (message) => out.warning(message) })
    : null;
  const kinds = Object.entries(cache?.inventory() ?? {});
  const bytes = cache?.totals().bytes ?? 0;
  await cache?.close();
  const disk = cacheFileSize(folder);
  if (out.json) {
    out.document({ folder, bytes, diskBytes: disk, kinds: Object.fromEntries(kinds) });
    return;
  }
  out.line(`${folder}: ${formatSize(bytes)} are cached, ${formatSize(disk)} on disk`);
  for (const [kind, { count, bytes: size }] of kinds)
    out.line(`  ${kind.padEnd(8)} ${formatCount(count).padStart(9)}  ${formatSize(size)}`);
}
