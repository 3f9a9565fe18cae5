import { retrying } from '../../cache/snapshot-reader.ts';
import { compareEntries, isFolder } from '../backup/compare-entries.ts';
import { type Attributes, InodeLookup } from '../view/attributes.ts';
import { EnteredFolders } from '../view/entered-folders.ts';
import { type Entry, EntryWalk, entryPath, forEachStep } from '../view/entry-walk.ts';
import type { Change, SnapshotPlace } from './difference.ts';

const SLASH = Buffer.from('/');

interface Listed {
  name: Buffer;
  inode: number;
}

/** Compares two places by path: for snapshots of different lineages, and for folders that are not the same one. */
export async function diffByPaths(older: SnapshotPlace, newer: SnapshotPlace): Promise<Change[]> {
  const sides = { older: new Side(older), newer: new Side(newer) };
  const changes: Change[] = [];
  const pending: { older: number; newer: number; path: Buffer }[] = [];
  const meet = async (a: number, b: number, path: Buffer): Promise<void> => {
    const before = await sides.older.attributes(a);
    const after = await sides.newer.attributes(b);
    const change = await compareEntries(
      { reader: older.reader, attributes: before },
      { reader: newer.reader, attributes: after },
    );
    if (change !== null)
      changes.push({ ...change, path, mode: after.mode, olderSize: sizeOf(before), newerSize: sizeOf(after) });
    if (isFolder(before) && isFolder(after)) pending.push({ older: a, newer: b, path });
    else if (isFolder(before)) await sides.older.tellBelow(a, path, (told) => changes.push(removed(told)));
    else if (isFolder(after)) await sides.newer.tellBelow(b, path, (told) => changes.push(added(told)));
  };
  const only = async (side: Side, entry: Listed, path: Buffer, make: (told: Told) => Change): Promise<void> => {
    const attributes = await side.attributes(entry.inode);
    changes.push(make({ path, attributes }));
    if (isFolder(attributes)) await side.tellBelow(entry.inode, path, (told) => changes.push(make(told)));
  };
  await meet(older.inode, newer.inode, Buffer.alloc(0));
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    const { path } = folder;
    const a = await sides.older.list(folder.older);
    const b = await sides.newer.list(folder.newer);
    const at = (name: Buffer): Buffer => (path.length === 0 ? name : Buffer.concat([path, SLASH, name]));
    for (let i = 0, j = 0; i < a.length || j < b.length; ) {
      const left = a[i];
      const right = b[j];
      const order = left === undefined ? 1 : right === undefined ? -1 : left.name.compare(right.name);
      if (order < 0) await only(sides.older, left!, at(left!.name), removed);
      else if (order > 0) await only(sides.newer, right!, at(right!.name), added);
      else await meet(left!.inode, right!.inode, at(left!.name));
      if (order <= 0) i++;
      if (order >= 0) j++;
    }
  }
  return changes;
}

interface Told {
  path: Buffer;
  attributes: Attributes;
}

const added = ({ path, attributes }: Told): Change => ({
  kind: 'added',
  path,
  mode: attributes.mode,
  olderSize: null,
  newerSize: sizeOf(attributes),
});

const removed = ({ path, attributes }: Told): Change => ({
  kind: 'removed',
  path,
  mode: attributes.mode,
  olderSize: sizeOf(attributes),
  newerSize: null,
});

function sizeOf(attributes: Attributes): number | null {
  return isFolder(attributes) ? null : attributes.size;
}

/** One of the two snapshots. */
class Side {
  readonly #place: SnapshotPlace;
  readonly #inodes: InodeLookup;
  readonly #listed = new EnteredFolders();

  constructor(place: SnapshotPlace) {
    this.#place = place;
    this.#inodes = new InodeLookup(place.reader);
  }

  attributes(inode: number): Promise<Attributes> {
    return retrying(this.#place.reader, () => this.#inodes.get(inode));
  }

  async list(inode: number): Promise<Listed[]> {
    this.#listed.enter(inode);
    const entries: Listed[] = [];
    await this.#walk(new EntryWalk(this.#place.reader, inode, { recursive: false }), (entry) => {
      entries.push({ name: Buffer.from(entry.name), inode: entry.inode });
    });
    return entries;
  }

  async tellBelow(inode: number, path: Buffer, tell: (told: Told) => void): Promise<void> {
    const folder = path.length === 0 ? path : Buffer.concat([path, SLASH]);
    await this.#walk(new EntryWalk(this.#place.reader, inode, { recursive: true, folder }), async (entry) => {
      tell({ path: Buffer.from(entryPath(entry)), attributes: await this.attributes(entry.inode) });
    });
  }

  #walk(walk: EntryWalk, visit: (entry: Entry) => void | Promise<void>): Promise<void> {
    return forEachStep(this.#place.reader, () => walk.next(), visit);
  }
}
