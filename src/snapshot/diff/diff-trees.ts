import type { Page } from '../../archive/tree/page.ts';
import { INODE, NAME, XATTR } from '../../archive/tree/schema.ts';
import { retrying } from '../../cache/snapshot-reader.ts';
import { compareEntries } from '../backup/compare-entries.ts';
import { type Attributes, InodeLookup, readAttributes, S_IFDIR, S_IFMT } from '../view/attributes.ts';
import { EntryWalk, entryPath, forEachStep } from '../view/entry-walk.ts';
import { type Change, differingFields, isIdle, joinPath, type SnapshotPlace } from './difference.ts';
import { comparePages, type RowPlace } from './page-difference.ts';
import { type NamedIn, ReverseNames } from './reverse-names.ts';

const SLASH = Buffer.from('/');

interface NameRow extends NamedIn {
  inode: number;
}

interface InodePair {
  older: Attributes;
  newer: Attributes;
}

/** Columns that decide whether two rows of an inode say the same to a person. */
const TELLING = [
  INODE.mode,
  INODE.uid,
  INODE.gid,
  INODE.size,
  INODE.mtimeSec,
  INODE.mtimeNs,
  INODE.rdev,
  INODE.version,
];

/**
 * Compares two snapshots of one lineage by the pages that they do not share: the cost follows the changes, not the
 * size. Inode numbers are the same files in both, so what was moved is known as such.
 */
export async function diffByTrees(older: SnapshotPlace, newer: SnapshotPlace): Promise<Change[]> {
  const names = await compareNames(older, newer);
  const pairs = await compareInodes(older, newer);
  const xattrs = await compareXattrs(older, newer);
  const changes = new Changes(older, newer);
  const moved = await changes.tellNames(names);
  await changes.tellInodes(pairs, xattrs, moved);
  return tidy(changes.list);
}

/** What came or went with a folder may have been told by its own row too; and what is new has not changed. */
function tidy(changes: readonly Change[]): Change[] {
  const told = new Set<string>();
  const arrived = new Set(changes.filter(({ kind }) => kind === 'added').map(({ path }) => path.toString('latin1')));
  return changes.filter(({ kind, path }) => {
    const text = path.toString('latin1');
    if ((kind === 'content' || kind === 'metadata') && arrived.has(text)) return false;
    const key = `${kind} ${text}`;
    return !told.has(key) && told.add(key);
  });
}

async function compareNames(
  older: SnapshotPlace,
  newer: SnapshotPlace,
): Promise<{ removed: NameRow[]; added: NameRow[] }> {
  const removed: NameRow[] = [];
  const added: NameRow[] = [];
  await comparePages(older.reader, newer.reader, 'names', {
    removed: (row) => removed.push(nameRow(row)),
    added: (row) => added.push(nameRow(row)),
    both(a, b) {
      if (a.page.num(NAME.inode, a.index) === b.page.num(NAME.inode, b.index)) return;
      removed.push(nameRow(a));
      added.push(nameRow(b));
    },
  });
  return { removed, added };
}

function nameRow({ page, index }: RowPlace): NameRow {
  return {
    parent: page.num(NAME.parent, index),
    name: Buffer.from(page.slice(NAME.name, index)),
    inode: page.num(NAME.inode, index),
  };
}

async function compareInodes(older: SnapshotPlace, newer: SnapshotPlace): Promise<Map<number, InodePair>> {
  const pairs = new Map<number, InodePair>();
  await comparePages(older.reader, newer.reader, 'inodes', {
    removed() {},
    added() {},
    both(a, b) {
      if (!sameInode(a, b)) {
        pairs.set(a.page.num(INODE.inode, a.index), {
          older: attributes(a.page, a.index),
          newer: attributes(b.page, b.index),
        });
      }
    },
  });
  return pairs;
}

function sameInode(a: RowPlace, b: RowPlace): boolean {
  for (const column of TELLING) {
    if (a.page.num(column, a.index) !== b.page.num(column, b.index)) return false;
  }
  return a.page.slice(INODE.target, a.index).equals(b.page.slice(INODE.target, b.index));
}

/** With a target of its own: the page may be dropped from memory. */
function attributes(page: Page, index: number): Attributes {
  const read = readAttributes(page, index);
  return read.target.length === 0 ? read : { ...read, target: Buffer.from(read.target) };
}

async function compareXattrs(older: SnapshotPlace, newer: SnapshotPlace): Promise<Set<number>> {
  const inodes = new Set<number>();
  const take = ({ page, index }: RowPlace): void => {
    inodes.add(page.num(XATTR.inode, index));
  };
  await comparePages(older.reader, newer.reader, 'xattrs', {
    removed: take,
    added: take,
    both(a, b) {
      if (!a.page.slice(XATTR.value, a.index).equals(b.page.slice(XATTR.value, b.index))) take(b);
    },
  });
  return inodes;
}

const pathKey = ({ parent, name }: NamedIn): string => `${parent}/${name.toString('latin1')}`;

/** Turns rows into changes with paths, and drops what lies outside of the two places. */
class Changes {
  readonly list: Change[] = [];
  readonly #older: SnapshotPlace;
  readonly #newer: SnapshotPlace;
  readonly #olderNames: ReverseNames;
  readonly #newerNames: ReverseNames;
  readonly #olderInodes: InodeLookup;
  readonly #newerInodes: InodeLookup;

  constructor(older: SnapshotPlace, newer: SnapshotPlace) {
    this.#older = older;
    this.#newer = newer;
    this.#olderNames = new ReverseNames(older.reader);
    this.#newerNames = new ReverseNames(newer.reader);
    this.#olderInodes = new InodeLookup(older.reader);
    this.#newerInodes = new InodeLookup(newer.reader);
  }

  /** Answers the inodes that were moved: what else changed in them is told under the new path. */
  async tellNames(names: { removed: NameRow[]; added: NameRow[] }): Promise<Set<number>> {
    const gone = new Map<number, NameRow[]>();
    for (const row of names.removed) {
      const list = gone.get(row.inode);
      if (list === undefined) gone.set(row.inode, [row]);
      else list.push(row);
    }
    const moved = new Set<number>();
    const arrived: NameRow[] = [];
    for (const row of names.added) {
      const from = gone.get(row.inode)?.pop();
      if (from === undefined) arrived.push(row);
      else {
        moved.add(row.inode);
        await this.#tellMove(from, row);
      }
    }
    const left = new Map([...gone.values()].flat().map((row) => [pathKey(row), row]));
    for (const row of arrived) {
      const before = left.get(pathKey(row));
      if (before === undefined) await this.#tellOne('added', row);
      else {
        left.delete(pathKey(row));
        await this.#tellReplaced(before, row);
      }
    }
    for (const row of left.values()) await this.#tellOne('removed', row);
    return moved;
  }

  async tellInodes(
    pairs: ReadonlyMap<number, InodePair>,
    xattrs: ReadonlySet<number>,
    moved: ReadonlySet<number>,
  ): Promise<void> {
    const found = new Map<number, { change: Omit<Change, 'path'>; parent: number; nlink: number; isFolder: boolean }>();
    const consider = (inode: number, { older, newer }: InodePair): void => {
      const isFolder = (newer.mode & S_IFMT) === S_IFDIR;
      const fields = differingFields(older, newer);
      if (xattrs.has(inode)) fields.push('xattrs');
      const otherType = (older.mode & S_IFMT) !== (newer.mode & S_IFMT);
      const otherContent =
        !isFolder &&
        (older.version !== newer.version || older.size !== newer.size || !older.target.equals(newer.target));
      if (!otherType && !otherContent && isIdle(newer.mode, fields)) return;
      // Moving changes the time of a folder at most, and that is told already.
      if (moved.has(inode) && !otherType && !otherContent && fields.length === 0) return;
      const kind = otherType ? 'type' : otherContent ? 'content' : 'metadata';
      const change = {
        kind,
        mode: newer.mode,
        fields,
        olderSize: fileSize(older),
        newerSize: fileSize(newer),
      } as const;
      found.set(inode, { change, parent: newer.parent, nlink: newer.nlink, isFolder });
    };
    for (const [inode, pair] of pairs) consider(inode, pair);
    for (const inode of xattrs) {
      if (pairs.has(inode)) continue;
      const pair = await this.#pair(inode);
      if (pair !== null) consider(inode, pair);
    }
    const names = await this.#newerNames.namesOf(found);
    for (const [inode, { change }] of found) {
      if (inode === this.#newer.inode) this.list.push({ ...change, path: Buffer.alloc(0) });
      for (const row of names.get(inode) ?? []) {
        const path = await this.#path('newer', row);
        if (path !== null) this.list.push({ ...change, path });
      }
    }
  }

  /** Both rows of an inode; null when it is only in one of the snapshots. */
  async #pair(inode: number): Promise<InodePair | null> {
    const { reader: olderReader } = this.#older;
    const { reader: newerReader } = this.#newer;
    const older = await retrying(olderReader, () => this.#olderInodes.find(inode));
    const newer = await retrying(newerReader, () => this.#newerInodes.find(inode));
    return older === null || newer === null ? null : { older, newer };
  }

  async #tellMove(from: NameRow, to: NameRow): Promise<void> {
    const [fromPath, path] = [await this.#path('older', from), await this.#path('newer', to)];
    if (path === null || fromPath === null) {
      // Into the place or out of it: all that lies below comes or goes with it.
      if (path !== null) await this.#tellWithAllBelow('added', to, path);
      if (fromPath !== null) await this.#tellWithAllBelow('removed', from, fromPath);
      return;
    }
    const newer = await this.#attributes('newer', to.inode);
    const older = await this.#attributes('older', from.inode);
    this.list.push({
      kind: 'moved',
      path,
      from: fromPath,
      mode: newer.mode,
      olderSize: fileSize(older),
      newerSize: fileSize(newer),
    });
  }

  async #tellOne(kind: 'added' | 'removed', row: NameRow): Promise<void> {
    const side = kind === 'added' ? 'newer' : 'older';
    const path = await this.#path(side, row);
    if (path === null) return;
    this.#push(kind, path, await this.#attributes(side, row.inode));
  }

  #push(kind: 'added' | 'removed', path: Buffer, attributes: Attributes): void {
    const size = fileSize(attributes);
    const [olderSize, newerSize] = kind === 'added' ? [null, size] : [size, null];
    this.list.push({ kind, path, mode: attributes.mode, olderSize, newerSize });
  }

  async #tellWithAllBelow(kind: 'added' | 'removed', row: NameRow, path: Buffer): Promise<void> {
    await this.#tellOne(kind, row);
    const side = kind === 'added' ? 'newer' : 'older';
    const { reader } = side === 'newer' ? this.#newer : this.#older;
    const walk = new EntryWalk(reader, row.inode, { recursive: true, folder: Buffer.concat([path, SLASH]) });
    await forEachStep(
      reader,
      () => walk.next(),
      async (entry) => this.#push(kind, Buffer.from(entryPath(entry)), await this.#attributes(side, entry.inode)),
    );
  }

  /** Another file under the same path. */
  async #tellReplaced(before: NameRow, after: NameRow): Promise<void> {
    const path = await this.#path('newer', after);
    if (path === null) return;
    const older = await this.#attributes('older', before.inode);
    const newer = await this.#attributes('newer', after.inode);
    const change = await compareEntries(
      { reader: this.#older.reader, attributes: older },
      { reader: this.#newer.reader, attributes: newer },
    );
    if (change !== null)
      this.list.push({ ...change, path, mode: newer.mode, olderSize: fileSize(older), newerSize: fileSize(newer) });
  }

  #attributes(side: 'older' | 'newer', inode: number): Promise<Attributes> {
    const { reader } = side === 'older' ? this.#older : this.#newer;
    const lookup = side === 'older' ? this.#olderInodes : this.#newerInodes;
    return retrying(reader, () => lookup.get(inode));
  }

  /** The path from the place that is compared; null when it lies outside. */
  async #path(side: 'older' | 'newer', row: NamedIn): Promise<Buffer | null> {
    const place = side === 'older' ? this.#older : this.#newer;
    const names = side === 'older' ? this.#olderNames : this.#newerNames;
    const whole = [...(await names.folderPath(row.parent)), row.name];
    if (whole.length <= place.path.length) return null;
    for (const [i, name] of place.path.entries()) if (!name.equals(whole[i] as Buffer)) return null;
    return joinPath(whole.slice(place.path.length));
  }
}

function fileSize({ mode, size }: Attributes): number | null {
  return (mode & S_IFMT) === S_IFDIR ? null : size;
}
