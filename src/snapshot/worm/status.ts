/** What diverged in a WORM set, from the trees alone: no file is read. */
import { Cursor } from '../../archive/tree/read.ts';
import { DELETED, HISTORY, INODE, INODE_FLAGS, TREES } from '../../archive/tree/schema.ts';
import { DEFAULT_POLICY, type Repository, type SnapshotRecord, type WormPolicy } from '../../repository/repository.ts';
import type { ContentFacts } from '../backup/backup-types.ts';
import { oldestProof } from './proofs.ts';
import { type DivergedKind, kindOf, newestSeen, wordForType } from './seen.ts';
import { checkWorm, eachRow, InodePaths, localPath, openSetTrees, type SetTrees, topOf } from './set-trees.ts';

/** A file that diverged and was not decided on. */
export interface OpenCase {
  inode: number;
  /** Of the archived content. */
  version: number;
  /** Names from the root of the set. */
  names: Buffer[];
  /** On the machine that backed it up. */
  path: Buffer;
  kind: DivergedKind;
  /** What is there now: file, folder, symlink, … */
  standsThere: string;
  archived: ContentFacts;
  local: ContentFacts;
  /** Null for kind 'replaced'. */
  differsAt: number | null;
  /** Sequence of the snapshot that saw it first, and its time. */
  since: number;
  sinceSec: number;
  mode: number;
}

export interface SetStatus {
  set: string;
  policy: WormPolicy;
  record: SnapshotRecord;
  snapshotId: string;
  timeSec: number;
  timeNs: number;
  paths: Buffer[];
  cases: OpenCase[];
  /** Names in `deleted` that are still gone. */
  deleted: number;
  /** Epoch seconds; null when the set holds no files, or only the machine that backs it up can tell. */
  oldestProof: number | null;
}

export async function setStatus(repository: Repository, set: string): Promise<SetStatus> {
  const opened = await openSetTrees(repository, set);
  try {
    return await statusOf(opened, set);
  } finally {
    await opened.close();
  }
}

async function statusOf(opened: SetTrees, set: string): Promise<SetStatus> {
  const { trees, record, body, proofs } = opened;
  checkWorm(set, body);
  const times = new Map<number, number>();
  await eachRow(trees, 'history', (page, i) => times.set(page.num(HISTORY.sequence, i), page.num(HISTORY.timeSec, i)));
  const diverged: number[] = [];
  await eachRow(trees, 'inodes', (page, i) => {
    if ((page.num(INODE.flags, i) & INODE_FLAGS.diverged) !== 0 && page.num(INODE.nlink, i) > 0)
      diverged.push(page.num(INODE.inode, i));
  });
  const cases: OpenCase[] = [];
  const paths = new InodePaths(trees);
  const top = topOf(body);
  for (const inode of diverged) {
    const names = await paths.find(inode);
    const found = names === null ? null : await openCase(opened, inode);
    // What lies in a folder that was deleted meanwhile is nobody's case.
    if (names === null || found === null) continue;
    cases.push({ ...found, names, path: localPath(top, names), sinceSec: times.get(found.since) ?? record.timeSec });
  }
  return {
    set,
    policy: body.policy ?? DEFAULT_POLICY,
    record,
    snapshotId: record.id.toString('hex'),
    timeSec: record.timeSec,
    timeNs: record.timeNs,
    paths: body.paths,
    cases,
    deleted: await countDeleted(opened),
    oldestProof: proofs === null ? null : oldestProof(trees, proofs),
  };
}

type CaseRow = Omit<OpenCase, 'names' | 'path' | 'sinceSec'>;

function openCase({ trees }: SetTrees, inode: number): Promise<CaseRow | null> {
  const inodes = new Cursor(trees.source, TREES.inodes, trees.roots.inodes);
  const versions = new Cursor(trees.source, TREES.versions, trees.roots.versions);
  return trees.archives.retry(() => {
    if (!inodes.find(inode)) return null;
    const page = inodes.page!;
    const row = inodes.index;
    const version = page.num(INODE.version, row);
    const seen = newestSeen(versions, inode, version);
    if (seen === null) return null;
    const archived = {
      size: page.num(INODE.size, row),
      mtimeSec: page.num(INODE.mtimeSec, row),
      mtimeNs: page.num(INODE.mtimeNs, row),
    };
    const { size, mtimeSec, mtimeNs, firstSeen } = seen;
    return {
      inode,
      version,
      kind: kindOf(archived, seen),
      standsThere: wordForType(seen.type),
      archived,
      local: { size, mtimeSec, mtimeNs },
      differsAt: seen.contentId === null ? null : seen.differsAt,
      since: firstSeen,
      mode: page.num(INODE.mode, row),
    };
  });
}

async function countDeleted({ trees }: SetTrees): Promise<number> {
  const named = new Set<number>();
  await eachRow(trees, 'deleted', (page, i) => named.add(page.num(DELETED.inode, i)));
  const inodes = new Cursor(trees.source, TREES.inodes, trees.roots.inodes);
  let count = 0;
  for (const inode of [...named].sort((a, b) => a - b)) {
    const gone = await trees.archives.retry(
      () => inodes.find(inode) && inodes.page!.num(INODE.nlink, inodes.index) === 0,
    );
    if (gone) count++;
  }
  return count;
}
