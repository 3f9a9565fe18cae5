/**
 * Fetching what is not on this machine: each frame once however many wait for it, neighbours together, ahead of readers
 * that go in order. What came is held against its block hash, kept for this thread, and put into the block cache.
 * Lives on the main thread.
 */
import { KIND_DATA } from '../archive/format.ts';
import { checkBlockHash } from '../archive/frame.ts';
import type { RangeSource } from '../archive/reader.ts';
import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import type { BlockCache } from './block-cache.ts';
import { CLASS_BLOCK, CLASS_KEEP, frameKey, tailKey } from './cache-keys.ts';
import {
  type ArchiveAccess,
  addFrameCache,
  dropFetched,
  type FrameCache,
  isFetched,
  keepFetched,
  removeFrameCache,
} from './frames.ts';
import { MemoryPool } from './memory-pool.ts';
import { firstAt, framesIn, MAX_GAP, mergeRanges, type Range, tailSource } from './ranges.ts';
import { AHEAD_OF_CONTENT, AHEAD_OF_PAGES, ReadAhead } from './read-ahead.ts';
import { GivenUp, type Queued, RequestQueue, type RequestQueueOptions } from './request-queue.ts';
import type { SealedSlots } from './sealed-slots.ts';

const MAX_GET = 8 * 1024 * 1024;
/**
 * What is fetched ahead of a reader of content comes in GETs of this size at most: the first bytes of a large one would wait for its last.
 * A window moves on by 4 MiB, which is 16 blocks that did not shrink, each with a little around it: they must not come in two.
 */
const AHEAD_GET = (4 * 1024 + 256) * 1024;
/** Pieces of that size that are used again. */
const MAX_POOLED = 16;
/** A frame that came damaged is not asked for again within this time. */
const DAMAGE_MS = 5000;
/** Keys of cached frames that were used are told to the cache in groups. */
const USED_GROUP = 64;

/** What the fetcher needs to know of an open archive. */
export type Fetched = Pick<
  ArchiveAccess,
  'handle' | 'id' | 'kind' | 'object' | 'size' | 'blockOffsets' | 'blockLengths'
>;

export interface FetchCounters {
  /** Requests to the store, and the bytes that came. */
  requests: number;
  bytes: number;
  /** Of these, requests that nobody waited for yet. */
  ahead: number;
  failed: number;
  /** Frames of this thread that the block cache had. */
  hits: number;
  /** Frames that had to be fetched. */
  misses: number;
}

export interface FetcherOptions extends RequestQueueOptions {
  store: ObjectStore;
  cache: BlockCache | null;
  /** False leaves blocks of content out of the cache: a restore reads each once and would drive out what is browsed. */
  keepContent?: boolean;
  /** Where readers in other threads find blocks of content that came. */
  sealed?: SealedSlots | undefined;
}

interface Job extends Range {
  archive: Fetched;
  done: Promise<void>;
  queued: Queued;
}

interface Wanted extends Range {
  archive: Fetched;
  /** The GET may go on to here. */
  reach: number;
  resolve: (job: Job) => void;
}

export class Fetcher implements FrameCache {
  readonly cache: BlockCache | null;
  readonly counters: FetchCounters = { requests: 0, bytes: 0, ahead: 0, failed: 0, hits: 0, misses: 0 };
  readonly #store: ObjectStore;
  readonly #keepContent: boolean;
  readonly #sealed: SealedSlots | undefined;
  readonly #pool = new MemoryPool(AHEAD_GET, MAX_POOLED);
  readonly #queue: RequestQueue;
  readonly #jobs = new Map<number, Set<Job>>();
  readonly #readers = new Map<number, ReadAhead>();
  /** Frames on their way by themselves, by handle and offset. */
  readonly #lone = new Map<string, Promise<void>>();
  #wanted: Wanted[] = [];
  #used: Buffer[] = [];

  constructor(options: FetcherOptions) {
    this.#store = options.store;
    this.cache = options.cache;
    this.#keepContent = options.keepContent ?? true;
    this.#sealed = options.sealed;
    this.#queue = new RequestQueue(options.store.location, options);
    if (options.sealed !== undefined) addFrameCache(options.sealed);
    addFrameCache(this);
  }

  /** For `readFrame` of this thread. */
  frame(access: ArchiveAccess, offset: number): Buffer | null {
    if (this.cache === null) return null;
    const key = frameKey(access.id, offset);
    const bytes = this.cache.get(key);
    if (bytes === null) return null;
    this.counters.hits++;
    this.used([key]);
    return bytes;
  }

  /** Cached values that were read, by whichever thread. */
  used(keys: readonly Buffer[]): void {
    this.#used.push(...keys);
    if (this.#used.length < USED_GROUP) return;
    void this.cache?.touch(this.#used.splice(0));
  }

  /**
   * Makes a frame available to `readFrame` of this thread, and soon the blocks after it up to `until`, where the same reader wants them.
   * Throws what the store throws; 'io' at the deadline.
   */
  async fetch(archive: Fetched, offset: number, length: number, until = 0): Promise<void> {
    const range = { from: offset, to: offset + length };
    const end = Math.max(range.to, until);
    const ahead = { from: range.to, to: Math.max(end, this.#reader(archive).want(range.from, end).to) };
    for (let attempt = 0; attempt < 3 && !this.#isHere(archive, range); attempt++) {
      const job =
        this.#covering(archive, range) ?? (await this.#ask(archive, range, this.#reach(archive, range, ahead)));
      job.queued.hasten();
      if (attempt === 0) this.#ahead(archive, ahead, AHEAD_GET);
      try {
        await job.done;
        break;
      } catch (error) {
        // It was ahead of its time until now, and made room for others.
        if (error instanceof GivenUp) continue;
        // The object may end behind the frame, and before what was fetched with it.
        const wider = job.from < range.from || job.to > range.to;
        if (!wider || !(error instanceof RozenError) || error.code !== 'corrupt') throw error;
        break;
      }
    }
    this.#ahead(archive, ahead, AHEAD_GET);
    if (!this.#isHere(archive, range)) await this.#alone(archive, range);
  }

  /**
   * What came damaged, maybe on its way, or in a range that does not fall into whole frames: once more by itself, and kept for this
   * thread whatever it is, so that its reader tells of damage.
   */
  #alone(archive: Fetched, range: Range): Promise<void> {
    const key = `${archive.handle}:${range.from}`;
    let fetching = this.#lone.get(key);
    if (fetching === undefined) {
      const take = (bytes: Buffer): void => {
        keepFetched(archive.handle, range.from, bytes);
        if (checkBlockHash(bytes)) void this.#cacheFrames(archive, [{ offset: range.from, bytes }]);
        else setTimeout(() => dropFetched(archive.handle, range.from), DAMAGE_MS).unref();
      };
      fetching = this.#get(archive, range, false)
        .done.then(take)
        .finally(() => this.#lone.delete(key));
      this.#lone.set(key, fetching);
    }
    return fetching;
  }

  /** A reader is at this place of an archive, and has it already. */
  visited(archive: Fetched, offset: number, length: number): void {
    this.#ahead(archive, this.#reader(archive).want(offset, offset + length), AHEAD_GET);
  }

  /** Fetches ranges of content that will be wanted, in this order. */
  plan(archive: Fetched, ranges: readonly Range[]): void {
    for (const range of mergeRanges(ranges)) this.#ahead(archive, range, MAX_GET);
  }

  /** Bytes of an object, in their turn among all others; several GETs at once when there are many. */
  async read(object: string, offset: number, length: number): Promise<Buffer> {
    const pieces: Promise<Buffer>[] = [];
    for (let at = 0; at < length; at += MAX_GET) {
      const size = Math.min(MAX_GET, length - at);
      pieces.push(this.#request(() => this.#store.getRange(object, offset + at, size)).done);
    }
    const got = await Promise.all(pieces);
    return got.length === 1 ? got[0]! : Buffer.concat(got);
  }

  /**
   * Opens an archive by `open`, from its cached tail if there is one. What the cache has is given up when it does not
   * open; what the store gave is kept when it does.
   */
  async openTail<T>(
    what: { id: Uint8Array; object: string; hotIndex: boolean },
    open: (source: RangeSource) => Promise<T>,
  ): Promise<T> {
    const { object } = what;
    const key = tailKey(what.id, what.hotIndex);
    const kept = this.cache?.get(key) ?? null;
    if (kept !== null && kept.length > 8) {
      const size = kept.readDoubleLE(0);
      const bytes = Buffer.from(kept.subarray(8));
      this.used([key]);
      try {
        return await open(tailSource({ bytes, size }, (offset, length) => this.read(object, offset, length)));
      } catch (error) {
        if (!(error instanceof RozenError) || (error.code !== 'corrupt' && error.code !== 'untrusted')) throw error;
        await this.cache?.remove(key);
      }
    }
    let tail: { bytes: Buffer; size: number } | null = null;
    const opened = await onceMore(() =>
      open({
        read: (offset, length) => this.read(object, offset, length),
        suffix: async (length) => {
          tail = await this.#request(() => this.#store.getSuffix(object, length)).done;
          return tail;
        },
      }),
    );
    if (tail !== null) this.#keepTail(key, tail);
    return opened;
  }

  /** A header frame at the front of an archive, from the cache or by `get`. */
  async header(id: Uint8Array, get: () => Promise<Buffer>): Promise<Buffer> {
    const key = frameKey(id, 0);
    const kept = this.cache?.get(key) ?? null;
    if (kept !== null) return Buffer.from(kept);
    const bytes = await onceMore(get);
    if (checkBlockHash(bytes)) void this.cache?.put([{ key, bytes, class: CLASS_KEEP }]);
    return bytes;
  }

  /** Frames that came with something else: the pages in the tail of a tree archive. */
  keep(archive: Fetched, frames: readonly { offset: number; bytes: Buffer }[]): void {
    for (const { offset, bytes } of frames) keepFetched(archive.handle, offset, bytes);
    const { cache } = this;
    if (cache === null) return;
    void this.#cacheFrames(
      archive,
      frames.filter(({ offset, bytes }) => !cache.has(frameKey(archive.id, offset)) && checkBlockHash(bytes)),
    );
  }

  close(): void {
    removeFrameCache(this);
    if (this.#sealed !== undefined) removeFrameCache(this.#sealed);
    this.#queue.close();
    if (this.#used.length > 0) void this.cache?.touch(this.#used.splice(0));
  }

  #keepTail(key: Buffer, { bytes, size }: { bytes: Buffer; size: number }): void {
    const value = Buffer.allocUnsafe(8 + bytes.length);
    value.writeDoubleLE(size, 0);
    value.set(bytes, 8);
    void this.cache?.put([{ key, bytes: value, class: CLASS_KEEP }]);
  }

  #isHere(archive: Fetched, { from, to }: Range): boolean {
    return (
      isFetched(archive.handle, from, to - from) ||
      (this.#sealed?.has(archive, from) ?? false) ||
      (this.cache?.has(frameKey(archive.id, from)) ?? false)
    );
  }

  #covering({ handle }: Fetched, { from, to }: Range): Job | undefined {
    for (const job of this.#jobs.get(handle) ?? []) if (job.from <= from && to <= job.to) return job;
    return undefined;
  }

  /** What is wanted in the same turn of the event loop goes out together. */
  #ask(archive: Fetched, range: Range, reach: number): Promise<Job> {
    return new Promise((resolve) => {
      this.#wanted.push({ archive, ...range, reach, resolve });
      if (this.#wanted.length === 1) queueMicrotask(() => this.#send());
    });
  }

  #send(): void {
    const wanted = this.#wanted.splice(0).sort((a, b) => a.archive.handle - b.archive.handle || a.from - b.from);
    for (let i = 0; i < wanted.length; ) {
      const { archive, from } = wanted[i]!;
      let { to, reach } = wanted[i]!;
      let next = i + 1;
      for (; next < wanted.length && wanted[next]!.archive.handle === archive.handle; next++) {
        const other = wanted[next]!;
        if (other.from - to > MAX_GAP || Math.max(to, other.to) - from > MAX_GET) break;
        to = Math.max(to, other.to);
        reach = Math.max(reach, other.reach);
      }
      this.counters.misses += next - i;
      const job = this.#start(archive, { from, to: Math.max(to, Math.min(reach, from + MAX_GET)) }, false);
      for (; i < next; i++) wanted[i]!.resolve(job);
    }
  }

  #reader({ handle, kind }: Fetched): ReadAhead {
    let reader = this.#readers.get(handle);
    if (reader === undefined) {
      reader = new ReadAhead(kind === KIND_DATA ? AHEAD_OF_CONTENT : AHEAD_OF_PAGES);
      this.#readers.set(handle, reader);
    }
    return reader;
  }

  /**
   * How far the GET for a frame that somebody waits for goes beyond it: over the pages that follow, whose places nobody
   * knows before; of content over the first piece of what is fetched ahead.
   */
  #reach(archive: Fetched, { from, to }: Range, ahead: Range): number {
    if (ahead.to <= ahead.from || ahead.from - to > MAX_GAP) return to;
    if (archive.blockOffsets === null) return Math.min(ahead.to, archive.size);
    const goal = Math.min(ahead.to, from + AHEAD_GET);
    let reach = to;
    for (let block = firstAt(archive.blockOffsets, to); block < archive.blockOffsets.length; block++) {
      const end = archive.blockOffsets[block]! + archive.blockLengths![block]!;
      if (end > goal || this.#isHere(archive, { from: archive.blockOffsets[block]!, to: end })) break;
      reach = end;
    }
    return reach;
  }

  /** Starts GETs for what of a range of content is neither here nor on its way. */
  #ahead(archive: Fetched, { from, to }: Range, size: number): void {
    const { blockOffsets, blockLengths } = archive;
    if (blockOffsets === null || blockLengths === null) return;
    let open: Range | null = null;
    for (let block = firstAt(blockOffsets, from); block < blockOffsets.length; block++) {
      const next: Range = { from: blockOffsets[block]!, to: blockOffsets[block]! + blockLengths[block]! };
      if (next.from >= to) break;
      if (this.#covering(archive, next) !== undefined || this.#isHere(archive, next)) continue;
      if (open !== null && next.from - open.to <= MAX_GAP && next.to - open.from <= size) open.to = next.to;
      else {
        if (open !== null) this.#startAhead(archive, open);
        open = next;
      }
    }
    if (open !== null) this.#startAhead(archive, open);
  }

  /** Its failure is nobody's yet: whoever wants the frames will meet it again. */
  #startAhead(archive: Fetched, range: Range): void {
    this.#start(archive, range, true).done.catch(() => {});
  }

  #start(archive: Fetched, range: Range, ahead: boolean): Job {
    const pooled = archive.kind === KIND_DATA && this.#sealed !== undefined;
    const length = range.to - range.from;
    const { done, queued } = this.#get(archive, range, ahead, pooled ? () => this.#pool.take(length) : undefined);
    const job: Job = { archive, ...range, queued, done: Promise.resolve() };
    let jobs = this.#jobs.get(archive.handle);
    if (jobs === undefined) {
      jobs = new Set();
      this.#jobs.set(archive.handle, jobs);
    }
    jobs.add(job);
    job.done = done.then((bytes) => this.#take(archive, range.from, bytes)).finally(() => jobs.delete(job));
    return job;
  }

  #get(
    archive: Fetched,
    range: Range,
    ahead: boolean,
    target?: () => Buffer,
  ): { done: Promise<Buffer>; queued: Queued } {
    const { from, to } = range;
    return this.#request(() => this.#store.getRange(archive.object, from, to - from, target?.()), ahead);
  }

  #request<T extends Buffer | { bytes: Buffer }>(
    send: () => Promise<T>,
    ahead = false,
  ): { done: Promise<T>; queued: Queued } {
    const { counters } = this;
    const counted = async (): Promise<T> => {
      counters.requests++;
      if (ahead) counters.ahead++;
      try {
        const got = await send();
        counters.bytes += Buffer.isBuffer(got) ? got.length : got.bytes.length;
        return got;
      } catch (error) {
        counters.failed++;
        throw error;
      }
    };
    return this.#queue.request(counted, ahead);
  }

  /**
   * Cuts what came into frames, and makes them known to this thread or, by the shared slots, to all. One that is damaged is left out: who
   * wants it has it fetched once more. Shared ones lie in memory that is used again once they are cached.
   */
  #take(archive: Fetched, from: number, bytes: Buffer): void {
    const sound: { offset: number; bytes: Buffer }[] = [];
    const sealed = archive.kind === KIND_DATA ? this.#sealed : undefined;
    for (const { offset, length } of framesIn(archive, from, bytes)) {
      const frame = bytes.subarray(offset - from, offset - from + length);
      if (!checkBlockHash(frame)) continue;
      sound.push({ offset, bytes: frame });
      if (sealed === undefined) keepFetched(archive.handle, offset, frame);
      else if (!sealed.put(archive, offset, frame)) keepFetched(archive.handle, offset, Buffer.from(frame));
    }
    const cached = this.#cacheFrames(archive, sound);
    if (sealed === undefined) return;
    const memory = Buffer.from(bytes.buffer, 0, bytes.buffer.byteLength);
    if (cached === null) this.#pool.give(memory);
    else void cached.then(() => this.#pool.give(memory));
  }

  #cacheFrames(archive: Fetched, frames: readonly { offset: number; bytes: Buffer }[]): Promise<void> | null {
    if (this.cache === null || frames.length === 0 || (archive.kind === KIND_DATA && !this.#keepContent)) return null;
    const kind = archive.kind === KIND_DATA ? CLASS_BLOCK : CLASS_KEEP;
    return this.cache.put(
      frames.map(({ offset, bytes }) => ({ key: frameKey(archive.id, offset), bytes, class: kind })),
    );
  }
}

/** What does not hold its hashes may have been damaged on its way. */
async function onceMore<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof RozenError) || error.code !== 'corrupt') throw error;
    return work();
  }
}
