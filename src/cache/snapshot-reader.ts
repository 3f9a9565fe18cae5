/** A snapshot, open for reading: the one door for the command line, restore, verify and the mount. */
import type { PageSource } from '../archive/tree/read.ts';
import { decodeRoot, type SnapshotRoot, type TreeArchiveFacts } from '../archive/tree/root.ts';
import type { TreeRoots } from '../archive/tree/schema.ts';
import { corrupt } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { ArchiveSet, type KeyOpener, OpenArchives } from './archives.ts';
import type { Miss } from './miss.ts';
import { PageCache } from './pages.ts';

/** Decoded pages that a reader of its own keeps: some hundred thousand files. */
const PAGE_BYTES = 48 * 1024 * 1024;

/** What a signed snapshot record says, as far as reading needs it. */
export interface SnapshotFacts {
  id: Buffer;
  /** Lineage tag, 32 hex characters. */
  tag: string;
  /** Of the record in its lineage. */
  sequence: number;
  tree: TreeArchiveFacts;
}

export interface SnapshotReader {
  readonly record: SnapshotFacts;
  /** Lineage tag. */
  readonly lineage: string;
  /** Names this snapshot's rows in a Miss: the snapshot id in hex. */
  readonly scope: string;
  readonly root: SnapshotRoot;
  readonly roots: TreeRoots;
  /** The pages of all trees. */
  readonly source: PageSource;
  readonly archives: ArchiveSet;
  /** Makes what is missing available on this thread. */
  resolve(miss: Miss): Promise<void>;
}

export interface OpenSnapshotOptions {
  store: ObjectStore;
  repository: KeyOpener;
  /** A record whose signature was checked. */
  record: SnapshotFacts;
  /** Shared by all snapshots of a process that has several open. */
  archives?: OpenArchives;
  pages?: PageCache;
}

/**
 * Opens a snapshot by one suffix read of its tree archive (two if its tail is very long), whatever its size.
 * Throws 'not-found', 'corrupt', 'untrusted' (the object is not the signed one), 'no-key'.
 */
export async function openSnapshot(options: OpenSnapshotOptions): Promise<SnapshotReader> {
  const { store, repository, record } = options;
  const shared = options.archives ?? new OpenArchives({ store, keys: repository });
  const scope = record.id.toString('hex');
  const { archive, root: plaintext } = await shared.openSnapshotTree(record.tree);
  const root = decodeRoot(plaintext, `${archive.object}: ROOT`);
  if (root.row !== record.tree.row)
    throw corrupt(`${archive.object}: ROOT is of row ${root.row}, not ${record.tree.row}`);
  const pages = options.pages ?? new PageCache(PAGE_BYTES);
  const archives = new ArchiveSet({ scope, shared, pages, root, own: archive });
  return {
    record,
    lineage: record.tag,
    scope,
    root,
    roots: root.roots,
    source: archives.source,
    archives,
    resolve: (miss) => archives.resolve(miss),
  };
}

/** Runs synchronous code over a snapshot; when it throws Miss, fetches what is named and runs it again from its beginning. */
export function retrying<T>(reader: SnapshotReader, work: () => T): Promise<T> {
  return reader.archives.retry(work);
}
