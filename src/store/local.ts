import { chmod, constants, copyFile, type FileHandle, mkdir, open, readdir, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { corrupt, RozenError } from '../errors.ts';
import { makeFolders } from '../posix/make-folders.ts';
import { fileSize } from './file-size.ts';
import { publishByLink, publishByRename, syncFolder } from './local-publish.ts';
import { isAbandoned, processScope, sweepStaging, TMP_FOLDER, temporaryName } from './local-staging.ts';
import {
  type ColdState,
  checkObjectName,
  DEFAULT_GET_LIMIT,
  frontOf,
  isObjectName,
  type Keeping,
  type ObjectInfo,
  type ObjectStore,
  objectExists,
  objectNotFound,
  objectTooLarge,
  objectTooShort,
  type Unfinished,
} from './object-store.ts';

export interface LocalStoreOptions {
  /** False takes the way of file systems without hard links (tests). */
  hardLinks?: boolean;
}

/** errno that a later, equal call may not meet again. */
const RETRYABLE = new Set(['EAGAIN', 'EBUSY', 'EINTR', 'EIO', 'EMFILE', 'ENFILE', 'ESTALE', 'ETIMEDOUT']);

/**
 * Objects as read-only files below one folder. A writer stages in `.tmp/`, syncs, and gives the file its final name with
 * link(2), which fails when the name is taken: create-only and atomic for any number of processes. Modes follow the root
 * folder's: whoever may enter it may read the objects, nobody may change them.
 */
export class LocalStore implements ObjectStore {
  readonly location: string;
  readonly #hardLinks: boolean;
  #rootMode: number | null = null;
  #scope: Promise<string> | null = null;
  /** Folders known to exist and to be synced into their parents. */
  readonly #folders = new Set<string>();

  constructor(root: string, options: LocalStoreOptions = {}) {
    this.location = resolve(root);
    this.#hardLinks = options.hardLinks ?? true;
  }

  async prepare(): Promise<void> {
    await this.#translate('', async () => {
      if ((await stat(this.location).catch(() => null))?.isDirectory() === false) {
        throw new RozenError('usage', `${this.location} is not a folder`, { hint: 'choose another place' });
      }
      const first = makeFolders(this.location);
      if (first !== undefined) await syncFolder(dirname(first.toString()));
    });
  }

  localPath(name: string): string {
    checkObjectName(name);
    return join(this.location, name);
  }

  async get(name: string, limit = DEFAULT_GET_LIMIT): Promise<Buffer> {
    return this.#read(name, async (file, size) => {
      if (size > limit) throw objectTooLarge({ location: this.location, name, size, limit });
      return this.#exactly({ file, name, offset: 0, length: size });
    });
  }

  async getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer> {
    return this.#read(name, async (file, size) => {
      // Before the allocation: the length may come from a damaged index.
      if (offset < 0 || length < 0 || offset + length > size) throw this.#short(name, offset + length, size);
      return this.#exactly({ file, name, offset, length, target });
    });
  }

  async getSuffix(name: string, length: number): Promise<{ bytes: Buffer; size: number }> {
    return this.#read(name, async (file, size) => {
      const wanted = Math.min(length, size);
      return { bytes: await this.#exactly({ file, name, offset: size - wanted, length: wanted }), size };
    });
  }

  async stat(name: string): Promise<{ size: number; modified: number } | null> {
    const path = this.localPath(name);
    return this.#translate(name, async () => {
      try {
        const info = await stat(path);
        return info.isFile() ? { size: info.size, modified: info.mtimeMs } : null;
      } catch (error) {
        if (isAbsent(error)) return null;
        throw error;
      }
    });
  }

  async put(name: string, bytes: Uint8Array): Promise<void> {
    const target = this.localPath(name);
    await this.#translate(name, async () => {
      const staged = await this.#stage();
      try {
        const file = await open(staged, 'wx', 0o600);
        try {
          await file.writeFile(bytes);
          await file.chmod((await this.#mode()) & 0o444);
          await file.sync();
        } finally {
          await file.close();
        }
        await this.#publish(staged, target, name);
      } finally {
        await unlink(staged).catch(() => {});
      }
    });
  }

  async putFile(name: string, path: string): Promise<void> {
    const target = this.localPath(name);
    await this.#translate(name, async () => {
      await fileSize(path);
      if (this.#hardLinks && (await this.#linkInto(path, target, name))) return;
      const staged = await this.#stage();
      try {
        await copyFile(path, staged, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
        await this.#seal(staged);
        await this.#publish(staged, target, name);
      } finally {
        await unlink(staged).catch(() => {});
      }
    });
  }

  async coldState(name: string): Promise<ColdState | null> {
    const info = await this.stat(name);
    return info === null ? null : { ...info, storageClass: null, state: 'hot', until: null };
  }

  async thaw(name: string): Promise<void> {
    checkObjectName(name);
    throw new RozenError('unsupported', `${this.location}: nothing is ever frozen in a folder`);
  }

  async *list(prefix: string, options: { after?: string } = {}): AsyncIterable<ObjectInfo> {
    if (prefix !== '' && !isObjectName(prefix.endsWith('/') ? prefix.slice(0, -1) : prefix)) checkObjectName(prefix);
    const slash = prefix.lastIndexOf('/');
    yield* this.#walk(prefix.slice(0, slash + 1), prefix, options.after ?? '');
  }

  async delete(name: string): Promise<void> {
    const path = this.localPath(name);
    await this.#translate(name, async () => {
      try {
        await unlink(path);
        await syncFolder(dirname(path));
      } catch (error) {
        if (!isAbsent(error)) throw error;
      }
    });
  }

  /** A file system has no classes, and whoever owns a folder can always empty it. */
  keep(): void {}

  async cannotKeep({ storageClass, lockDays }: Keeping): Promise<RozenError | null> {
    if (storageClass === undefined && lockDays === undefined) return null;
    const what = storageClass === undefined ? 'Object Lock' : 'storage classes';
    return new RozenError('unsupported', `${this.location}: a folder has no ${what}`, {
      hint: 'these are for repositories in a bucket',
    });
  }

  async retain(): Promise<void> {}

  async lockedUntil(): Promise<null> {
    return null;
  }

  /** Staging files whose makers are gone; the next writer would sweep them too. */
  async *unfinished(): AsyncIterable<Unfinished> {
    const folder = join(this.location, TMP_FOLDER);
    const scope = await processScope();
    for (const id of (await readdir(folder).catch(() => [])).sort()) {
      const path = join(folder, id);
      const info = await stat(path).catch(() => null);
      if (info === null || !(await isAbandoned(path, id, scope))) continue;
      yield { name: `${TMP_FOLDER}/${id}`, id, bytes: info.size, active: info.mtimeMs, stored: false };
    }
  }

  async abandon({ id }: Unfinished): Promise<boolean> {
    await unlink(join(this.location, TMP_FOLDER, basename(id))).catch((error) => {
      if (!isAbsent(error)) throw error;
    });
    return true;
  }

  /** Depth first; a folder sorts as `name/`, so full names come out in byte order, as from S3. */
  async *#walk(folder: string, prefix: string, after: string): AsyncIterable<ObjectInfo> {
    const entries = await this.#translate(folder, async () => {
      try {
        return await readdir(join(this.location, folder), { withFileTypes: true });
      } catch (error) {
        // A folder that no object has needed yet is empty; a root that is gone is an error.
        if (isAbsent(error) && (await stat(this.location).catch(() => null)) !== null) return [];
        throw error;
      }
    });
    const names = entries
      .filter((entry) => isObjectName(entry.name))
      .map((entry) => folder + entry.name + (entry.isDirectory() ? '/' : ''))
      .sort((a, b) => (a < b ? -1 : 1));
    for (const name of names) {
      if (name.endsWith('/')) {
        if (!name.startsWith(prefix) && !prefix.startsWith(name)) continue;
        if (name < after && !after.startsWith(name)) continue;
        yield* this.#walk(name, prefix, after);
      } else if (name.startsWith(prefix) && name > after) {
        const info = await this.stat(name);
        // Deleted between readdir and here, or neither file nor folder: not an object.
        if (info !== null) yield { name, ...info };
      }
    }
  }

  async #read<T>(name: string, use: (file: FileHandle, size: number) => Promise<T>): Promise<T> {
    const path = this.localPath(name);
    return this.#translate(name, async () => {
      // O_NONBLOCK: a fifo that somebody left under an object's name must not hang us.
      const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        const info = await file.stat();
        if (info.isDirectory()) throw objectNotFound(this.location, name);
        if (!info.isFile()) throw corrupt(`${path} is not a regular file`);
        return await use(file, info.size);
      } finally {
        await file.close();
      }
    });
  }

  async #exactly(range: {
    file: FileHandle;
    name: string;
    offset: number;
    length: number;
    target?: Buffer | undefined;
  }): Promise<Buffer> {
    const bytes = frontOf(range.target, range.length);
    for (let done = 0; done < range.length; ) {
      const { bytesRead } = await range.file.read(bytes, done, range.length - done, range.offset + done);
      if (bytesRead === 0) throw this.#short(range.name, range.offset + range.length, range.offset + done);
      done += bytesRead;
    }
    return bytes;
  }

  #short(name: string, expected: number, size: number): RozenError {
    return objectTooShort({ location: this.location, name, size, expected });
  }

  async #mode(): Promise<number> {
    this.#rootMode ??= (await stat(this.location)).mode & 0o777;
    return this.#rootMode;
  }

  /** A fresh path in `.tmp/`; the first call also sweeps what killed writers left there. */
  async #stage(): Promise<string> {
    await this.#makeFolder(join(this.location, TMP_FOLDER));
    this.#scope ??= processScope().then(async (scope) => {
      await sweepStaging(this.location, scope);
      return scope;
    });
    return join(this.location, TMP_FOLDER, temporaryName(await this.#scope));
  }

  async #seal(path: string): Promise<void> {
    await chmod(path, (await this.#mode()) & 0o444);
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** False when the file lies on another file system, which the caller then copies. */
  async #linkInto(path: string, target: string, name: string): Promise<boolean> {
    await this.#makeFolder(dirname(target));
    if ((await stat(path)).nlink > 1) return false;
    await this.#seal(path);
    const outcome = await publishByLink(path, target);
    if (outcome === 'exists') throw objectExists(this.location, name);
    if (outcome === 'no-link') return false;
    await syncFolder(dirname(target));
    await unlink(path).catch(() => {});
    return true;
  }

  async #publish(staged: string, target: string, name: string): Promise<void> {
    await this.#makeFolder(dirname(target));
    let outcome = this.#hardLinks ? await publishByLink(staged, target) : 'no-link';
    if (outcome === 'no-link') outcome = await publishByRename(staged, target, await this.#scope!);
    if (outcome === 'exists') throw objectExists(this.location, name);
    await syncFolder(dirname(target));
  }

  /** Makes the folder and its parents below the root, each durable before anything lies in it. Never makes the root. */
  async #makeFolder(folder: string): Promise<void> {
    if (folder === this.location || this.#folders.has(folder)) return;
    await this.#makeFolder(dirname(folder));
    try {
      const mode = await this.#mode();
      await mkdir(folder, { mode });
      await chmod(folder, mode);
    } catch (error) {
      // ENOTDIR: an object has the name that this folder wants.
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOTDIR') throw objectExists(this.location, relative(this.location, dirname(folder)));
      if (code !== 'EEXIST') throw error;
      if (!(await stat(folder)).isDirectory()) throw objectExists(this.location, relative(this.location, folder));
    }
    await syncFolder(dirname(folder));
    this.#folders.add(folder);
  }

  /** Turns errno into RozenError; object names and the location are all that a message tells. */
  async #translate<T>(name: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof RozenError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === undefined) throw error;
      if (isAbsent(error)) {
        if ((await stat(this.location).catch(() => null)) === null) {
          throw new RozenError('not-found', `${this.location} does not exist`, {
            cause: error,
            hint: 'is its disk mounted? `rozen init` makes a new repository',
          });
        }
        throw objectNotFound(this.location, name);
      }
      const hint = HINTS[code];
      throw new RozenError('io', `${this.location}: ${message}`, {
        cause: error,
        retryable: RETRYABLE.has(code),
        hint,
      });
    }
  }
}

const HINTS: Record<string, string> = {
  EACCES: 'check who owns the folder and its permissions',
  EPERM: 'check who owns the folder and its permissions',
  EROFS: 'the file system is mounted read-only',
  ENOSPC: 'make room on the file system and run the same command again',
  EDQUOT: 'make room within your quota and run the same command again',
};

function isAbsent(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
