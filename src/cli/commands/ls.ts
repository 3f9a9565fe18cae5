import type { Attributes } from '../../snapshot/view/attributes.ts';
import type { Context } from '../context.ts';
import { entryAsJson, printEntry } from '../entry-line.ts';
import { Places } from '../places.ts';

interface Options {
  long?: boolean;
  recursive?: boolean;
  directory?: boolean;
}

export async function run(context: Context, args: string[], options: Options): Promise<undefined> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const place = await places.open(args[0] ?? 'latest');
  const { EntryWalk, entryPath, forEachStep } = await import('../../snapshot/view/entry-walk.ts');
  const { InodeLookup, S_IFDIR, S_IFMT } = await import('../../snapshot/view/attributes.ts');
  const { out } = context;
  const { reader, attributes } = place;
  const wantsInode = out.json || options.long === true;
  const print = (path: Buffer, found: Attributes | null): void => {
    if (out.json && found !== null) out.object(entryAsJson(path, found));
    else printEntry(out, path, found);
  };
  if (options.directory || (attributes.mode & S_IFMT) !== S_IFDIR) {
    print(place.path.at(-1) ?? Buffer.from('.'), wantsInode ? attributes : null);
  } else {
    const inodes = new InodeLookup(reader);
    const walk = new EntryWalk(reader, place.inode, { recursive: options.recursive ?? false });
    // One step is name and attributes together; a miss in the second must not lose the first.
    let entry: ReturnType<typeof walk.next> = null;
    const step = (): { path: Buffer; found: Attributes | null } | null => {
      entry ??= walk.next();
      if (entry === null) return null;
      const found = wantsInode ? inodes.get(entry.inode) : null;
      const path = entryPath(entry);
      entry = null;
      return { path, found };
    };
    await forEachStep(reader, step, ({ path, found }) => {
      print(path, found);
      return out.full ? out.flush() : undefined;
    });
  }
  places.close();
}
