/** Stores once more what is damaged in the archives of a WORM set and sound on this machine, whatever its name here. */
import { BLOCK_SIZE } from '../../archive/format.ts';
import { ARCHIVE, EXTENT, INODE, VERSION } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import { joinName } from '../../posix/folder.ts';
import { lstat } from '../../posix/stat.ts';
import type { Repository } from '../../repository/repository.ts';
import type { BackupProblem, ContentRepair } from '../backup/backup-types.ts';
import { anyBelow } from '../backup/walk.ts';
import type { Finding } from '../verify/types.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { OpenPlace } from '../view/place.ts';
import { LocalHasher } from './local-hash.ts';
import { isStored } from './seen.ts';
import { eachRow } from './set-trees.ts';

export interface ArchiveRepair {
  /** Contents that are damaged in the archives. */
  damaged: number;
  /** Of these, stored once more from local files. */
  repaired: number;
  snapshotId: string | null;
  problems: BackupProblem[];
}

export interface ArchiveRepairOptions {
  /** Opened to read, on the machine that backs the set up. */
  repository: Repository;
  /** The newest snapshot of the lineage: its trees have every content that the set ever had. */
  newest: Pick<OpenPlace, 'reader' | 'snapshot'>;
  /** Only the contents that are current in this snapshot; null: older versions and what was deleted, too. */
  shown: SnapshotReader | null;
  /** Where sound copies may be. */
  folder: Buffer;
  findings: readonly Finding[];
  signal?: AbortSignal;
}

/**
 * Objects are never changed: the content goes into a new archive, and a new snapshot refers to it under the version that it
 * has. Older snapshots still refer to the damaged one.
 */
export async function repairArchive(options: ArchiveRepairOptions): Promise<ArchiveRepair> {
  const { repository, newest, signal } = options;
  const { snapshot } = newest;
  if (snapshot.mode !== 'worm') {
    throw new RozenError(
      'unsupported',
      `set '${snapshot.set}' is no WORM set: its archive cannot be repaired in place`,
      { hint: 'rozen backup --self-contained stores everything once more' },
    );
  }
  const damaged = await damagedContents(options);
  const contents = await findSound(options, damaged);
  const result = { damaged: damaged.length, repaired: 0, snapshotId: null, problems: [] };
  if (contents.length === 0) return result;
  const { backup } = await import('../backup/backup.ts');
  const { host, user, paths, set } = snapshot;
  const { problems, snapshotId, worm } = await backup({
    repository,
    stateDir: repository.stateDir,
    set,
    mode: 'worm',
    paths,
    repairs: { base: snapshot.record.id, contents },
    host,
    user,
    ...(signal === undefined ? {} : { signal }),
  });
  return { ...result, repaired: worm?.repaired ?? 0, snapshotId, problems };
}

interface Content {
  inode: number;
  version: number;
  size: number;
  contentId: Buffer;
}

/** Contents that lie in blocks which the findings name. */
async function damagedContents({ repository, newest, shown, findings }: ArchiveRepairOptions): Promise<Content[]> {
  const { reader } = newest;
  const hit = await damagedVersions(reader, findings, repository.forwards);
  const current = new Map<number, number>();
  if (shown !== null)
    await eachRow(shown, 'inodes', (page, i) => {
      const inode = page.num(INODE.inode, i);
      if (hit.has(inode) && page.num(INODE.nlink, i) > 0) current.set(inode, page.num(INODE.version, i));
    });
  const contents: Content[] = [];
  await eachRow(reader, 'versions', (page, i) => {
    const inode = page.num(VERSION.inode, i);
    const version = page.num(VERSION.version, i);
    const contentId = page.slice(VERSION.contentId, i);
    if (!isStored(contentId) || hit.get(inode)?.has(version) !== true) return;
    if (shown !== null && current.get(inode) !== version) return;
    contents.push({ inode, version, size: page.num(VERSION.size, i), contentId: Buffer.from(contentId) });
  });
  return contents;
}

async function damagedVersions(
  reader: SnapshotReader,
  findings: readonly Finding[],
  forwards: Repository['forwards'],
): Promise<Map<number, Set<number>>> {
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
  return hit;
}

/** Local files with just these contents. Only those of a size in question are read. */
async function findSound(options: ArchiveRepairOptions, damaged: readonly Content[]): Promise<ContentRepair[]> {
  const { repository, folder, signal } = options;
  const wanted = new Map<number, Content[]>();
  for (const content of damaged) {
    const list = wanted.get(content.size);
    if (list === undefined) wanted.set(content.size, [content]);
    else list.push(content);
  }
  const candidates: { path: Buffer; size: number }[] = [];
  const look = (mode: number, size: number, path: () => Buffer): void => {
    if ((mode & S_IFMT) === S_IFREG && wanted.has(size)) candidates.push({ path: path(), size });
  };
  const top = lstat(folder);
  look(top.mode, top.size, () => folder);
  anyBelow(folder, ({ mode, size }, above, name) => {
    look(mode, size, () => joinName(above, name));
    return false;
  });
  const hasher = new LocalHasher((await repository.loadSecrets()).contentIdKey);
  const found: ContentRepair[] = [];
  for (const { path, size } of candidates) {
    const waiting = wanted.get(size)!;
    if (waiting.length === 0) continue;
    if (signal?.aborted) throw new RozenError('interrupted', 'the repair was interrupted');
    const { status, contentId } = await hasher.hash(path);
    if (status !== 'read') continue;
    const left: Content[] = [];
    for (const content of waiting) {
      const { inode, version } = content;
      if (content.contentId.equals(contentId)) found.push({ inode, version, contentId: content.contentId, path });
      else left.push(content);
    }
    wanted.set(size, left);
  }
  return found;
}
