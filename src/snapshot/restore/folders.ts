/**
 * The folders of the target. Each is reached from its parent by descriptor and never through a symlink; a bounded number
 * is open at a time. A folder gets its owner, attributes, mode and time when all that belongs into it is done.
 */
import { chmodSync, closeSync, constants, fchmodSync, fchownSync, mkdirSync, openSync } from 'node:fs';
import { closeDescriptor, openFolderAt, openPathAt, setModified } from '../../posix/at.ts';
import { EACCES, EEXIST, ELOOP, ENOTDIR } from '../../posix/errno.ts';
import { descriptorPath } from '../../posix/folder.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { fstat } from '../../posix/stat.ts';
import { Occupied } from './occupied.ts';
import { removeAcls, type Settler, type Wanted } from './settle.ts';

/** Folders that are open though nobody is at work in them. */
const MAX_IDLE = 256;
const SETGID = 0o2000;

export interface TargetFolder {
  readonly parent: TargetFolder | null;
  readonly name: Buffer;
  /** Null: its attributes are left as they are. */
  readonly wanted: Wanted | null;
  /** Owner as it stands. */
  uid: number;
  gid: number;
  /** The group that entries made here are born with. */
  group: number;
  existed: boolean;
  /** What is still to be done in it. */
  pending: number;
  pins: number;
  fd: number;
}

export interface FoldersOptions {
  settler: Settler;
  /** The last step of a folder has failed. */
  failed(folder: TargetFolder, error: unknown): void;
}

export class TargetFolders {
  readonly root: TargetFolder;
  readonly #options: FoldersOptions;
  readonly #egid = process.getegid!();
  /** Open ones, the longest unused first. */
  readonly #open = new Set<TargetFolder>();

  /** Opens the target, which is made if missing. `wanted` null leaves its own attributes alone. */
  constructor(target: Buffer, wanted: Wanted | null, options: FoldersOptions) {
    this.#options = options;
    const made = makeFolders(target, 0o777) !== undefined;
    const fd = openSync(target, constants.O_RDONLY | constants.O_DIRECTORY);
    this.root = newFolder(null, target, wanted);
    // The root stays open: there is no parent to reach it from again.
    this.root.pins = 1;
    this.root.pending = 1;
    this.#adopt(this.root, fd, !made);
  }

  /** Makes or enters a sub-folder; it counts as pending in its parent. Throws Occupied and errors of the system. */
  enter(parent: TargetFolder, name: Buffer, wanted: Wanted): TargetFolder {
    const dirfd = this.pin(parent);
    try {
      const path = Buffer.concat([descriptorPath(dirfd), name]);
      let existed = false;
      try {
        mkdirSync(path, 0o700);
      } catch (error) {
        if (-((error as NodeJS.ErrnoException).errno ?? 0) !== EEXIST) throw error;
        existed = true;
      }
      const folder = newFolder(parent, name, wanted);
      folder.pending = 1;
      this.#adopt(folder, openOwn(dirfd, name), existed);
      parent.pending++;
      return folder;
    } finally {
      this.unpin(parent);
    }
  }

  /** The descriptor of a folder, which stays open until `unpin`. Throws when it cannot be reached any more. */
  pin(folder: TargetFolder): number {
    const closed: TargetFolder[] = [];
    let open = folder;
    while (open.fd < 0) {
      closed.push(open);
      open = open.parent!;
    }
    for (let next = closed.pop(); next !== undefined; next = closed.pop()) {
      next.fd = openOwn(next.parent!.fd, next.name);
      this.#open.add(next);
    }
    folder.pins++;
    this.#open.delete(folder);
    this.#open.add(folder);
    return folder.fd;
  }

  unpin(folder: TargetFolder): void {
    folder.pins--;
    if (this.#open.size > 2 * MAX_IDLE) this.#closeIdle();
  }

  /** One thing less to do in a folder; after the last one it gets its attributes. */
  done(folder: TargetFolder): void {
    for (let at: TargetFolder | null = folder; at !== null && --at.pending === 0; at = at.parent) this.#finish(at);
  }

  #adopt(folder: TargetFolder, fd: number, existed: boolean): void {
    const stat = fstat(fd);
    folder.fd = fd;
    folder.existed = existed;
    folder.uid = stat.uid;
    folder.gid = stat.gid;
    folder.group = (stat.mode & SETGID) !== 0 ? stat.gid : this.#egid;
    if (existed && folder.wanted !== null) {
      // What is made here must not inherit from what the folder was before; the snapshot's own ACLs come at the end.
      removeAclsOf(fd);
      if ((stat.mode & 0o700) !== 0o700) chmodQuietly(fd, (stat.mode & 0o7777) | 0o700);
    }
    this.#open.add(folder);
  }

  #finish(folder: TargetFolder): void {
    const { wanted } = folder;
    try {
      if (wanted !== null) {
        const fd = this.pin(folder);
        const { settler } = this.#options;
        const stripped = settler.owner(folder, wanted, (uid, gid) => fchownSync(fd, uid, gid));
        if (wanted.xattrs.length > 0) settler.attributes(inside(fd), wanted.xattrs);
        fchmodSync(fd, wanted.mode & 0o7777 & ~stripped);
        setModified(fd, wanted.mtimeSec, wanted.mtimeNs);
        folder.pins--;
      }
    } catch (error) {
      this.#options.failed(folder, error);
    }
    this.#close(folder);
  }

  #closeIdle(): void {
    for (const folder of this.#open) {
      if (this.#open.size <= MAX_IDLE) break;
      if (folder.pins === 0) this.#close(folder);
    }
  }

  #close(folder: TargetFolder): void {
    this.#open.delete(folder);
    if (folder.fd >= 0) closeSync(folder.fd);
    folder.fd = -1;
  }

  /** Closes everything, whatever is left to do. */
  close(): void {
    for (const folder of this.#open) this.#close(folder);
  }
}

function newFolder(parent: TargetFolder | null, name: Buffer, wanted: Wanted | null): TargetFolder {
  const rest = { uid: 0, gid: 0, group: 0, existed: false, pending: 0, pins: 0, fd: -1 };
  return { parent, name, wanted, ...rest };
}

/** Path of a folder below the target, with a slash at its end unless it is the target. For messages. */
export function folderPath(folder: TargetFolder): Buffer {
  const parts: Buffer[] = [];
  for (let at = folder; at.parent !== null; at = at.parent) parts.unshift(at.name, Buffer.from('/'));
  return Buffer.concat(parts);
}

/** Opens a folder, also one whose mode keeps its owner out: an earlier run may have given it that already. */
function openOwn(dirfd: number, name: Buffer): number {
  try {
    return openFolderAt(dirfd, name);
  } catch (error) {
    const errno = -((error as NodeJS.ErrnoException).errno ?? 0);
    if (errno === ELOOP || errno === ENOTDIR) throw new Occupied('no folder stands in its place, or a symlink to one');
    if (errno !== EACCES) throw error;
    const fd = openPathAt(dirfd, name);
    try {
      chmodSync(`/proc/self/fd/${fd}`, 0o700);
    } finally {
      closeDescriptor(fd);
    }
    return openFolderAt(dirfd, name);
  }
}

function inside(fd: number): Buffer {
  return Buffer.concat([descriptorPath(fd), Buffer.from('.')]);
}

function removeAclsOf(fd: number): void {
  try {
    removeAcls(inside(fd));
  } catch {
    // Not ours: the notice about owners says so at the end.
  }
}

function chmodQuietly(fd: number, mode: number): void {
  try {
    fchmodSync(fd, mode);
  } catch {
    // Not ours: what cannot be made in it will be told.
  }
}
