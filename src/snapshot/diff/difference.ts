import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { Attributes } from '../view/attributes.ts';

/** A folder or file of a snapshot: where a comparison begins. */
export interface SnapshotPlace {
  reader: SnapshotReader;
  /** Number of its record in the lineage. */
  sequence: number;
  inode: number;
  /** Names from the root to here. */
  path: Buffer[];
}

/**
 * added     only in the newer one
 * removed   only in the older one
 * moved     the same file under another path; `from` is the older one. What lies below a moved folder is not told
 * type      another kind of thing under the same path
 * content   other bytes, or another target of a symlink
 * metadata  only mode, owner, time, device or extended attributes; `fields` names them. A folder whose time alone
 *           changed is not told: that follows from what was added or removed in it
 */
export type ChangeKind = 'added' | 'removed' | 'moved' | 'type' | 'content' | 'metadata';

export interface Change {
  kind: ChangeKind;
  /** From the place that was compared, without a slash in front. In the newer snapshot, unless the kind is `removed`. */
  path: Buffer;
  from?: Buffer;
  /** st_mode of the newer one (of the older one when removed). */
  mode: number;
  fields?: string[];
  /** Sizes in bytes; null where there is no such file. */
  olderSize: number | null;
  newerSize: number | null;
}

/** Which attributes differ, by name; without times of change and birth, which say nothing to a person. */
export function differingFields(a: Attributes, b: Attributes): string[] {
  const fields: string[] = [];
  if ((a.mode & 0o7777) !== (b.mode & 0o7777)) fields.push('mode');
  if (a.uid !== b.uid || a.gid !== b.gid) fields.push('owner');
  if (a.mtimeSec !== b.mtimeSec || a.mtimeNs !== b.mtimeNs) fields.push('mtime');
  if (a.rdev !== b.rdev) fields.push('device');
  return fields;
}

/** True for changes that nobody asked about: a folder's time follows from what happens in it. */
export function isIdle(mode: number, fields: readonly string[]): boolean {
  return fields.length === 0 || ((mode & 0o170000) === 0o040000 && fields.length === 1 && fields[0] === 'mtime');
}

export function joinPath(names: readonly Buffer[]): Buffer {
  const parts: Buffer[] = [];
  for (const [i, name] of names.entries()) {
    if (i > 0) parts.push(SLASH);
    parts.push(name);
  }
  return Buffer.concat(parts);
}

const SLASH = Buffer.from('/');
