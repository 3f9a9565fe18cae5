/** Whether the trees of a snapshot agree with each other and with the archives: names, inodes, extents, attributes. */
import { BLOCK_SIZE, ROOT_INODE } from '../../archive/format.ts';
import type { Page } from '../../archive/tree/page.ts';
import { EXTENT, INODE, INODE_FLAGS, NAME, TREE_NAMES, type TreeName, XATTR } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { Forwarding } from '../../repository/forwards.ts';
import { treeName } from '../../repository/names.ts';
import { InodeSet } from '../backup/inode-set.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { DataArchive } from './archive-check.ts';
import { lowerBound } from './data-check.ts';
import type { Findings } from './findings.ts';
import { RowIds, soundLeaves } from './pages.ts';

/** Of one snapshot; more of them say nothing more. */
const MAX_PROBLEMS = 100;

export interface CheckedArchives {
  /** By id; null: it cannot be opened, which was told. */
  archives: ReadonlyMap<string, DataArchive | null>;
  /** Archives whose content lies in others, by id. */
  moved: ReadonlyMap<string, Forwarding>;
}

/** The archive that a row leads to, and where the stream that the row means lies in its stream. */
interface Opened {
  archive: DataArchive;
  start: number;
  end: number;
}

export class RowCheck {
  readonly #findings: Findings;
  readonly #archives: CheckedArchives;
  readonly #done = new Set<string>();

  constructor(findings: Findings, archives: CheckedArchives) {
    this.#findings = findings;
    this.#archives = archives;
  }

  /** A snapshot all of whose pages are sound. */
  async snapshot(reader: SnapshotReader): Promise<void> {
    const key = TREE_NAMES.map((name) => {
      const { row, offset } = reader.roots[name];
      return `${reader.archives.get(row)?.handle ?? ''}:${row}:${offset}`;
    }).join(' ');
    if (this.#done.has(key)) return;
    this.#done.add(key);
    await new SnapshotRows(this.#findings, this.#archives, reader).check();
  }
}

/** Rows of a tree in key order, a page at a time; `page` is null at the end. */
class Rows {
  page: Page | null = null;
  index = 0;
  readonly #leaves: AsyncGenerator<Page, void, undefined>;

  constructor(reader: SnapshotReader, tree: TreeName) {
    this.#leaves = soundLeaves(reader, tree);
  }

  /** True when it stands on the next row without reading. */
  step(): boolean {
    return this.page !== null && ++this.index < this.page.count;
  }

  async load(): Promise<void> {
    this.page = (await this.#leaves.next()).value ?? null;
    this.index = 0;
  }

  get inode(): number {
    return this.page === null ? Number.POSITIVE_INFINITY : this.page.num(0, this.index);
  }
}

class SnapshotRows {
  readonly #findings: Findings;
  readonly #archives: CheckedArchives;
  readonly #reader: SnapshotReader;
  readonly #ids: RowIds;
  /** Rows that are resolved: null when the archive cannot be opened. */
  readonly #opened = new Map<number, Opened | null>();
  #problems = 0;
  /** By d_type: the type bits of the mode. */
  readonly #types = new Map<number, InodeSet>();
  readonly #extents: Rows;
  readonly #xattrs: Rows;
  /** Folders that were not deleted. */
  readonly #folders: number[] = [];
  /** The folder that each folder has its name in. */
  readonly #parents = new Map<number, number>();

  constructor(findings: Findings, archives: CheckedArchives, reader: SnapshotReader) {
    this.#findings = findings;
    this.#archives = archives;
    this.#reader = reader;
    this.#ids = new RowIds(reader);
    this.#extents = new Rows(reader, 'extents');
    this.#xattrs = new Rows(reader, 'xattrs');
  }

  async check(): Promise<void> {
    await this.#extents.load();
    await this.#xattrs.load();
    for await (const page of soundLeaves(this.#reader, 'inodes')) {
      for (let i = 0; i < page.count && this.#problems < MAX_PROBLEMS; i++) await this.#inode(page, i);
    }
    if (this.#extents.page !== null && this.#problems < MAX_PROBLEMS)
      this.#tell(`there are extents of inode ${this.#extents.inode}, which has no row`);
    for await (const page of soundLeaves(this.#reader, 'names')) {
      for (let i = 0; i < page.count && this.#problems < MAX_PROBLEMS; i++) this.#name(page, i);
    }
    this.#checkFolders();
  }

  #tell(message: string): void {
    this.#problems++;
    const object = treeName(this.#reader.record.tree.id);
    this.#findings.add({ kind: 'inconsistent', object, message, snapshots: [this.#reader.scope] });
  }

  async #inode(page: Page, i: number): Promise<void> {
    const inode = page.num(INODE.inode, i);
    const mode = page.num(INODE.mode, i);
    const type = (mode & S_IFMT) >>> 12;
    let set = this.#types.get(type);
    if (set === undefined) {
      set = new InodeSet();
      this.#types.set(type, set);
    }
    set.add(inode);
    if (type === S_IFDIR >>> 12 && page.num(INODE.nlink, i) > 0) this.#folders.push(inode);
    const regular = (mode & S_IFMT) === S_IFREG;
    if (regular) this.#findings.counts.files++;
    const size = page.num(INODE.size, i);
    const version = page.num(INODE.version, i);
    let covered = 0;
    const { inode: next } = this.#extents;
    if (next < inode) this.#tell(`there are extents of inode ${next}, which has no row`);
    while (this.#extents.inode < inode) if (!this.#extents.step()) await this.#extents.load();
    let group = -1;
    let end = 0;
    while (this.#extents.inode === inode) {
      const { page: extents, index } = this.#extents;
      const of = extents!.num(EXTENT.version, index);
      if (of !== group) {
        group = of;
        end = 0;
      }
      if (extents!.num(EXTENT.offset, index) !== end)
        this.#tell(`the extents of inode ${inode} have a gap or overlap at ${end}`);
      const length = extents!.num(EXTENT.length, index);
      end = extents!.num(EXTENT.offset, index) + length;
      if (group === version) covered = end;
      const row = extents!.num(EXTENT.row, index);
      if (row !== 0) {
        const problem = this.#place(
          this.#opened.has(row) ? this.#opened.get(row)! : await this.#open(row),
          extents!.num(EXTENT.streamOffset, index),
          length,
        );
        if (problem !== null) this.#tell(`inode ${inode}: its extent at ${end - length} ${problem}`);
      }
      if (!this.#extents.step()) await this.#extents.load();
    }
    if (regular && covered !== size) this.#tell(`inode ${inode}: its extents end at ${covered}, its size is ${size}`);
    let attributes = 0;
    while (this.#xattrs.inode <= inode) {
      const { page: xattrs, index } = this.#xattrs;
      if (xattrs!.num(XATTR.inode, index) === inode) attributes++;
      else this.#tell(`there are attributes of inode ${this.#xattrs.inode}, which has no row`);
      if (!this.#xattrs.step()) await this.#xattrs.load();
    }
    if (attributes > 0 !== ((page.num(INODE.flags, i) & INODE_FLAGS.xattrs) !== 0))
      this.#tell(`inode ${inode}: it has ${attributes} attributes, but its flags say otherwise`);
  }

  async #open(row: number): Promise<Opened | null> {
    const id = await this.#ids.get(row);
    const { archives, moved } = this.#archives;
    const forwarding = id === null ? undefined : moved.get(id);
    const archive =
      forwarding !== undefined
        ? archives.get(forwarding.target.id.toString('hex'))
        : id === null
          ? undefined
          : archives.get(id);
    if (archive === undefined) this.#tell(`content lies in archive ${row}, which is no data archive of this snapshot`);
    const { start = 0, end = Number.POSITIVE_INFINITY } = forwarding ?? {};
    const opened = archive ? { archive, start, end } : null;
    this.#opened.set(row, opened);
    return opened;
  }

  /** What is wrong with a place in the stream that a row means; null when nothing is, or nobody can tell. */
  #place(opened: Opened | null, offset: number, length: number): string | null {
    if (opened === null) return null;
    const { archive } = opened;
    const start = opened.start + offset;
    const end = start + length;
    const limit = Math.min(archive.blocks.streamLength, opened.end);
    if (end > limit || Math.ceil(end / BLOCK_SIZE) > archive.blocks.count)
      return `ends at ${end} in the stream of ${archive.object}, which has ${limit} bytes`;
    const { chunks } = archive;
    if (chunks === null) return null;
    let at = lowerBound(chunks.offsets, start);
    let reached = start;
    while (reached < end && at < chunks.count && chunks.offsets[at] === reached) reached += chunks.lengths[at++]!;
    return reached === end ? null : `is not made of whole chunks of ${archive.object}`;
  }

  #name(page: Page, i: number): void {
    const parent = page.num(NAME.parent, i);
    const inode = page.num(NAME.inode, i);
    const type = page.num(NAME.type, i);
    if (!this.#types.get(type)?.has(inode))
      this.#tell(`a name in folder ${parent} refers to inode ${inode} of another type, or none`);
    if (!this.#types.get(S_IFDIR >>> 12)?.has(parent) && parent !== ROOT_INODE)
      this.#tell(`there is a name in folder ${parent}, which has no row`);
    if (type === S_IFDIR >>> 12) this.#folderName(parent, inode);
  }

  /** Also of folders that were deleted from a WORM set and are kept: what was in them has its name there and nowhere else. */
  #folderName(parent: number, inode: number): void {
    const other = this.#parents.get(inode);
    if (inode === ROOT_INODE) this.#tell(`the root has a name in folder ${parent}`);
    else if (other !== undefined)
      this.#tell(`folder ${inode} has more than one name: in folder ${other} and in folder ${parent}`);
    else this.#parents.set(inode, parent);
  }

  /** Each folder has one name, so those that do not lead to the root, or to one that was deleted, lead in a circle. */
  #checkFolders(): void {
    for (const folder of this.#folders) {
      if (!this.#parents.has(folder) && folder !== ROOT_INODE && this.#problems < MAX_PROBLEMS)
        this.#tell(`folder ${folder} has no name`);
    }
    const sound = new InodeSet();
    for (const folder of this.#parents.keys()) {
      const chain = new Set<number>();
      let at: number | undefined = folder;
      for (; at !== undefined && !sound.has(at) && !chain.has(at); at = this.#parents.get(at)) chain.add(at);
      if (at !== undefined && chain.has(at) && this.#problems < MAX_PROBLEMS) this.#tell(`folder ${at} lies in itself`);
      for (const it of chain) sound.add(it);
    }
  }
}
