/** Extended attributes and ACLs of what is backed up. */
import { INODE_FLAGS } from '../../archive/tree/schema.ts';
import { getXattr, listXattrs } from '../../posix/xattr.ts';
import type { Xattr } from './plan.ts';

export interface XattrSet {
  attributes: readonly Xattr[];
  /** INODE_FLAGS that say what is there. */
  flags: number;
  /** False: there may be others, which could not be read. */
  whole: boolean;
}

const NONE: XattrSet = { attributes: [], flags: 0, whole: true };
const UNKNOWN: XattrSet = { ...NONE, whole: false };
/** Sets up to this size are shared between files that have equal ones. */
const SHARED_SIZE = 256;
const SHARED_COUNT = 4096;

export class XattrReader {
  readonly #shared = new Map<string, XattrSet>();
  readonly #failed: (path: Buffer, error: Error) => void;

  /** `failed` hears of attributes that cannot be read. */
  constructor(failed: (path: Buffer, error: Error) => void) {
    this.#failed = failed;
  }

  /** Attributes of a path (symlinks not followed), ascending by name. `shown`: what `failed` is to call it. */
  read(path: Buffer, shown: () => Buffer = () => path): XattrSet {
    let names: readonly Buffer[];
    try {
      names = listXattrs(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#failed(shown(), error as Error);
      return UNKNOWN;
    }
    if (names.length === 0) return NONE;
    const attributes: Xattr[] = [];
    let flags = 0;
    let whole = true;
    let key = '';
    for (const name of [...names].sort(Buffer.compare)) {
      try {
        const value = getXattr(path, name);
        if (value === null) continue;
        attributes.push({ name, value });
        if (key.length < SHARED_SIZE) key += `${name.toString('latin1')}\0${value.length}\0${value.toString('latin1')}`;
        flags |= flagOf(name);
      } catch (error) {
        whole = false;
        this.#failed(shown(), error as Error);
      }
    }
    if (attributes.length === 0) return whole ? NONE : UNKNOWN;
    const set: XattrSet = { attributes, flags, whole };
    if (!whole || key.length >= SHARED_SIZE) return set;
    const known = this.#shared.get(key);
    if (known !== undefined) return known;
    if (this.#shared.size < SHARED_COUNT) this.#shared.set(key, set);
    return set;
  }
}

function flagOf(name: Buffer): number {
  const text = name.toString('latin1');
  if (text === 'system.posix_acl_access') return INODE_FLAGS.xattrs | INODE_FLAGS.accessAcl;
  if (text === 'system.posix_acl_default') return INODE_FLAGS.xattrs | INODE_FLAGS.defaultAcl;
  return INODE_FLAGS.xattrs;
}
