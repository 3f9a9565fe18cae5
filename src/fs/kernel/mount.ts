/** Getting a mounted /dev/fuse: by mount(2) as root, without any package; otherwise through fusermount3. */
import { closeSync, openSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { endianness } from 'node:os';
import { RozenError } from '../../errors.ts';
import { cPath, EPERM, libc, PosixError } from '../../posix/libc.ts';
import { reasonOf } from '../../posix/reason.ts';
import { escapeOption, findFusermount, mountByFusermount } from './fusermount.ts';
import { MOUNT_TYPE, mountedAt, realMountpoint } from './mount-table.ts';
import { isRoot, isStale, unmountOnce } from './umount.ts';

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOATIME = 1024;

export interface MountOptions {
  /** A real path, as `prepareMountpoint` gives it. */
  mountpoint: string;
  /** What `mount` and `df` show as the source. */
  source: string;
  /** Others than the mounting user may look too. */
  allowOther: boolean;
  /** The kernel checks permissions (and ACLs). */
  enforcePermissions: boolean;
}

/**
 * Checks a place to mount at, and takes away what a dead server left there.
 *
 * @param keepClearOf folders that must not be hidden or written into: the repository, the cache, the state
 * @returns its real path
 */
export async function prepareMountpoint(path: string, keepClearOf: readonly string[] = []): Promise<string> {
  if (process.platform !== 'linux' || endianness() !== 'LE') {
    throw new RozenError('unsupported', 'a mount needs Linux on a little-endian machine', {
      hint: 'rozen restore needs no mount',
    });
  }
  let mountpoint: string;
  try {
    mountpoint = realMountpoint(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new RozenError('usage', missing ? `${path} does not exist` : `${path}: ${reasonOf(error)}`, {
      hint: missing ? 'make the folder first' : 'mount somewhere else',
      cause: error,
    });
  }
  const mounted = mountedAt(mountpoint);
  if (mounted?.type.startsWith('fuse') && (await isStale(mountpoint))) {
    await unmountOnce(mountpoint, 'lazy');
  } else if (mounted?.type === MOUNT_TYPE) {
    throw new RozenError('exists', `${mountpoint} is already a mount of Rozen (${mounted.source})`, {
      hint: `rozen umount ${mountpoint}`,
    });
  }
  if (!statSync(mountpoint).isDirectory()) throw new RozenError('usage', `${mountpoint} is not a folder`);
  for (const folder of keepClearOf) {
    const real = realOrSame(folder);
    if (contains(mountpoint, real) || contains(real, mountpoint)) {
      throw new RozenError('usage', `mounting at ${mountpoint} would lie over ${real}, which is needed to serve it`, {
        hint: 'mount somewhere else',
      });
    }
  }
  if (readdirSync(mountpoint).length > 0) {
    throw new RozenError('usage', `${mountpoint} is not empty`, { hint: 'mount at an empty folder' });
  }
  return mountpoint;
}

function realOrSame(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function contains(folder: string, path: string): boolean {
  return path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`);
}

/** Mounts and returns the descriptor of /dev/fuse, on which the kernel's INIT waits. */
export function mount(options: MountOptions): number {
  const program = findFusermount();
  if (isRoot()) {
    try {
      return mountAsRoot(options);
    } catch (error) {
      // A container's root may lack CAP_SYS_ADMIN.
      const denied = error instanceof PosixError && error.errno === -EPERM;
      if (!denied || program === null) throw mountError(options.mountpoint, error);
    }
  }
  if (program === null) {
    throw new RozenError('io', `cannot mount ${options.mountpoint}: fusermount3 is not installed`, {
      hint: 'install the package fuse3, or mount as root',
    });
  }
  return mountByFusermount(program, options.mountpoint, [
    'ro',
    'nosuid',
    'nodev',
    'noatime',
    'subtype=rozen',
    `fsname=${escapeOption(options.source)}`,
    ...(options.enforcePermissions ? ['default_permissions'] : []),
    ...(options.allowOther ? ['allow_other'] : []),
  ]);
}

function mountAsRoot(options: MountOptions): number {
  // Node opens with O_CLOEXEC: no child may keep the connection alive.
  const fd = openSync('/dev/fuse', 'r+');
  try {
    const data = [
      `fd=${fd}`,
      'rootmode=40000',
      `user_id=${process.getuid!()}`,
      `group_id=${process.getgid!()}`,
      ...(options.enforcePermissions ? ['default_permissions'] : []),
      ...(options.allowOther ? ['allow_other'] : []),
    ].join(',');
    const zero = (text: string): Buffer => Buffer.from(`${text}\0`);
    const c = libc();
    const flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME;
    if (c.mount(zero(options.source), cPath(options.mountpoint), zero(MOUNT_TYPE), flags, zero(data)) !== 0) {
      throw new PosixError(c.errno(), 'mount', options.mountpoint);
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function mountError(mountpoint: string, error: unknown): RozenError {
  const code = (error as NodeJS.ErrnoException).code;
  const hints: Record<string, string> = {
    ENOENT: 'load the module: modprobe fuse',
    ENODEV: 'this kernel has no FUSE: modprobe fuse',
    EPERM: 'in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN',
    EACCES: 'in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN',
  };
  return new RozenError('io', `cannot mount ${mountpoint}: ${(error as Error).message}`, {
    hint: code === undefined ? undefined : hints[code],
    cause: error,
  });
}
