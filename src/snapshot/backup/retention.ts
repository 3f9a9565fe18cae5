/** Object Lock: what a snapshot needs must not be deletable for as long as the repository promises, however old it is. */

import { KIND_DATA } from '../../archive/format.ts';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { ARCHIVE, TREES, type TreeRoot } from '../../archive/tree/schema.ts';
import {
  archiveName,
  CONFIG_PREFIX,
  DATA_PREFIX,
  dataName,
  FORWARD_PREFIX,
  GENESIS_NAME,
  INDEX_PREFIX,
  indexName,
  KEYS_PREFIX,
} from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import type { ArchiveFacts } from './archive-rows.ts';

export interface Needed {
  /** The archives that the snapshot before referred to; null when there was none, or nothing of it is referred to. */
  old: { source: PageSource; root: TreeRoot } | null;
  added: Iterable<Pick<ArchiveFacts, 'id' | 'kind'>>;
}

/** Extends the locks of all that the next snapshot refers to; does nothing in a repository without locks. Called before the commit. */
export async function retainArchives(repository: Repository, { old, added }: Needed): Promise<void> {
  if (repository.config.keeping?.lockDays === undefined) return;
  const { forwards, store } = repository;
  await forwards.refresh();
  const names = await listNames(store, [CONFIG_PREFIX, KEYS_PREFIX, FORWARD_PREFIX]);
  names.add(GENESIS_NAME);
  const merged = forwards.records.length === 0 ? null : await listNames(store, [DATA_PREFIX, INDEX_PREFIX]);
  const add = ({ id, kind }: Pick<ArchiveFacts, 'id' | 'kind'>): void => {
    let needed = id;
    if (kind === KIND_DATA && merged !== null) {
      // Of what was merged, the last archive that holds its content is needed, and the records that lead there. One that a compaction has
      // not put whole yet, or never will, keeps nothing: what went into it does.
      const isWhole = (place: Uint8Array): boolean => merged.has(dataName(place)) && merged.has(indexName(place));
      needed = forwards.places(id).findLast(({ target }) => isWhole(target.id))?.target.id ?? id;
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
}

async function listNames(store: ObjectStore, prefixes: readonly string[]): Promise<Set<string>> {
  const names = new Set<string>();
  for (const prefix of prefixes) {
    for await (const { name } of store.list(prefix)) names.add(name);
  }
  return names;
}
