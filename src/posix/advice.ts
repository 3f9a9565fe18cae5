/** What the kernel is told of files ahead of reading them. */
import { libc } from './libc.ts';

const POSIX_FADV_WILLNEED = 3;
/**
 * Of one call the kernel reads no more than the larger of the device's read-ahead and its largest request (mm/readahead.c,
 * force_page_cache_ra), and says nothing of the rest: 128 KiB are its read-ahead where nobody has set another.
 */
const STEP = 128 * 1024;

/** These bytes will be read soon: the kernel reads them in the background. A hint: nothing is reported. Linux only. */
export function willNeed(fd: number, offset: number, length: number): void {
  if (process.platform !== 'linux') return;
  const { posix_fadvise } = libc();
  const end = offset + length;
  for (let at = offset; at < end; at += STEP) posix_fadvise(fd, at, Math.min(STEP, end - at), POSIX_FADV_WILLNEED);
}

/** As `willNeed`, of a whole file by one call: what the kernel takes of it. For small files. */
export function willNeedAll(fd: number): void {
  if (process.platform === 'linux') libc().posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
}
