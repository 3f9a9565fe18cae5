/**
 * Restore: one walk over the snapshot on this thread, which makes folders and whatever has no content; regular files go
 * to worker threads in batches that follow the stream of the archives. Further names of hard links come at the end.
 */
import { linkSync, readlinkSync, symlinkSync } from 'node:fs';
import { setImmediate as breath } from 'node:timers/promises';
import { readFrame } from '../../cache/frames.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { cName } from '../../posix/at.ts';
import { descriptorPath } from '../../posix/folder.ts';
import { PosixError } from '../../posix/libc.ts';
import { makeNode, setTimes } from '../../posix/node.ts';
import { emptyStat, type Stat, statAt } from '../../posix/stat.ts';
import { type Attributes, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { look } from './dry-run.ts';
import { FileQueue, type QueuedFile } from './file-queue.ts';
import { folderPath, type TargetFolder, TargetFolders } from './folders.ts';
import { placeEntry, setNodeMode } from './place-entry.ts';
import { RestorePool } from './pool.ts';
import { describe, emptyReport, isDamage, isFatal } from './report.ts';
import { Settler, type Wanted, type Xattr } from './settle.ts';
import type {
  RestoreClass,
  RestoreCounts,
  RestoreListener,
  RestoreNotice,
  RestoreOptions,
  RestoreProblem,
  RestoreProgress,
  RestoreReport,
} from './types.ts';
import { type Found, Rows, walkFolder } from './walk.ts';

export type * from './types.ts';

/** Between two calls of `progress`, milliseconds. */
const PROGRESS_INTERVAL = 100;
/** The walk lets others run after this many folders: signals, progress, the workers' results. */
const BREATH = 32;

/**
 * Restores a place of a snapshot. What goes wrong with single entries is told by the listener and in the report.
 *
 * @throws RozenError 'interrupted' after the signal, 'io' when the target cannot be made or is full
 */
export async function restore(options: RestoreOptions, listener: RestoreListener = {}): Promise<RestoreReport> {
  if (options.dryRun) return look(options, listener);
  // Modes are given with open(2) and mkdir(2), so nothing may be taken away from them.
  const umask = process.umask(0);
  const run = new Restore(options, listener);
  try {
    return await run.run();
  } finally {
    await run.close();
    process.umask(umask);
  }
}

interface Name {
  folder: TargetFolder;
  name: Buffer;
}

interface Subfolder {
  parent: TargetFolder;
  found: Found;
}

class Restore {
  readonly #options: RestoreOptions;
  readonly #listener: RestoreListener;
  readonly #reader: SnapshotReader;
  readonly #report: RestoreReport;
  readonly #settler = new Settler();
  readonly #notices = new Map<string, RestoreNotice>();
  readonly #pool: RestorePool;
  readonly #temporary: string;
  readonly #uid = process.geteuid!();
  readonly #stat: Stat = emptyStat();
  #folders: TargetFolders | null = null;
  /** The first name of each inode that has several, null when it could not be restored. */
  readonly #first = new Map<number, Name | null>();
  readonly #links: (Name & { inode: number })[] = [];
  readonly #progress: RestoreProgress;
  readonly #timer: NodeJS.Timeout;
  readonly #stop = (): void =>
    this.#pool.stop(
      new RozenError('interrupted', 'restore was interrupted', { hint: 'the same command goes on where it was' }),
    );
  /** Each folder has one name: the same one again would lead a damaged tree round in circles. */
  readonly #visited = new Set<number>();

  constructor(options: RestoreOptions, listener: RestoreListener) {
    const { place } = options;
    this.#options = options;
    this.#listener = listener;
    this.#reader = place.reader;
    this.#report = emptyReport(options);
    this.#temporary = `.rozen-restore-${place.snapshot.id.slice(0, 8)}-`;
    const { stats } = place.snapshot;
    const whole = place.path.length === 0 && stats.files !== undefined && stats.bytes !== undefined;
    this.#progress = {
      filesTotal: whole ? stats.files! : 0,
      bytesTotal: whole ? stats.bytes! : 0,
      totalsKnown: whole,
      filesDone: 0,
      bytesDone: 0,
      problems: 0,
      current: null,
    };
    this.#pool = new RestorePool({
      threads: options.threads,
      verify: options.verify ?? false,
      temporary: this.#temporary,
      ended: (reason) => this.#ended(reason),
      fetch: (access, offset, length) =>
        place.reader.archives.retry(() => Uint8Array.from(readFrame(access, offset, length))),
    });
    this.#timer = setInterval(() => this.#tell(), PROGRESS_INTERVAL);
    this.#timer.unref();
  }

  async run(): Promise<RestoreReport> {
    const { place, target, signal } = this.#options;
    if (signal?.aborted) this.#stop();
    signal?.addEventListener('abort', this.#stop, { once: true });
    const { attributes } = place;
    const content = place.content ?? this.#reader;
    const rows = new Rows(this.#reader, content);
    const isFolder = (attributes.mode & S_IFMT) === S_IFDIR;
    const xattrs = await this.#reader.archives.retry(() => rows.xattrs(attributes));
    const folders = new TargetFolders(target, isFolder ? wantedOf(attributes, xattrs) : null, {
      settler: this.#settler,
      failed: (folder, error) => this.#failed(folder.parent === null ? Buffer.from('.') : folderPath(folder), error),
    });
    this.#folders = folders;
    const { root } = folders;
    const queue = new FileQueue({
      folders,
      pool: this.#pool,
      archives: content.archives,
      failed: (file, kind, message) => {
        if (this.#first.has(file.inode)) this.#first.set(file.inode, null);
        this.#problem({ kind, path: pathIn(file.folder, file.name), message });
      },
      ended: (result) => {
        const { classes } = this.#report;
        classes.new.files += result.created;
        classes.replaced.files += result.replaced;
        classes.kept.files += result.kept;
        this.#report.bytesRestored += result.bytesRestored;
        this.#report.bytesKept += result.bytesKept;
        this.#takeNotices(result.notices);
      },
    });
    if (isFolder) {
      this.#count(root.existed ? 'kept' : 'new', 'folders');
      await this.#walk(rows, queue);
    } else {
      const extents = await this.#reader.archives.retry(() => rows.extents(attributes));
      this.#entry(root, { name: place.path.at(-1)!, attributes, xattrs, extents }, queue, []);
      folders.done(root);
    }
    this.#progress.totalsKnown = true;
    await queue.finish();
    for (const link of this.#links) this.#link(link);
    this.#takeNotices(this.#settler.takeNotices());
    this.#report.notices = [...this.#notices.values()];
    this.#report.finishedAt = Date.now();
    this.#tell();
    return this.#report;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#stop);
    await this.#pool.close();
    this.#folders?.close();
  }

  async #walk(rows: Rows, queue: FileQueue): Promise<void> {
    const folders = this.#folders!;
    /** The next one last. */
    const stack: Subfolder[] = [];
    let folder: TargetFolder | null = folders.root;
    let inode = this.#options.place.inode;
    this.#visited.add(inode);
    for (;;) {
      if (folder !== null) {
        const current: TargetFolder = folder;
        const subfolders: Subfolder[] = [];
        const whole = this.#progress.totalsKnown;
        const visitor = {
          entry: (found: Found) => {
            if (!whole && (found.attributes.mode & S_IFMT) === S_IFREG) {
              this.#progress.filesTotal++;
              this.#progress.bytesTotal += found.attributes.size;
            }
            this.#entry(current, found, queue, subfolders);
          },
          damaged: (name: Buffer, error: Error) => this.#failed(pathIn(current, name), error),
          full: () => queue.full,
          drain: () => queue.drain(),
        };
        try {
          await walkFolder(this.#reader, rows, inode, visitor);
        } catch (error) {
          if (!isDamage(error)) throw error;
          this.#failed(folderPath(current), error);
        }
        for (let next = subfolders.pop(); next !== undefined; next = subfolders.pop()) stack.push(next);
        folders.done(current);
      }
      const next = stack.pop();
      if (next === undefined) return;
      if (this.#visited.size % BREATH === 0) await breath();
      inode = next.found.attributes.inode;
      folder = this.#enter(next);
    }
  }

  /** Null when the folder cannot be made or entered. */
  #enter({ parent, found }: Subfolder): TargetFolder | null {
    const folders = this.#folders!;
    try {
      const { inode } = found.attributes;
      if (this.#visited.has(inode)) throw corrupt(`folder ${inode} has more than one name`);
      this.#visited.add(inode);
      const folder = folders.enter(parent, found.name, wantedOf(found.attributes, found.xattrs));
      this.#count(folder.existed ? 'kept' : 'new', 'folders');
      return folder;
    } catch (error) {
      this.#failed(pathIn(parent, found.name), error);
      return null;
    } finally {
      folders.done(parent);
    }
  }

  /** What is left to be done in `folder` is counted there. */
  #entry(folder: TargetFolder, found: Found, queue: FileQueue, subfolders: Subfolder[]): void {
    const { name, attributes, xattrs, extents } = found;
    const type = attributes.mode & S_IFMT;
    if (type === S_IFDIR) {
      folder.pending++;
      subfolders.push({ parent: folder, found });
      return;
    }
    if (attributes.nlink > 1) {
      const { inode } = attributes;
      if (this.#first.has(inode)) {
        folder.pending++;
        this.#links.push({ folder, name, inode });
        return;
      }
      this.#first.set(inode, { folder, name });
    }
    const wanted = wantedOf(attributes, xattrs);
    if (type === S_IFREG) {
      folder.pending++;
      const file: QueuedFile = { ...wanted, folder, inode: attributes.inode, name, size: attributes.size, extents };
      queue.add(file);
      return;
    }
    try {
      this.#count(this.#special(folder, name, attributes, wanted), 'others');
    } catch (error) {
      if (this.#first.has(attributes.inode)) this.#first.set(attributes.inode, null);
      this.#failed(pathIn(folder, name), error);
    }
  }

  /** Symlinks, fifos, device nodes. */
  #special(folder: TargetFolder, name: Buffer, attributes: Attributes, wanted: Wanted): RestoreClass {
    const folders = this.#folders!;
    const dirfd = folders.pin(folder);
    try {
      const target = Buffer.from(attributes.target);
      const symlink = (wanted.mode & S_IFMT) === S_IFLNK;
      return placeEntry(
        { dirfd, name, temporary: `${this.#temporary}${attributes.inode}` },
        {
          is: (stat, path) =>
            (stat.mode & S_IFMT) === (wanted.mode & S_IFMT) &&
            stat.mtimeSec === wanted.mtimeSec &&
            stat.mtimeNs === wanted.mtimeNs &&
            (symlink
              ? stat.size === target.length && readlinkSync(path, 'buffer').equals(target)
              : stat.rdev === attributes.rdev),
          make: (path) => {
            if (symlink) symlinkSync(target, path);
            else makeNode(path, wanted.mode & ~0o7000, attributes.rdev);
            this.#dress(path, { uid: this.#uid, gid: folder.group }, wanted);
            setTimes(path, { atimeSec: wanted.mtimeSec, atimeNs: wanted.mtimeNs, ...wanted });
          },
          keep: (stat, path) => this.#dress(path, stat, wanted),
        },
      );
    } finally {
      folders.unpin(folder);
    }
  }

  #dress(path: Buffer, have: { uid: number; gid: number }, wanted: Wanted): void {
    const stripped = this.#settler.unopened(path, have, wanted);
    if ((wanted.mode & S_IFMT) !== S_IFLNK) setNodeMode(path, wanted.mode & ~stripped);
  }

  #link({ folder, name, inode }: Name & { inode: number }): void {
    const folders = this.#folders!;
    const first = this.#first.get(inode);
    const path = pathIn(folder, name);
    if (first === null || first === undefined) {
      this.#problem({ kind: 'failed', path, message: 'the other name of this file could not be restored' });
    } else {
      try {
        const from = folders.pin(first.folder);
        try {
          const source = Buffer.concat([descriptorPath(from), first.name]);
          const errno = statAt(from, cName(first.name), this.#stat);
          if (errno !== 0) throw new PosixError(errno, 'stat', first.name);
          const { dev, ino } = this.#stat;
          const dirfd = folders.pin(folder);
          try {
            const what = placeEntry(
              { dirfd, name, temporary: `${this.#temporary}${inode}` },
              {
                is: (stat) => stat.dev === dev && stat.ino === ino,
                make: (to) => linkSync(source, to),
                keep: () => {},
              },
            );
            this.#count(what, 'others');
          } finally {
            folders.unpin(folder);
          }
        } finally {
          folders.unpin(first.folder);
        }
      } catch (error) {
        this.#failed(path, error);
      }
    }
    folders.done(folder);
  }

  #count(what: RestoreClass, kind: keyof RestoreCounts): void {
    this.#report.classes[what][kind]++;
  }

  #failed(path: Buffer, error: unknown): void {
    const problem = describe(error);
    if (isFatal(error)) this.#pool.stop(this.#ended(problem.message));
    else this.#problem({ path, ...problem });
  }

  #ended(reason: string): RozenError {
    return new RozenError('io', `${this.#options.target.toString()}: ${reason}`, {
      hint: 'when that is mended, run the same command again: it goes on where it was',
    });
  }

  #problem(problem: RestoreProblem): void {
    this.#report.problems.push(problem);
    this.#progress.problems++;
    this.#listener.problem?.(problem);
  }

  #takeNotices(notices: readonly RestoreNotice[]): void {
    for (const notice of notices) {
      const known = this.#notices.get(notice.message);
      if (known === undefined) this.#notices.set(notice.message, { ...notice });
      else known.count += notice.count;
    }
  }

  #tell(): void {
    const { progress } = this.#listener;
    if (progress === undefined) return;
    const { files, bytes } = this.#pool.progress();
    this.#progress.filesDone = files;
    this.#progress.bytesDone = bytes;
    progress(this.#progress);
  }
}

function pathIn(folder: TargetFolder, name: Buffer): Buffer {
  return Buffer.concat([folderPath(folder), name]);
}

function wantedOf(attributes: Attributes, xattrs: readonly Xattr[]): Wanted {
  const { mode, uid, gid, mtimeSec, mtimeNs } = attributes;
  return { mode, uid, gid, mtimeSec, mtimeNs, xattrs };
}
