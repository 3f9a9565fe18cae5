/** What a restore would do, by looking only. */
import { closeSync, constants, openSync, readlinkSync } from 'node:fs';
import { RozenError } from '../../errors.ts';
import { cName, openFolderAt } from '../../posix/at.ts';
import { descriptorPath } from '../../posix/folder.ts';
import { emptyStat, statAt } from '../../posix/stat.ts';
import { type Attributes, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { EnteredFolders } from '../view/entered-folders.ts';
import { Occupied } from './occupied.ts';
import { describe, emptyReport, isDamage } from './report.ts';
import type { RestoreClass, RestoreListener, RestoreOptions, RestoreReport } from './types.ts';
import { type Found, Rows, walkFolder } from './walk.ts';

interface Level {
  path: Buffer;
  inode: number;
  /** The folder of the target, -1 when there is none. */
  fd: number;
  subfolders: { name: Buffer; inode: number }[];
}

const SLASH = Buffer.from('/');

export async function look(options: RestoreOptions, listener: RestoreListener): Promise<RestoreReport> {
  const { place, signal } = options;
  const { reader, attributes } = place;
  const report = emptyReport(options);
  const rows = new Rows(reader);
  const failed = (path: Buffer, error: unknown): void => {
    const problem = { path, ...describe(error) };
    report.problems.push(problem);
    listener.problem?.(problem);
  };
  /** What stands under the first name of each inode that has several: null if that is to be made. */
  const first = new Map<number, { dev: number; ino: number } | null>();
  const tell = (path: Buffer, what: RestoreClass, { mode, size }: Attributes, further = false): void => {
    const type = mode & S_IFMT;
    const isFile = type === S_IFREG && !further;
    report.classes[what][isFile ? 'files' : type === S_IFDIR ? 'folders' : 'others']++;
    if (isFile) {
      if (what === 'kept') report.bytesKept += size;
      else report.bytesRestored += size;
    }
    listener.entry?.(path, what);
  };
  const entry = (level: Level, found: Found): void => {
    const path = Buffer.concat([level.path, found.name]);
    try {
      const { inode, nlink, mode } = found.attributes;
      let what = classify(level.fd, found);
      const linked = nlink > 1 && (mode & S_IFMT) !== S_IFDIR;
      const other = linked ? first.get(inode) : undefined;
      if (other !== undefined && what === 'kept' && (other?.ino !== stat.ino || other.dev !== stat.dev))
        what = 'replaced';
      if (linked && other === undefined) first.set(inode, what === 'kept' ? { dev: stat.dev, ino: stat.ino } : null);
      tell(path, what, found.attributes, other !== undefined);
    } catch (error) {
      failed(path, error);
      return;
    }
    if ((found.attributes.mode & S_IFMT) === S_IFDIR) {
      level.subfolders.push({ name: found.name, inode: found.attributes.inode });
    }
  };

  let top = -1;
  try {
    top = openSync(options.target, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const root: Level = { path: Buffer.alloc(0), inode: place.inode, fd: top, subfolders: [] };
  /** Levels whose sub-folders are being visited; their descriptors are open. */
  const levels: Level[] = [];
  const entered = new EnteredFolders();
  entered.enter(place.inode);
  const visit = async (level: Level): Promise<void> => {
    levels.push(level);
    if (signal?.aborted) throw new RozenError('interrupted', 'restore was interrupted');
    const visitor = {
      entry: (found: Found) => entry(level, found),
      damaged: (name: Buffer, error: Error) => failed(Buffer.concat([level.path, name]), error),
      full: () => false,
      drain: async () => {},
    };
    try {
      await walkFolder(reader, rows, level.inode, visitor);
    } catch (error) {
      if (!isDamage(error)) throw error;
      failed(level.path, error);
    }
    level.subfolders.reverse();
  };
  try {
    if ((attributes.mode & S_IFMT) !== S_IFDIR) {
      entry(root, { name: place.path.at(-1)!, attributes, xattrs: [], extents: [] });
      levels.push(root);
    } else {
      tell(Buffer.from('.'), top < 0 ? 'new' : 'kept', attributes);
      await visit(root);
    }
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.subfolders.pop();
      if (next === undefined) {
        if (level.fd >= 0) closeSync(level.fd);
        levels.pop();
        continue;
      }
      const path = Buffer.concat([level.path, next.name]);
      try {
        entered.enter(next.inode);
      } catch (error) {
        failed(path, error);
        continue;
      }
      await visit({
        path: Buffer.concat([path, SLASH]),
        inode: next.inode,
        fd: openExisting(level.fd, next.name),
        subfolders: [],
      });
    }
  } finally {
    for (const { fd } of levels) if (fd >= 0) closeSync(fd);
  }
  report.finishedAt = Date.now();
  return report;
}

function openExisting(dirfd: number, name: Buffer): number {
  if (dirfd < 0) return -1;
  try {
    return openFolderAt(dirfd, name);
  } catch {
    // Not there, or not readable: what is in it counts as new.
    return -1;
  }
}

const stat = emptyStat();

function classify(dirfd: number, { name, attributes }: Found): RestoreClass {
  if (dirfd < 0 || statAt(dirfd, cName(name), stat) !== 0) return 'new';
  const type = attributes.mode & S_IFMT;
  const stands = stat.mode & S_IFMT;
  if (type === S_IFDIR && stands !== S_IFDIR) throw new Occupied('no folder stands in its place, or a symlink to one');
  if (type !== S_IFDIR && stands === S_IFDIR) throw new Occupied('a folder stands in its place');
  if (type === S_IFDIR) return 'kept';
  const same =
    stands === type &&
    stat.mtimeSec === attributes.mtimeSec &&
    stat.mtimeNs === attributes.mtimeNs &&
    (type !== S_IFREG || stat.size === attributes.size) &&
    (type !== S_IFLNK ||
      readlinkSync(Buffer.concat([descriptorPath(dirfd), name]), 'buffer').equals(attributes.target));
  return same ? 'kept' : 'replaced';
}
