/** The paths of one backup, laid out as the tree that its snapshot will show. */

import { RozenError } from '../../errors.ts';
import { stringBytes } from '../../posix/folder.ts';
import { lstat, type Stat } from '../../posix/stat.ts';

/**
 * A folder on the way to what is backed up, or something that is: `children` null takes in all that lies there, a map
 * only what it names.
 */
export interface SourceNode {
  children: Map<string, SourceNode> | null;
}

export interface Sources {
  /** Absolute path of what becomes the root folder of the snapshot. */
  top: Buffer;
  node: SourceNode;
  /** Absolute, cleaned, without those that lie in another one; as the snapshot's record names them. */
  paths: Buffer[];
}

const SLASH = 0x2f;
const DOT = 0x2e;

/**
 * A single folder is the root itself; anything else is shown by absolute paths. Paths are cleaned by their text alone
 * (`a/../b` is `b`), as restic does; symbolic links in them are followed when they lead to folders.
 *
 * @throws RozenError 'usage' without any path, 'not-found' when none of them exists
 */
export function layOutSources(paths: readonly Buffer[], workingDirectory = process.cwd()): Sources {
  if (paths.length === 0) throw new RozenError('usage', 'nothing to back up', { hint: 'name at least one path' });
  const whole: SourceNode = { children: null };
  let root: SourceNode = { children: new Map() };
  for (const path of paths) {
    const parts = cleanPath(path, workingDirectory);
    if (parts.length === 0) root = whole;
    let node = root;
    for (const [i, part] of parts.entries()) {
      if (node.children === null) break;
      const known = node.children.get(part);
      if (i === parts.length - 1) node.children.set(part, whole);
      else if (known === undefined) node.children.set(part, { children: new Map() });
      node = node.children.get(part)!;
    }
  }
  const found: Buffer[] = [];
  collect(root, '', found);
  if (!found.some(exists)) {
    throw new RozenError('not-found', `there is nothing at ${found.map(String).join(', ')}`, {
      hint: 'check the paths',
    });
  }
  const only = found[0]!;
  if (found.length === 1 && isFolder(only)) return { top: only, node: whole, paths: found };
  return { top: Buffer.from('/'), node: root, paths: found };
}

/** How many bytes of a folder's path lead to its source, or to itself when it lies in none. */
export function sourceLength(sources: readonly Buffer[], folder: Buffer): number {
  for (const source of sources) {
    const { length } = source;
    if (folder.length < length || source.compare(folder, 0, length) !== 0) continue;
    if (folder.length === length || folder[length] === SLASH || source[length - 1] === SLASH) return length;
  }
  return folder.length;
}

/** Attributes of a source or of a folder above one: a symbolic link to a folder counts as that folder. */
export function sourceStat(path: Buffer, into?: Stat): Stat {
  try {
    return lstat(insidePath(path), into);
  } catch {
    return lstat(path, into);
  }
}

/** `path/.`: the folder behind a path, also where its last step is a symbolic link. */
export function insidePath(path: Buffer): Buffer {
  return Buffer.concat([path, Buffer.from(path[path.length - 1] === SLASH ? '.' : '/.')]);
}

/** The path that `insidePath` was made of: as people know it. */
export function outsidePath(path: Buffer): Buffer {
  const { length } = path;
  if (length < 2 || path[length - 1] !== DOT || path[length - 2] !== SLASH) return path;
  return path.subarray(0, Math.max(1, length - 2));
}

function cleanPath(path: Buffer, workingDirectory: string): string[] {
  if (path.length === 0 || path.includes(0)) {
    throw new RozenError('usage', `'${path}' is no path`, { hint: 'check the paths' });
  }
  const text = path.toString('latin1');
  const absolute = path[0] === SLASH ? text : `${Buffer.from(workingDirectory).toString('latin1')}/${text}`;
  const parts: string[] = [];
  for (const part of absolute.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts;
}

function collect(node: SourceNode, path: string, into: Buffer[]): void {
  if (node.children === null) {
    into.push(stringBytes(path === '' ? '/' : path));
    return;
  }
  for (const name of [...node.children.keys()].sort()) collect(node.children.get(name)!, `${path}/${name}`, into);
}

function exists(path: Buffer): boolean {
  try {
    sourceStat(path);
    return true;
  } catch {
    return false;
  }
}

function isFolder(path: Buffer): boolean {
  return (sourceStat(path).mode & 0o170000) === 0o040000;
}
