/**
 * Every number and string of the repository format (version 1), in the order of docs/FORMAT-REPOSITORY.md. The archive
 * container has its own in ../archive/format.ts.
 */

export const REPOSITORY_FORMAT = 1;

export const ID_SIZE = 16;
export const HASH_SIZE = 32;
export const KEY_SIZE = 32;
export const SIGNATURE_SIZE = 64;
export const NONCE_SIZE = 24;

/** What an object says it is (`rozen`), also the domain of its signature together with the format: `rozen 1 <type>`. */
export const TYPE = {
  genesis: 'genesis',
  config: 'config',
  key: 'key',
  snapshot: 'snapshot',
  forward: 'forward',
  writer: 'writer',
  pin: 'pin',
  location: 'location',
} as const;
export type ObjectType = (typeof TYPE)[keyof typeof TYPE];

/* ---- Limits (objects are refused before they are read whole) ----------------------------------------------- */

export const MAX_GENESIS = 4 * 1024;
export const MAX_CONFIG = 1024 * 1024;
export const MAX_KEY_OBJECT = 256 * 1024;
export const MAX_SNAPSHOT_RECORD = 1024 * 1024;
/** An "unchanged" record says one thing and costs next to nothing. */
export const MAX_UNCHANGED_RECORD = 1024;
/** A record of where archives were merged into. */
export const MAX_FORWARD = 1024 * 1024;
/** Archives that one record forwards. */
export const MAX_FORWARDED = 4096;
export const MAX_STATE_FILE = 16 * 1024 * 1024;
export const MAX_RECIPIENTS = 64;
export const MAX_WRITERS = 4096;
/** A hundred years. */
export const MAX_LOCK_DAYS = 36_525;
export const MAX_LABEL = 256;
/** Heads of other lineages that a record repeats; an "unchanged" record has room for a few. */
export const MAX_SEEN = 256;
export const MAX_SEEN_UNCHANGED = 8;
/** Records that a config can declare lost. */
export const MAX_LOST = 4096;

/* ---- Key derivation (BLAKE3 derive_key) -------------------------------------------------------------------- */

export const CONTEXT = {
  passphraseSeal: 'rozen 1 2026 passphrase seal key',
  passphraseCommitment: 'rozen 1 2026 passphrase commitment',
  label: 'rozen 1 2026 label key',
} as const;

/* ---- argon2id ---------------------------------------------------------------------------------------------- */

/**
 * What a new passphrase gets: the second choice of RFC 9106 §4 (64 MiB, 3 passes, 4 lanes). Measured in pure JavaScript on a
 * 2-core machine: 0.93 s. Node brings a faster one from 24.7 on.
 */
export const ARGON2 = { memoryKiB: 65_536, passes: 3, lanes: 4 } as const;
/** Bounds on what a key object may ask for: weaker is refused (a downgrade), dearer too (a trap for memory and time). */
export const ARGON2_BOUNDS = {
  memoryKiB: { min: 19_456, max: 1_048_576 },
  passes: { min: 1, max: 16 },
  lanes: { min: 1, max: 16 },
  /** memoryKiB × passes: about 20 s in pure JavaScript. */
  maxWork: 4_194_304,
  salt: { min: 16, max: 64 },
} as const;

/** Shown and compared by people: the first 16 bytes of the genesis hash. */
export const FINGERPRINT_SIZE = 16;
