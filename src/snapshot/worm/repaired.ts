/**
 * What `verify --repair archive` has stored once more is found through the newest snapshot of the lineage alone: the trees of
 * older ones still lead to the damaged copies. As a WORM set never drops a version, the newest one knows them all.
 */
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { Repository } from '../../repository/repository.ts';
import { describe } from '../view/listing.ts';
import type { OpenPlace, SnapshotOpener } from '../view/place.ts';

/** Through which snapshot the content of a place is to be read: its own, if its set was never repaired. */
export async function contentReader(
  repository: Repository,
  opener: SnapshotOpener,
  { reader, snapshot }: Pick<OpenPlace, 'reader' | 'snapshot'>,
): Promise<SnapshotReader> {
  if (snapshot.mode !== 'worm') return reader;
  const heads = await repository.heads(() => {});
  const head = heads.find(({ tag }) => tag === snapshot.lineage);
  if (head === undefined || head.sequence <= snapshot.sequence) return reader;
  if (((await describe(repository, head)).stats.repaired ?? 0) === 0) return reader;
  const content = await opener.open({ record: head });
  // Whoever walks the other snapshot can fetch pages of this one, but not open its archives.
  for (const { row } of content.root.archives) await content.archives.open(row);
  return content;
}
