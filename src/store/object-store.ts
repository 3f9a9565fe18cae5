import { corrupt, RozenError } from '../errors.ts';

export interface ObjectInfo {
  name: string;
  /** Bytes. */
  size: number;
  /** Last change by the store's clock, milliseconds since 1970. */
  modified: number;
  /** Where the store has classes. */
  storageClass?: string;
}

/**
 * hot      can be read now
 * frozen   must be thawed before it can be read
 * thawing  was asked for, and is not there yet
 */
export type Warmth = 'hot' | 'frozen' | 'thawing';

/** How soon a store brings back what is frozen; what that costs depends on it. */
export const THAW_TIERS = ['standard', 'bulk', 'expedited'] as const;
export type ThawTier = (typeof THAW_TIERS)[number];

/** Of one object: its class, and whether it can be read. */
export interface ColdState {
  /** Bytes. */
  size: number;
  modified: number;
  /** Null where the store has no classes. */
  storageClass: string | null;
  state: Warmth;
  /** Of a copy that was thawed: until when it can be read, milliseconds since 1970. Null for all else. */
  until: number | null;
}

/** How a repository wants its objects to be kept. */
export interface Keeping {
  /** Of data archives (`data/`): what they cost, and how soon they can be read. Everything else stays in the store's own class. */
  storageClass?: string | undefined;
  /** Data archives of fewer bytes stay in the store's own class all the same: whoever merges small ones reads them again soon. */
  classFrom?: number | undefined;
  /** Nobody can delete or replace an object for so many days after it was made, or `retain`ed. */
  lockDays?: number | undefined;
}

/** What a writer that was killed has left under way: not an object, but it takes up room. */
export interface Unfinished {
  /** Of the object that it would have become, or of a temporary file. */
  name: string;
  id: string;
  bytes: number;
  /** Last sign of life, milliseconds since 1970. */
  active: number;
  /** The store has the object, and may have made it of what is listed here: it must not be removed. */
  stored: boolean;
}

export interface PutFileOptions {
  /** 'interrupted' soon after this where the upload takes long; the next call with the same file goes on. */
  signal?: AbortSignal | undefined;
  /** In the store's own class, whatever `keep` says of data archives: it is to be read at once, always. */
  hot?: boolean | undefined;
}

/** `get` refuses larger objects unless the caller allows them: a hostile store must not choose our memory use. */
export const DEFAULT_GET_LIMIT = 256 * 1024 * 1024;

/**
 * A flat place for immutable objects. Names are `/`-separated parts of `[A-Za-z0-9._-]`, none of which begins with a dot.
 * An object appears whole or not at all, is never overwritten, and is durable once `put` or `putFile` has returned.
 *
 * Every method rejects with a RozenError: `not-found` (no such object), `exists` (create-only write met one),
 * `corrupt` (the object is shorter than the range, or larger than the limit), `io` (everything else; `retryable` says
 * whether the same call may work later), `usage` (illegal name).
 */
export interface ObjectStore {
  /** Path or URL, as shown to people and as remembered in pins. */
  readonly location: string;
  /** Makes the place itself (the folder). Only `init` calls it: a vanished disk must not be replaced by an empty folder. */
  prepare(): Promise<void>;
  /** The whole object; `corrupt` when it is larger than `limit` bytes. */
  get(name: string, limit?: number): Promise<Buffer>;
  /** Exactly `length` bytes, or `corrupt`. With `target` they are written to its front, which is also the answer; after an error it may hold anything. */
  getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer>;
  /** The last `length` bytes (all of a smaller object) and the size of the object. */
  getSuffix(name: string, length: number): Promise<{ bytes: Buffer; size: number }>;
  /** Creates the object; `exists` when there is one of that name, whatever its bytes. */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /**
   * Creates the object from a local file that nobody writes to any more. May consume the file (afterwards it may be gone
   * or share its bytes with the object, so the caller only ever removes it, ignoring ENOENT).
   */
  putFile(name: string, path: string, options?: PutFileOptions): Promise<void>;
  stat(name: string): Promise<{ size: number; modified: number } | null>;
  /** As `stat`, and whether the object can be read now; null when there is none. */
  coldState(name: string): Promise<ColdState | null>;
  /**
   * Asks for a copy of a frozen object that can be read for so many days. It comes later: `coldState` tells when. No error when that
   * was asked for before; a copy that is there stays for so many days from now. 'unsupported' when the object is
   * of no class that is ever frozen.
   */
  thaw(name: string, request: { tier: ThawTier; days: number }): Promise<void>;
  /** Objects whose name begins with `prefix`, in byte order of their names, from the first one greater than `after`. Lazy. */
  list(prefix: string, options?: { after?: string }): AsyncIterable<ObjectInfo>;
  /** Removes the object; no error when there is none. */
  delete(name: string): Promise<void>;
  /** Where the object's bytes lie on this machine, for reading in place; null when they do not. */
  localPath(name: string): string | null;
  /** From now on objects are made so. A store that knows no such thing keeps them as it does, and `cannotKeep` says so. */
  keep(keeping: Keeping): void;
  /** What of this the store cannot do, as an error that says what to do; null when it can. The place must be prepared. */
  cannotKeep(keeping: Keeping): Promise<RozenError | null>;
  /** Locks objects for the days of `keep` from now on, and makes sure of it; nothing without such days. */
  retain(names: readonly string[]): Promise<void>;
  /** Until when nobody can delete the object, milliseconds since 1970 (Infinity: for ever); null when nothing keeps it, or it is not there. */
  lockedUntil(name: string): Promise<number | null>;
  unfinished(): AsyncIterable<Unfinished>;
  /** Removes what was left under way; no error when it is gone. False when it stays, as its object is stored and may be made of it. */
  abandon(unfinished: Unfinished): Promise<boolean>;
}

/** Where an answer of `length` bytes goes. */
export function frontOf(target: Buffer | undefined, length: number): Buffer {
  if (target === undefined) return Buffer.allocUnsafeSlow(length);
  if (target.length < length) throw new RozenError('internal', `a target of ${target.length} bytes for ${length}`);
  return target.subarray(0, length);
}

/** Whether objects must be fetched: then it pays to keep what was. */
export function isRemote(store: ObjectStore): boolean {
  return store.localPath('rozen.cbor') === null;
}

const PART = /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/;
const MAX_NAME = 512;

export function isObjectName(name: string): boolean {
  return name.length > 0 && name.length <= MAX_NAME && name.split('/').every((part) => PART.test(part));
}

/** Throws `usage` for names that could leave the store, hide in it, or mean different things in different stores. */
export function checkObjectName(name: string): void {
  if (!isObjectName(name)) throw new RozenError('usage', `illegal object name ${JSON.stringify(name.slice(0, 80))}`);
}

/**
 * An object is not there that something in the repository names: data is lost. Other errors of the code 'not-found' only say
 * that somebody asked for what there is none of.
 */
export class ObjectMissing extends RozenError {
  constructor(message: string, cause?: unknown) {
    super('not-found', message, { hint: 'run `rozen verify` to see what else is missing', cause });
  }
}

export function objectNotFound(location: string, name: string, cause?: unknown): ObjectMissing {
  return new ObjectMissing(`${location}: no object ${name}`, cause);
}

export function objectExists(location: string, name: string): RozenError {
  return new RozenError('exists', `${location}: object ${name} exists already`);
}

export function objectTooLarge(object: { location: string; name: string; size: number; limit: number }): RozenError {
  const { location, name, size, limit } = object;
  return corrupt(`${location}/${name}: ${size} bytes, expected at most ${limit}`, { hint: DAMAGED });
}

export function objectTooShort(object: { location: string; name: string; size: number; expected: number }): RozenError {
  const { location, name, size, expected } = object;
  return corrupt(`${location}/${name}: ends at byte ${size}, expected at least ${expected}`, { hint: DAMAGED });
}

const DAMAGED = 'the object is damaged; `rozen verify` shows what it concerns';
