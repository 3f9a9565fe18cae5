import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Home, PASSPHRASE } from './rozen.ts';

/** Whether a mount can be tested here. On CI it must. */
export function canMount(): boolean {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    if (process.env.CI === 'true') throw new Error('/dev/fuse is missing, and CI=true: the mount tests must run');
    return false;
  }
}

/** A mount point, a repository and in it the set `s`: one file, `file`. Answers the environment with its key. */
export function makeMountable(home: Home): { ROZEN_REPOSITORY: string; ROZEN_PASSWORD: string } {
  const key = { ROZEN_REPOSITORY: home.repo, ROZEN_PASSWORD: PASSPHRASE };
  mkdirSync(join(home.dir, 'mnt'));
  mkdirSync(join(home.dir, 'source'));
  writeFileSync(join(home.dir, 'source/file'), 'content\n');
  home.ok(['init'], key);
  home.ok(['backup', join(home.dir, 'source'), '--set', 's'], key);
  return key;
}
