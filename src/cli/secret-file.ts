import { writeFileSync } from 'node:fs';
import { RozenError } from '../errors.ts';

/** Mode 600, and never over a file that is there. */
export function writeSecretFile(path: string, content: string | Uint8Array): void {
  try {
    writeFileSync(path, content, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'EEXIST') throw cause;
    throw new RozenError('exists', `${path} exists already`, { hint: 'choose another name', cause });
  }
}
