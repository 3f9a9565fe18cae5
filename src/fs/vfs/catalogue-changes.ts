import type { Invalidation } from '../vfs.ts';
import type { Catalogue } from './catalogue.ts';
import { BY_ID, ROOT, SNAPSHOTS, setFolder, VERSIONS, VIRTUAL_SLOT, WORM, wormFolder } from './nodes.ts';

/** What the kernel may have cached that is different now. */
export function changes(before: Catalogue, after: Catalogue): Invalidation[] {
  const found: Invalidation[] = [];
  const known = new Map(before.sets.map((set) => [set.number, set]));
  for (const set of after.sets) {
    const old = known.get(set.number);
    const name = Buffer.from(set.name);
    if (old === undefined) {
      found.push({ slot: VIRTUAL_SLOT, ino: SNAPSHOTS, name }, { slot: VIRTUAL_SLOT, ino: VERSIONS, name });
    } else if (old.snapshots.length !== set.snapshots.length) {
      found.push({ slot: VIRTUAL_SLOT, ino: setFolder(set.number), name: Buffer.from('latest') });
      found.push({ slot: VIRTUAL_SLOT, ino: VERSIONS, name });
      const machines = set.machines.flatMap(({ name: machine }) => [`current-${machine}`, `deleted-${machine}`]);
      for (const child of set.worm ? ['current', 'deleted', ...machines] : [])
        found.push({ slot: VIRTUAL_SLOT, ino: wormFolder(set.number), name: Buffer.from(child) });
    }
    if (set.worm && old?.worm !== true) {
      found.push({ slot: VIRTUAL_SLOT, ino: ROOT, name: Buffer.from('worm') });
      found.push({ slot: VIRTUAL_SLOT, ino: WORM, name });
    }
  }
  if (found.length > 0) found.push({ slot: VIRTUAL_SLOT, ino: BY_ID, name: null });
  return found;
}
