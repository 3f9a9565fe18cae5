/** The archived side of a WORM set: its trees, which a backup has in local state, and its content, which takes an identity. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { KIND_DATA } from '../../archive/format.ts';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { ARCHIVE, TREES, type TreeRoots } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { corrupt, RozenError } from '../../errors.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import { LocalContent } from '../verify/local-content.ts';
import type { Attributes } from '../view/attributes.ts';
import { ContentReader, type ContentTrees } from '../view/content.ts';
import { SnapshotOpener } from '../view/place.ts';

const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

type File = Pick<Attributes, 'inode' | 'version' | 'size'>;

export interface FirstDifference {
  at: number;
  /** False: it lies somewhere in the chunk that begins there. */
  exact: boolean;
}

/** Trees whose pages are all on this machine, as those of local state are. */
export function localTrees(trees: { source: PageSource; roots: TreeRoots }): ContentTrees {
  const { source, roots } = trees;
  const archives = new Cursor(source, TREES.archives, roots.archives);
  return {
    source,
    roots,
    archives: {
      retry: async (work) => work(),
      facts: async (row) => {
        if (!archives.find(row)) throw corrupt(`local state: no archive has row ${row}`);
        const page = archives.page!;
        const i = archives.index;
        return {
          kind: KIND_DATA,
          id: page.slice(ARCHIVE.id, i),
          size: page.num(ARCHIVE.size, i),
          headerHash: page.slice(ARCHIVE.headerHash, i),
          merkleRoot: page.slice(ARCHIVE.merkleRoot, i),
          envelope: page.slice(ARCHIVE.envelope, i),
        };
      },
    },
  };
}

export class ArchivedContent {
  readonly #repository: Repository;
  readonly #record: SnapshotRecord;
  readonly #mayRead: boolean;
  readonly #chunks: LocalContent;
  readonly #opener: SnapshotOpener;
  #reader: Promise<SnapshotReader> | null = null;

  /** `mayRead`: the key may be asked for only to tell more exactly where a file differs. */
  constructor(options: { repository: Repository; record: SnapshotRecord; trees: ContentTrees; mayRead: boolean }) {
    this.#repository = options.repository;
    this.#record = options.record;
    this.#mayRead = options.mayRead;
    this.#opener = new SnapshotOpener(options.repository);
    this.#chunks = new LocalContent(options.repository, options.trees, null);
  }

  /** The snapshot, to read content from. Throws 'no-key' on a machine that can only write. */
  reader(): Promise<SnapshotReader> {
    this.#reader ??= this.#open();
    return this.#reader;
  }

  async #open(): Promise<SnapshotReader> {
    const repository = this.#repository;
    if (!(await repository.unlock())) {
      throw new RozenError('no-key', 'archived content is needed, and this machine can only write', {
        hint: 'give the passphrase (ROZEN_PASSWORD, --password-file) or an identity file (--identity FILE)',
      });
    }
    return this.#opener.open({ record: this.#record });
  }

  /** Wipes the archive keys. */
  close(): void {
    this.#opener.close();
  }

  /** Where a local file begins to differ from an archived content: where the shorter ends, if it begins the longer. */
  async firstDifference(path: Buffer, file: File, localSize: number): Promise<FirstDifference> {
    const end = Math.min(file.size, localSize);
    const found = await this.#chunks.difference(path, file, () => {});
    if (found === null) return { at: end, exact: true };
    if (found.from >= end) return { at: end, exact: true };
    if (this.#repository.identities === null && !this.#mayRead) return { at: found.from, exact: false };
    try {
      return { at: await this.#firstByte(path, file, { from: found.from, to: end }), exact: true };
    } catch (error) {
      // That the chunk differs is known without it.
      if (!(error instanceof RozenError) || error.code !== 'frozen') throw error;
      return { at: found.from, exact: false };
    }
  }

  async #firstByte(path: Buffer, file: File, range: { from: number; to: number }): Promise<number> {
    const fd = openSync(path, OPEN_FLAGS);
    try {
      let at = range.from;
      const reader = await this.reader();
      for await (const piece of new ContentReader(reader).read(file, range)) {
        const local = Buffer.allocUnsafe(piece.length);
        let length = 0;
        while (length < local.length) {
          const got = readSync(fd, local, length, local.length - length, at + length);
          if (got === 0) break;
          length += got;
        }
        for (let i = 0; i < length; i++) if (local[i] !== piece[i]) return at + i;
        if (length < piece.length) return at + length;
        at += piece.length;
      }
      return at;
    } finally {
      closeSync(fd);
    }
  }
}
