import { ROOT_INODE } from '../../archive/format.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { DELETED, NAME, TREES } from '../../archive/tree/schema.ts';
import { OpenArchives } from '../../cache/archives.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import { Fetcher } from '../../cache/fetcher.ts';
import { PageCache } from '../../cache/pages.ts';
import { openSnapshot, retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import type { Repository } from '../../repository/repository.ts';
import { isRemote } from '../../store/object-store.ts';
import { joinPath, type SnapshotPlace } from '../diff/difference.ts';
import { type Attributes, InodeLookup } from './attributes.ts';
import type { SnapshotInfo } from './listing.ts';
import { splitPath } from './naming.ts';

export interface OpenPlace extends SnapshotPlace {
  snapshot: SnapshotInfo;
  attributes: Attributes;
  /** Another snapshot of the lineage, through which contents are read; default: the reader. See worm/repaired.ts. */
  content?: SnapshotReader;
}

/** Pages of all snapshots that a command has open. */
const PAGE_BYTES = 96 * 1024 * 1024;

interface OpenerOptions {
  cache?: BlockCache | null;
  keepContent?: boolean;
}

/** Opens snapshots of one repository that share what they have in common: open archives, unwrapped keys, decoded pages. */
export class SnapshotOpener {
  readonly #repository: Repository;
  /** Null when the archives are read in place. */
  readonly fetcher: Fetcher | null;
  readonly #archives: OpenArchives;
  readonly #pages = new PageCache(PAGE_BYTES);

  /**
   * `cache`: of a remote store, what was fetched before; closed by whoever opened it. A command goes through content once:
   * kept in the cache (`keepContent`), it would drive out what is browsed.
   */
  constructor(repository: Repository, { cache = null, keepContent = false }: OpenerOptions = {}) {
    const { store } = repository;
    this.#repository = repository;
    this.fetcher = isRemote(store) ? new Fetcher({ store, cache, keepContent, deadlineMs: null }) : null;
    this.#archives = new OpenArchives({ store, keys: repository, fetcher: this.fetcher });
  }

  open(snapshot: Pick<SnapshotInfo, 'record'>): Promise<SnapshotReader> {
    const repository = this.#repository;
    return openSnapshot({
      store: repository.store,
      repository,
      record: snapshot.record,
      archives: this.#archives,
      pages: this.#pages,
    });
  }

  /** Wipes the archive keys. */
  close(): void {
    this.#archives.close();
    this.fetcher?.close();
  }
}

/**
 * Opens a snapshot and finds a path in it. A path is meant as the snapshot shows it; one that begins with the only
 * folder that was backed up is understood too, because that is where the file lies on the machine.
 *
 * @param path bytes, null for the root
 * @throws `not-found`, naming the whole path and the first part of it that is missing
 */
export async function openPlace(
  opener: SnapshotOpener,
  snapshot: SnapshotInfo,
  path: Uint8Array | null,
): Promise<OpenPlace> {
  const reader = await opener.open(snapshot);
  const names = path === null ? [] : splitPath(path);
  let found = await lookup(reader, names);
  let taken = names;
  if (typeof found !== 'number') {
    const [source] = snapshot.paths;
    const prefix = snapshot.paths.length === 1 && source !== undefined ? splitPath(source) : [];
    const inside =
      prefix.length > 0 && prefix.length <= names.length && prefix.every((name, i) => name.equals(names[i] as Buffer));
    if (inside) {
      taken = names.slice(prefix.length);
      const again = await lookup(reader, taken);
      found = typeof again === 'number' ? again : { missing: prefix.length + again.missing };
    }
  }
  if (typeof found !== 'number') throw noSuchPlace(snapshot, names, found.missing);
  const inode = found;
  const inodes = new InodeLookup(reader);
  const attributes = await retrying(reader, () => inodes.get(inode));
  return { reader, sequence: snapshot.sequence, snapshot, inode, path: taken, attributes };
}

/** Who names a path of the machine does not always know that a snapshot of one folder shows it as its root. */
function noSuchPlace({ id, paths }: SnapshotInfo, names: readonly Buffer[], missing: number): RozenError {
  const path = (count: number): string => `/${joinPath(names.slice(0, count)).toString()}`;
  const whole = JSON.stringify(path(names.length));
  const part = missing + 1 < names.length ? `: it has no ${JSON.stringify(path(missing + 1))}` : '';
  const root = missing === 0 && paths.length === 1 ? `its root is ${paths[0]!.toString()}, ` : '';
  const short = id.slice(0, 8);
  return new RozenError('not-found', `${whole} is not in snapshot ${short}${part}`, {
    hint: `${root}see rozen ls ${short}:${path(missing)}`,
  });
}

/**
 * The inode, or the number of the name that is missing. Of a WORM set, what is not there any more is found by the name that
 * it had when it was deleted.
 */
async function lookup(reader: SnapshotReader, names: readonly Buffer[]): Promise<number | { missing: number }> {
  const cursor = new Cursor(reader.source, TREES.names, reader.roots.names);
  let inode = ROOT_INODE;
  for (const [i, name] of names.entries()) {
    const parent = inode;
    const found = await retrying(reader, () =>
      cursor.find(parent, name) ? cursor.page!.num(NAME.inode, cursor.index) : lastDeleted(reader, parent, name),
    );
    if (found === 0) return { missing: i };
    inode = found;
  }
  return inode;
}

/** What had this name in a folder and is gone since, the last of several; 0 when there is nothing of the kind. Throws Miss. */
function lastDeleted(reader: SnapshotReader, parent: number, name: Buffer): number {
  if (reader.roots.deleted.row === 0) return 0;
  const deleted = new Cursor(reader.source, TREES.deleted, reader.roots.deleted);
  const inodes = new InodeLookup(reader);
  let found = 0;
  for (let on = deleted.seek(parent, name); on; on = deleted.next()) {
    const page = deleted.page!;
    const row = deleted.index;
    if (page.num(DELETED.parent, row) !== parent || page.compareBytes(DELETED.name, row, name) !== 0) break;
    const inode = page.num(DELETED.inode, row);
    if (inodes.find(inode)?.nlink === 0) found = inode;
  }
  return found;
}
