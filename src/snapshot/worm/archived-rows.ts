/** What the snapshot before says of a file or folder of a WORM set. */
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, INODE_FLAGS, TREES, type TreeRoots, VERSION } from '../../archive/tree/schema.ts';
import { RozenError } from '../../errors.ts';
import { FIELD, type Plan, STATE } from '../backup/plan.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';
import { newestSeen, type SeenRow, versionsCursor } from './seen.ts';

export interface Archived {
  mode: number;
  version: number;
  size: number;
  blocks: number;
  mtimeSec: number;
  mtimeNs: number;
  /** Empty for a folder. */
  contentId: Buffer;
  /** Something else stood in its place when it was last looked at. */
  diverged: boolean;
}

export class ArchivedRows {
  readonly #inodes: Cursor;
  readonly #versions: Cursor;

  constructor(base: { source: PageSource; roots: TreeRoots }) {
    this.#inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    this.#versions = versionsCursor(base);
  }

  get(inode: number): Archived {
    const inodes = this.#inodes;
    const versions = this.#versions;
    if (!inodes.find(inode)) throw new RozenError('internal', `inode ${inode} has no row`);
    const page = inodes.page!;
    const row = inodes.index;
    const mode = page.num(INODE.mode, row);
    const version = page.num(INODE.version, row);
    const isFile = (mode & S_IFMT) === S_IFREG;
    if (isFile && !versions.find(inode, version)) {
      throw new RozenError('corrupt', `inode ${inode}: version ${version} has no content id`, {
        hint: 'run rozen verify',
      });
    }
    return {
      mode,
      version,
      size: page.num(INODE.size, row),
      blocks: page.num(INODE.blocks, row),
      mtimeSec: page.num(INODE.mtimeSec, row),
      mtimeNs: page.num(INODE.mtimeNs, row),
      diverged: (page.num(INODE.flags, row) & INODE_FLAGS.diverged) !== 0,
      contentId: isFile ? Buffer.from(versions.page!.slice(VERSION.contentId, versions.index)) : NO_ID,
    };
  }

  /** What stands in its place and is not stored; null when there is nothing of the kind, or that case was settled. */
  seen(inode: number, { version, diverged }: Archived): SeenRow | null {
    return diverged ? newestSeen(this.#versions, inode, version) : null;
  }

  /** Adds a record to the plan that is the old row, to be written again. */
  record(plan: Plan, inode: number): number {
    const inodes = this.#inodes;
    inodes.find(inode);
    const page = inodes.page!;
    const row = inodes.index;
    const { records } = plan;
    const record = records.append();
    for (const name of ROW_FIELDS) records.set(record, FIELD[name], page.num(INODE[name], row));
    records.mark(record, STATE.put);
    return record;
  }
}

const NO_ID = Buffer.alloc(0);

const ROW_FIELDS = [
  'inode',
  'mode',
  'uid',
  'gid',
  'nlink',
  'size',
  'blocks',
  'mtimeSec',
  'mtimeNs',
  'ctimeSec',
  'ctimeNs',
  'btimeSec',
  'btimeNs',
  'rdev',
  'version',
  'parent',
  'flags',
  'sourceDev',
  'sourceIno',
] as const;
