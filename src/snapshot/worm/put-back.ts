/** Writes an archived content back to its place: the file there is the old one or the whole new one at any moment. */
import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  linkSync,
  openSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { Blake3Stream } from '../../archive/crypto/blake3.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { setModified } from '../../posix/at.ts';
import { fstat, lstat, type Stat } from '../../posix/stat.ts';
import { Settler, type Wanted } from '../restore/settle.ts';
import type { Attributes } from '../view/attributes.ts';
import { ContentReader } from '../view/content.ts';

const PRIVATE = 0o600;
const CREATE = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW;
/** Room in a name for what is added to it. */
const MAX_NAME = 210;
const TRIES = 100;

export interface PutBack {
  reader: SnapshotReader;
  file: Pick<Attributes, 'inode' | 'version' | 'size'>;
  /** What the content must turn out to be; null where no id is recorded: every block is authentic all the same. */
  contentId: Buffer | null;
  contentIdKey: Buffer;
  path: Buffer;
  /** Further names (hard links) of what stands there: they go on sharing one inode. */
  others: readonly Buffer[];
  wanted: Wanted;
  /** Keep what stands there beside it. */
  keep: boolean;
}

/** Answers the path under which what stood there was kept. Throws 'corrupt' before anything has changed. */
export async function putBack(options: PutBack): Promise<Buffer | null> {
  const { path, wanted, keep } = options;
  const settler = new Settler();
  const temporary = await besideName(path, 'writing', async (name) => {
    const fd = openSync(name, CREATE, PRIVATE);
    try {
      await writeContent(fd, options);
      settler.file(fd, () => name, { ...fstat(fd) }, wanted);
      setModified(fd, wanted.mtimeSec, wanted.mtimeNs);
      fsyncSync(fd);
    } catch (error) {
      unlinkSync(name);
      throw error;
    } finally {
      closeSync(fd);
    }
  });
  let kept: Buffer | null = null;
  const parted: Buffer[] = [];
  try {
    if (keep) kept = await besideName(path, 'diverged', async (name) => linkSync(path, name));
    for (const other of options.others) {
      await putLink(temporary, other);
      parted.push(other);
    }
    renameSync(temporary, path);
    syncFolder(path);
    return kept;
  } catch (error) {
    unlinkSync(temporary);
    for (const other of parted) await putLink(path, other);
    if (kept !== null) unlinkSync(kept);
    throw error;
  }
}

/** Gives a name to another file: it is that of the old one or of the other one at any moment. */
async function putLink(file: Buffer, name: Buffer): Promise<void> {
  const link = await besideName(name, 'writing', async (beside) => linkSync(file, beside));
  try {
    renameSync(link, name);
    syncFolder(name);
  } catch (error) {
    unlinkSync(link);
    throw error;
  }
}

/**
 * The other names of a file, out of those that may be. Throws 'unsupported' when it has more: a name elsewhere would keep what
 * diverged, and be parted from these.
 */
export function otherNames(path: Buffer, { nlink, dev, ino }: Stat, candidates: readonly Buffer[]): Buffer[] {
  if (nlink <= 1) return [];
  const names = candidates.filter((candidate) => {
    if (candidate.equals(path)) return false;
    try {
      const stat = lstat(candidate);
      return stat.dev === dev && stat.ino === ino;
    } catch {
      return false;
    }
  });
  const missing = nlink - 1 - names.length;
  if (missing === 0) return names;
  const others = missing === 1 ? 'another name (hard link)' : `${missing} other names (hard links)`;
  throw new RozenError('unsupported', `it has ${others} outside of the set, which would be parted from it`);
}

async function writeContent(fd: number, { reader, file, contentId, contentIdKey }: PutBack): Promise<void> {
  const hash = Blake3Stream.keyed(contentIdKey);
  let at = 0;
  for await (const piece of new ContentReader(reader).read(file)) {
    hash.update(piece);
    // Zeros need not be written: the file ends where it should all the same, with a hole.
    if (!piece.every((byte) => byte === 0)) {
      for (let done = 0; done < piece.length; ) done += writeSync(fd, piece, done, piece.length - done, at + done);
    }
    at += piece.length;
  }
  ftruncateSync(fd, at);
  if (contentId !== null && !hash.digest().equals(contentId)) {
    throw corrupt('the archived content is not what it should be', { hint: 'run rozen verify --read-data' });
  }
}

/** Does `work` with a name beside `path` that is free, and answers that name. */
export async function besideName(path: Buffer, what: string, work: (name: Buffer) => Promise<void>): Promise<Buffer> {
  const slash = path.lastIndexOf(0x2f);
  const name = path.subarray(slash + 1, slash + 1 + MAX_NAME);
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  for (let count = 1; ; count++) {
    const suffix = `.rozen-${what}-${time}${count === 1 ? '' : `-${count}`}`;
    const beside = Buffer.concat([path.subarray(0, slash + 1), name, Buffer.from(suffix)]);
    try {
      await work(beside);
      return beside;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || count >= TRIES) throw error;
    }
  }
}

function syncFolder(path: Buffer): void {
  const fd = openSync(path.subarray(0, Math.max(1, path.lastIndexOf(0x2f))), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
