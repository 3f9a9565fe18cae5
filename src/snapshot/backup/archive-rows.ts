/** Rows of a lineage's `archives` tree for the archive numbers of the deduplication index. */
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { ARCHIVE, TREES, type TreeRoot } from '../../archive/tree/schema.ts';
import type { SealedArchive } from '../../archive/writer.ts';

/** What an `archives` row says. */
export type ArchiveFacts = Pick<SealedArchive, 'id' | 'kind' | 'size' | 'headerHash' | 'merkleRoot' | 'envelope'>;

export interface ArchiveRowsOptions {
  /** The archives that the lineage knows; null when it begins, or refers to nothing older. */
  old: { source: PageSource; root: TreeRoot } | null;
  nextRow: number;
  /** Facts of a sealed archive; undefined while it is still being written. */
  archive(number: number): ArchiveFacts | undefined;
}

/** Gives rows to archives as extents begin to refer to them; an archive that nothing refers to gets none. */
export class ArchiveRows {
  nextRow: number;
  readonly #options: ArchiveRowsOptions;
  readonly #rows = new Map<number, number>();
  readonly #added: { row: number; number: number }[] = [];
  /** By id; loaded with the first archive that is asked for. */
  #known: Map<string, number> | null = null;

  constructor(options: ArchiveRowsOptions) {
    this.#options = options;
    this.nextRow = options.nextRow;
  }

  /** The row of an archive that the lineage, or this run, refers to already. */
  knownRow(number: number): number | undefined {
    let row = this.#rows.get(number);
    if (row !== undefined) return row;
    const id = this.#options.archive(number)?.id;
    row = id === undefined ? undefined : this.#load().get(hex(id));
    if (row !== undefined) this.#rows.set(number, row);
    return row;
  }

  rowOf(number: number): number {
    const known = this.knownRow(number);
    if (known !== undefined) return known;
    const row = this.nextRow++;
    this.#added.push({ row, number });
    this.#rows.set(number, row);
    return row;
  }

  /** Rows that the lineage did not have, ascending. `facts` knows what was sealed meanwhile. */
  *added(facts: (number: number) => ArchiveFacts): Generator<{ row: number; archive: ArchiveFacts }> {
    for (const { row, number } of this.#added) yield { row, archive: facts(number) };
  }

  #load(): Map<string, number> {
    if (this.#known !== null) return this.#known;
    this.#known = new Map();
    const { old } = this.#options;
    if (old === null) return this.#known;
    const cursor = new Cursor(old.source, TREES.archives, old.root);
    for (let on = cursor.seek(0); on; on = cursor.next()) {
      const page = cursor.page!;
      this.#known.set(hex(page.slice(ARCHIVE.id, cursor.index)), page.num(ARCHIVE.row, cursor.index));
    }
    return this.#known;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
