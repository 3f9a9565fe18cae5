/** Made-up folders as rows of the trees: what a backup would write, for tests that read it back. */
import { createHash } from 'node:crypto';
import { type Field, INODE_FLAGS } from '../../../src/archive/tree/schema.ts';
import type { Mutation } from '../../../src/archive/tree/update.ts';

type Piece = Buffer | { hole: number };

export interface ModelEntry {
  /** From the root, as latin1 bytes; the root itself is ''. Folders come before what is in them. */
  path: string;
  type: 'folder' | 'file' | 'symlink' | 'fifo' | 'device';
  mode?: number;
  uid?: number;
  gid?: number;
  mtimeSec?: number;
  mtimeNs?: number;
  content?: Piece[];
  target?: string;
  rdev?: number;
  xattrs?: Record<string, Buffer>;
  /** A hard link: the path of the entry (before this one) whose inode it shares. */
  linkTo?: string;
}

const TYPES = { folder: 0o040000, file: 0o100000, symlink: 0o120000, fifo: 0o010000, device: 0o020000 } as const;
const ACCESS_ACL = 'system.posix_acl_access';
const DEFAULT_ACL = 'system.posix_acl_default';

/** Stores bytes of one piece of content. */
export type StorePiece = (bytes: Buffer) => { row: number; streamOffset: number };

interface Row {
  key: Field[];
  value: Field[];
}

export const MODEL_TREES = ['names', 'inodes', 'extents', 'xattrs', 'versions'] as const;
export type ModelTree = (typeof MODEL_TREES)[number];
export type ModelRows = { [N in ModelTree]: Map<string, Row> };

function emptyRows(): ModelRows {
  return { names: new Map(), inodes: new Map(), extents: new Map(), xattrs: new Map(), versions: new Map() };
}

function keyText(key: readonly Field[]): string {
  return key
    .map((field) => (typeof field === 'number' ? String(field).padStart(16, '0') : Buffer.from(field).toString('hex')))
    .join(' ');
}

/** One lineage: remembers inode numbers, content versions and the rows of the last snapshot. */
export class ModelLineage {
  rows: ModelRows = emptyRows();
  #inodes = new Map<string, number>();
  #nextInode = 2;
  #versions = new Map<number, { version: number; digest: string; extents: Row[] }>();
  #sequence = 0;

  /** Sorted changes of every tree from the last snapshot to this one. */
  snapshot(entries: ModelEntry[], store: StorePiece): { [N in ModelTree]: Mutation[] } {
    this.#sequence++;
    const next = emptyRows();
    const put = (tree: ModelTree, key: Field[], value: Field[]) => next[tree].set(keyText(key), { key, value });
    const inodes = new Map<string, number>([['', 1]]);
    const links = new Map<number, number>();
    for (const entry of entries) {
      const shared = entry.linkTo === undefined ? undefined : inodes.get(entry.linkTo);
      const ino = shared ?? (entry.path === '' ? 1 : (this.#inodes.get(entry.path) ?? this.#nextInode++));
      inodes.set(entry.path, ino);
      links.set(ino, (links.get(ino) ?? (entry.type === 'folder' ? 1 : 0)) + 1);
    }
    for (const entry of entries) {
      const slash = entry.path.lastIndexOf('/');
      const parent = entry.path === '' ? 1 : inodes.get(entry.path.slice(0, Math.max(0, slash)))!;
      const ino = inodes.get(entry.path)!;
      if (entry.type === 'folder' && entry.path !== '') links.set(parent, links.get(parent)! + 1);
      if (entry.path !== '') {
        put('names', [parent, Buffer.from(entry.path.slice(slash + 1), 'latin1')], [ino, TYPES[entry.type] >> 12]);
      }
    }
    for (const entry of entries) {
      if (entry.linkTo !== undefined) continue;
      const slash = entry.path.lastIndexOf('/');
      const parent = entry.path === '' ? 1 : inodes.get(entry.path.slice(0, Math.max(0, slash)))!;
      const ino = inodes.get(entry.path)!;
      const content = this.#content(ino, entry, put, store);
      let flags = content.holes ? INODE_FLAGS.holes : 0;
      for (const [name, value] of Object.entries(entry.xattrs ?? {})) {
        put('xattrs', [ino, Buffer.from(name)], [value]);
        if (name === ACCESS_ACL) flags |= INODE_FLAGS.accessAcl;
        else if (name === DEFAULT_ACL) flags |= INODE_FLAGS.defaultAcl;
        else flags |= INODE_FLAGS.xattrs;
      }
      const sec = entry.mtimeSec ?? 1_700_000_000;
      const ns = entry.mtimeNs ?? 123_456_789;
      const mode = TYPES[entry.type] | (entry.mode ?? (entry.type === 'folder' ? 0o755 : 0o644));
      const target = Buffer.from(entry.target ?? '', 'latin1');
      const size = entry.type === 'symlink' ? target.length : entry.type === 'folder' ? 4096 : content.size;
      const blocks = entry.type === 'file' ? content.blocks : 0;
      const times = [sec, ns, sec + 1, ns, sec - 10, 5];
      const more = [entry.rdev ?? 0, content.version, parent, flags, 0, 0];
      const owner = [mode, entry.uid ?? 0, entry.gid ?? 0, links.get(ino)!];
      put('inodes', [ino], [...owner, size, blocks, ...times, ...more, target]);
    }
    const mutations = Object.fromEntries(MODEL_TREES.map((tree) => [tree, difference(this.rows[tree], next[tree])]));
    this.rows = next;
    this.#inodes = inodes;
    return mutations as { [N in ModelTree]: Mutation[] };
  }

  #content(
    ino: number,
    entry: ModelEntry,
    put: (tree: ModelTree, key: Field[], value: Field[]) => void,
    store: StorePiece,
  ): { size: number; blocks: number; version: number; holes: boolean } {
    if (entry.type !== 'file') return { size: 0, blocks: 0, version: 0, holes: false };
    const hash = createHash('sha256');
    let size = 0;
    let blocks = 0;
    let holes = false;
    for (const piece of entry.content ?? []) {
      if (Buffer.isBuffer(piece)) {
        hash.update(piece);
        size += piece.length;
        blocks += Math.ceil(piece.length / 512);
      } else {
        hash.update(`hole ${piece.hole}`);
        size += piece.hole;
        holes = true;
      }
    }
    const digest = hash.digest('hex');
    let known = this.#versions.get(ino);
    if (known?.digest !== digest) {
      const version = (known?.version ?? 0) + 1;
      let offset = 0;
      const extents: Row[] = [];
      for (const piece of entry.content ?? []) {
        const length = Buffer.isBuffer(piece) ? piece.length : piece.hole;
        const { row, streamOffset } = Buffer.isBuffer(piece) ? store(piece) : { row: 0, streamOffset: 0 };
        extents.push({ key: [ino, version, offset], value: [length, row, streamOffset] });
        offset += length;
      }
      known = { version, digest, extents };
      this.#versions.set(ino, known);
    }
    for (const { key, value } of known.extents) put('extents', key, value);
    const id = Buffer.from(digest, 'hex');
    put('versions', [ino, known.version], [id, size, 0, 0, this.#sequence, this.#sequence]);
    return { size, blocks, version: known.version, holes };
  }
}

function difference(before: Map<string, Row>, after: Map<string, Row>): Mutation[] {
  const changes = new Map<string, Mutation>();
  for (const [text, row] of after) {
    const old = before.get(text);
    if (old === undefined || !sameFields(old.value, row.value)) changes.set(text, row);
  }
  for (const [text, row] of before) if (!after.has(text)) changes.set(text, { key: row.key, value: null });
  return [...changes.keys()].sort().map((text) => changes.get(text)!);
}

function sameFields(a: readonly Field[], b: readonly Field[]): boolean {
  return a.every((field, i) => keyText([field]) === keyText([b[i]!]));
}
