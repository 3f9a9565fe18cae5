/** Reads a local file to its end and names its content, holding still for nothing but the file itself. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { setImmediate as breathe } from 'node:timers/promises';
import { Blake3Stream } from '../../archive/crypto/blake3.ts';
import { RozenError } from '../../errors.ts';
import { descriptorPath, joinName, openBeneath, openFolder } from '../../posix/folder.ts';
import { fstat, type Stat } from '../../posix/stat.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';

const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const BUFFER_SIZE = 1024 * 1024;
/** Others may run after so many bytes. */
const BREATH = 8 * 1024 * 1024;
const READS = 3;
const MAX_PATH = 4095;

export interface LocalHash {
  /** 'changing': it did not hold still during three reads. 'vanished': it is gone, or no regular file any more. */
  status: 'read' | 'changing' | 'vanished' | 'unreadable';
  error: Error | null;
  contentId: Buffer;
  stat: Stat | null;
}

/** What the walk saw at a path, of which only the first `trusted` bytes may lead through symlinks. */
export interface Walked {
  dev: number;
  ino: number;
  trusted: number;
}

const NOTHING = Buffer.alloc(0);

export class LocalHasher {
  bytes = 0;
  readonly #hash: Blake3Stream;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  readonly #zeroId: Buffer;

  constructor(contentIdKey: Buffer) {
    this.#hash = Blake3Stream.keyed(contentIdKey);
    this.#zeroId = this.#hash.digest();
  }

  /** The id of no bytes at all. */
  get emptyId(): Buffer {
    return this.#zeroId;
  }

  /** `walked`: another file that stands there now is not read through a symlink that has come since. */
  async hash(path: Buffer, tick: () => void = () => {}, walked: Walked | null = null): Promise<LocalHash> {
    let fd = -1;
    let folder = -1;
    try {
      let name = path;
      if (path.length > MAX_PATH) {
        const slash = path.lastIndexOf(0x2f);
        folder = openFolder(path.subarray(0, slash));
        name = joinName(descriptorPath(folder), path.toString('latin1', slash + 1));
      }
      fd = openSync(name, OPEN_FLAGS);
      if (walked !== null && !isSame(fstat(fd), walked)) {
        const other = openBeneath(path, walked.trusted, OPEN_FLAGS);
        closeSync(fd);
        fd = other;
      }
      for (let reads = 1; ; reads++) {
        const before = { ...fstat(fd) };
        if ((before.mode & S_IFMT) !== S_IFREG)
          return { status: 'vanished', error: null, contentId: NOTHING, stat: null };
        const contentId = await this.#read(fd, tick);
        const after = { ...fstat(fd) };
        const still =
          before.size === after.size &&
          before.mtimeSec === after.mtimeSec &&
          before.mtimeNs === after.mtimeNs &&
          before.ctimeSec === after.ctimeSec &&
          before.ctimeNs === after.ctimeNs;
        if (still) return { status: 'read', error: null, contentId, stat: after };
        if (reads >= READS) return { status: 'changing', error: null, contentId: NOTHING, stat: null };
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === undefined || error instanceof RozenError) throw error;
      const gone = code === 'ENOENT' || code === 'ELOOP' || code === 'ENOTDIR';
      return { status: gone ? 'vanished' : 'unreadable', error: error as Error, contentId: NOTHING, stat: null };
    } finally {
      if (fd >= 0) closeSync(fd);
      if (folder >= 0) closeSync(folder);
    }
  }

  async #read(fd: number, tick: () => void): Promise<Buffer> {
    const hash = this.#hash.reset();
    let sinceBreath = 0;
    for (let at = 0; ; ) {
      const got = readSync(fd, this.#buffer, 0, BUFFER_SIZE, at);
      if (got === 0) break;
      hash.update(this.#buffer.subarray(0, got));
      at += got;
      this.bytes += got;
      sinceBreath += got;
      if (sinceBreath >= BREATH) {
        sinceBreath = 0;
        tick();
        await breathe();
      }
    }
    return hash.digest();
  }
}

function isSame({ dev, ino }: Stat, walked: Walked): boolean {
  return dev === walked.dev && ino === walked.ino;
}
