import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { entryUrl } from '../entries.ts';
import { makeFolders } from '../posix/make-folders.ts';
import { stateHome } from '../repository/paths.ts';
import { isS3Location } from '../store/location.ts';
import { BUCKET } from './mount-request.ts';

/** The process that will serve a mount, loading its modules while the command line is still being read. */
export interface Launched {
  child: ChildProcess;
  logPath: string;
}

let launched: Launched | null = null;

/** `ps` shows `rozen mount DIR` in the memory of the process's arguments: no more fits than they are long. */
const TITLE_ROOM = ' '.repeat(512);

/** Whether the request will be there at once, as nobody has to type a passphrase, and be for a bucket. A wrong guess costs time only. */
function isBucketAtOnce(): boolean {
  const { ROZEN_REPOSITORY = '', ROZEN_IDENTITY_FILE } = process.env;
  const words = process.argv.slice(2);
  const hasIdentity = ROZEN_IDENTITY_FILE !== undefined || words.some((word) => word.startsWith('--identity'));
  return hasIdentity && [ROZEN_REPOSITORY, ...words].some((word) => isS3Location(word.replace(/^--repository=/, '')));
}

/** `launch`, before anybody can be told of a failure: the command itself tries again, and tells. */
export function launchAhead(): void {
  try {
    launch();
  } catch {
    // Such as a folder for the log that cannot be made.
  }
}

/**
 * Starts the process behind a mount, once. It does nothing but load until it gets its request on stdin, and ends when
 * stdin ends without one: a command that turns out to be wrong costs nothing. (Measured: starting it before commander is
 * loaded saves 25 ms of the time to the first `ls`.)
 */
export function launch(): Launched {
  if (launched !== null) return launched;
  const folder = join(stateHome(), 'log');
  makeFolders(folder);
  const logPath = join(folder, 'mount.log');
  const log = openSync(logPath, 'a', 0o600);
  // The secrets of this process's environment are not the child's: what it needs comes through the pipe.
  const { ROZEN_PASSWORD: _password, ROZEN_PASSWORD_COMMAND: _command, ...env } = process.env;
  const hints = isBucketAtOnce() ? [BUCKET] : [];
  const child = spawn(process.execPath, [fileURLToPath(entryUrl('mountChild')), ...hints, TITLE_ROOM], {
    argv0: 'rozen',
    detached: true,
    env,
    stdio: ['pipe', 'ignore', log, 'pipe'],
  });
  closeSync(log);
  // Whoever waits for the answer on descriptor 3 hears of a child that failed; an error event must not end this process.
  child.on('error', () => {});
  child.stdin?.on('error', () => {});
  launched = { child, logPath };
  return launched;
}
