import { stat } from 'node:fs/promises';
import { RozenError } from '../errors.ts';

/** Size of a local file that is to become an object; an 'io' error that names it, not the object, when it is not there. */
export async function fileSize(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (cause) {
    throw new RozenError('io', `cannot read ${path}: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  }
}
