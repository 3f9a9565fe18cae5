/** Local state from the store: all tree pages of a snapshot, fetched and kept. */
import { decodeCbor } from '../../archive/cbor.ts';
import type { Page } from '../../archive/tree/page.ts';
import { Cursor, childPointer, loadPage } from '../../archive/tree/read.ts';
import { CHILD, HISTORY, INODE, TREE_NAMES, TREES, type TreeRoot, type TreeSchema } from '../../archive/tree/schema.ts';
import { openSnapshot, retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import type { LineageState, LocalState } from './local-state.ts';

/** Pages asked for at the same time. */
const PARALLEL = 16;

export interface ReadBackOptions {
  repository: Repository;
  record: SnapshotRecord;
  generation: number;
  /** Empty; filled. */
  local: LocalState;
  signal: AbortSignal | undefined;
}

export async function readBack(options: ReadBackOptions): Promise<LineageState> {
  const { repository, record, generation, local } = options;
  const reader = await openSnapshot({ store: repository.store, repository, record });
  const rows = new Set<number>();
  for (const name of TREE_NAMES)
    await keepTree(options, { reader, schema: TREES[name], root: reader.roots[name], rows });
  const state: LineageState = {
    generation,
    snapshotId: record.id,
    sequence: record.sequence,
    roots: reader.roots,
    nextInode: await nextInode(reader),
    nextRow: record.tree.row + 1,
    tree: record.tree,
    treeArchives: rows.size,
    walkedAt: record.timeSec * 1000 + Math.floor(record.timeNs / 1e6),
  };
  local.fold(state);
  return state;
}

async function keepTree(
  { local, signal }: ReadBackOptions,
  tree: { reader: SnapshotReader; schema: TreeSchema; root: TreeRoot; rows: Set<number> },
): Promise<void> {
  const { reader, schema, root, rows } = tree;
  if (root.row === 0) return;
  let level: TreeRoot[] = [root];
  while (level.length > 0) {
    const below: TreeRoot[] = [];
    for (let at = 0; at < level.length; at += PARALLEL) {
      if (signal?.aborted)
        throw new RozenError('interrupted', 'the backup was interrupted while it read its state back');
      const batch = level.slice(at, at + PARALLEL);
      const pages = await Promise.all(
        batch.map((it) =>
          retrying(reader, () => loadPage(reader.source, it, { schema, level: it.level, count: it.count })),
        ),
      );
      for (const [i, page] of pages.entries()) {
        const { row, offset } = batch[i]!;
        rows.add(row);
        local.put(row, offset, page.bytes);
        if (page.level > 0) below.push(...children(page));
      }
    }
    level = below;
  }
}

function* children(page: Page): Generator<TreeRoot> {
  for (let i = 0; i < page.count; i++) {
    yield { ...childPointer(page, i), level: page.level - 1, count: page.num(page.schema.keys + CHILD.count, i) };
  }
}

/** The newest history row says which numbers were ever given; the highest one in use is the least that must be skipped. */
async function nextInode(reader: SnapshotReader): Promise<number> {
  return retrying(reader, () => {
    const { source, roots } = reader;
    let next = 2;
    const inodes = new Cursor(source, TREES.inodes, roots.inodes);
    if (inodes.seekRank(roots.inodes.count - 1)) next = inodes.page!.num(INODE.inode, inodes.index) + 1;
    const history = new Cursor(source, TREES.history, roots.history);
    if (!history.seekRank(roots.history.count - 1)) return next;
    const info = decodeCbor(history.page!.slice(HISTORY.info, history.index), { what: 'history' });
    const said = (info as { nextInode?: unknown } | null)?.nextInode;
    return typeof said === 'number' && Number.isSafeInteger(said) && said > next ? said : next;
  });
}
