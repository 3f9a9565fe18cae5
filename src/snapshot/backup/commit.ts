/**
 * From a finished plan to a snapshot: the trees, their archive, the record, and local state after it.
 *
 *   1. trees are merged and sealed into a file; their pages go to local state under a row of their own
 *   2. the file goes to the store                 a crash until here leaves at most an archive that nothing refers to
 *   3. the new state is written down as pending
 *   4. the record goes to the store               this is the commit
 *   5. pending becomes the state                  a crash before it is made good by the next run
 */
import { join } from 'node:path';
import { encodeCbor } from '../../archive/cbor.ts';
import { KIND_TREE, MAX_TREE_ARCHIVES } from '../../archive/format.ts';
import type { PageSource } from '../../archive/tree/read.ts';
import { emptyRoots } from '../../archive/tree/schema.ts';
import { TreeArchiveWriter, type WrittenTrees } from '../../archive/tree/tree-archive.ts';
import type { Mutation } from '../../archive/tree/update.ts';
import { ArchiveWriter } from '../../archive/writer.ts';
import { RozenError } from '../../errors.ts';
import { treeName } from '../../repository/names.ts';
import type { Repository, SnapshotBody, SnapshotRecord, SnapshotTree } from '../../repository/repository.ts';
import { ArchiveFile } from './archive-file.ts';
import type { ArchiveFacts, ArchiveRows } from './archive-rows.ts';
import type { Lineage } from './lineage.ts';
import type { LineageState } from './local-state.ts';
import { Mutations, type OldTrees } from './mutations.ts';
import type { Plan } from './plan.ts';
import { retainArchives } from './retention.ts';

/** When a lineage lies in too many tree archives, so many of the fullest ones stay and the others are written anew. */
const KEPT_ARCHIVES = 16;

export interface CommitOptions {
  repository: Repository;
  lineage: Lineage;
  /** Pages of local state. */
  source: PageSource;
  /** What the plan changes; null when the trees begin empty. */
  old: OldTrees | null;
  plan: Plan;
  /** Null when no file had to be read. */
  rows: ArchiveRows | null;
  facts: (number: number) => ArchiveFacts;
  nextInode: number;
  /** Content id of no bytes; for WORM sets. */
  emptyId: Buffer;
  /** Epoch milliseconds. */
  walkedAt: number;
  timeSec: number;
  timeNs: number;
  body: SnapshotBody;
  signal?: AbortSignal | undefined;
  /** Called right before the record is written. */
  onCommit: () => void;
}

export interface Committed {
  record: SnapshotRecord;
}

export async function commitSnapshot(options: CommitOptions): Promise<Committed> {
  const { repository, lineage, old } = options;
  const { slot, local, generation } = lineage;
  const row = options.rows?.nextRow ?? lineage.state?.nextRow ?? 1;
  const { key, envelope } = await repository.newArchiveKey();
  const file = new ArchiveFile(join(lineage.folder, 'tree.tmp'));
  try {
    const written = await writeTrees(options, { row, key, envelope, file });
    const { id, size, headerHash, merkleRoot } = written.archive;
    const tree: SnapshotTree = { id, size, row, headerHash, merkleRoot, envelope };
    file.sync();
    await repository.store.putFile(treeName(id), file.path, { signal: options.signal });
    await retainArchives(repository, {
      old: old === null ? null : { source: options.source, root: old.roots.archives },
      added: [...archivesAdded(options).map(({ archive }) => archive), { id, kind: KIND_TREE }],
    });
    const state: LineageState = {
      generation,
      snapshotId: slot.id,
      sequence: slot.sequence,
      roots: written.roots,
      nextInode: options.nextInode,
      nextRow: row + 1,
      tree,
      treeArchives: written.rows.length,
      walkedAt: options.walkedAt,
    };
    local.writePending(state);
    if (options.signal?.aborted) throw new RozenError('interrupted', 'the backup was interrupted before its commit');
    options.onCommit();
    const { timeSec, timeNs, body } = options;
    const record = await repository.commit({ kind: 'snapshot', slot, timeSec, timeNs, tree, key, body });
    if (old === null) local.foldOnly(state, row);
    else local.fold(state, written.replaced);
    return { record };
  } finally {
    key.fill(0);
    file.remove();
  }
}

async function writeTrees(
  options: CommitOptions,
  archive: { row: number; key: Buffer; envelope: Buffer; file: ArchiveFile },
): Promise<WrittenTrees> {
  const { repository, lineage, old, plan, source } = options;
  const { row, key, envelope, file } = archive;
  const { local, state } = lineage;
  const { writer: signer } = repository;
  if (signer === null) throw new RozenError('internal', 'a commit without a writer');
  const writer = ArchiveWriter.create({ sink: file, kind: KIND_TREE, repositoryId: repository.id, key, envelope });
  const rewrite = old === null || state === null ? null : rowsToRewrite(lineage, state);
  try {
    writer.begin();
    const trees = new TreeArchiveWriter({
      writer,
      row,
      roots: old?.roots ?? emptyRoots(),
      source,
      known: old === null || state === null ? [] : [state.tree],
      onPage: (pointer, plaintext) => local.put(pointer.row, pointer.offset, plaintext),
      ...(rewrite === null ? {} : { rewrite }),
    });
    const mutations = new Mutations(plan, old);
    for (const name of ['names', 'inodes', 'extents', 'xattrs'] as const) {
      trees.update(name, mutations[name]());
      await trees.ready();
    }
    if (plan.worm) {
      const { sequence } = lineage.slot;
      trees.update('versions', mutations.versions(sequence, options.emptyId));
      await trees.ready();
      trees.update('deleted', mutations.deleted(sequence, options));
    }
    trees.update('archives', archiveRows(options));
    trees.update('history', [historyRow(options, row)]);
    return await trees.finish({ writerId: signer.id, signWith: signer.signingSecret });
  } catch (error) {
    writer.abort();
    throw error;
  }
}

/** The archives that this snapshot is the first to refer to, the tree archive of the snapshot before among them. */
function archivesAdded({ rows, facts, lineage, old }: CommitOptions): { row: number; archive: ArchiveFacts }[] {
  const added: { row: number; archive: ArchiveFacts }[] = [];
  if (old !== null && lineage.state !== null) {
    const { tree } = lineage.state;
    added.push({ row: tree.row, archive: { ...tree, kind: KIND_TREE } });
  }
  for (const item of rows?.added(facts) ?? []) added.push(item);
  return added;
}

function* archiveRows(options: CommitOptions): Generator<Mutation> {
  for (const { row, archive } of archivesAdded(options)) {
    const { id, kind, size, headerHash, merkleRoot, envelope } = archive;
    yield { key: [row], value: [id, kind, size, headerHash, merkleRoot, envelope] };
  }
}

function historyRow({ lineage, timeSec, timeNs, body, nextInode }: CommitOptions, row: number): Mutation {
  const { slot } = lineage;
  const info = encodeCbor({ ...body, nextInode });
  return { key: [slot.sequence], value: [slot.id, row, timeSec, timeNs, info] };
}

/** Rows of archives with few pages left, once there are too many; null when nothing needs rewriting. */
function rowsToRewrite({ local }: Lineage, state: LineageState): Set<number> | null {
  if (state.treeArchives < MAX_TREE_ARCHIVES) return null;
  const pages = [...local.pagesByRow()].sort((a, b) => b[1] - a[1]);
  return new Set(pages.slice(KEPT_ARCHIVES).map(([row]) => row));
}
