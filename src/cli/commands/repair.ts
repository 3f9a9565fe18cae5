import { RozenError } from '../../errors.ts';
import type { Unfinished } from '../../store/object-store.ts';
import type { Context } from '../context.ts';
import { formatSize, isoTime, plural } from '../display.ts';
import { parseAge } from '../values.ts';

interface Options {
  olderThan?: string;
  dryRun?: boolean;
  acceptLoss?: boolean;
  yes?: boolean;
}

/** `rozen repair`: uploads that were begun and never ended, which needs no key; or records that are lost, which an owner declares. */
export async function run(context: Context, names: string[], options: Options): Promise<number | undefined> {
  if (options.acceptLoss) return (await import('./accept-loss.ts')).acceptLoss(context, names, options);
  if (names.length > 0) {
    throw new RozenError('usage', `repair takes no names: '${names[0]}'`, { hint: 'is --accept-loss meant?' });
  }
  return removeUploads(context, options);
}

async function removeUploads(context: Context, options: Options): Promise<undefined> {
  const age = parseAge(options.olderThan ?? '3d', '--older-than');
  const repository = await context.open('none');
  const { store } = repository;
  const { out } = context;
  const before = Date.now() - age;
  const shown: (Unfinished & { stale: boolean })[] = [];
  try {
    for await (const one of store.unfinished()) {
      const old = one.active <= before && !one.stored;
      const stored = one.stored || (old && !options.dryRun && !(await store.abandon(one)));
      shown.push({ ...one, stored, stale: old && !stored });
    }
    const stale = shown.filter((one) => one.stale);
    const stored = shown.filter((one) => one.stored).length;
    const done = options.dryRun ? 'stale' : 'removed';
    if (out.json) {
      out.document({
        uploads: shown.map(({ name, id, bytes, active, stale: isStale, stored: isStored }) => ({
          name,
          id,
          bytes,
          active: isoTime(Math.floor(active / 1000), Math.floor(active % 1000) * 1e6),
          stale: isStale,
          removed: isStale && !options.dryRun,
          stored: isStored,
        })),
      });
    } else {
      for (const { name, bytes, active, stale: isStale, stored: isStored } of shown) {
        const last = new Date(active).toISOString().slice(0, 19).replace('T', ' ');
        const state = isStored ? 'left alone, its object is stored' : `last active ${last} UTC`;
        out.line(`${isStale ? done : 'kept'}  ${name}  ${formatSize(bytes)}, ${state}`);
      }
      const bytes = stale.reduce((sum, one) => sum + one.bytes, 0);
      out.message(
        shown.length === 0
          ? 'nothing is under way, and nothing was left behind'
          : `${plural(stale.length, 'upload')} ${done}, ${formatSize(bytes)}; ${shown.length - stale.length - stored} may still be under way`,
      );
      if (stored > 0) {
        out.message(
          `${plural(stored, 'upload')} left alone: the server has stored the object, but lists the upload still; its parts may be the object's own`,
        );
      }
    }
  } finally {
    repository.close();
  }
}
