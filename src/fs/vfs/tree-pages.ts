/** The archives that are open in this thread, by the rows of each snapshot, and one bounded cache for all their pages. */
import type { PageSource } from '../../archive/tree/read.ts';
import type { ArchiveAccess } from '../../cache/frames.ts';
import { missArchive } from '../../cache/miss.ts';
import { PageCache, snapshotPages } from '../../cache/pages.ts';
import type { ArchiveRows } from './snapshot-tree.ts';

export class TreePages implements ArchiveRows {
  readonly #cache: PageCache;
  readonly #busy: () => void;
  readonly #scopes = new Map<string, { rows: Map<number, ArchiveAccess>; source: PageSource }>();

  /** `bytes`: decoded pages that this thread may hold. `busy` is called before one is decoded. */
  constructor(bytes: number, busy: () => void) {
    this.#cache = new PageCache(bytes);
    this.#busy = busy;
  }

  /** Pages decoded by this thread. */
  get decoded(): number {
    return this.#cache.decoded;
  }

  setArchive(scope: string, row: number, access: ArchiveAccess): void {
    this.#scope(scope).rows.set(row, access);
  }

  archive(scope: string, row: number): ArchiveAccess | undefined {
    return this.#scopes.get(scope)?.rows.get(row);
  }

  source(scope: string): PageSource {
    return this.#scope(scope).source;
  }

  #scope(name: string): { rows: Map<number, ArchiveAccess>; source: PageSource } {
    let scope = this.#scopes.get(name);
    if (scope === undefined) {
      const rows = new Map<number, ArchiveAccess>();
      const source = snapshotPages(
        this.#cache,
        (row) => {
          const access = rows.get(row);
          if (access === undefined) throw missArchive(name, row);
          return access;
        },
        this.#busy,
      );
      scope = { rows, source };
      this.#scopes.set(name, scope);
    }
    return scope;
  }
}
