import { RozenError } from '../errors.ts';
import { reasonOf } from '../posix/reason.ts';
import { escapeControl } from './display.ts';

interface SystemError extends Error {
  code: string;
  errno: number;
  syscall: string;
  path?: string;
  dest?: string;
}

const HINTS: Readonly<Record<string, string>> = {
  EACCES: 'check owner and mode, or run as a user who may',
  EPERM: 'this may need root',
  ENOSPC: 'free some space and run the same command again',
  EDQUOT: 'free some space and run the same command again',
  EMFILE: 'raise the limit with ulimit -n',
  EIO: 'the device may be failing: see the kernel log (dmesg)',
  ENOTCONN: 'clean it with: rozen umount DIR',
};

function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && 'syscall' in error && typeof (error as SystemError).code === 'string';
}

/** Turns whatever was thrown into the one error class, with a clause that a person can act on. */
export function asRozenError(error: unknown): RozenError {
  if (error instanceof RozenError) return error;
  if (isSystemError(error)) {
    const where = error.path === undefined ? '' : `${error.path}: `;
    return new RozenError('io', `${where}${reasonOf(error)}`, {
      hint: HINTS[error.code],
      cause: error,
    });
  }
  if (error instanceof Error && error.name === 'AbortError') {
    return error.cause instanceof RozenError ? error.cause : new RozenError('interrupted', 'interrupted');
  }
  const message = error instanceof Error ? error.message || error.name : String(error);
  return new RozenError('internal', message, {
    hint: 'this is a fault in Rozen: please report it with the output of --debug',
    cause: error,
  });
}

/** One line: `rozen: what, where; hint`. */
export function errorLine(error: RozenError): string {
  const oneLine = escapeControl(error.message.replace(/\s*\n\s*/g, ' ').trim());
  const hint = error.hint === undefined ? '' : `; ${escapeControl(error.hint.replace(/\s*\n\s*/g, ' ').trim())}`;
  return `rozen: ${oneLine}${hint}`;
}

/** For --debug: the stack, and that of every cause. */
export function errorStack(error: unknown): string {
  const parts: string[] = [];
  let current: unknown = error;
  while (current instanceof Error && parts.length < 8) {
    parts.push(current.stack ?? String(current));
    current = current.cause;
  }
  return parts.join('\ncaused by: ');
}
