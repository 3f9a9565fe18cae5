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
  /** Where an archive was merged into; null for all others. */
  merged(id: Uint8Array): { target: { id: Buffer }; start: number } | null;
}

/** A place in a data archive. */
interface Place {
  streamOffset: number;
}

/** Gives rows to archives as extents begin to refer to them; an archive that nothing refers to gets none. */
export class ArchiveRows {
  nextRow: number;
  readonly #options: ArchiveRowsOptions;
  readonly #rows = new Map<number, number>();
  readonly #added: { row: number; number: number }[] = [];
  /** By id; loaded with the first archive that is asked for. */
  #known: Map<string, number> | null = null;
  /** The other way round. */
  readonly #ids = new Map<number, string>();

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

  /** Whether a row of the lineage and an archive of this run name the same bytes, one of them perhaps by what it was before a merge. */
  samePlace(old: Place & { row: number }, now: Place & { number: number }): boolean {
    const row = this.knownRow(now.number);
    if (row === old.row) return old.streamOffset === now.streamOffset;
    const id = this.#options.archive(now.number)?.id;
    this.#load();
    const oldId = this.#ids.get(old.row);
    if (id === undefined || oldId === undefined) return false;
    const [a, b] = [this.#now(oldId, old.streamOffset), this.#now(hex(id), now.streamOffset)];
    return a.id === b.id && a.streamOffset === b.streamOffset;
  }

  /** Where bytes lie since all merges. */
  #now(id: string, streamOffset: number): Place & { id: string } {
    const merged = this.#options.merged(Buffer.from(id, 'hex'));
    if (merged === null) return { id, streamOffset };
    return { id: hex(merged.target.id), streamOffset: merged.start + streamOffset };
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
      const id = hex(page.slice(ARCHIVE.id, cursor.index));
      const row = page.num(ARCHIVE.row, cursor.index);
      this.#known.set(id, row);
      this.#ids.set(row, id);
    }
    return this.#known;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
