/** Who keeps a mount point busy: processes with a working folder, root, open file, program or mapping in it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Holder {
  pid: number;
  command: string;
  /** The first path found, and how it is held. */
  path: string;
  how: 'working folder' | 'root folder' | 'program' | 'open file' | 'mapped file';
}

/** Reads /proc only, never the mount. Without privileges only the user's own processes are seen. */
export function findHolders(mountpoint: string): Holder[] {
  const holders: Holder[] = [];
  const inside = (path: string): boolean => path === mountpoint || path.startsWith(`${mountpoint}/`);
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const found = holds(pid, inside);
    if (found !== null) holders.push({ pid, command: command(pid), ...found });
  }
  return holders;
}

function command(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '?';
  }
}

function holds(pid: number, inside: (path: string) => boolean): Pick<Holder, 'path' | 'how'> | null {
  const places = [
    ['cwd', 'working folder'],
    ['root', 'root folder'],
    ['exe', 'program'],
  ] as const;
  for (const [name, how] of places) {
    const path = link(`/proc/${pid}/${name}`);
    if (path !== null && inside(path)) return { path, how };
  }
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const path = link(`/proc/${pid}/fd/${fd}`);
      if (path !== null && inside(path)) return { path, how: 'open file' };
    }
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const path = line.slice(line.indexOf('/'));
      if (line.includes('/') && inside(path)) return { path, how: 'mapped file' };
    }
  } catch {
    // Another user's process, or one that has just ended.
  }
  return null;
}

function link(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

/** `bash (1234, working folder /mnt/a), less (77, open file /mnt/a/b)` */
export function describeHolders(holders: readonly Holder[]): string {
  const shown = holders.slice(0, 8).map(({ pid, command: name, path, how }) => `${name} (${pid}, ${how} ${path})`);
  if (holders.length > shown.length) shown.push(`and ${holders.length - shown.length} more`);
  return shown.join(', ');
}
