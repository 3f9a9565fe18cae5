/**
 * Writing the tree archive of a snapshot: the leaves of all trees as they come, then all upper pages, then ROOT. Every
 * root page lies in the archive itself, also when its tree did not change, so that one read of the tail opens them all;
 * and so do, among the upper pages, the first leaves of the trees that show the root folder and the files in it.
 */
import { corrupt, RozenError } from '../../errors.ts';
import type { ArchiveWriter, SealedArchive } from '../writer.ts';
import { Cursor, type PageSource } from './read.ts';
import { encodeRoot, type TreeArchiveFacts } from './root.ts';
import { ARCHIVE, type PagePointer, TREE_NAMES, TREES, type TreeName, type TreeRoots } from './schema.ts';
import { beginUpdate, type Mutation, type PageSink, type PendingTree } from './update.ts';

export interface TreeArchiveOptions {
  /** Of kind tree; `begin` was called. */
  writer: ArchiveWriter;
  /** The row that this archive will have. */
  row: number;
  /** The trees of the snapshot before; all empty for a first one. */
  roots: TreeRoots;
  /** Their pages. Must not throw Miss in the middle: open and fetch first. */
  source: PageSource;
  /** Tree archives that are not yet in the `archives` tree of `roots`: the one of the snapshot before. */
  known?: readonly TreeArchiveFacts[];
  /** Write everything afresh (true), or what lies in the archives of these rows. */
  rewrite?: boolean | ReadonlySet<number>;
  /** Told every page that is written, with its plaintext. */
  onPage?: (pointer: PagePointer, plaintext: Buffer) => void;
}

export interface WrittenTrees {
  archive: SealedArchive;
  roots: TreeRoots;
  /** Pages of the old trees that the new ones do not hold. */
  replaced: PagePointer[];
  /** Rows of all archives that the new trees lie in, this one included: see MAX_TREE_ARCHIVES. */
  rows: number[];
}

/** The trees whose first leaf is repeated: what `ls` of the root and a look into its files read. */
const FIRST_LEAVES: ReadonlySet<TreeName> = new Set(['names', 'inodes', 'extents']);

/** `update` for each tree that changes, in any order and once each, then `finish`. */
export class TreeArchiveWriter {
  readonly #options: TreeArchiveOptions;
  readonly #sink: PageSink;
  readonly #pending = new Map<TreeName, PendingTree>();
  #finished = false;

  constructor(options: TreeArchiveOptions) {
    this.#options = options;
    this.#sink = { write: (_schema, _level, bytes) => this.#write(bytes) };
  }

  /** Merges sorted changes into a tree and writes its leaves. */
  update(name: TreeName, mutations: Iterable<Mutation>): { changed: boolean; count: number } {
    if (this.#finished || this.#pending.has(name)) throw new RozenError('internal', `tree ${name} is written already`);
    const { roots, source, rewrite, row } = this.#options;
    const pending = beginUpdate({
      schema: TREES[name],
      root: roots[name],
      source,
      mutations,
      sink: this.#sink,
      ownRow: row,
      repeatFirst: FIRST_LEAVES.has(name),
      ...(rewrite === undefined ? {} : { rewrite }),
    });
    this.#pending.set(name, pending);
    return { changed: pending.changed, count: pending.count };
  }

  /** Waits until the sink of the archive has taken what was written. */
  ready(): Promise<void> {
    return this.#options.writer.ready();
  }

  /** Writes upper pages, roots and the tail, and seals the archive. */
  async finish(sign: Pick<Parameters<ArchiveWriter['finish']>[0], 'writerId' | 'signWith'>): Promise<WrittenTrees> {
    for (const name of TREE_NAMES) if (!this.#pending.has(name)) this.update(name, []);
    this.#finished = true;
    const { row, writer } = this.#options;
    const roots = {} as TreeRoots;
    const replaced: PagePointer[] = [];
    const rows = new Set<number>([row]);
    for (const name of TREE_NAMES) {
      const pending = this.#pending.get(name)!;
      roots[name] = pending.finish();
      for (const pointer of pending.replaced) replaced.push(pointer);
      for (const used of pending.rows) rows.add(used);
    }
    const used = [...rows].sort((a, b) => a - b);
    const archives = used.filter((other) => other !== row).map((other) => this.#describe(other));
    const archive = await writer.finish({ ...sign, root: encodeRoot({ row, roots, archives }) });
    return { archive, roots, replaced, rows: used };
  }

  #write(bytes: Buffer): PagePointer {
    const { writer, row, onPage } = this.#options;
    const { offset, length } = writer.appendPlain('PAGE', bytes);
    const pointer = { row, offset, length };
    onPage?.(pointer, bytes);
    return pointer;
  }

  #describe(row: number): TreeArchiveFacts {
    const { known = [], source, roots } = this.#options;
    const facts = known.find((candidate) => candidate.row === row);
    if (facts !== undefined) return facts;
    const cursor = new Cursor(source, TREES.archives, roots.archives);
    if (!cursor.find(row)) throw corrupt(`pages lie in archive ${row}, which the archives tree does not name`);
    const page = cursor.page!;
    const i = cursor.index;
    return {
      row,
      id: page.slice(ARCHIVE.id, i),
      size: page.num(ARCHIVE.size, i),
      headerHash: page.slice(ARCHIVE.headerHash, i),
      merkleRoot: page.slice(ARCHIVE.merkleRoot, i),
      envelope: page.slice(ARCHIVE.envelope, i),
    };
  }
}
