/** The one door to LMDB. Loading the package takes some 10 ms: import this only from what needs a database. */
import { chmodSync, closeSync, fstatSync, openSync, readSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, open, type RootDatabase, type RootDatabaseOptions } from 'lmdb';
import { RozenError } from '../errors.ts';
import { libc } from '../posix/libc.ts';
import { reasonOf } from '../posix/reason.ts';

/** Keys and values are bytes; what `getBinaryFast` and ranges give is valid until the next call only. */
export type LmdbDatabase = Database<Buffer, Buffer>;
export type LmdbRoot = RootDatabase<Buffer, Buffer>;

/**
 * Opens the environment in the folder `path` (which exists); its files get mode 600. One process may open an environment
 * once only; several processes may have it open at the same time. A file that is no database throws (`isDamaged`), what
 * the disk refuses is 'io'.
 */
export function openLmdb(path: string, options: Omit<RootDatabaseOptions, 'path'> = {}): LmdbRoot {
  inspect(path);
  const root = inWords(path, () =>
    open<Buffer, Buffer>(path, { encoding: 'binary', keyEncoding: 'binary', ...options }),
  );
  for (const name of ['data.mdb', 'lock.mdb']) chmodSync(join(path, name), 0o600);
  return root;
}

const INVALID = -30793;
/** Codes of LMDB that say that the database itself does not hold. */
const DAMAGE = new Set([
  -30797, // MDB_PAGE_NOTFOUND
  -30796, // MDB_CORRUPTED
  -30795, // MDB_PANIC
  -30794, // MDB_VERSION_MISMATCH
  INVALID,
]);

/** Tells a damaged database, which can only be built anew, from a full disk and the like. */
export function isDamaged(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'number' && DAMAGE.has(code);
}

/** Names of the errors that a disk or file system gives to the library, which passes on their numbers. */
const NAMES: Readonly<Record<number, string>> = { 5: 'EIO', 13: 'EACCES', 28: 'ENOSPC', 30: 'EROFS', 122: 'EDQUOT' };
const EIO = 5;
/** Less than this is a full disk: the library writes pages of a transaction in pieces of some 100 KiB. */
const ROOM = 1024 * 1024;
/** What a new database needs, lock file and all. */
const ROOM_TO_BEGIN = 128 * 1024;

/** Does something with the database in the folder `path`. What the disk refuses is thrown as 'io', damage as it comes. */
export function inWords<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof RozenError || isDamaged(cause)) throw cause;
    const { code, message } = cause as { code?: unknown; message: string };
    if (typeof code !== 'number') throw cause;
    // The library takes a write that a full disk has cut short for EIO.
    if (code === EIO && free(path) < ROOM) throw full(path, cause);
    const name = NAMES[code];
    if (name === 'ENOSPC') throw full(path, cause);
    throw new RozenError('io', `${path}: ${name === undefined ? message : reasonOf({ code: name })}`, {
      cause,
      hint: 'check the disk of that folder',
    });
  }
}

function full(path: string, cause?: unknown): RozenError {
  return new RozenError('io', `${path}: ${reasonOf({ code: 'ENOSPC' })}`, {
    cause,
    hint: 'free some space and run the same command again',
  });
}

/** Bytes that may still be written. */
function free(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Of the two meta pages (MDB_page header of 24 bytes, then MDB_meta): page flags, magic, version, page size, last page used. */
const META = { flags: 18, magic: 24, version: 28, pageSize: 48, lastPage: 144, length: 160 } as const;
const META_FLAG = 0x08;
const MAGIC = 0xbeefc0de;
const FORMAT = 2;

/**
 * What the library would die of, it must not see: no room for a new database (SIGSEGV), a file that is none (SIGSEGV), and one
 * that was cut by a full disk or a careless copy (SIGBUS at the first look behind its end). A cut one is lengthened by zeros,
 * which are an error that can be caught; fallocate never shortens what another process has lengthened meanwhile.
 */
function inspect(folder: string): void {
  const path = join(folder, 'data.mdb');
  let fd: number;
  try {
    fd = openSync(path, 'r+');
  } catch {
    requireRoom(folder);
    return;
  }
  try {
    const { size } = fstatSync(fd);
    if (size === 0) {
      requireRoom(folder);
      return;
    }
    const meta = Buffer.alloc(META.length);
    let needed = 0;
    let pageSize = 0;
    for (const page of [0, 1]) {
      const read = readSync(fd, meta, 0, META.length, page * pageSize);
      const version = meta.readUInt32LE(META.version);
      const sound = (meta.readUInt16LE(META.flags) & META_FLAG) !== 0 && meta.readUInt32LE(META.magic) === MAGIC;
      if (read < META.length || !sound || version !== FORMAT) throw invalid(path);
      pageSize = meta.readUInt32LE(META.pageSize);
      if (pageSize < 512 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) throw invalid(path);
      needed = Math.max(needed, (Number(meta.readBigUInt64LE(META.lastPage)) + 1) * pageSize);
    }
    if (!Number.isSafeInteger(needed)) throw invalid(path);
    if (needed > size) libc().fallocate(fd, 0, 0, needed);
  } finally {
    closeSync(fd);
  }
}

/** For a database that is to be begun. */
function requireRoom(folder: string): void {
  if (free(folder) < ROOM_TO_BEGIN) throw full(folder);
}

function invalid(path: string): Error {
  return Object.assign(new Error(`${path} is not a database`), { code: INVALID });
}
