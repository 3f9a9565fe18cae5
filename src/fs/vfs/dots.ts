/** What every listing of a folder begins with: `.` and `..`, whose cookies are 1 and 2. */
import type { DirectoryEntry, DirectorySink } from '../vfs.ts';
import { S_IFDIR } from './nodes.ts';

export const DOTS = [Buffer.from('.'), Buffer.from('..')] as const;

/** Cookie of the last of the two. */
export const FIRST_ROW = DOTS.length;

interface Node {
  slot: number;
  ino: number;
}

/** Adds those that come after `cookie`. False: there is no more room. */
export function addDots(
  place: Node & { parent: Node },
  { cookie, sink }: { cookie: number; sink: DirectorySink },
  entry: DirectoryEntry,
): boolean {
  const { attr } = entry;
  for (let index = cookie; index < FIRST_ROW; index++) {
    const node = index === 0 ? place : place.parent;
    attr.slot = node.slot;
    attr.ino = node.ino;
    attr.mode = S_IFDIR;
    attr.complete = false;
    if (!addName(entry, DOTS[index]!, index + 1, sink)) return false;
  }
  return true;
}

/** Adds an entry whose attributes are filled in. False: there is no more room. */
export function addName(entry: DirectoryEntry, name: Buffer, cookie: number, sink: DirectorySink): boolean {
  entry.source = name;
  entry.start = 0;
  entry.end = name.length;
  entry.cookie = cookie;
  return sink.add(entry);
}
