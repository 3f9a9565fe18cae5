/** The life of one entry of a set: its names, places and contents over time, followed by its inode number. */
import { Cursor } from '../../archive/tree/read.ts';
import { INODE_FLAGS, TREES, VERSION } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import { joinPath } from '../diff/difference.ts';
import { type Attributes, InodeLookup, S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { SnapshotInfo } from '../view/listing.ts';
import { openPlace, type SnapshotOpener } from '../view/place.ts';
import { allNames, InodePaths } from './set-trees.ts';

/**
 * stored    it appears
 * content   another content is current
 * moved     another name or folder
 * linked, unlinked: a name more, one less (hard links)
 * metadata  the same under other attributes
 * diverged  the local file has another content, the archived one stays current
 * settled   it has not any more
 * deleted, returned
 */
type HistoryEvent =
  | 'stored'
  | 'content'
  | 'moved'
  | 'linked'
  | 'unlinked'
  | 'metadata'
  | 'diverged'
  | 'settled'
  | 'deleted'
  | 'returned';

export interface HistoryStep {
  events: HistoryEvent[];
  snapshot: SnapshotInfo;
  /** All that lead to it, in byte order; none while it is deleted. */
  names: Buffer[];
  attributes: Attributes;
  contentId: Buffer | null;
}

/** @param snapshots of the set, oldest first */
export async function historyOf(options: {
  snapshots: readonly SnapshotInfo[];
  opener: SnapshotOpener;
  path: Uint8Array;
}): Promise<HistoryStep[]> {
  const { opener, path } = options;
  const start = await find(options);
  const steps: HistoryStep[] = [];
  let last: HistoryStep | null = null;
  for (const snapshot of options.snapshots) {
    if (snapshot.lineage !== start.lineage) continue;
    const reader = await opener.open(snapshot);
    const step = await look(reader, snapshot, start.inode);
    if (step === null) continue;
    step.events = last === null ? ['stored'] : compare(last, step);
    if (step.events.length > 0) steps.push(step);
    last = step;
  }
  if (steps.length === 0) throw notFound(path);
  return steps;
}

/** The inode that has the path, in the newest snapshot that knows it. */
async function find(options: {
  snapshots: readonly SnapshotInfo[];
  opener: SnapshotOpener;
  path: Uint8Array;
}): Promise<{ inode: number; lineage: string }> {
  for (const snapshot of [...options.snapshots].reverse()) {
    try {
      const { inode } = await openPlace(options.opener, snapshot, options.path);
      return { inode, lineage: snapshot.lineage };
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'not-found') throw error;
    }
  }
  throw notFound(options.path);
}

function notFound(path: Uint8Array): RozenError {
  return new RozenError(
    'not-found',
    `no snapshot of the set ever had ${JSON.stringify(Buffer.from(path).toString())}`,
    {
      hint: 'see rozen find',
    },
  );
}

async function look(reader: SnapshotReader, snapshot: SnapshotInfo, inode: number): Promise<HistoryStep | null> {
  const inodes = new InodeLookup(reader);
  const row = await reader.archives.retry(() => inodes.find(inode));
  if (row === null) return null;
  const attributes = { ...row, target: Buffer.from(row.target) };
  const versions = new Cursor(reader.source, TREES.versions, reader.roots.versions);
  const contentId = await reader.archives.retry(() =>
    versions.find(inode, attributes.version)
      ? Buffer.from(versions.page!.slice(VERSION.contentId, versions.index))
      : null,
  );
  return { events: [], snapshot, names: await namesOf(reader, attributes), attributes, contentId };
}

async function namesOf(reader: SnapshotReader, attributes: Attributes): Promise<Buffer[]> {
  const { inode, mode, nlink } = attributes;
  if (!(await isThere(reader, attributes))) return [];
  if ((mode & S_IFMT) === S_IFDIR || nlink === 1) {
    const path = await new InodePaths(reader).find(inode);
    if (path !== null) return [joined(path)];
  }
  // Only the whole tree of names knows all that lead to a file.
  const names = (await allNames(reader, new Set([inode]))).get(inode) ?? [];
  return names.map(joined).sort(Buffer.compare);
}

function joined(path: readonly Buffer[]): Buffer {
  return Buffer.concat([SLASH, joinPath(path)]);
}

const SLASH = Buffer.from('/');

/** False for what was deleted, itself or with a folder that held it. */
async function isThere(reader: SnapshotReader, attributes: Attributes): Promise<boolean> {
  const inodes = new InodeLookup(reader);
  let { inode, nlink, parent } = attributes;
  for (let depth = 0; depth < 4096; depth++) {
    if (nlink === 0) return false;
    if (inode === 1 || parent === inode) return true;
    const above = parent;
    const row = await reader.archives.retry(() => inodes.find(above));
    if (row === null) return false;
    ({ inode, nlink, parent } = row);
  }
  return false;
}

function compare(before: HistoryStep, after: HistoryStep): HistoryEvent[] {
  const a = before.attributes;
  const b = after.attributes;
  if (after.names.length === 0) return before.names.length === 0 ? [] : ['deleted'];
  const events: HistoryEvent[] = before.names.length === 0 ? ['returned'] : renamed(before.names, after.names);
  const isFile = (b.mode & S_IFMT) === S_IFREG;
  if (isFile && a.version !== b.version) events.push('content');
  const was = (a.flags & INODE_FLAGS.diverged) !== 0;
  const is = (b.flags & INODE_FLAGS.diverged) !== 0;
  if (was !== is) events.push(is ? 'diverged' : 'settled');
  const times = a.mtimeSec === b.mtimeSec && a.mtimeNs === b.mtimeNs;
  const same = a.mode === b.mode && a.uid === b.uid && a.gid === b.gid;
  // The time of a folder changes with what is in it.
  const isFolder = (b.mode & S_IFMT) === S_IFDIR;
  if (events.length === 0 && (!same || (!times && !isFolder))) events.push('metadata');
  return events;
}

function renamed(before: readonly Buffer[], after: readonly Buffer[]): HistoryEvent[] {
  const lacks = (names: readonly Buffer[], name: Buffer) => !names.some((it) => it.equals(name));
  const fresh = after.filter((name) => lacks(before, name)).length;
  const gone = before.filter((name) => lacks(after, name)).length;
  const events: HistoryEvent[] = fresh > 0 && gone > 0 ? ['moved'] : [];
  if (fresh > gone) events.push('linked');
  if (gone > fresh) events.push('unlinked');
  return events;
}
