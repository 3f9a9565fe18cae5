import { createHash } from 'node:crypto';
import { constants, link, open, readFile, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { RozenError } from '../errors.ts';
import { isAbandoned } from './local-staging.ts';

/** Errors of link(2) that mean "not here": another file system, or one without hard links. */
const NO_LINK = new Set(['EXDEV', 'EPERM', 'EMLINK', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP']);

/** Makes the entries of a folder durable. File systems that cannot sync a folder say EINVAL or the like: no harm done. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EINVAL' && code !== 'EBADF' && code !== 'ENOTSUP' && code !== 'EISDIR' && code !== 'EPERM')
      throw error;
  } finally {
    await handle.close();
  }
}

/** Gives `source` its final name if that is free: 'done', 'exists', or 'no-link' when this file system has no hard links. */
export async function publishByLink(source: string, target: string): Promise<'done' | 'exists' | 'no-link'> {
  try {
    await link(source, target);
    return 'done';
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code === 'EEXIST') return 'exists';
    if (NO_LINK.has(code)) return 'no-link';
    throw error;
  }
}

/**
 * The same for file systems without hard links (FAT, some network ones), where rename(2) would overwrite. Writers of one
 * name take turns by an exclusively created claim file; a claim whose maker is dead is broken.
 */
export async function publishByRename(source: string, target: string, scope: string): Promise<'done' | 'exists'> {
  const folder = dirname(source);
  const claim = join(folder, `claim-${createHash('sha256').update(target).digest('hex').slice(0, 32)}`);
  for (let attempt = 0; ; attempt++) {
    try {
      await writeFile(claim, basename(source), { flag: 'wx', mode: 0o600 });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const owner = await readFile(claim, 'utf8').catch(() => '');
      if (await isBroken(claim, owner, scope)) await unlink(claim).catch(() => {});
      else if (attempt > 600) throw new RozenError('locked', `${claim} is held by another writer`, { retryable: true });
      else await delay(20);
    }
  }
  try {
    if ((await stat(target).catch(() => null)) !== null) return 'exists';
    await rename(source, target);
    return 'done';
  } finally {
    await unlink(claim).catch(() => {});
  }
}

/** An empty claim is one whose maker died, or is just about to write its name. */
async function isBroken(claim: string, owner: string, scope: string): Promise<boolean> {
  if (owner !== '') return isAbandoned(claim, owner, scope);
  const info = await stat(claim).catch(() => null);
  return info !== null && Date.now() - info.mtimeMs > 60_000;
}
