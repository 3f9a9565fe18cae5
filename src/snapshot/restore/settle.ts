/** Owners, attributes, modes: what is set on an entry after its content, and what is noted when it cannot be. */
import { chmodSync, chownSync, fchmodSync, fchownSync, lchownSync } from 'node:fs';
import { closeDescriptor, openPathAt } from '../../posix/at.ts';
import { E2BIG, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, EPERM, ERANGE } from '../../posix/errno.ts';
import { descriptorPath } from '../../posix/folder.ts';
import { fstat, type Stat } from '../../posix/stat.ts';
import { getXattr, removeXattr, setXattr } from '../../posix/xattr.ts';
import type { RestoreNotice } from './types.ts';

export interface Xattr {
  name: Buffer;
  value: Buffer;
}

/** What an entry shall be. `mode` with the type. */
export interface Wanted {
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNs: number;
  xattrs: readonly Xattr[];
}

const SETUID = 0o4000;
const SETGID = 0o2000;
const PERMISSIONS = 0o7777;
const ACL_NAMES = [Buffer.from('system.posix_acl_access'), Buffer.from('system.posix_acl_default')];

/** ENOSPC, too: a file system has little room for the attributes of one file, whatever the disk has. */
const UNSETTABLE: ReadonlySet<number> = new Set([EPERM, EOPNOTSUPP, EINVAL, E2BIG, ERANGE, ENOSPC]);

function errnoOf(error: unknown): number {
  return Math.abs((error as NodeJS.ErrnoException).errno ?? 0);
}

/** Sets what is wanted, as far as this user and file system can; the rest is counted. One per thread. */
export class Settler {
  /** Notices by message. */
  #notices = new Map<string, RestoreNotice>();

  /** What could not be kept since the last call. */
  takeNotices(): RestoreNotice[] {
    const notices = [...this.#notices.values()];
    if (notices.length > 0) this.#notices = new Map();
    return notices;
  }

  #note(kind: RestoreNotice['kind'], message: string): void {
    const known = this.#notices.get(message);
    if (known === undefined) this.#notices.set(message, { kind, count: 1, message });
    else known.count++;
  }

  /**
   * Gives an entry to its owner where that differs from `have`. Answers the mode bits that must not be set: a program
   * that would run with the rights of an owner must not do so with the rights of another one.
   */
  owner(have: { uid: number; gid: number }, want: Wanted, chown: (uid: number, gid: number) => void): number {
    if (have.uid === want.uid && have.gid === want.gid) return 0;
    try {
      chown(want.uid, want.gid);
      return 0;
    } catch (error) {
      // EINVAL: an owner that this user namespace does not know.
      if (errnoOf(error) !== EPERM && errnoOf(error) !== EINVAL) throw error;
    }
    this.#note('owner', 'owner not restored (only root can)');
    if (have.gid === want.gid) return SETUID;
    try {
      chown(-1, want.gid);
      return have.uid === want.uid ? 0 : SETUID;
    } catch (error) {
      if (errnoOf(error) !== EPERM && errnoOf(error) !== EINVAL) throw error;
      return SETUID | SETGID;
    }
  }

  /** `path` is not followed if it is a symlink. */
  attributes(path: Buffer, xattrs: readonly Xattr[]): void {
    for (const { name, value } of xattrs) {
      try {
        setXattr(path, name, value);
      } catch (error) {
        const errno = errnoOf(error);
        if (!UNSETTABLE.has(errno)) throw error;
        const text = name.toString('latin1');
        const space = text.slice(0, text.indexOf('.') + 1);
        const why = errno === EPERM ? 'that only root can set' : 'that the file system of the target does not take';
        this.#note('attribute', `attributes (${space}*) ${why}`);
      }
    }
  }

  /** Owner, attributes and mode of an open file; its modification time comes after. `have` is what it was born with. */
  file(fd: number, path: () => Buffer, have: { uid: number; gid: number; mode: number }, want: Wanted): void {
    const stripped = this.owner(have, want, (uid, gid) => fchownSync(fd, uid, gid));
    if (want.xattrs.length > 0) this.attributes(path(), want.xattrs);
    const mode = want.mode & PERMISSIONS & ~stripped;
    if (mode !== (have.mode & PERMISSIONS) || want.xattrs.length > 0) fchmodSync(fd, mode);
  }

  /** The same of an entry that stands there already, where it differs; its modification time is right. */
  kept(dirfd: number, name: Buffer, have: Stat, want: Wanted): void {
    const path = Buffer.concat([descriptorPath(dirfd), name]);
    const differing = want.xattrs.filter((xattr) => {
      try {
        return getXattr(path, xattr.name)?.equals(xattr.value) !== true;
      } catch {
        return true;
      }
    });
    const mode = want.mode & PERMISSIONS;
    const right = have.uid === want.uid && have.gid === want.gid && (have.mode & PERMISSIONS) === mode;
    if (right && differing.length === 0) return;
    const fd = openPathAt(dirfd, name);
    try {
      const now = fstat(fd);
      const self = `/proc/self/fd/${fd}`;
      const stripped = this.owner(now, want, (uid, gid) => chownSync(self, uid, gid));
      if (differing.length > 0) this.attributes(path, differing);
      // Also when it is right: changing the owner takes setuid away.
      chmodSync(self, mode & ~stripped);
    } finally {
      closeDescriptor(fd);
    }
  }

  /** Owner and attributes of what cannot be opened: symlinks, fifos, device nodes. Answers the mode bits not to be set. */
  unopened(path: Buffer, have: { uid: number; gid: number }, want: Wanted): number {
    const stripped = this.owner(have, want, (uid, gid) => lchownSync(path, uid, gid));
    this.attributes(path, want.xattrs);
    return stripped;
  }
}

/** Removes ACLs that an entry inherited or had before. `path` as `setXattr` takes it. */
export function removeAcls(path: Buffer): void {
  for (const name of ACL_NAMES) {
    try {
      removeXattr(path, name);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== EOPNOTSUPP && errno !== EINVAL && errno !== ENOENT) throw error;
    }
  }
}
