/** What `add` answers, from what a worker wrote into a slab. */
import { getSystemErrorName } from 'node:util';
import { reasonOf } from '../../posix/reason.ts';
import type { FileLayout } from './layout.ts';
import { READS } from './scan.ts';
import { FILE, FILE_WIDTH, type Slab, STATUS } from './slab.ts';
import type { FileToStore, StoredFile } from './types.ts';

/** A file stored as the walk saw it, but for `more`. */
export function answer(file: FileToStore, more: Partial<StoredFile>): StoredFile {
  const { dev, ino, size, mtimeSec, mtimeNs } = file;
  return {
    status: 'stored',
    dev,
    ino,
    size,
    mtimeSec,
    mtimeNs,
    restat: false,
    contentId: Buffer.alloc(0),
    extents: [],
    newBytes: 0,
    retries: 0,
    ...more,
  };
}

/** For STATUS.stored and STATUS.changed, after the file is laid out. `index` is its row in the slab. */
export function answerRead(
  file: FileToStore,
  read: { layout: FileLayout; slab: Slab; index: number; contentId: Buffer; retries: number },
): StoredFile {
  const { layout, contentId, retries } = read;
  const row = read.index * FILE_WIDTH;
  const column = (name: keyof typeof FILE): number => read.slab.files[row + FILE[name]]!;
  const size = column('actualSize');
  const mtimeSec = column('mtimeSec');
  const mtimeNs = column('mtimeNs');
  const dev = column('dev');
  const ino = column('ino');
  const changed = column('status') === STATUS.changed;
  const isOther =
    size !== file.size ||
    mtimeSec !== file.mtimeSec ||
    mtimeNs !== file.mtimeNs ||
    ino !== file.ino ||
    dev !== file.dev;
  return answer(file, {
    ...(changed ? { status: 'changed', error: `it changed during each of ${READS} readings` } : {}),
    dev,
    ino,
    size,
    mtimeSec,
    mtimeNs,
    restat: changed || isOther,
    contentId,
    extents: layout.extents,
    newBytes: layout.newBytes,
    retries,
  });
}

/** For STATUS.vanished and STATUS.unreadable. */
export function answerLost(file: FileToStore, slab: Slab, index: number): StoredFile {
  const row = index * FILE_WIDTH;
  const errno = slab.files[row + FILE.errno]!;
  return answer(file, {
    status: slab.files[row + FILE.status] === STATUS.vanished ? 'vanished' : 'unreadable',
    error: errno === 0 ? 'something else stands in its place' : systemError(errno),
    size: 0,
  });
}

function systemError(errno: number): string {
  try {
    return reasonOf({ code: getSystemErrorName(errno) });
  } catch {
    return `error ${-errno}`;
  }
}
