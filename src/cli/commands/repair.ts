import type { Unfinished } from '../../store/object-store.ts';
import type { Context } from '../context.ts';
import { formatSize, isoTime, plural } from '../display.ts';
import { parseAge } from '../values.ts';

interface Options {
  olderThan?: string;
  dryRun?: boolean;
}

/** `rozen repair`: uploads that were begun and never ended. Needs no key. */
export async function run(context: Context, _args: string[], options: Options): Promise<undefined> {
  const age = parseAge(options.olderThan ?? '3d', '--older-than');
  const repository = await context.open('none');
  const { store } = repository;
  const { out } = context;
  const before = Date.now() - age;
  const shown: (Unfinished & { stale: boolean })[] = [];
  try {
    for await (const one of store.unfinished()) shown.push({ ...one, stale: one.active <= before });
    const stale = shown.filter((one) => one.stale);
    if (!options.dryRun) for (const one of stale) await store.abandon(one);
    const done = options.dryRun ? 'stale' : 'removed';
    if (out.json) {
      out.document({
        uploads: shown.map(({ name, id, bytes, active, stale: isStale }) => ({
          name,
          id,
          bytes,
          active: isoTime(Math.floor(active / 1000), Math.floor(active % 1000) * 1e6),
          stale: isStale,
          removed: isStale && !options.dryRun,
        })),
      });
    } else {
      for (const { name, bytes, active, stale: isStale } of shown) {
        const last = new Date(active).toISOString().slice(0, 19).replace('T', ' ');
        out.line(`${isStale ? done : 'kept'}  ${name}  ${formatSize(bytes)}, last active ${last} UTC`);
      }
      const bytes = stale.reduce((sum, one) => sum + one.bytes, 0);
      out.message(
        shown.length === 0
          ? 'nothing is under way, and nothing was left behind'
          : `${plural(stale.length, 'upload')} ${done}, ${formatSize(bytes)}; ${shown.length - stale.length} may still be under way`,
      );
    }
  } finally {
    repository.close();
  }
}
