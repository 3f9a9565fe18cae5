/** Writes entries of a set back to where they were: what was deleted, or what something else has the name of. */
import { linkSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { RozenError } from '../../errors.ts';
import { joinName } from '../../posix/folder.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import { type Tally, describe as words } from '../backup/tally.ts';
import type { Folder } from '../backup/walk.ts';
import { InodeLookup, S_IFDIR, S_IFMT } from '../view/attributes.ts';
import type { ArchivedContent } from './archived.ts';
import { besideName } from './put-back.ts';

export interface Lost {
  inode: number;
  folder: Folder;
  name: string;
  mode: number;
}

export interface BringBackOptions {
  repository: Repository;
  archived: ArchivedContent;
  /** The snapshot that has them. */
  record: SnapshotRecord;
  tally: Tally;
  signal?: AbortSignal | undefined;
}

export class BringBack {
  readonly #options: BringBackOptions;
  /** Where files are that were written back: further names of theirs are links to it. */
  readonly #files = new Map<number, Buffer>();

  constructor(options: BringBackOptions) {
    this.#options = options;
  }

  /** Restores an entry, and what is below it, where nothing is. False: it could not be done, which is told. */
  async missing(lost: Lost): Promise<boolean> {
    const path = joinName(lost.folder.path, lost.name);
    const first = this.#files.get(lost.inode);
    try {
      if (first !== undefined) {
        linkSync(first, path);
        return true;
      }
      const problems = await this.#restore(lost, path);
      for (const message of problems) this.#tell(path, message);
      if ((lost.mode & S_IFMT) !== S_IFDIR) this.#files.set(lost.inode, path);
      return problems.length === 0;
    } catch (error) {
      if (error instanceof RozenError && error.code === 'interrupted') throw error;
      this.#tell(path, words(error));
      return false;
    }
  }

  /**
   * Restores a file or folder whose name something of another kind has, which is put aside first. A folder that stands there is
   * kept whatever `keep` says: nobody has archived what is in it. Answers null when it could not be done, which is told.
   */
  async displaced(lost: Lost, keep: boolean): Promise<{ keptAs: Buffer | null } | null> {
    const path = joinName(lost.folder.path, lost.name);
    let aside: Buffer | null = null;
    try {
      const stands = lstatSync(path);
      const isFolder = stands.isDirectory();
      if (!isFolder && (lost.mode & S_IFMT) !== S_IFDIR) return await this.#over(lost, path, keep);
      // A folder and a file cannot change places in one step: for a moment the name is free.
      aside = await besideName(path, 'diverged', async (name) => putAside(path, name));
      if (await this.missing(lost)) {
        if (keep || isFolder) return { keptAs: aside };
        unlinkSync(aside);
        return { keptAs: null };
      }
      if (!exists(path)) renameSync(aside, path);
    } catch (error) {
      if (error instanceof RozenError && error.code === 'interrupted') throw error;
      this.#tell(path, words(error));
    }
    return null;
  }

  /** A file over a symlink, fifo or device, in one step. */
  async #over(lost: Lost, path: Buffer, keep: boolean): Promise<{ keptAs: Buffer | null } | null> {
    const keptAs = keep ? await besideName(path, 'diverged', async (name) => linkSync(path, name)) : null;
    if (await this.missing(lost)) return { keptAs };
    if (keptAs !== null) unlinkSync(keptAs);
    return null;
  }

  async #restore({ inode, folder, name, mode }: Lost, path: Buffer): Promise<string[]> {
    const { repository, archived, record, signal } = this.#options;
    const reader = await archived.reader();
    const { restore } = await import('../restore/restore.ts');
    const { describe } = await import('../view/listing.ts');
    const inodes = new InodeLookup(reader);
    const attributes = await reader.archives.retry(() => inodes.get(inode));
    const place = {
      reader,
      snapshot: await describe(repository, record),
      sequence: record.sequence,
      inode,
      path: [Buffer.from(name, 'latin1')],
      attributes,
    };
    const isFolder = (mode & S_IFMT) === S_IFDIR;
    const target = isFolder ? path : folder.path;
    const report = await restore({ place, target, ...(signal === undefined ? {} : { signal }) });
    return report.problems.map(({ message }) => message);
  }

  #tell(path: Buffer, message: string): void {
    this.#options.tally.problem({ kind: 'unreadable', path, message: `not restored: ${message}` });
  }
}

function putAside(path: Buffer, name: Buffer): void {
  if (exists(name)) throw Object.assign(new Error(`${name.toString()} exists`), { code: 'EEXIST' });
  renameSync(path, name);
}

function exists(path: Buffer): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
