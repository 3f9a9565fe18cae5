/** Making what has no content of its own: symlinks, fifos, device nodes, further names. */
import { chmodSync, closeSync, constants, openSync, renameSync, unlinkSync } from 'node:fs';
import { cName, O_PATH } from '../../posix/at.ts';
import { EEXIST, ENOENT } from '../../posix/errno.ts';
import { descriptorPath } from '../../posix/folder.ts';
import { PosixError } from '../../posix/libc.ts';
import { emptyStat, type Stat, statAt } from '../../posix/stat.ts';
import { S_IFDIR, S_IFMT } from '../view/attributes.ts';
import { Occupied } from './occupied.ts';
import type { RestoreClass } from './types.ts';

export interface EntryMaker {
  /** True when what stands there is the entry already. */
  is(stat: Stat, path: Buffer): boolean;
  /** Makes it under a path where nothing stands. */
  make(path: Buffer): void;
  /** Sets right what may differ. */
  keep(stat: Stat, path: Buffer): void;
}

const stat = emptyStat();

/**
 * Makes an entry under its name; where another one stands, under a temporary name first, and then it takes that one's
 * place. Throws Occupied when a folder is in the way.
 */
export function placeEntry(place: { dirfd: number; name: Buffer; temporary: string }, entry: EntryMaker): RestoreClass {
  const { dirfd, name } = place;
  const folder = descriptorPath(dirfd);
  const path = Buffer.concat([folder, name]);
  const errno = statAt(dirfd, cName(name), stat);
  if (errno === ENOENT) {
    entry.make(path);
    return 'new';
  }
  if (errno !== 0) throw new PosixError(errno, 'stat', name);
  if ((stat.mode & S_IFMT) === S_IFDIR) throw new Occupied('a folder stands in its place');
  if (entry.is(stat, path)) {
    entry.keep(stat, path);
    return 'kept';
  }
  const temporary = Buffer.concat([folder, Buffer.from(place.temporary)]);
  try {
    entry.make(temporary);
  } catch (error) {
    if (-((error as NodeJS.ErrnoException).errno ?? 0) !== EEXIST) throw error;
    // A run that was killed has left it.
    unlinkSync(temporary);
    entry.make(temporary);
  }
  renameSync(temporary, path);
  return 'replaced';
}

/** Sets the mode of a fifo or device node, and of nothing that took its place meanwhile. */
export function setNodeMode(path: Buffer, mode: number): void {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    chmodSync(`/proc/self/fd/${fd}`, mode & 0o7777);
  } finally {
    closeSync(fd);
  }
}
