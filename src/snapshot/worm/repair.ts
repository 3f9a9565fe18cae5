/** Repairs after a comparison of a snapshot with local files: each side from the other one, where that is sound. */

import { BLOCK_SIZE } from '../../archive/format.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { ARCHIVE, EXTENT, INODE, TREES, VERSION } from '../../archive/tree/schema.ts';
import { RozenError } from '../../errors.ts';
import { lstat } from '../../posix/stat.ts';
import type { Repository } from '../../repository/repository.ts';
import type { BackupProblem, Decision } from '../backup/backup-types.ts';
import { XattrReader } from '../backup/xattr-reader.ts';
import type { Divergence } from '../verify/against-types.ts';
import type { Finding } from '../verify/types.ts';
import type { OpenPlace } from '../view/place.ts';
import { putBack } from './put-back.ts';
import { eachRow, InodePaths, localPath, topOf } from './set-trees.ts';

export interface LocalRepair {
  path: Buffer;
  /** What was there; null when it was not kept, or not repaired. */
  keptAs: Buffer | null;
  /** Null when it was repaired. */
  problem: string | null;
}

/** Puts back what decayed here: files that nobody meant to change. */
export async function repairLocal(options: {
  repository: Repository;
  place: OpenPlace;
  folder: Buffer;
  divergences: readonly Divergence[];
  keep: boolean;
}): Promise<LocalRepair[]> {
  const { place, folder, divergences, keep } = options;
  const { contentIdKey } = await options.repository.loadSecrets();
  const { reader } = place;
  const versions = new Cursor(reader.source, TREES.versions, reader.roots.versions);
  const xattrs = new XattrReader(() => {});
  const repairs: LocalRepair[] = [];
  for (const { file, decayed, path } of divergences) {
    if (decayed !== true || file === undefined) continue;
    const local = path.length === 0 ? folder : Buffer.concat([folder, Buffer.from('/'), path]);
    try {
      const stat = lstat(local);
      if (stat.nlink > 1) throw new RozenError('unsupported', 'it has several names (hard links)');
      const contentId = await reader.archives.retry(() =>
        versions.find(file.inode, file.version)
          ? Buffer.from(versions.page!.slice(VERSION.contentId, versions.index))
          : null,
      );
      const { mode, uid, gid } = stat;
      const { mtimeSec, mtimeNs } = file;
      const wanted = { mode, uid, gid, mtimeSec, mtimeNs, xattrs: xattrs.read(local).attributes };
      const keptAs = await putBack({ reader, file, contentId, contentIdKey, path: local, wanted, keep });
      repairs.push({ path, keptAs, problem: null });
    } catch (error) {
      repairs.push({ path, keptAs: null, problem: (error as Error).message });
    }
  }
  return repairs;
}

export interface ArchiveRepair {
  /** Files of the snapshot whose archived content is damaged. */
  damaged: number;
  /** Of these, stored once more from the local ones. */
  repaired: number;
  snapshotId: string | null;
  problems: BackupProblem[];
}

/**
 * Stores once more what is damaged in the archives of a snapshot and sound on this machine. Objects are never changed: the
 * content goes into a new archive, and a new snapshot refers to it; older snapshots still refer to the damaged one.
 */
export async function repairArchive(options: {
  /** Opened to read, on the machine that backs the set up. */
  repository: Repository;
  place: OpenPlace;
  findings: readonly Finding[];
  signal?: AbortSignal;
}): Promise<ArchiveRepair> {
  const { repository, place, findings, signal } = options;
  const { snapshot } = place;
  if (snapshot.mode !== 'worm') {
    throw new RozenError(
      'unsupported',
      `set '${snapshot.set}' is no WORM set: its archive cannot be repaired in place`,
      {
        hint: 'rozen backup --self-contained stores everything once more',
      },
    );
  }
  const inodes = await damagedFiles(place, findings, repository.forwards);
  const paths = new InodePaths(place.reader);
  const top = topOf(snapshot);
  const decisions = new Map<number, Decision>();
  for (const inode of inodes) {
    const names = await paths.find(inode);
    if (names !== null) decisions.set(inode, { action: 'repair', path: localPath(top, names) });
  }
  if (decisions.size === 0) return { damaged: inodes.length, repaired: 0, snapshotId: null, problems: [] };
  const { backup } = await import('../backup/backup.ts');
  const { host, user, paths: sources, set } = snapshot;
  const report = await backup({
    repository,
    stateDir: repository.stateDir,
    set,
    mode: 'worm',
    paths: sources,
    decisions,
    host,
    user,
    ...(signal === undefined ? {} : { signal }),
  });
  const left = report.problems.length + (report.worm?.openCount ?? 0);
  const repaired = Math.max(0, decisions.size - left);
  return { damaged: inodes.length, repaired, snapshotId: report.snapshotId, problems: report.problems };
}

/** Current contents that lie in blocks which the findings name. */
async function damagedFiles(
  { reader }: OpenPlace,
  findings: readonly Finding[],
  forwards: Repository['forwards'],
): Promise<number[]> {
  const blocks = new Map<string, Set<number> | 'all'>();
  for (const { archive, block, kind } of findings) {
    if (archive === null || (kind !== 'damaged' && kind !== 'missing')) continue;
    const known = blocks.get(archive);
    if (block === null) blocks.set(archive, 'all');
    else if (known === undefined) blocks.set(archive, new Set([block]));
    else if (known !== 'all') known.add(block);
  }
  // Blocks of archives that were merged are found in what they were merged into.
  const byRow = new Map<number, { damaged: Set<number> | 'all'; start: number }>();
  await eachRow(reader, 'archives', (page, i) => {
    const id = page.slice(ARCHIVE.id, i);
    const merged = forwards.known(id);
    const own = blocks.get(id.toString('hex'));
    const damaged = own ?? (merged === null ? undefined : blocks.get(merged.target.id.toString('hex')));
    if (damaged === undefined) return;
    byRow.set(page.num(ARCHIVE.row, i), { damaged, start: own === undefined ? merged!.start : 0 });
  });
  const hit = new Map<number, Set<number>>();
  await eachRow(reader, 'extents', (page, i) => {
    const found = byRow.get(page.num(EXTENT.row, i));
    if (found === undefined) return;
    const { damaged } = found;
    const start = found.start + page.num(EXTENT.streamOffset, i);
    const end = start + page.num(EXTENT.length, i);
    let is = damaged === 'all';
    for (let at = Math.floor(start / BLOCK_SIZE); !is && damaged !== 'all' && at * BLOCK_SIZE < end; at++)
      is = damaged.has(at);
    if (!is) return;
    const inode = page.num(EXTENT.inode, i);
    const versions = hit.get(inode) ?? new Set();
    hit.set(inode, versions.add(page.num(EXTENT.version, i)));
  });
  const current: number[] = [];
  await eachRow(reader, 'inodes', (page, i) => {
    const inode = page.num(INODE.inode, i);
    if (hit.get(inode)?.has(page.num(INODE.version, i)) === true) current.push(inode);
  });
  return current;
}
