import { writeSync } from 'node:fs';

/**
 * One line on stderr, which is the log of a background mount. A line that cannot be written is dropped: the disk of the
 * log may be full, or a terminal may have gone, and a mount must outlive both.
 */
export function logLine(text: string): void {
  try {
    writeSync(2, `${text}\n`);
  } catch {
    // Nobody is left to hear of it.
  }
}

/** A line that says when. */
export function logEvent(text: string): void {
  logLine(`${new Date().toISOString()} ${text}`);
}
