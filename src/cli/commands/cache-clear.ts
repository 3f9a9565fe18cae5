import { resolve } from 'node:path';
import { cacheHome } from '../../repository/paths.ts';
import type { Context } from '../context.ts';
import { formatSize } from '../display.ts';

export interface CacheOptions {
  cacheDir?: string;
}

export function cacheFolder({ cacheDir }: CacheOptions): string {
  return cacheDir === undefined ? cacheHome() : resolve(cacheDir);
}

export async function run(context: Context, _args: string[], options: CacheOptions): Promise<undefined> {
  const folder = cacheFolder(options);
  const { cacheFileSize, clearCache } = await import('../../cache/block-cache.ts');
  const disk = cacheFileSize(folder);
  clearCache(folder);
  const { out } = context;
  if (out.json) out.document({ folder, freedBytes: disk });
  else if (!out.quiet) out.line(`${folder}: ${formatSize(disk)} freed`);
}
