import type { ErrorCode, RozenError } from '../errors.ts';
import { ObjectMissing } from '../store/object-store.ts';

/** Exit codes of every command, a public contract: scripts act on them. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  /** Done, but some files could not be read. */
  incomplete: 3,
  /** Local files differ from the snapshot; content of a write-once set has changed. */
  diverged: 4,
  /** Bytes that fail a check, that nobody who may has signed, or that are gone. */
  corrupt: 5,
  noKey: 6,
  frozen: 7,
  interrupted: 130,
  /** Whoever read stdout has gone: what the shell shows for a process that SIGPIPE ended. */
  closedOutput: 141,
} as const;

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  usage: EXIT.usage,
  corrupt: EXIT.corrupt,
  untrusted: EXIT.corrupt,
  'no-key': EXIT.noKey,
  frozen: EXIT.frozen,
  interrupted: EXIT.interrupted,
};

export function exitCodeOf(error: RozenError): number {
  if (error instanceof ObjectMissing) return EXIT.corrupt;
  return BY_CODE[error.code] ?? EXIT.failed;
}
