import { decodeCbor } from '../../archive/cbor.ts';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { HISTORY, TREES, type TreeRoots } from '../../archive/tree/schema.ts';
import { corrupt } from '../../errors.ts';
import { decodePolicy, type SnapshotBody } from '../../repository/snapshot-record.ts';

/**
 * What the newest snapshot of a lineage says of its set, from the trees: a machine that can only write cannot open its own
 * records, but has their trees. Throws Miss.
 */
export function setInfo({ source, roots }: { source: PageSource; roots: TreeRoots }): SnapshotBody {
  const history = new Cursor(source, TREES.history, roots.history);
  if (!history.seekRank(roots.history.count - 1)) throw corrupt('the history of the set is empty');
  const info = decodeCbor(history.page!.slice(HISTORY.info, history.index), { what: 'history' });
  const { set, mode, policy, host, user, paths, tags, stats } = info as unknown as SnapshotBody;
  const worm = mode === 'worm';
  return {
    set,
    mode: worm ? 'worm' : 'snapshot',
    ...(worm ? { policy: decodePolicy(policy) } : {}),
    host,
    user,
    paths: paths.map((path) => Buffer.from(path)),
    tags,
    stats,
  };
}
