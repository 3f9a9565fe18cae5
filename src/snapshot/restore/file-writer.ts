/**
 * One regular file of the target. It is made under its real name and gets its modification time last of all: a file with
 * size and time of the snapshot is whole, whatever ended the run before (short of a power failure, which --verify finds).
 * Where something stands already, the new file is made under a temporary name and takes its place when it is whole.
 */
import { constants, ftruncateSync, readSync, renameSync, unlinkSync } from 'node:fs';
import { BLOCK_SIZE } from '../../archive/format.ts';
import { Miss, type MissTarget } from '../../cache/miss.ts';
import { corrupt } from '../../errors.ts';
import { closeDescriptor, cName, openAt, setModified, writeAt } from '../../posix/at.ts';
import { EACCES, EEXIST } from '../../posix/errno.ts';
import { descriptorPath } from '../../posix/folder.ts';
import { PosixError } from '../../posix/libc.ts';
import { emptyStat, statAt } from '../../posix/stat.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { BlockWindow } from './block-window.ts';
import type { FileItem } from './messages.ts';
import { Occupied } from './occupied.ts';
import type { Settler } from './settle.ts';
import type { RestoreClass } from './types.ts';

const CREATE = constants.O_CREAT | constants.O_EXCL;
/** Of a file that must be worked on by name while it is made: nobody else gets in meanwhile. */
const PRIVATE = 0o600;

export interface FileWriterOptions {
  blocks: BlockWindow;
  settler: Settler;
  verify: boolean;
  temporary: string;
  /** Makes a sealed frame available. */
  fetch(miss: Extract<MissTarget, { kind: 'frame' }>): Promise<void>;
  /** It is at this block of an archive, and goes on to the last. */
  ahead(archive: number, block: number, last: number): void;
  /** Content bytes written or compared. */
  progress(bytes: number): void;
}

/** Where a file goes. `group`: of files that are made there. */
export interface Destination {
  dirfd: number;
  group: number;
  /** The name with its NUL. */
  nameZ: Buffer;
}

export class FileWriter {
  readonly #options: FileWriterOptions;
  readonly #uid = process.geteuid!();
  readonly #stat = emptyStat();
  readonly #scratch = Buffer.allocUnsafeSlow(BLOCK_SIZE);
  readonly #flags: number;

  constructor(options: FileWriterOptions) {
    this.#options = options;
    this.#flags = CREATE | (options.verify ? constants.O_RDWR : constants.O_WRONLY);
  }

  /** Throws RozenError 'corrupt', Occupied, or an error of the operating system; then what stood there still stands. */
  async restore(item: FileItem, to: Destination): Promise<RestoreClass> {
    const fd = openAt(to.dirfd, to.nameZ, this.#flags, this.#birthMode(item));
    if (fd >= 0) {
      try {
        await this.#fill(fd, item, to, item.name);
      } catch (error) {
        unlinkSync(pathOf(to.dirfd, item.name));
        throw error;
      } finally {
        closeDescriptor(fd);
      }
      return 'new';
    }
    if (fd !== -EEXIST) throw new PosixError(-fd, 'open', item.name);
    return (await this.#stands(item, to)) ? 'kept' : this.#replace(item, to);
  }

  #birthMode(item: FileItem): number {
    return item.xattrs.length > 0 ? PRIVATE : item.mode & 0o777;
  }

  async #fill(fd: number, item: FileItem, to: Destination, name: Buffer): Promise<void> {
    let end = 0;
    await this.#content(item, (bytes, offset) => {
      writeAt(fd, bytes, offset);
      end = offset + bytes.length;
      return true;
    });
    if (end < item.size) ftruncateSync(fd, item.size);
    if (this.#options.verify && !(await this.#holds(fd, item))) {
      throw corrupt('what was written reads back differently', { hint: 'the disk of the target may be failing' });
    }
    const born = { uid: this.#uid, gid: to.group, mode: this.#birthMode(item) };
    this.#options.settler.file(fd, () => pathOf(to.dirfd, name), born, item);
    setModified(fd, item.mtimeSec, item.mtimeNs);
  }

  /** True when the file is there already; its attributes are then set right. */
  async #stands(item: FileItem, { dirfd, nameZ }: Destination): Promise<boolean> {
    const stat = this.#stat;
    const errno = statAt(dirfd, nameZ, stat);
    if (errno !== 0) throw new PosixError(errno, 'stat', item.name);
    if ((stat.mode & S_IFMT) === S_IFDIR) throw new Occupied('a folder stands in its place');
    if ((stat.mode & S_IFMT) !== S_IFREG || stat.size !== item.size) return false;
    if (stat.mtimeSec !== item.mtimeSec || stat.mtimeNs !== item.mtimeNs) return false;
    if (this.#options.verify) {
      const fd = openAt(dirfd, nameZ, constants.O_RDONLY | constants.O_NONBLOCK, 0);
      if (fd === -EACCES) return false;
      if (fd < 0) throw new PosixError(-fd, 'open', item.name);
      try {
        if (!(await this.#holds(fd, item))) return false;
      } finally {
        closeDescriptor(fd);
      }
    } else this.#options.progress(item.size);
    this.#options.settler.kept(dirfd, item.name, stat, item);
    return true;
  }

  async #replace(item: FileItem, to: Destination): Promise<RestoreClass> {
    const { dirfd } = to;
    // The same in every run, so that what a killed one left is found here.
    const temporary = Buffer.from(`${this.#options.temporary}${item.inode}`);
    const open = (): number => openAt(dirfd, cName(temporary), this.#flags, this.#birthMode(item));
    let fd = open();
    if (fd === -EEXIST) {
      unlinkSync(pathOf(dirfd, temporary));
      fd = open();
    }
    if (fd < 0) throw new PosixError(-fd, 'open', temporary);
    try {
      await this.#fill(fd, item, to, temporary);
      renameSync(pathOf(dirfd, temporary), pathOf(dirfd, item.name));
    } catch (error) {
      unlinkSync(pathOf(dirfd, temporary));
      throw error;
    } finally {
      closeDescriptor(fd);
    }
    return 'replaced';
  }

  /** True when an open file holds exactly this content. */
  async #holds(fd: number, item: FileItem): Promise<boolean> {
    let same = true;
    let at = 0;
    const zeros = (end: number): void => {
      while (same && at < end) {
        const length = Math.min(end - at, BLOCK_SIZE);
        same = this.#read(fd, length, at) && isZero(this.#scratch.subarray(0, length));
        at += length;
      }
    };
    await this.#content(item, (bytes, offset) => {
      zeros(offset);
      if (same) same = this.#read(fd, bytes.length, offset) && bytes.equals(this.#scratch.subarray(0, bytes.length));
      at = offset + bytes.length;
      return same;
    });
    zeros(item.size);
    return same;
  }

  #read(fd: number, length: number, offset: number): boolean {
    let done = 0;
    while (done < length) {
      const read = readSync(fd, this.#scratch, done, length - done, offset + done);
      if (read === 0) return false;
      done += read;
    }
    return true;
  }

  /** Gives the content piece by piece, holes left out; ends early when `visit` answers false. */
  async #content(item: FileItem, visit: (bytes: Buffer, offset: number) => boolean): Promise<void> {
    const { blocks, fetch, ahead, progress } = this.#options;
    for (const piece of item.pieces) {
      if (piece.archive === 0) {
        progress(piece.length);
        continue;
      }
      const end = piece.streamOffset + piece.length;
      const last = Math.floor((end - 1) / BLOCK_SIZE);
      for (let at = piece.streamOffset; at < end; ) {
        const block = Math.floor(at / BLOCK_SIZE);
        const start = block * BLOCK_SIZE;
        const upTo = Math.min(end - start, BLOCK_SIZE);
        let bytes: Buffer | null = null;
        ahead(piece.archive, block, last);
        while (bytes === null) {
          try {
            bytes = blocks.block(piece.archive, block, upTo);
          } catch (error) {
            if (!(error instanceof Miss) || error.target.kind !== 'frame') throw error;
            await fetch(error.target);
          }
        }
        if (!visit(bytes.subarray(at - start, upTo), piece.offset + at - piece.streamOffset)) return;
        progress(start + upTo - at);
        at = start + upTo;
      }
    }
  }
}

function pathOf(dirfd: number, name: Buffer): Buffer {
  return Buffer.concat([descriptorPath(dirfd), name]);
}

const ZEROS = Buffer.alloc(BLOCK_SIZE);

function isZero(bytes: Buffer): boolean {
  return bytes.equals(ZEROS.subarray(0, bytes.length));
}
