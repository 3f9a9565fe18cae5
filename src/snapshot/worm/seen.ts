/**
 * Contents that were seen in a WORM set and not stored: rows of `versions` above the version of the inode, without
 * extents. Their contentId is 32 bytes of content id and the offset of the first difference (u64), or one byte: the
 * d_type of what stands in the file's place. docs/FORMAT-TREES.md, section 7.
 */
import { HASH_SIZE } from '../../archive/format.ts';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { TREES, type TreeRoots, VERSION } from '../../archive/tree/schema.ts';

/**
 * edited     size or mtime differ too, or it was appended to
 * decayed    the content differs while size and mtime do not: bit rot
 * truncated  it ends early; what is left is as it was
 * replaced   something of another kind stands in its place (also in that of a folder)
 */
export const KINDS = ['edited', 'decayed', 'truncated', 'replaced'] as const;
export type DivergedKind = (typeof KINDS)[number];

export interface SeenRow {
  version: number;
  /** Null for kind 'replaced'. */
  contentId: Buffer | null;
  /** First byte that differs; of a machine that cannot read the archive: where the first chunk that differs begins. */
  differsAt: number;
  /** Of what stands there: 8 for a regular file. */
  type: number;
  size: number;
  mtimeSec: number;
  mtimeNs: number;
  firstSeen: number;
}

const D_TYPE_FILE = 8;

/** Words for what stands in place of a file or folder, by d_type. */
const WORDS: Readonly<Record<number, string>> = {
  1: 'fifo',
  2: 'character device',
  4: 'folder',
  6: 'block device',
  8: 'file',
  10: 'symlink',
};

export function wordForType(type: number): string {
  return WORDS[type] ?? 'thing of another kind';
}

const SEEN_SIZE = HASH_SIZE + 8;

export function encodeSeenId(seen: Pick<SeenRow, 'contentId' | 'differsAt' | 'type'>): Buffer {
  if (seen.contentId === null) return Buffer.from([seen.type]);
  const bytes = Buffer.alloc(SEEN_SIZE);
  bytes.set(seen.contentId);
  bytes.writeBigUInt64LE(BigInt(seen.differsAt), HASH_SIZE);
  return bytes;
}

/** True for the row of a content that is stored. */
export function isStored(contentId: Uint8Array): boolean {
  return contentId.length === HASH_SIZE;
}

/** The newest content of a file that was seen after `version` and is not stored; null when there is none. Throws Miss. */
export function newestSeen(versions: Cursor, inode: number, version: number): SeenRow | null {
  let found: SeenRow | null = null;
  for (let on = versions.seek(inode, version + 1); on; on = versions.next()) {
    const page = versions.page!;
    const row = versions.index;
    if (page.num(VERSION.inode, row) !== inode) break;
    const id = page.slice(VERSION.contentId, row);
    if (isStored(id)) continue;
    const isFile = id.length === SEEN_SIZE;
    found = {
      version: page.num(VERSION.version, row),
      contentId: isFile ? Buffer.from(id.subarray(0, HASH_SIZE)) : null,
      differsAt: isFile ? Number(id.readBigUInt64LE(HASH_SIZE)) : 0,
      type: isFile ? D_TYPE_FILE : (id[0] ?? 0),
      size: page.num(VERSION.size, row),
      mtimeSec: page.num(VERSION.mtimeSec, row),
      mtimeNs: page.num(VERSION.mtimeNs, row),
      firstSeen: page.num(VERSION.firstSeen, row),
    };
  }
  return found;
}

export function versionsCursor(trees: { source: PageSource; roots: TreeRoots }): Cursor {
  return new Cursor(trees.source, TREES.versions, trees.roots.versions);
}

interface Content {
  size: number;
  mtimeSec: number;
  mtimeNs: number;
}

export function kindOf(archived: Content, seen: Pick<SeenRow, 'contentId' | 'differsAt'> & Content): DivergedKind {
  if (seen.contentId === null) return 'replaced';
  if (seen.size < archived.size && seen.differsAt === seen.size) return 'truncated';
  const sameStat =
    seen.size === archived.size && seen.mtimeSec === archived.mtimeSec && seen.mtimeNs === archived.mtimeNs;
  return sameStat ? 'decayed' : 'edited';
}
