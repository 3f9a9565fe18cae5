/** Taking mounts away: from outside (`rozen umount`), and what a dead server left behind. */
import { statfs } from 'node:fs';
import { RozenError } from '../../errors.ts';
import { cPath, EBUSY, EINVAL, libc, PosixError } from '../../posix/libc.ts';
import { findFusermount, unmountByFusermount } from './fusermount.ts';
import { describeHolders, findHolders } from './holders.ts';
import { MOUNT_TYPE, mountedAt, realMountpoint } from './mount-table.ts';

const MNT_FORCE = 1;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

export type Unmounting = 'normal' | 'lazy' | 'force';

/** One umount2(2), as root. False when the mount is busy; true when it is gone (also when it was not there). */
export function unmountAsRoot(mountpoint: string, how: Unmounting): boolean {
  const c = libc();
  const flags = { normal: 0, lazy: MNT_DETACH, force: MNT_FORCE | MNT_DETACH }[how] | UMOUNT_NOFOLLOW;
  if (c.umount2(cPath(mountpoint), flags) === 0) return true;
  const errno = c.errno();
  if (errno === EBUSY) return false;
  if (errno === EINVAL) return true;
  throw new PosixError(errno, 'umount', mountpoint);
}

/** The same for anybody. 'force' is 'lazy' for those who are not root. */
export async function unmountOnce(mountpoint: string, how: Unmounting): Promise<boolean> {
  if (isRoot()) return unmountAsRoot(mountpoint, how);
  const program = findFusermount();
  if (program === null) {
    throw new RozenError('io', `cannot unmount ${mountpoint}: fusermount3 is not installed`, {
      hint: 'install the package fuse3, or unmount as root',
    });
  }
  const said = await unmountByFusermount(program, mountpoint, how !== 'normal');
  if (said === null || mountedAt(mountpoint) === undefined) return true;
  if (/busy/i.test(said)) return false;
  throw new RozenError('io', `cannot unmount ${mountpoint}: ${said}`);
}

/** True when something is mounted there whose server has died (every access gives ENOTCONN). */
export function isStale(mountpoint: string): Promise<boolean> {
  return new Promise((resolve) => {
    statfs(mountpoint, (error) => resolve(error?.code === 'ENOTCONN' || error?.code === 'ECONNABORTED'));
  });
}

/** What `unmount` did. */
export interface Unmounted {
  mountpoint: string;
  /** The server had died before. */
  stale: boolean;
  /** The mount was busy and is only detached: these still use it. */
  holders: string | null;
}

/**
 * `rozen umount DIR`: takes a Rozen mount away; its server then ends by itself. One that is busy is refused, naming who
 * holds it, unless `lazy`: then it disappears at once and ends when the last one lets go.
 */
export async function unmount(path: string, { lazy = false }: { lazy?: boolean } = {}): Promise<Unmounted> {
  const mountpoint = realMountpoint(path);
  const mounted = mountedAt(mountpoint);
  if (mounted === undefined) throw new RozenError('not-found', `nothing is mounted at ${mountpoint}`);
  if (mounted.type !== MOUNT_TYPE) {
    throw new RozenError('usage', `${mountpoint} is a mount of type ${mounted.type}, not one of Rozen`);
  }
  const stale = await isStale(mountpoint);
  if (await unmountOnce(mountpoint, stale ? 'lazy' : 'normal')) return { mountpoint, stale, holders: null };
  const holders = describeHolders(findHolders(mountpoint));
  if (!lazy) {
    throw new RozenError('io', `${mountpoint} is busy: ${holders || 'held by a process of another user'}`, {
      hint: 'let these end first, or use --lazy',
      retryable: true,
    });
  }
  await unmountOnce(mountpoint, 'lazy');
  return { mountpoint, stale, holders };
}
