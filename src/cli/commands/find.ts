import { RozenError } from '../../errors.ts';
import type { Attributes } from '../../snapshot/view/attributes.ts';
import type { SizeCondition } from '../../snapshot/view/entry-filter.ts';
import type { SnapshotInfo } from '../../snapshot/view/listing.ts';
import type { Context } from '../context.ts';
import { isoTime } from '../display.ts';
import { entryAsJson, printEntry } from '../entry-line.ts';
import { Places } from '../places.ts';
import { type FilterOptions, selectSnapshots, snapshotTitle } from '../selection.ts';
import { parseSize } from '../values.ts';

interface Options extends FilterOptions {
  snapshot?: string[];
  name?: string[];
  ignoreCase?: boolean;
  type?: string[];
  size?: string[];
  newer?: string;
  older?: string;
  long?: boolean;
}

export async function run(context: Context, args: string[], options: Options): Promise<undefined> {
  const { entryFilter, TYPE_LETTERS } = await import('../../snapshot/view/entry-filter.ts');
  const { requireMoment } = await import('../../snapshot/view/moment.ts');
  const filter = entryFilter({
    patterns: [...args, ...(options.name ?? [])],
    ignoreCase: options.ignoreCase ?? false,
    types: (options.type ?? []).flatMap((text) => text.split(',')).map((letter) => typeNumber(letter, TYPE_LETTERS)),
    sizes: (options.size ?? []).map(parseSizeCondition),
    newerThan: options.newer === undefined ? null : requireMoment(options.newer, '--newer').last,
    olderThan: options.older === undefined ? null : requireMoment(options.older, '--older').first,
  });
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const chosen: { snapshot: SnapshotInfo; path: Buffer | null }[] = [];
  if (options.snapshot !== undefined) for (const text of options.snapshot) chosen.push(await places.choose(text));
  else
    for (const snapshot of await selectSnapshots(context, repository, options)) chosen.push({ snapshot, path: null });

  const { EntryWalk, entryPath, forEachStep } = await import('../../snapshot/view/entry-walk.ts');
  const { InodeLookup } = await import('../../snapshot/view/attributes.ts');
  const { joinPath } = await import('../../snapshot/diff/difference.ts');
  const { out } = context;
  let total = 0;
  for (const { snapshot, path } of chosen) {
    const place = await places.openIn(snapshot, path);
    const { reader } = place;
    const inodes = new InodeLookup(reader);
    const folder = place.path.length === 0 ? Buffer.alloc(0) : Buffer.concat([joinPath(place.path), Buffer.from('/')]);
    const walk = new EntryWalk(reader, place.inode, { recursive: true, folder });
    const needsInode = filter.needsInode || out.json || options.long === true;
    let entry: ReturnType<typeof walk.next> = null;
    const step = (): { path: Buffer; found: Attributes | null } | null => {
      for (;;) {
        entry ??= walk.next();
        if (entry === null) return null;
        const whole = entryPath(entry);
        const { type } = entry;
        let found: Attributes | null = null;
        if (filter.fitsName(whole, entry.name, type)) {
          if (!needsInode) {
            entry = null;
            return { path: whole, found };
          }
          found = inodes.get(entry.inode);
        }
        entry = null;
        if (found !== null && filter.fitsInode({ type, size: found.size, mtimeSec: found.mtimeSec }))
          return { path: whole, found };
      }
    };
    let count = 0;
    const before = total;
    /** To stderr, so that a pipe gets paths alone. */
    const header = (): void => {
      if (before > 0) out.message('');
      out.message(`snapshot ${snapshotTitle(snapshot)}`);
    };
    await forEachStep(reader, step, ({ path: whole, found }) => {
      if (count++ === 0 && !out.json) header();
      if (out.json && found !== null) {
        const { id, set, timeSec, timeNs } = snapshot;
        out.object({ snapshot: id, set, time: isoTime(timeSec, timeNs), ...entryAsJson(whole, found) });
      } else printEntry(out, whole, options.long ? found : null);
      return out.full ? out.flush() : undefined;
    });
    total += count;
    // Before the next header: both go to the same terminal.
    await out.flush();
  }
  places.close();
  if (total === 0) out.message('nothing found');
}

function typeNumber(letter: string, known: Readonly<Record<string, number>>): number {
  const number = Object.hasOwn(known, letter) ? known[letter] : undefined;
  if (number === undefined) {
    throw new RozenError('usage', `--type: '${letter}' is no type`, { hint: 'it is f, d, l, p, s, b or c' });
  }
  return number;
}

/** `+10M`, `-10M`, `10M`. */
function parseSizeCondition(text: string): SizeCondition {
  const sign = text[0];
  const bytes = parseSize(sign === '+' || sign === '-' ? text.slice(1) : text, '--size');
  return { comparison: sign === '+' ? 'more' : sign === '-' ? 'less' : 'equal', bytes };
}
