import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path/posix';

/**
 * Makes a folder and those above it that are missing; answers the topmost one that was made, undefined if all were there.
 * Without a mode only its owner can enter. Throws the error of the folder that could not be made.
 *
 * Node's own recursive mkdir never returns where mkdir(2) says ENOENT though the parent is there, as in /proc, and says
 * ENOENT for a path below a read-only file system.
 */
export function makeFolders(path: string | Buffer, mode = 0o700): string | Buffer | undefined {
  if (isFolder(path)) return undefined;
  // Latin-1 keeps every byte of a name that is no UTF-8.
  const parent = dirname(Buffer.from(path as Buffer).toString('latin1'));
  const first = makeFolders(Buffer.from(parent, 'latin1'), mode);
  try {
    mkdirSync(path, mode);
    return first ?? path;
  } catch (error) {
    // Somebody else was faster.
    if ((error as NodeJS.ErrnoException).code === 'EEXIST' && isFolder(path)) return first;
    throw error;
  }
}

function isFolder(path: string | Buffer): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
