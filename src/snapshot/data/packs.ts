/** Which archive a file goes to (DESIGN: packs), and what is known of all archives of this run. */
import { MAX_STREAM } from '../../archive/format.ts';
import type { DedupIndex } from './index.ts';
import type { FileLayout, Lookup } from './layout.ts';
import type { Pack } from './pack.ts';
import { CHUNK, CHUNK_WIDTH, SLAB_CHUNKS, type Slab } from './slab.ts';
import { HOLE } from './types.ts';

const ARCHIVE_SIZE = 1024 ** 3;
const ARCHIVE_OVERRUN = 100 * 1024 ** 2;
/** Archives that are filled at the same time: a file too large for one does not close it for the smaller ones after it. */
const OPEN_PACKS = 2;
/** Left free at the end of the longest stream, for the last records. */
const STREAM_SLACK = 1024 ** 2;
const STREAM_LIMIT = MAX_STREAM - STREAM_SLACK;

export interface PacksOptions {
  index: DedupIndex;
  archiveSize?: number;
  overrun?: number;
  selfContained?: boolean;
}

export class Packs {
  readonly archiveSize: number;
  readonly #overrun: number;
  readonly #index: DedupIndex;
  readonly #selfContained: boolean;
  /** Open for more content. */
  readonly #open: Pack[] = [];
  /** Not in the index yet: open, or on their way to the store. */
  readonly #known: Pack[] = [];
  /** Numbers of this run's archives. */
  readonly #numbers = new Set<number>();
  readonly #found: Lookup = { archive: HOLE, streamOffset: 0, ordinal: 0 };

  constructor(options: PacksOptions) {
    this.#index = options.index;
    this.archiveSize = Math.max(1, Math.min(options.archiveSize ?? ARCHIVE_SIZE, STREAM_LIMIT));
    this.#overrun = Math.max(0, options.overrun ?? ARCHIVE_OVERRUN);
    this.#selfContained = options.selfContained ?? false;
  }

  get open(): readonly Pack[] {
    return this.#open;
  }

  add(pack: Pack): void {
    this.#known.push(pack);
    this.#numbers.add(pack.number);
    if (!pack.complete) this.#open.push(pack);
  }

  /** Takes no more content. Its chunks are still found here. */
  close(pack: Pack): void {
    const at = this.#open.indexOf(pack);
    if (at >= 0) this.#open.splice(at, 1);
  }

  /** The index knows its chunks now. */
  forget(pack: Pack): void {
    this.close(pack);
    this.#known.splice(this.#known.indexOf(pack), 1);
  }

  /** An archive that this run took over whole. */
  addNumber(number: number): void {
    this.#numbers.add(number);
  }

  lookup(slab: Slab, chunk: number): Lookup {
    const found = this.#found;
    const length = slab.chunks[chunk * CHUNK_WIDTH + CHUNK.length]!;
    for (found.ordinal = 0; ; found.ordinal++) {
      const state = this.#find(slab, chunk, length);
      if (state !== 'other') {
        if (state === 'unknown') found.archive = HOLE;
        return found;
      }
    }
  }

  /** One ordinal of an id: the same content, another content, or none. */
  #find(slab: Slab, chunk: number, length: number): 'same' | 'other' | 'unknown' {
    const found = this.#found;
    const idAt = chunk * 32;
    for (const pack of this.#known) {
      const at = pack.chunks.find(slab.ids, idAt, found.ordinal);
      if (at < 0) continue;
      if (pack.chunks.length(at) !== length) return 'other';
      found.archive = pack.number;
      found.streamOffset = pack.chunks.offset(at);
      const start = slab.chunks[chunk * CHUNK_WIDTH + CHUNK.at]!;
      const same = pack.compare(found.streamOffset, slab.data, start, length);
      return same === false ? 'other' : 'same';
    }
    const place = this.#index.find(slab.ids, idAt, found.ordinal);
    if (place === undefined) return 'unknown';
    if (place.length !== length) return 'other';
    if (this.#selfContained && !this.#numbers.has(place.archive)) return 'unknown';
    found.archive = place.archive;
    found.streamOffset = place.streamOffset;
    return 'same';
  }

  /** The pack for the next content of a file; null when one must be made. */
  packFor(layout: FileLayout, bytes: number, chunks: number): Pack | null {
    const { pack, size } = layout;
    if (pack !== null) {
      const limit = pack.own || size < this.archiveSize ? STREAM_LIMIT : this.archiveSize + this.#overrun;
      if (pack.position === 0 || pack.fits(bytes, chunks, limit)) return pack;
    }
    // A large file whose beginning lies in an archive of its own goes on there (a crash).
    for (const open of this.#open) {
      if (open.own && open.number === layout.lastArchive && open.fits(bytes, chunks, STREAM_LIMIT)) return open;
    }
    if (this.wantsOwn(layout)) return null;
    const whole = size < this.archiveSize ? size : bytes;
    for (const open of this.#open) {
      if (open.own || open.heads || open === pack || open.position >= this.archiveSize) continue;
      if (open.position === 0 || open.fits(Math.max(whole, bytes), chunks, this.archiveSize + this.#overrun))
        return open;
    }
    return null;
  }

  /** The pack for heads of media files; null when one must be made. */
  headPackFor(bytes: number): Pack | null {
    const { heads } = this;
    const room = heads !== undefined && heads.position < this.archiveSize;
    return room && heads.fits(bytes, 1, Math.max(this.archiveSize, bytes) + this.#overrun) ? heads : null;
  }

  /** The open pack for heads, full or not. */
  get heads(): Pack | undefined {
    return this.#open.find((pack) => pack.heads);
  }

  /** Large and new from its beginning. One that is known in part adds to a pack what little is new. */
  wantsOwn(layout: FileLayout): boolean {
    return layout.size >= this.archiveSize && (layout.duplicates === 0 || layout.pack?.own === true);
  }

  /** The pack that must be closed before another one is opened; undefined when there is room. */
  surplus(): Pack | undefined {
    const shared = this.#open.filter((pack) => !pack.own && !pack.heads);
    if (shared.length < OPEN_PACKS) return undefined;
    return shared.reduce((fullest, pack) => (pack.position > fullest.position ? pack : fullest));
  }

  /** Packs that have reached their goal, after a file is done. */
  filled(layout: FileLayout): Pack[] {
    return this.#open.filter((pack) =>
      pack.own ? pack === layout.pack : pack.position >= this.archiveSize || !pack.fits(0, SLAB_CHUNKS, STREAM_LIMIT),
    );
  }
}
