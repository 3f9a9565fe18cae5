import { userInfo } from 'node:os';

/** Who runs this, for the record of a snapshot. */
export function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A uid without a passwd entry, as in containers.
    return String(process.getuid?.() ?? '');
  }
}
