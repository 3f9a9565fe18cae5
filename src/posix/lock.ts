/** One holder at a time, across processes, by flock(2): the kernel frees it when the holder dies, however it dies. */
import { closeSync, constants, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { RozenError } from '../errors.ts';
import { EAGAIN } from './errno.ts';
import { libc, PosixError } from './libc.ts';

const LOCK_EX_NB = 2 | 4;

/**
 * Takes the lock named by a file (made with mode 600, never removed: removing it would let two holders in). The file
 * holds the holder's process number, for messages only.
 *
 * @param wait milliseconds to wait for another holder; 0 asks once
 * @param signal ends the waiting with an AbortError
 * @returns a function that gives the lock back; calling it twice does nothing
 * @throws RozenError 'locked', naming the holder
 */
export async function lockFile(
  path: string,
  { wait = 0, signal }: { wait?: number; signal?: AbortSignal | undefined } = {},
): Promise<() => void> {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    const deadline = performance.now() + wait;
    while (libc().flock(fd, LOCK_EX_NB) !== 0) {
      const errno = libc().errno();
      if (errno !== EAGAIN) throw new PosixError(errno, 'flock', path);
      if (performance.now() >= deadline) {
        const text = Buffer.alloc(32);
        const holder = text.toString('latin1', 0, readSync(fd, text, 0, 32, 0)).trim();
        throw new RozenError('locked', `${path} is held by another process${holder === '' ? '' : ` (${holder})`}`, {
          hint: 'wait until it is done, or stop it',
          retryable: true,
        });
      }
      await sleep(50, undefined, signal === undefined ? {} : { signal });
    }
    ftruncateSync(fd, 0);
    writeSync(fd, `${process.pid}\n`, 0);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let held = true;
  return () => {
    if (held) closeSync(fd);
    held = false;
  };
}
