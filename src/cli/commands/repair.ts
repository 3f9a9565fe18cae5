import { RozenError } from '../../errors.ts';
import type { Unfinished } from '../../store/object-store.ts';
import type { Context } from '../context.ts';
import { formatSize, isoTime, plural } from '../display.ts';

interface Options {
  olderThan?: string;
  dryRun?: boolean;
}

const UNITS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 };

/** `rozen repair`: uploads that were begun and never ended. Needs no key. */
export async function run(context: Context, _args: string[], options: Options): Promise<undefined> {
  const age = parseAge(options.olderThan ?? '3d');
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

function parseAge(text: string): number {
  const [, number, unit] = /^([0-9]{1,6})(m|h|d|w)$/.exec(text.trim()) ?? [];
  if (number === undefined)
    throw new RozenError('usage', `--older-than: '${text}' is not an age`, { hint: 'write it like 12h or 3d' });
  return Number(number) * UNITS[unit!]!;
}
