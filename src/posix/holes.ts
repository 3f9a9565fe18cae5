/** Sparse files: where the data lies, and giving blocks back. */

import { EINVAL, ENXIO, EOPNOTSUPP } from './errno.ts';
import { check, libc, PosixError } from './libc.ts';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02;

export interface DataRange {
  offset: number;
  length: number;
}

/**
 * The ranges of an open file below `size` that hold data, in order; everything between them is a hole. A filesystem
 * that knows no holes gives one range. Moves the descriptor's file position.
 */
export function dataRanges(fd: number, size: number): DataRange[] {
  const whole = size > 0 ? [{ offset: 0, length: size }] : [];
  if (process.platform !== 'linux') return whole;
  const c = libc();
  const ranges: DataRange[] = [];
  for (let at = 0; at < size; ) {
    const start = c.lseek(fd, at, SEEK_DATA);
    if (start < 0) {
      const errno = c.errno();
      if (errno === ENXIO) break;
      if (errno === EINVAL || errno === EOPNOTSUPP) return whole;
      throw new PosixError(errno, 'lseek SEEK_DATA');
    }
    if (start >= size) break;
    const end = Math.min(size, check(c.lseek(fd, start, SEEK_HOLE), 'lseek SEEK_HOLE'));
    if (end <= start) break;
    ranges.push({ offset: start, length: end - start });
    at = end;
  }
  return ranges;
}

/** Gives the blocks of a range back to the filesystem, size unchanged; false where that cannot be done. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  if (process.platform !== 'linux' || length <= 0) return false;
  const c = libc();
  if (c.fallocate(fd, KEEP_SIZE_PUNCH_HOLE, offset, length) === 0) return true;
  const errno = c.errno();
  if (errno === EOPNOTSUPP) return false;
  throw new PosixError(errno, 'fallocate PUNCH_HOLE');
}
