/** Object Lock: what a snapshot needs must not be deletable for as long as the repository promises, however old it is. */

import { KIND_DATA } from '../../archive/format.ts';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { ARCHIVE, TREES, type TreeRoot } from '../../archive/tree/schema.ts';
import { storedArchives } from '../../repository/archive-listing.ts';
import { ID_SIZE } from '../../repository/format.ts';
import {
  afterLineage,
  archiveName,
  CONFIG_PREFIX,
  FORWARD_PREFIX,
  GENESIS_NAME,
  indexName,
  KEYS_PREFIX,
  lineagePrefix,
  parseSnapshotName,
  SNAPSHOTS_PREFIX,
  snapshotName,
} from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import { inParallel } from '../cold/parallel.ts';
import type { ArchiveFacts } from './archive-rows.ts';

const DAY_MS = 86_400_000;
const HIGHEST_ID = Buffer.alloc(ID_SIZE, 0xff);

export interface Needed {
  /** The archives that the snapshot before referred to; null when there was none, or nothing of it is referred to. */
  old: { source: PageSource; root: TreeRoot } | null;
  added: Iterable<Pick<ArchiveFacts, 'id' | 'kind'>>;
}

/** Extends the locks of all that the next snapshot refers to; does nothing in a repository without locks. Called before the commit. */
export async function retainArchives(repository: Repository, { old, added }: Needed): Promise<void> {
  const lockDays = repository.config.keeping?.lockDays;
  if (lockDays === undefined) return;
  const { forwards, store } = repository;
  await forwards.refresh();
  const names = await listNames(store, [CONFIG_PREFIX, KEYS_PREFIX, FORWARD_PREFIX]);
  names.add(GENESIS_NAME);
  const merged = forwards.records.length === 0 ? null : await storedArchives(repository);
  const add = ({ id, kind }: Pick<ArchiveFacts, 'id' | 'kind'>): void => {
    let needed = id;
    if (kind === KIND_DATA && merged !== null) {
      // Of what was merged, the last archive that holds its content is needed, and the records that lead there. One that a compaction has
      // not put whole yet, or never will, keeps nothing: what went into it does.
      const isWhole = (key: string): boolean => merged.data.has(key) && merged.index.has(key);
      needed = forwards.places(id).findLast(({ target }) => isWhole(target.id.toString('hex')))?.target.id ?? id;
    }
    names.add(archiveName(kind, needed));
    if (kind === KIND_DATA) names.add(indexName(needed));
  };
  if (old !== null) {
    const cursor = new Cursor(old.source, TREES.archives, old.root);
    for (let on = cursor.seek(0); on; on = cursor.next()) {
      const page = cursor.page!;
      add({
        id: page.slice(ARCHIVE.id, cursor.index),
        kind: page.num(ARCHIVE.kind, cursor.index) as ArchiveFacts['kind'],
      });
    }
  }
  for (const archive of added) add(archive);
  await store.retain([...names]);
  await retainRecords(store, lockDays);
}

/**
 * Records of all lineages: a store that lacks one that another refers to is refused by everybody, whoever wrote it. There may be very many,
 * so that they are not asked one by one each time. The oldest of a lineage is locked last, after all others: as long as its lock has half of
 * the days left, so have those of the others, and of the records that were made, and locked, since.
 */
export async function retainRecords(store: ObjectStore, lockDays: number): Promise<void> {
  const enough = Date.now() + (lockDays * DAY_MS) / 2;
  await inParallel(await lineageTags(store), async (tag) => {
    const oldest = await oldestRecord(store, tag);
    if (oldest === null) return;
    const until = (await store.lockedUntil(oldest)) ?? 0;
    // A legal hold of it, which has no end, says nothing of the others.
    if (until >= enough && Number.isFinite(until)) return;
    const names = await listNames(store, [lineagePrefix(tag)]);
    names.delete(oldest);
    await store.retain([...names]);
    await store.retain([oldest]);
  });
}

/** One listing for each lineage, however many records it has. */
async function lineageTags(store: ObjectStore): Promise<string[]> {
  const tags: string[] = [];
  for (let after = SNAPSHOTS_PREFIX; ; ) {
    const first = await firstRecord(store, SNAPSHOTS_PREFIX, after);
    if (first === null) return tags;
    const { tag } = parseSnapshotName(first)!;
    tags.push(tag);
    after = afterLineage(tag);
  }
}

/** Newest records come first, so the one with sequence 1 is looked for behind all others. */
async function oldestRecord(store: ObjectStore, tag: string): Promise<string | null> {
  const first = await firstRecord(store, lineagePrefix(tag), snapshotName(tag, 2, HIGHEST_ID));
  if (first !== null) return first;
  // Declared lost, perhaps.
  const names = [...(await listNames(store, [lineagePrefix(tag)]))];
  return names.findLast((name) => parseSnapshotName(name) !== null) ?? null;
}

async function firstRecord(store: ObjectStore, prefix: string, after: string): Promise<string | null> {
  for await (const { name } of store.list(prefix, { after })) if (parseSnapshotName(name) !== null) return name;
  return null;
}

async function listNames(store: ObjectStore, prefixes: readonly string[]): Promise<Set<string>> {
  const names = new Set<string>();
  for (const prefix of prefixes) {
    for await (const { name } of store.list(prefix)) names.add(name);
  }
  return names;
}
