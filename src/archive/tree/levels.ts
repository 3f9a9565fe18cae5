/**
 * The new tree of an update, growing from its leaves up: rows and shared pages come in key order, full pages go out.
 */
import { PageBuilder } from './builder.ts';
import type { Page } from './page.ts';
import { EMPTY_ROOT, type Field, type PagePointer, type TreeRoot, type TreeSchema } from './schema.ts';

/** Takes the plaintext of a page, seals it, and says where it lies. */
export interface PageSink {
  write(schema: TreeSchema, level: number, bytes: Buffer): PagePointer;
}

/** A page that stands in for its subtree: already written, or above the leaves and still waiting. */
export interface Entry {
  key: Field[];
  pointer: PagePointer;
  count: number;
}

/** A level above the leaves that is being built. */
interface Upper {
  entries: Entry[];
  /** Estimated bytes of the entries. */
  weight: number;
  /** False while everything in `entries` was taken over, in order, from the one old page that is being visited. */
  foreign: boolean;
}

/** A closed page above the leaves. Its children may wait too, so its bytes are made when it is written. */
interface Waiting {
  level: number;
  children: Entry[];
  self: Entry;
}

/** Row, offset, length and count of a child, before compression. */
const ENTRY_COST = 16;

function entryCost(entry: Entry): number {
  let cost = ENTRY_COST;
  for (const field of entry.key) cost += typeof field === 'number' ? 3 : field.length + 1;
  return cost;
}

/** Closed leaves go to the sink; pages above them, and a root that is a leaf, wait for `write`. */
export class TreeLevels {
  readonly schema: TreeSchema;
  /** After `end`: the page that stands for the whole tree; null when the tree is empty. */
  root: Entry | null = null;
  #rootLevel = 0;
  readonly #full: number;
  readonly #sink: PageSink;
  readonly #leaf: PageBuilder;
  /** Entries of level 1 pages, of level 2 pages, … */
  readonly #uppers: Upper[] = [];
  readonly #waiting: Waiting[] = [];
  /**
   * The first leaf of a tree that begins with it waits too: it may turn out to be the root, and it holds the rows of the
   * root folder. So these lie beside the upper pages, in what one read of the tail brings.
   */
  #heldLeaf: { bytes: Buffer; self: Entry } | null = null;
  /** The pages that were made here, above the leaves. */
  readonly #made = new Set<Entry>();

  /** `full`: bytes at which a page is closed. */
  constructor(options: { schema: TreeSchema; sink: PageSink; full: number }) {
    this.schema = options.schema;
    this.#sink = options.sink;
    this.#full = options.full;
    this.#leaf = new PageBuilder(options.schema, 0);
  }

  push(key: readonly Field[], value: readonly Field[]): void {
    this.#leaf.push(key, value);
    this.#spill();
  }

  /** Rows of a leaf of the old tree. */
  pushFrom(page: Page, from: number, to: number): void {
    this.#leaf.pushFrom(page, from, to);
    this.#spill();
  }

  /** Takes over a page of the old tree with all below it. The levels up to its own must be closed. */
  share(level: number, entry: Entry): void {
    this.#pushEntry(level + 1, entry, false);
  }

  /** From here on the pages below an old page of this level come; nothing waits for it here or below. */
  follow(level: number): void {
    this.#upper(level).foreign = false;
  }

  /** True, and forgotten here, if since `follow` all `count` pages below were shared: then the page above can be shared itself. */
  followed(level: number, count: number): boolean {
    const upper = this.#upper(level);
    const same = !upper.foreign && upper.entries.length === count && this.#emptyBelow(level);
    if (same) {
      upper.entries = [];
      upper.weight = 0;
    }
    upper.foreign = true;
    return same;
  }

  /** Closes what is open and finds the root. */
  end(): void {
    this.#closeLeaf(true);
    for (let level = 1; level <= this.#uppers.length; level++) {
      const { entries } = this.#upper(level);
      if (entries.length === 1 && this.#emptyFrom(level + 1)) {
        this.root = entries[0]!;
        this.#rootLevel = level - 1;
        return;
      }
      this.#closeUpper(level, true);
    }
  }

  /**
   * Writes what waits, the root last, and says where the tree begins. `rows` gets the rows of the pages that were made
   * above the leaves; `shared` is told every subtree right below them that was not made here, leaves included.
   */
  write(shared: (tree: TreeRoot) => void, rows: Set<number>): TreeRoot {
    if (this.root === null) return { ...EMPTY_ROOT };
    this.#writeHeldLeaf();
    this.#waiting.sort((a, b) => a.level - b.level);
    for (const { level, children, self } of this.#waiting) {
      const builder = new PageBuilder(this.schema, level);
      for (const child of children) {
        const { row, offset, length } = child.pointer;
        builder.push(child.key, [row, offset, length, child.count]);
        if (!this.#made.has(child)) shared({ ...child.pointer, level: level - 1, count: child.count });
      }
      Object.assign(self.pointer, this.#sink.write(this.schema, level, builder.encode(builder.count)));
      rows.add(self.pointer.row);
    }
    this.#waiting.length = 0;
    return { ...this.root.pointer, level: this.#rootLevel, count: this.root.count };
  }

  /** Whether the root page is one that was made here above the leaves. */
  get rootIsNew(): boolean {
    return this.root !== null && this.#made.has(this.root);
  }

  #upper(level: number): Upper {
    while (this.#uppers.length < level) this.#uppers.push({ entries: [], weight: 0, foreign: true });
    return this.#uppers[level - 1]!;
  }

  #emptyFrom(level: number): boolean {
    for (let above = level; above <= this.#uppers.length; above++) {
      if (this.#upper(above).entries.length > 0) return false;
    }
    return true;
  }

  #emptyBelow(level: number): boolean {
    if (this.#leaf.count > 0) return false;
    for (let below = 1; below < level; below++) {
      if (this.#upper(below).entries.length > 0) return false;
    }
    return true;
  }

  /** Whether the levels up to this one hold either nothing or enough for pages of their own. */
  closable(level: number): boolean {
    const enough = this.#full / 4;
    let closing = false;
    if (this.#leaf.count > 0) {
      if (this.#leaf.weight < enough) return false;
      closing = true;
    }
    for (let above = 1; above <= level; above++) {
      const { entries, weight } = this.#upper(above);
      if (entries.length === 0 && !closing) continue;
      if (weight + (closing ? ENTRY_COST : 0) < enough) return false;
      closing = true;
    }
    return true;
  }

  /** Closes the pages of the levels up to this one: here a page of the old tree begins. */
  close(level: number): void {
    this.#closeLeaf(false);
    for (let above = 1; above <= level; above++) this.#closeUpper(above, false);
  }

  /** Writes whole leaves once two of them have gathered: what stays can always be cut well. */
  #spill(): void {
    while (this.#leaf.weight > 2 * this.#full) this.#emitLeaf(this.#leaf.rowsWithin(this.#full));
  }

  /** At the end of the tree the cut leaves a full page and a rest, that appended rows will fill; elsewhere two halves. */
  #closeLeaf(end: boolean): void {
    this.#spill();
    while (this.#leaf.count > 0) {
      const { weight } = this.#leaf;
      const limit = weight > this.#full && !end ? weight / 2 : this.#full;
      this.#emitLeaf(weight <= this.#full ? this.#leaf.count : this.#leaf.rowsWithin(limit));
    }
  }

  #emitLeaf(rows: number): void {
    const leaf = this.#leaf;
    const bytes = leaf.encode(rows);
    const self: Entry = { key: leaf.keyAt(0), pointer: { row: 0, offset: 0, length: 0 }, count: rows };
    leaf.drop(rows);
    const first = this.#heldLeaf === null && this.#waiting.length === 0 && this.#emptyFrom(1);
    this.#pushEntry(1, self, true);
    if (first) this.#heldLeaf = { bytes, self };
    else Object.assign(self.pointer, this.#sink.write(this.schema, 0, bytes));
  }

  #writeHeldLeaf(): void {
    if (this.#heldLeaf === null) return;
    const { bytes, self } = this.#heldLeaf;
    this.#heldLeaf = null;
    Object.assign(self.pointer, this.#sink.write(this.schema, 0, bytes));
  }

  #closeUpper(level: number, end: boolean): void {
    const upper = this.#upper(level);
    while (upper.entries.length > 0) {
      const limit = upper.weight > this.#full && upper.weight <= 2 * this.#full && !end ? upper.weight / 2 : this.#full;
      let taken = 0;
      let weight = 0;
      while (taken < upper.entries.length) {
        const cost = entryCost(upper.entries[taken]!);
        // Two children at least, or a level could be as long as the one below it.
        if (taken >= 2 && weight + cost > limit) break;
        weight += cost;
        taken++;
      }
      const children = upper.entries.splice(0, taken);
      upper.weight -= weight;
      const self: Entry = {
        key: children[0]!.key,
        pointer: { row: 0, offset: 0, length: 0 },
        count: children.reduce((sum, child) => sum + child.count, 0),
      };
      this.#waiting.push({ level, children, self });
      this.#made.add(self);
      this.#pushEntry(level + 1, self, true);
    }
  }

  #pushEntry(level: number, entry: Entry, made: boolean): void {
    const upper = this.#upper(level);
    upper.entries.push(entry);
    upper.weight += entryCost(entry);
    if (made) upper.foreign = true;
  }
}
