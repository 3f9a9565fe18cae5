/**
 * Mounting without privileges: fusermount3, a set-uid program that every distribution has, opens /dev/fuse, mounts, and
 * sends the descriptor back over a socket.
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { RozenError } from '../../errors.ts';
import { check, libc } from '../../posix/libc.ts';

/** The program, or null when this machine has none. */
export function findFusermount(): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/bin', '/bin', '/usr/local/bin', '/usr/sbin'];
  for (const name of ['fusermount3', 'fusermount']) {
    for (const folder of folders) {
      if (folder === '') continue;
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // Not here: the next one.
      }
    }
  }
  return null;
}

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 1 | 0x80000;
const MSG_DONTWAIT_CMSG_CLOEXEC = 0x40 | 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** Receives one descriptor that was sent with SCM_RIGHTS; null when the other end sent none. 64-bit Linux. */
function receiveDescriptor(socket: number): number | null {
  const c = libc();
  const byte = Buffer.from(new ArrayBuffer(8));
  const vector = Buffer.from(new ArrayBuffer(16));
  vector.writeBigUInt64LE(c.address(byte), 0);
  vector.writeBigUInt64LE(1n, 8);
  // cmsghdr: length 8, level 4, type 4, then the descriptor.
  const control = Buffer.from(new ArrayBuffer(32));
  const message = Buffer.from(new ArrayBuffer(56));
  message.writeBigUInt64LE(c.address(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(c.address(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  if (c.recvmsg(socket, message, MSG_DONTWAIT_CMSG_CLOEXEC) <= 0) return null;
  const length = Number(control.readBigUInt64LE(0));
  if (length < 20 || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return null;
  return control.readInt32LE(16);
}

/** A value inside `-o a,b=value`. */
export function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, '\\$&');
}

/** What fusermount3 said, on one line and without its own path before it. */
export function plainReason(stderr: string): string {
  return stderr
    .trim()
    .split('\n')
    .map((line) => line.replace(/^\S*fusermount3?: /, ''))
    .join('; ');
}

export function hintFor(said: string): string | undefined {
  if (said.includes('user_allow_other'))
    return 'add the line user_allow_other to /etc/fuse.conf, or mount without --allow-other';
  if (/\/dev\/fuse: (Permission denied|Operation not permitted)/.test(said))
    return '/dev/fuse is closed to this user: ask for access to it, or mount as root';
  if (/no write access to mountpoint|mountpoint .*(Permission denied|not owned)/.test(said))
    return 'mount at a folder of yours';
  return undefined;
}

/**
 * Mounts and returns the descriptor of /dev/fuse. Blocks until fusermount3 has left (some milliseconds); it waits for
 * nothing of ours, as the kernel's first request needs no answer for the mount to stand.
 */
export function mountByFusermount(program: string, mountpoint: string, options: string[]): number {
  const pair = Buffer.from(new ArrayBuffer(8));
  check(libc().socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, pair), 'socketpair');
  const ours = pair.readInt32LE(0);
  const theirs = pair.readInt32LE(4);
  try {
    const child = spawnSync(program, ['-o', options.join(','), '--', mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      env: { ...process.env, _FUSE_COMMFD: '3' },
    });
    const fd = child.status === 0 ? receiveDescriptor(ours) : null;
    if (fd !== null) return fd;
    const said = plainReason(child.stderr?.toString() ?? '') || 'it gave no reason';
    throw new RozenError('io', `${program} could not mount ${mountpoint}: ${child.error?.message ?? said}`, {
      hint: hintFor(said),
    });
  } finally {
    closeSync(ours);
    closeSync(theirs);
  }
}

/** Unmounts; resolves to null, or to what fusermount3 said when it could not. */
export function unmountByFusermount(program: string, mountpoint: string, lazy: boolean): Promise<string | null> {
  return new Promise((resolve) => {
    const child = spawn(program, ['-u', ...(lazy ? ['-z'] : []), '--', mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (text) => {
      said += String(text);
    });
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => resolve(code === 0 ? null : plainReason(said) || `${program} failed`));
  });
}

/** The same at once and blocking, for the way out of a process. */
export function detachByFusermount(program: string, mountpoint: string): void {
  spawnSync(program, ['-u', '-z', '--', mountpoint], { stdio: 'ignore' });
}
