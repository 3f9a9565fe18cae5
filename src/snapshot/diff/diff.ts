import { Cursor } from '../../archive/tree/read.ts';
import { HISTORY, TREES } from '../../archive/tree/schema.ts';
import { retrying } from '../../cache/snapshot-reader.ts';
import { diffByPaths } from './diff-paths.ts';
import { diffByTrees } from './diff-trees.ts';
import type { Change, SnapshotPlace } from './difference.ts';

export type { Change, ChangeKind, SnapshotPlace } from './difference.ts';

/** What changed from the older place to the newer one, in the order of paths. */
export async function diff(older: SnapshotPlace, newer: SnapshotPlace): Promise<Change[]> {
  const sameFolder = older.inode === newer.inode && (await shareNumbers(older, newer));
  const changes = sameFolder ? await diffByTrees(older, newer) : await diffByPaths(older, newer);
  return changes.sort((a, b) => a.path.compare(b.path) || (a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : 0));
}

/**
 * True when archive rows and inode numbers mean the same in both: one is in the other's history. A lineage that began
 * anew counts from 1 again, and its history does not know the snapshots before.
 */
async function shareNumbers(a: SnapshotPlace, b: SnapshotPlace): Promise<boolean> {
  if (a.reader.lineage !== b.reader.lineage) return false;
  if (a.sequence === b.sequence) return a.reader.scope === b.reader.scope;
  const [older, newer] = a.sequence < b.sequence ? [a, b] : [b, a];
  const { source, roots } = newer.reader;
  const cursor = new Cursor(source, TREES.history, roots.history);
  if (!(await retrying(newer.reader, () => cursor.find(older.sequence)))) return false;
  return cursor.page!.slice(HISTORY.snapshotId, cursor.index).toString('hex') === older.reader.scope;
}
