import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { corrupt, RozenError } from '../errors.ts';
import { makeFolders } from '../posix/make-folders.ts';
import { MAX_STATE_FILE } from './format.ts';

/**
 * Small private files of this machine, mode 600, replaced whole: a crash leaves the old or the new one. Synchronous,
 * because each is a few hundred bytes and stands in the way of everything else.
 */
export function writeStateFile(path: string, bytes: Uint8Array): void {
  const folder = dirname(path);
  const staged = join(folder, `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}`);
  try {
    makeFolders(folder);
    const fd = openSync(staged, 'wx', 0o600);
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(staged, path);
  } catch (cause) {
    try {
      unlinkSync(staged);
    } catch {}
    throw stateError(path, cause);
  }
}

/** The bytes, or null when there is no such file. */
export function readStateFile(path: string): Buffer | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw stateError(path, cause);
  }
  try {
    const info = fstatSync(fd);
    if (!info.isFile() || info.size > MAX_STATE_FILE)
      throw corrupt(`${path} is no state file of Rozen`, { hint: 'remove it' });
    const bytes = Buffer.alloc(info.size);
    let done = 0;
    while (done < bytes.length) {
      const read = readSync(fd, bytes, done, bytes.length - done, done);
      if (read === 0) break;
      done += read;
    }
    return bytes.subarray(0, done);
  } finally {
    closeSync(fd);
  }
}

function stateError(path: string, cause: unknown): RozenError {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === undefined) throw cause;
  return new RozenError('io', `state file ${path}: ${message}`, {
    cause,
    hint: 'state lies in $XDG_STATE_HOME/rozen; set ROZEN_STATE_DIR to use another folder',
  });
}
