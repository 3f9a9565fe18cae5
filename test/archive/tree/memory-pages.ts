/** Pages in memory behind the two interfaces of the tree code, with counts of what was read and written. */
import { decodePage, type Page } from '../../../src/archive/tree/page.ts';
import type { PageSource } from '../../../src/archive/tree/read.ts';
import type { PagePointer, TreeSchema } from '../../../src/archive/tree/schema.ts';
import type { PageSink } from '../../../src/archive/tree/update.ts';

export class MemoryPages implements PageSource, PageSink {
  readonly pages = new Map<string, Buffer>();
  readonly writes: { level: number; pointer: PagePointer }[] = [];
  reads = 0;
  /** The archive row that new pages get. */
  row = 1;
  readonly #decoded = new Map<string, Page>();
  #offset = 0;

  static key(pointer: PagePointer): string {
    return `${pointer.row}:${pointer.offset}:${pointer.length}`;
  }

  page(row: number, offset: number, length: number): Page {
    this.reads++;
    const key = MemoryPages.key({ row, offset, length });
    let page = this.#decoded.get(key);
    if (page === undefined) {
      page = decodePage(this.pages.get(key)!);
      this.#decoded.set(key, page);
    }
    return page;
  }

  write(_schema: TreeSchema, level: number, bytes: Buffer): PagePointer {
    const pointer = { row: this.row, offset: this.#offset, length: bytes.length };
    this.#offset += bytes.length;
    this.pages.set(MemoryPages.key(pointer), bytes);
    this.writes.push({ level, pointer });
    return pointer;
  }
}
