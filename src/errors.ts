/**
 * What went wrong, as a word that code can act on.
 *
 * usage         the caller asked for something that makes no sense
 * not-found     an object, snapshot, path or file does not exist
 * exists        a create-only write met an object of that name
 * not-repository  the place holds no repository (or one that is something else)
 * unsupported   made by a newer format, or an unknown incompatible feature
 * corrupt       bytes that fail a check: hash, tag, length, structure
 * no-key        no passphrase or identity opens this
 * untrusted     bytes are intact, but signed by nobody who may: forged, not enrolled, rolled back, swapped
 * locked        another process holds the lock
 * frozen        the content lies in cold storage and must be thawed first
 * io            the operating system or the network failed
 * interrupted   the user stopped it
 * internal      a broken invariant of Rozen itself
 */
export type ErrorCode =
  | 'usage'
  | 'not-found'
  | 'exists'
  | 'not-repository'
  | 'unsupported'
  | 'corrupt'
  | 'no-key'
  | 'untrusted'
  | 'locked'
  | 'frozen'
  | 'io'
  | 'interrupted'
  | 'internal';

export interface ErrorDetails {
  /** What the user can do next, one clause without a full stop. */
  hint?: string | undefined;
  cause?: unknown;
  /** True when the same call may succeed later without any change. */
  retryable?: boolean;
}

/** The one error class of Rozen: `message` says what and where, `hint` what to do next. */
export class RozenError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'RozenError';
    this.code = code;
    this.hint = details.hint;
    this.retryable = details.retryable ?? false;
  }
}

/** Shorthand for the commonest error of a reader: bytes that fail a check. */
export function corrupt(message: string, details: ErrorDetails = {}): RozenError {
  return new RozenError('corrupt', message, details);
}
