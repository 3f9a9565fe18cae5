/** Object Lock: what a snapshot needs must not be deletable for as long as the repository promises, however old it is. */

import { KIND_DATA } from '../../archive/format.ts';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { ARCHIVE, TREES, type TreeRoot } from '../../archive/tree/schema.ts';
import {
  archiveName,
  CONFIG_PREFIX,
  FORWARD_PREFIX,
  GENESIS_NAME,
  indexName,
  KEYS_PREFIX,
} from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
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
  const names = new Set([GENESIS_NAME]);
  for (const prefix of [CONFIG_PREFIX, KEYS_PREFIX, FORWARD_PREFIX]) {
    for await (const { name } of store.list(prefix)) names.add(name);
  }
  const add = ({ id, kind }: Pick<ArchiveFacts, 'id' | 'kind'>): void => {
    // Of what was merged, the archive that holds its content is needed, and the record that leads there.
    const needed = (kind === KIND_DATA ? forwards.known(id)?.target.id : undefined) ?? id;
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
