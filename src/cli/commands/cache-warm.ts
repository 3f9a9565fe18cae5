import { RozenError } from '../../errors.ts';
import { isRemote } from '../../store/object-store.ts';
import type { Context } from '../context.ts';
import { formatCount, formatSize } from '../display.ts';
import { requireHot } from '../frozen.ts';
import { Places } from '../places.ts';
import { parseCacheSize } from '../values.ts';
import { type CacheOptions, cacheFolder } from './cache-clear.ts';

interface Options extends CacheOptions {
  cacheSize?: string;
  content?: boolean;
}

export async function run(context: Context, args: string[], options: Options): Promise<undefined> {
  context.cachePlace = {
    folder: cacheFolder(options),
    budget: options.cacheSize === undefined ? undefined : parseCacheSize(options.cacheSize),
  };
  const store = await context.store();
  if (!isRemote(store)) {
    throw new RozenError('usage', `${store.location} lies on this machine: nothing of it is cached`, {
      hint: 'only buckets are',
    });
  }
  const repository = await context.open('read');
  const places = new Places(context, repository, { keepContent: true });
  const progress = context.progress('cache warm');
  const { out } = context;
  try {
    const { warmContent, warmPages } = await import('../../snapshot/view/warm.ts');
    let pages = 0;
    let blocks = 0;
    for (const text of args.length === 0 ? ['latest'] : args) {
      const place = await places.open(text);
      const { reader, inode, attributes } = place;
      if (options.content) await requireHot(context, repository, [place]);
      pages += await warmPages(reader, (done) => progress.update({ files: done, current: `pages of ${text}` }));
      if (!options.content) continue;
      const { fetcher } = await places.opener();
      const told = (done: number): void => progress.update({ files: done, current: `blocks of ${text}` });
      blocks += await warmContent({ reader, fetcher: fetcher! }, { inode, attributes }, told);
    }
    const { fetcher } = await places.opener();
    const { requests, bytes } = fetcher!.counters;
    progress.stop();
    if (out.json) out.document({ pages, blocks, requests, fetchedBytes: bytes });
    else if (!out.quiet) {
      const what = options.content
        ? `${formatCount(pages)} pages and ${formatCount(blocks)} blocks`
        : `${formatCount(pages)} pages`;
      out.line(`${what} are at hand: ${formatSize(bytes)} fetched by ${formatCount(requests)} requests`);
    }
  } finally {
    progress.stop();
    places.close();
  }
}
