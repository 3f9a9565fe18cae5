import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile, readlink, stat, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

/** Holds files that are not objects yet. Object names never begin with a dot, so nothing in here is ever listed. */
export const TMP_FOLDER = '.tmp';

/** Files of other machines (a shared disk) are only removed at this age: their processes cannot be asked. */
const FOREIGN_AGE_MS = 24 * 3600 * 1000;

/**
 * Names this boot of this machine and this pid namespace. Within one scope a process id says for certain whether the
 * owner of a staging file is alive; two containers that share a store are two scopes.
 */
export async function processScope(): Promise<string> {
  const read = async (promise: Promise<string>) => promise.catch(() => '');
  const parts = [
    hostname(),
    await read(readFile('/proc/sys/kernel/random/boot_id', 'utf8')),
    await read(readlink('/proc/self/ns/pid')),
  ];
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 16);
}

/** `<scope>-<pid>-<random>`: who stages here can be told from the name alone. */
export function temporaryName(scope: string): string {
  return `${scope}-${process.pid}-${randomBytes(8).toString('hex')}`;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** True when the process that made this staging file is certainly gone, or the file is a day old. */
export async function isAbandoned(path: string, name: string, scope: string): Promise<boolean> {
  const [owner, pid] = name.split('-');
  if (owner === scope && pid !== undefined && /^[0-9]+$/.test(pid)) return !isAlive(Number(pid));
  const info = await stat(path).catch(() => null);
  return info !== null && Date.now() - info.mtimeMs > FOREIGN_AGE_MS;
}

/** Removes what killed writers left. Never fails: sweeping is housekeeping. */
export async function sweepStaging(root: string, scope: string): Promise<void> {
  const folder = join(root, TMP_FOLDER);
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name);
    if (await isAbandoned(path, name, scope)) await unlink(path).catch(() => {});
  }
}
