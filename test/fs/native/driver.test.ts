import { execFileSync } from 'node:child_process';
import { driverContract } from '../../contract/driver.ts';
import { mountObstacle } from '../kernel/mounted.ts';

/** Why fuse-native cannot be tested here, or null. On CI that is a failure, not a skip. */
function obstacle(): string | null {
  const mount = mountObstacle();
  if (mount !== null) return mount;
  try {
    // In a process of its own: one that has loaded the package does not end by itself.
    execFileSync(process.execPath, ['-e', "require('fuse-native'); process.exit(0)"], { stdio: 'pipe' });
    return null;
  } catch (error) {
    if (process.env.CI === 'true') throw error;
    return (error as Error).message;
  }
}

driverContract(
  'fuse-native',
  {
    byteNames: false,
    wideInodes: false,
    exactTimes: false,
    birthTimes: false,
    holes: false,
    acls: false,
    handles: false,
  },
  obstacle(),
);
