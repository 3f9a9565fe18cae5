/** Decoded tree pages in memory, bounded by bytes. */
import { openFrame } from '../archive/frame.ts';
import { decodePage, type Page } from '../archive/tree/page.ts';
import type { PageSource } from '../archive/tree/read.ts';
import { type ArchiveAccess, readFrame, reading } from './frames.ts';

/** What a decoded page takes beside its plaintext: column tables, ends of strings, the objects themselves. */
const PAGE_OVERHEAD = 6 * 1024;

interface Entry {
  space: number;
  offset: number;
  page: Page;
  cost: number;
  /** Set by every hit, cleared as the hand passes: a page that was used since then stays. */
  used: boolean;
}

/**
 * Pages by (space, offset), where a space is whatever offsets count in: the handle of an archive, or a row. Evicts by
 * second chance, so that a hit costs two look-ups and one store.
 */
export class PageCache {
  /** Pages that had to be decoded. */
  decoded = 0;
  readonly #limit: number;
  readonly #spaces = new Map<number, Map<number, Entry>>();
  readonly #ring: Entry[] = [];
  #hand = 0;
  #bytes = 0;

  /** `limit` in bytes; the page that was added last always stays. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(space: number, offset: number): Page | undefined {
    const entry = this.#spaces.get(space)?.get(offset);
    if (entry === undefined) return undefined;
    entry.used = true;
    return entry.page;
  }

  add(space: number, offset: number, page: Page): void {
    this.decoded++;
    let pages = this.#spaces.get(space);
    if (pages === undefined) {
      pages = new Map();
      this.#spaces.set(space, pages);
    }
    if (pages.has(offset)) return;
    const cost = page.bytes.length + PAGE_OVERHEAD;
    while (this.#bytes + cost > this.#limit && this.#ring.length > 0) this.#evict();
    const entry: Entry = { space, offset, page, cost, used: false };
    pages.set(offset, entry);
    this.#ring.push(entry);
    this.#bytes += cost;
  }

  #evict(): void {
    for (;;) {
      if (this.#hand >= this.#ring.length) this.#hand = 0;
      const entry = this.#ring[this.#hand]!;
      if (entry.used) {
        entry.used = false;
        this.#hand++;
        continue;
      }
      const last = this.#ring.pop()!;
      if (last !== entry) this.#ring[this.#hand] = last;
      this.#spaces.get(entry.space)!.delete(entry.offset);
      this.#bytes -= entry.cost;
      return;
    }
  }
}

/** Opens and decodes one PAGE frame. Throws Miss, 'corrupt' (naming object and offset) and 'io'. */
function openPage(access: ArchiveAccess, offset: number, length: number): Page {
  const context = { archiveId: access.id, key: access.blockKey, headerHash: access.headerHash };
  return reading(access, () => {
    const plaintext = openFrame(context, readFrame(access, offset, length), { type: 'PAGE' });
    return decodePage(plaintext, `${access.object}: page at ${offset}`);
  });
}

/**
 * The pages of one snapshot: `access` finds the archive of a row, or throws Miss; `busy` is called before a page is
 * decoded. Several may share a cache.
 */
export function snapshotPages(
  cache: PageCache,
  access: (row: number) => ArchiveAccess,
  busy: () => void = () => {},
): PageSource {
  return {
    page(row, offset, length) {
      const archive = access(row);
      let page = cache.get(archive.handle, offset);
      if (page === undefined) {
        busy();
        page = openPage(archive, offset, length);
        cache.add(archive.handle, offset, page);
      }
      return page;
    },
  };
}

/** Pages whose plaintext somebody keeps by row and offset, as local state does. */
export function storedPages(cache: PageCache, load: (row: number, offset: number) => Uint8Array): PageSource {
  return {
    page(row, offset) {
      let page = cache.get(row, offset);
      if (page === undefined) {
        page = decodePage(load(row, offset), `page at ${row}:${offset}`);
        cache.add(row, offset, page);
      }
      return page;
    },
  };
}
