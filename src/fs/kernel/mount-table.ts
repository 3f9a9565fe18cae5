/** What is mounted where, from /proc/self/mountinfo: never touches a mount point, so a dead server cannot block it. */
import { readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

export const MOUNT_TYPE = 'fuse.rozen';

export interface Mounted {
  mountpoint: string;
  /** `major:minor`, as /sys/class/bdi names it. */
  device: string;
  type: string;
  /** What it was mounted from. */
  source: string;
}

/** mountinfo writes space, tab, newline and backslash as octal escapes. */
function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** All mounts of this process's namespace, in the order they were made; later ones cover earlier ones. */
function mounts(): Mounted[] {
  const table: Mounted[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    if (separator < 0) continue;
    table.push({
      mountpoint: unescapeField(fields[4]!),
      device: fields[2]!,
      type: fields[separator + 1]!,
      source: unescapeField(fields[separator + 2]!),
    });
  }
  return table;
}

/** The mount that covers exactly this (real) path, the topmost one. */
export function mountedAt(mountpoint: string): Mounted | undefined {
  return mounts().findLast((mounted) => mounted.mountpoint === mountpoint);
}

/** The real path of a mount point, without touching the mount itself: its parent is resolved, its name kept. */
export function realMountpoint(path: string): string {
  const trimmed = resolve(path);
  if (trimmed === '/' || mountedAt(trimmed) !== undefined) return trimmed;
  const parent = realpathSync(dirname(trimmed));
  const candidate = join(parent, basename(trimmed));
  return mountedAt(candidate) === undefined ? realpathSync(candidate) : candidate;
}
