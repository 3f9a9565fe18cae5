// What a source folder holds, and how to look at the same place in the mount. Paths are bytes, relative to the two roots.
import { lstatSync, readdirSync } from 'node:fs';
import { lstat } from '../../dist/posix/stat.js';

export const TYPE = {
  mask: 0o170000,
  fifo: 0o010000,
  char: 0o020000,
  folder: 0o040000,
  block: 0o060000,
  file: 0o100000,
  link: 0o120000,
};
/** Longer paths are reached by programs that change into folders; see the check of deep paths. */
const PATH_LIMIT = 3900;

export const typeOf = (stat) => stat.mode & TYPE.mask;
export const isFile = (entry) => typeOf(entry.stat) === TYPE.file;
export const isFolder = (entry) => typeOf(entry.stat) === TYPE.folder;
export const isLink = (entry) => typeOf(entry.stat) === TYPE.link;
export const show = (rel) => JSON.stringify(Buffer.from(rel).toString('latin1'));

export function join(root, rel) {
  return rel.length === 0 ? Buffer.from(root) : Buffer.concat([Buffer.from(`${root}/`), Buffer.from(rel)]);
}

export class Survey {
  constructor(source, mount) {
    this.source = source;
    this.mount = mount;
    /** {rel, stat} of all below the source, folders before what is in them; the root is not among them. */
    this.entries = [];
    this.#walk(Buffer.alloc(0));
    this.files = this.entries.filter(isFile);
    this.folders = this.entries.filter(isFolder);
    this.links = this.entries.filter(isLink);
  }

  #walk(folder) {
    const names = readdirSync(join(this.source, folder), { encoding: 'buffer' }).sort(Buffer.compare);
    for (const name of names) {
      const rel = folder.length === 0 ? name : Buffer.concat([folder, Buffer.from('/'), name]);
      const path = join(this.source, rel);
      if (path.length > PATH_LIMIT || join(this.mount, rel).length > PATH_LIMIT) continue;
      const entry = { rel, name, parent: folder, stat: lstat(path) };
      this.entries.push(entry);
      if (isFolder(entry)) this.#walk(rel);
    }
  }

  here = (entry) => join(this.source, entry.rel ?? entry);
  there = (entry) => join(this.mount, entry.rel ?? entry);
  /** Attributes in the mount. */
  seen = (entry) => lstat(this.there(entry));
  seenBig = (entry) => lstatSync(this.there(entry), { bigint: true });

  /** The first entry that `wanted` likes; ends the check as "nothing to check" when there is none. */
  one(wanted, what) {
    const found = this.entries.find(wanted);
    if (found === undefined) throw new Skip(`the source has no ${what}`);
    return found;
  }

  some(wanted, what) {
    const found = this.entries.filter(wanted);
    if (found.length === 0) throw new Skip(`the source has no ${what}`);
    return found;
  }

  /** Compares one value of each entry in the source and in the mount. */
  each(entries, here, there = here) {
    for (const entry of entries) {
      const [expected, found] = [here(entry.stat), there(this.seen(entry))];
      if (expected !== found) throw new Error(`${show(entry.rel)}: ${found}, not ${expected}`);
    }
  }
}

/** Thrown by a check that finds nothing to check here. */
export class Skip extends Error {}

export function equal(found, expected, what = '') {
  if (found !== expected) throw new Error(`${what ? `${what}: ` : ''}${found}, not ${expected}`);
}

/** The error code of a call; null when it succeeds. */
export function codeOf(call) {
  try {
    call();
    return null;
  } catch (error) {
    if (error.code === undefined) throw error;
    return error.code;
  }
}

export function refuses(call, ...codes) {
  const code = codeOf(call);
  if (!codes.includes(code)) throw new Error(`${code ?? 'it succeeds'}, not ${codes.join(' or ')}`);
}
