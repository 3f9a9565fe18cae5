/**
 * The walk over the source: which folders and entries there are, in the order in which a snapshot numbers them. A
 * folder's entries come together, names ascending; then its sub-folders, each with all that lies below it. What the
 * entries mean is the handler's business.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { ENOENT } from '../../posix/errno.ts';
import {
  descriptorPath,
  FOLDER_FLAGS,
  joinName,
  listFolder,
  openBeneath,
  openFolder,
  statName,
} from '../../posix/folder.ts';
import { PosixError } from '../../posix/libc.ts';
import { emptyStat, fstat, type Stat } from '../../posix/stat.ts';
import type { Selection } from './select.ts';
import { insidePath, type SourceNode, type Sources, sourceLength, sourceStat } from './sources.ts';

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const S_IFSOCK = 0o140000;

/** The walk lets others run after this many entries. */
const BREATH = 512;
const CACHE_TAG = 'CACHEDIR.TAG';
const CACHE_SIGNATURE = Buffer.from('Signature: 8a477f597d28d172789f06886806bc55');

/** A folder whose entries are being walked. */
export interface Folder {
  readonly path: Buffer;
  /** The path as a byte string. */
  readonly text: string;
  /** Number in the snapshot, as the handler gave it. */
  readonly inode: number;
  readonly dev: number;
  /** Its number in the file system when it was met; 0 when it was not. */
  readonly ino: number;
  /** Open while its entries are walked; -1 for folders of which only named entries are taken. */
  fd: number;
}

export interface WalkHandler {
  /** The root folder of the snapshot. Answers its inode number. */
  top(path: Buffer, stat: Stat): number;
  /** The entries of this folder come next. Not called for folders that cannot be listed. */
  enter(folder: Folder): void;
  /** One entry; `stat` is filled anew for each. Answers the inode number of a folder that is to be entered, else 0. */
  entry(folder: Folder, name: string, stat: Stat): number;
  leave(folder: Folder): void;
  /** The attributes of this entry cannot be had. Between `enter` and `leave`, in order. */
  unreadableEntry(folder: Folder, name: string, error: Error): void;
  /** This folder cannot be listed. */
  unreadableFolder(folder: Folder, error: Error): void;
  skipped(path: Buffer, reason: string): void;
  /** When everything was walked: folders that `entry` refused and that are to be walked all the same, one after another. */
  postponed?(): Iterable<Folder>;
}

/** A folder that is never entered: Rozen's own. */
export interface Untouchable {
  dev: number;
  ino: number;
  reason: string;
}

export interface WalkOptions {
  sources: Sources;
  selection: Selection;
  excludeCaches?: boolean;
  oneFileSystem?: boolean;
  untouchable?: readonly Untouchable[];
  handler: WalkHandler;
}

/** A folder whose sub-folders wait. */
interface Frame {
  folder: Folder;
  /** Null: everything is taken. */
  children: Map<string, SourceNode> | null;
  names: string[];
  inodes: number[];
  devs: number[];
  inos: number[];
  /** Not to be listed (another file system, Rozen's own), sparse. */
  closed: Set<number> | null;
  next: number;
}

/**
 * Walks everything; a step of the generator is at most 512 entries. Never throws for what the source does: that goes to
 * the handler. Closing the generator early closes its descriptor.
 */
export function* walk(options: WalkOptions): Generator<void, void, undefined> {
  const { sources, handler } = options;
  const stat = sourceStat(sources.top);
  const top: Folder = {
    path: sources.top,
    text: sources.top.toString('latin1'),
    inode: handler.top(sources.top, stat),
    dev: stat.dev,
    ino: stat.ino,
    fd: -1,
  };
  yield* below(options, top, { node: sources.node, source: sources.node.children === null });
  yield* walkFolders(options, handler.postponed?.() ?? []);
}

/** Walks folders that the handler knows by numbers of theirs. */
export function* walkFolders(options: WalkOptions, folders: Iterable<Folder>): Generator<void, void, undefined> {
  const { handler } = options;
  for (const folder of folders) {
    if (isClosed(options, folder)) {
      handler.enter(folder);
      handler.leave(folder);
    } else yield* below(options, folder, { node: undefined, source: false });
  }
}

function isClosed(options: WalkOptions, { path, dev }: Folder): boolean {
  const slash = path.lastIndexOf(0x2f);
  const above = path.subarray(0, Math.max(1, slash));
  try {
    const { dev: around } = sourceStat(above);
    return staysClosed(
      options,
      { path: above, text: '', dev: around },
      { name: path.toString('latin1', slash + 1), dev, ino: sourceStat(path).ino },
    );
  } catch {
    // What has gone meanwhile is told when it is listed.
    return false;
  }
}

function* below(
  options: WalkOptions,
  top: Folder,
  start: { node: SourceNode | undefined; source: boolean },
): Generator<void, void, undefined> {
  const { handler } = options;
  const frames: Frame[] = [];
  const list = function* (folder: Folder, node: SourceNode | undefined, source: boolean): Generator<void, void> {
    const frame = newFrame(folder, node?.children ?? null);
    yield* entries(options, frame, source);
    if (frame.names.length > 0) frames.push(frame);
  };
  yield* list(top, start.node, start.source);
  while (frames.length > 0) {
    const frame = frames[frames.length - 1]!;
    const at = frame.next++;
    if (at >= frame.names.length) {
      frames.pop();
      continue;
    }
    const name = frame.names[at]!;
    const path = joinName(frame.folder.path, name);
    const folder: Folder = {
      path,
      text: path.toString('latin1'),
      inode: frame.inodes[at]!,
      dev: frame.devs[at]!,
      ino: frame.inos[at]!,
      fd: -1,
    };
    if (frame.closed?.has(at)) {
      handler.enter(folder);
      handler.leave(folder);
      continue;
    }
    const node = frame.children?.get(name);
    yield* list(folder, node, node !== undefined && node.children === null);
  }
}

/** Whether an entry below a folder fits, however deep; what cannot be looked at does not. */
export function anyBelow(folder: Buffer, fits: (stat: Stat, above: Buffer, name: string) => boolean): boolean {
  const stat = emptyStat();
  const waiting = [folder];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    let fd = -1;
    try {
      fd = openFolder(path);
      for (const name of listFolder(fd, path)) {
        if (statName(fd, path, name, stat) !== 0) continue;
        if (fits(stat, path, name)) return true;
        if ((stat.mode & S_IFMT) === S_IFDIR) waiting.push(joinName(path, name));
      }
    } catch {
      // It cannot be listed.
    } finally {
      if (fd >= 0) closeSync(fd);
    }
  }
  return false;
}

/**
 * A path of an entry that system calls take. Through its open folder: the absolute path may be too long, and a symlink may
 * have come onto it. Costs 1 µs more to follow.
 */
export function reachable(folder: Folder, name: string): Buffer {
  if (folder.fd < 0 || !linux) return joinName(folder.path, name);
  if (through.fd !== folder.fd) {
    through.fd = folder.fd;
    through.path = descriptorPath(folder.fd);
  }
  return joinName(through.path, name);
}

const linux = process.platform === 'linux';
/** The last descriptor's path. */
const through: { fd: number; path: Buffer } = { fd: -1, path: Buffer.alloc(0) };

function newFrame(folder: Folder, children: Map<string, SourceNode> | null): Frame {
  return { folder, children, names: [], inodes: [], devs: [], inos: [], closed: null, next: 0 };
}

function* entries(options: WalkOptions, frame: Frame, source: boolean): Generator<void, void> {
  const { handler } = options;
  const { folder } = frame;
  let names: string[];
  try {
    if (frame.children === null) {
      folder.fd = source ? openFolder(insidePath(folder.path)) : openWalked(options, folder);
      names = listFolder(folder.fd, folder.path);
      if (options.excludeCaches && names.includes(CACHE_TAG) && isCache(folder)) names = [CACHE_TAG];
    } else {
      names = [...frame.children.keys()].sort();
    }
  } catch (error) {
    close(folder);
    handler.unreadableFolder(folder, error as Error);
    return;
  }
  try {
    handler.enter(folder);
    const stat = emptyStat();
    for (let i = 0; i < names.length; i++) {
      entry(options, frame, names[i]!, stat);
      if (i % BREATH === BREATH - 1) yield;
    }
    handler.leave(folder);
  } finally {
    close(folder);
  }
  yield;
}

/** Opens a folder that was met, or one that has taken its place; never what a symlink on the way leads to. */
function openWalked({ sources }: WalkOptions, folder: Folder): number {
  const fd = openFolder(folder.path);
  const { dev, ino } = fstat(fd, opened);
  if (dev === folder.dev && ino === folder.ino) return fd;
  closeSync(fd);
  return openBeneath(folder.path, sourceLength(sources.paths, folder.path), FOLDER_FLAGS);
}

const opened = emptyStat();

function entry(options: WalkOptions, frame: Frame, name: string, stat: Stat): void {
  const { handler } = options;
  const { folder, children } = frame;
  if (children !== null) {
    try {
      sourceStat(joinName(folder.path, name), stat);
    } catch (error) {
      handler.unreadableEntry(folder, name, error as Error);
      return;
    }
  } else {
    const errno = statName(folder.fd, folder.path, name, stat);
    // Gone between listing and looking: as if it had gone a moment earlier.
    if (errno === ENOENT) return;
    if (errno !== 0) {
      handler.unreadableEntry(folder, name, new PosixError(errno, 'lstat', joinName(folder.path, name)));
      return;
    }
    if (options.selection.excludes(folder.text, name, (stat.mode & S_IFMT) === S_IFDIR)) return;
  }
  const { dev, ino } = stat;
  const isFolder = (stat.mode & S_IFMT) === S_IFDIR;
  const inode = handler.entry(folder, name, stat);
  if (!isFolder || inode === 0) return;
  if (children === null && staysClosed(options, folder, { name, dev, ino })) {
    frame.closed ??= new Set();
    frame.closed.add(frame.names.length);
  }
  frame.names.push(name);
  frame.inodes.push(inode);
  frame.devs.push(dev);
  frame.inos.push(ino);
}

function staysClosed(
  options: WalkOptions,
  folder: Pick<Folder, 'path' | 'text' | 'dev'>,
  it: { name: string; dev: number; ino: number },
): boolean {
  for (const place of options.untouchable ?? []) {
    if (place.ino !== it.ino || place.dev !== it.dev) continue;
    options.handler.skipped(joinName(folder.path, it.name), place.reason);
    return true;
  }
  if (it.dev === folder.dev) return false;
  if (options.oneFileSystem) return true;
  if (!rozenMounts().has(it.dev)) return false;
  options.handler.skipped(joinName(folder.path, it.name), 'a mounted repository');
  return true;
}

/** Device numbers of mounted repositories, so that a backup never walks into one. */
let mounts: Set<number> | undefined;

function rozenMounts(): Set<number> {
  if (mounts !== undefined) return mounts;
  mounts = new Set();
  try {
    for (const line of readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
      if (!/ - fuse\.rozen /.test(line)) continue;
      const [, major, minor] = /^\d+ \d+ (\d+):(\d+) /.exec(line) ?? [];
      if (minor === undefined) continue;
      const low = Number(minor);
      mounts.add(((low & 0xff) | ((Number(major) & 0xfff) << 8) | ((low & ~0xff) << 12)) >>> 0);
    }
  } catch {
    // Not Linux, or no /proc: nothing to know.
  }
  return mounts;
}

function isCache(folder: Folder): boolean {
  let fd: number;
  try {
    fd = openSync(reachable(folder, CACHE_TAG), 'r');
  } catch {
    return false;
  }
  try {
    const head = Buffer.alloc(CACHE_SIGNATURE.length);
    return readSync(fd, head, 0, head.length, 0) === head.length && head.equals(CACHE_SIGNATURE);
  } catch {
    return false;
  } finally {
    closeSync(fd);
  }
}

function close(folder: Folder): void {
  if (folder.fd >= 0) closeSync(folder.fd);
  folder.fd = -1;
}
