/**
 * The data side of a backup: files in, extents out, sealed archives in the store.
 *
 *   add ─> batch in a slab ─> worker: read, chunk, hash ─> main: known? ─> blocks ─> worker: seal ─> spool ─> store
 *
 * The main thread decides and copies, workers do the rest. Everything between the stages is a fixed number of slabs and slots,
 * so memory does not grow with files, and a slow store stops the reading: at most STORING archives wait for it.
 */
import type { CodecSpec } from '../../archive/codec/index.ts';
import { keyedBlake3 } from '../../archive/crypto/blake3.ts';
import { BLOCK_SIZE, HASH_SIZE } from '../../archive/format.ts';
import { LinkIds } from '../../archive/records.ts';
import { RozenError } from '../../errors.ts';
import type { Repository } from '../../repository/repository.ts';
import type { Secrets } from '../../repository/secrets.ts';
import { isFrozenClass } from '../../store/storage-class.ts';
import { answer, answerLost, answerRead } from './answer.ts';
import { type Batch, describe, type Entry, entriesOf, Pending, type Unit } from './batches.ts';
import { type Destination, deliver, deliverRecovered, withoutIndex } from './deliver.ts';
import type { DedupIndex } from './index.ts';
import { FileLayout, type LayoutHost, type Lookup } from './layout.ts';
import { Pack, type PackEnvironment } from './pack.ts';
import { Packs } from './packs.ts';
import { WorkerPool } from './pool.ts';
import { READS } from './scan.ts';
import { FILE, FILE_WIDTH, MAX_PATH, SLAB_DATA, type Slab, STATUS } from './slab.ts';
import { recoverSpools } from './spool.ts';
import type { DataStats, DataStore, DataWriterOptions, FileToStore, StoredArchive, StoredFile } from './types.ts';

/** Slots that any one step of a layout needs: the content of a slab, padding, records. */
const SLOTS_WANTED = SLAB_DATA / BLOCK_SIZE + 8;
/** Archives on their way to the store, beyond which no new one is begun. */
const STORING = 2;

/**
 * zstd's level for content. Measured on 68,000 files of /usr (1.0 GB, 0.92 GB after deduplication): level 3 362 MB and 8.2 s of
 * processor time for everything, 5 352 MB and 13.1 s, 6 350 MB and 14.0 s, 7 345 MB and 15.4 s; restic 390 MB and 14.0 s.
 * Wall time, idle machine: level 4 7.3 s, 5 7.5 s, 6 8.4 s, restic 9.0 s.
 */
const ZSTD_LEVEL = 5;

/** Test-only knobs beside the options. */
export interface DataWriterTesting {
  /** Content ids are cut to so many bytes, to see collisions. */
  idBytes?: number;
}

export class DataWriter implements DataStore, LayoutHost {
  readonly stats: DataStats = {
    files: 0,
    bytes: 0,
    newBytes: 0,
    sealedBytes: 0,
    recoveredBytes: 0,
    recoveredChunks: 0,
  };
  readonly #repository: Repository;
  readonly #index: DedupIndex;
  readonly #packs: Packs;
  readonly #environment: PackEnvironment;
  readonly #startPool: () => WorkerPool;
  readonly #emptyId: Buffer;
  readonly #links = new LinkIds();
  readonly #archives: StoredArchive[] = [];
  readonly #storing = new Set<Promise<void>>();
  readonly #signal: AbortSignal | undefined;
  #pool: WorkerPool | null = null;
  #freeSlabs: number[] = [];
  #pieceSlabs: [number, number] = [0, 0];
  readonly #pending = new Pending();
  #units: Unit[] = [];
  #working: Promise<void> | null = null;
  #flushing = false;
  #nudge: NodeJS.Immediate | null = null;
  #readyWaiters: { resolve(): void; reject(error: Error): void }[] = [];
  /** packFor or headPackFor found none: the next `provide` makes one. */
  #missing: 'pack' | 'heads' | null = null;
  readonly separateHeads: boolean;
  #failure: Error | null = null;
  /** `finish` takes no more files; `done` means that nothing can fail any more. */
  #state: 'open' | 'finishing' | 'done' = 'open';
  readonly #failed: Promise<never>;
  #rejectFailed!: (error: Error) => void;

  private constructor(options: DataWriterOptions & DataWriterTesting, secrets: Secrets) {
    const { repository, index, spoolDir, signal, workers, idBytes } = options;
    const codec = withLevel(options.codec ?? { codec: 'zstd' });
    this.#repository = repository;
    this.#index = index;
    this.#packs = new Packs(options);
    this.separateHeads = options.separateHeads ?? isFrozenClass(repository.storageClass);
    repository.keepSmall(this.#packs.archiveSize);
    this.#signal = signal;
    this.#emptyId = keyedBlake3(secrets.contentIdKey, Buffer.alloc(0));
    this.#failed = new Promise((_, reject) => {
      this.#rejectFailed = reject;
    });
    this.#failed.catch(() => {});
    const { contentIdKey, chunkerKey } = secrets;
    this.#startPool = () =>
      new WorkerPool({
        contentIdKey,
        chunkerKey,
        codec,
        ...(workers === undefined ? {} : { workers }),
        ...(idBytes === undefined ? {} : { idBytes }),
      });
    this.#environment = {
      repository,
      spoolDir,
      codec,
      pool: () => this.#usePool(),
      sealed: (bytes) => {
        this.stats.sealedBytes += bytes;
      },
      fail: (error) => this.#fail(error),
    };
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Takes over what a crashed run left in the spool: whole archives are stored, open ones go on. */
  static async open(options: DataWriterOptions & DataWriterTesting): Promise<DataWriter> {
    if (options.signal?.aborted === true) throw new RozenError('interrupted', 'the backup was stopped');
    const writer = new DataWriter(options, await options.repository.loadSecrets());
    try {
      await writer.#recover(options.spoolDir);
    } catch (error) {
      await writer.abort();
      throw error;
    }
    return writer;
  }

  async #recover(spoolDir: string): Promise<void> {
    for (const found of await recoverSpools(spoolDir)) {
      if (found.found !== 'open') {
        const number = await deliverRecovered(this.#destination, this.#index, found);
        if (found.found === 'sealed') this.stats.recoveredBytes += found.sealed;
        if (number !== undefined) {
          this.#packs.addNumber(number);
          this.#archives.push({ number, archive: this.#index.archive(number)! });
        }
        continue;
      }
      const pack = Pack.resume(this.#environment, found, this.#index.reserve());
      this.stats.recoveredBytes += found.sealed;
      this.stats.recoveredChunks += found.chunks.count;
      this.#packs.add(pack);
      if (pack.complete) this.#retire(pack);
    }
  }

  /* ---- The caller's side ------------------------------------------------------------------------------------- */

  get full(): boolean {
    return this.#pending.full;
  }

  async ready(): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (!this.full) return;
    await new Promise<void>((resolve, reject) => {
      this.#readyWaiters.push({ resolve, reject });
    });
  }

  add(file: FileToStore): Promise<StoredFile> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#state !== 'open') return Promise.reject(new RozenError('internal', 'the data writer is finished'));
    if (file.size === 0) return Promise.resolve(this.#count(answer(file, { contentId: this.#emptyId })));
    if (file.path.length > MAX_PATH) {
      const error = 'ENAMETOOLONG: the path is too long to be opened';
      return Promise.resolve(this.#count(answer(file, { status: 'unreadable', error, size: 0 })));
    }
    return new Promise((resolve, reject) => {
      this.#pending.push({ file, resolve, reject });
      if (this.#pending.ripe) this.#pump();
      else this.#nudge ??= setImmediate(() => this.#onNudge());
    });
  }

  flush(): void {
    this.#flushing = true;
    this.#pump();
  }

  async finish(): Promise<{ archives: StoredArchive[] }> {
    this.flush();
    while (this.#working !== null) await this.#working;
    if (this.#failure !== null) throw this.#failure;
    this.#state = 'finishing';
    for (const pack of [...this.#packs.open]) this.#retire(pack);
    await Promise.race([this.#failed, Promise.all(this.#storing)]);
    if (this.#failure !== null) throw this.#failure;
    this.#state = 'done';
    await this.#stop(new RozenError('internal', 'the data writer is finished'));
    return { archives: this.#archives };
  }

  async abort(): Promise<void> {
    this.#fail(new RozenError('interrupted', 'the backup was stopped'));
    await Promise.allSettled([...this.#storing, this.#working]);
    await this.#stop(this.#failure ?? new RozenError('internal', 'the data writer is finished'));
  }

  readonly #onAbort = (): void => this.#fail(new RozenError('interrupted', 'the backup was stopped'));

  /* ---- Batches ------------------------------------------------------------------------------------------------- */

  /** A batch that is not full goes out when nothing else is under way: nobody waits for a batch that never fills. */
  #onNudge(): void {
    this.#nudge = null;
    if (this.#units.length === 0 && this.#working === null) this.#pump(true);
  }

  #pump(partial = this.#flushing): void {
    if (this.#failure !== null || this.#pending.length === 0) return;
    const pool = this.#usePool();
    while (this.#freeSlabs.length > 0 || this.#pending.nextIsLarge) {
      const taken = this.#pending.take(partial);
      if (taken === null) break;
      if ('large' in taken) {
        this.#units.push(taken);
        continue;
      }
      const { entries } = taken;
      const slab = this.#freeSlabs.pop()!;
      describe(pool.slabs[slab]!, entries);
      const scanned = pool.scan(slab, entries.length);
      // Awaited when its turn comes; a failure before that is told to everybody anyway.
      scanned.catch(() => {});
      this.#units.push({ slab, entries, scanned });
    }
    if (this.#pending.length === 0) this.#flushing = false;
    if (!this.full) for (const waiter of this.#readyWaiters.splice(0)) waiter.resolve();
    if (this.#units.length > 0) this.#working ??= this.#work();
  }

  async #work(): Promise<void> {
    // Not before `#working` is set.
    await null;
    try {
      for (;;) {
        const unit = this.#units.shift();
        if (unit === undefined) {
          this.#pump(true);
          if (this.#units.length === 0) break;
          continue;
        }
        if ('large' in unit) await this.#storeLarge(unit.large);
        else await this.#storeBatch(unit);
        this.#pump();
      }
    } catch (error) {
      this.#fail(error as Error);
    } finally {
      this.#working = null;
    }
  }

  async #storeBatch(unit: Batch): Promise<void> {
    let done = 0;
    try {
      await unit.scanned;
      const slab = this.#pool!.slabs[unit.slab]!;
      let chunk = 0;
      for (const entry of unit.entries) {
        const row = done * FILE_WIDTH;
        const end = slab.files[row + FILE.chunkEnd]!;
        const status = slab.files[row + FILE.status]!;
        if (status === STATUS.deferred) await this.#storeLarge(entry);
        else if (status === STATUS.vanished || status === STATUS.unreadable)
          entry.resolve(this.#count(answerLost(entry.file, slab, done)));
        else {
          const size = slab.files[row + FILE.actualSize]!;
          const layout = new FileLayout(this, entry.file, { size, link: this.#links.next() });
          layout.media = slab.files[row + FILE.media] === 1;
          const at = layout.place(slab, chunk, end);
          if (at < end) await this.#placeAll(layout, slab, at, end);
          const contentId = Buffer.from(slab.contentIds.subarray(done * HASH_SIZE, (done + 1) * HASH_SIZE));
          if (!layout.finish(size, contentId)) await this.#finishFile(layout, size, contentId);
          this.#settle(entry, { layout, slab, index: done, contentId, retries: slab.files[row + FILE.retries]! });
        }
        chunk = end;
        done++;
      }
    } catch (error) {
      for (const entry of unit.entries.slice(done)) entry.reject(error as Error);
      throw error;
    }
    this.#freeSlabs.push(unit.slab);
  }

  /** A file that comes piece by piece: while one piece is laid out, the worker reads the next. */
  async #storeLarge(entry: Entry): Promise<void> {
    try {
      for (let retries = 0; ; retries++) if (await this.#readLarge(entry, retries)) return;
    } catch (error) {
      entry.reject(error as Error);
      throw error;
    }
  }

  async #readLarge(entry: Entry, retries: number): Promise<boolean> {
    const pool = this.#usePool();
    const session = pool.session();
    const layout = new FileLayout(this, entry.file, { size: entry.file.size, link: this.#links.next() });
    let [current, other] = this.#pieceSlabs;
    describe(pool.slabs[current]!, [entry]);
    let reading = session.open(current);
    for (;;) {
      await reading;
      const slab = pool.slabs[current]!;
      const status = slab.files[FILE.status]!;
      if (status === STATUS.vanished || status === STATUS.unreadable) {
        entry.resolve(this.#count(answerLost(entry.file, slab, 0)));
        return true;
      }
      if (status === STATUS.more) {
        reading = session.piece(other);
        reading.catch(() => {});
      }
      layout.media = slab.files[FILE.media] === 1;
      await this.#placeAll(layout, slab, 0, slab.files[FILE.chunkEnd]!);
      if (status === STATUS.more) {
        [current, other] = [other, current];
        continue;
      }
      if (status === STATUS.changed && retries + 1 < READS) return false;
      const contentId = Buffer.from(slab.contentIds.subarray(0, HASH_SIZE));
      await this.#finishFile(layout, slab.files[FILE.actualSize]!, contentId);
      this.#settle(entry, { layout, slab, index: 0, contentId, retries });
      return true;
    }
  }

  async #placeAll(layout: FileLayout, slab: Slab, from: number, to: number): Promise<void> {
    let at = layout.place(slab, from, to);
    while (at < to) {
      await this.#provide(layout);
      at = layout.place(slab, at, to);
    }
  }

  async #finishFile(layout: FileLayout, size: number, contentId: Buffer): Promise<void> {
    while (!layout.finish(size, contentId)) await this.#provide(layout);
  }

  /** Gives a layout what it waits for: a pack, free slots. */
  async #provide(layout: FileLayout): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#missing === 'heads') {
      this.#missing = null;
      const full = this.#packs.heads;
      if (full !== undefined) this.#retire(full);
      await this.#openPack({ own: false, heads: true });
    } else if (this.#missing === 'pack') {
      this.#missing = null;
      const own = this.#packs.wantsOwn(layout);
      const surplus = own ? undefined : this.#packs.surplus();
      if (surplus !== undefined) this.#retire(surplus);
      const pack = await this.#openPack({ own, heads: false });
      // The new chunk that asked for it will begin it, so that nothing more comes to the one before.
      const left = layout.moveTo(pack);
      if (left?.own === true) this.#retire(left);
    }
    await this.#usePool().slotsFree(SLOTS_WANTED);
  }

  async #openPack(kind: { own: boolean; heads: boolean }): Promise<Pack> {
    while (this.#storing.size >= STORING) await Promise.race([this.#failed, ...this.#storing]);
    const pack = await Pack.create(this.#environment, { number: this.#index.reserve(), ...kind });
    this.#packs.add(pack);
    return pack;
  }

  #settle(
    entry: Entry,
    read: { layout: FileLayout; slab: Slab; index: number; contentId: Buffer; retries: number },
  ): void {
    for (const pack of this.#packs.filled(read.layout)) this.#retire(pack);
    entry.resolve(this.#count(answerRead(entry.file, read)));
  }

  #count(stored: StoredFile): StoredFile {
    this.stats.files++;
    this.stats.bytes += stored.size;
    this.stats.newBytes += stored.newBytes;
    return stored;
  }

  /* ---- LayoutHost -------------------------------------------------------------------------------------------------- */

  lookup(slab: Slab, chunk: number): Lookup {
    return this.#packs.lookup(slab, chunk);
  }

  packFor(layout: FileLayout, bytes: number, chunks: number): Pack | null {
    const pack = this.#packs.packFor(layout, bytes, chunks);
    if (pack === null) this.#missing = 'pack';
    return pack;
  }

  headPackFor(bytes: number): Pack | null {
    const pack = this.#packs.headPackFor(bytes);
    if (pack === null) this.#missing = 'heads';
    return pack;
  }

  get freeSlots(): number {
    return this.#usePool().freeSlots;
  }

  /* ---- Archives ------------------------------------------------------------------------------------------------------ */

  /** Ends an archive and brings it to the store, in the background. */
  #retire(pack: Pack): void {
    this.#packs.close(pack);
    const work = this.#bring(pack).then(
      () => {},
      (error) => this.#fail(error),
    );
    const tracked: Promise<void> = work.finally(() => this.#storing.delete(tracked));
    this.#storing.add(tracked);
  }

  async #bring(pack: Pack): Promise<void> {
    const { archive, spool } = await Promise.race([pack.finish(), this.#failed]);
    const { id, size, hotIndex } = archive;
    await deliver(this.#destination, spool, { id, size, hotIndex: hotIndex!, hot: pack.heads });
    this.#index.add(pack.number, archive, pack.chunks);
    this.#packs.forget(pack);
    spool.remove();
    this.#archives.push({ number: pack.number, archive: withoutIndex(archive) });
  }

  get #destination(): Destination {
    return { repository: this.#repository, signal: this.#signal };
  }

  #usePool(): WorkerPool {
    if (this.#failure !== null) throw this.#failure;
    if (this.#pool === null) {
      this.#pool = this.#startPool();
      const slabs = [...this.#pool.slabs.keys()];
      this.#pieceSlabs = [slabs.pop()!, slabs.pop()!];
      this.#freeSlabs = slabs;
    }
    return this.#pool;
  }

  #fail(error: Error): void {
    if (this.#failure !== null || this.#state === 'done') return;
    this.#failure = error;
    this.#rejectFailed(error);
    for (const entry of this.#pending.clear()) entry.reject(error);
    for (const unit of this.#units.splice(0)) for (const entry of entriesOf(unit)) entry.reject(error);
    for (const waiter of this.#readyWaiters.splice(0)) waiter.reject(error);
    for (const pack of this.#packs.open) pack.abandon();
    void this.#pool?.close(error);
  }

  async #stop(reason: Error): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    if (this.#nudge !== null) clearImmediate(this.#nudge);
    this.#nudge = null;
    await this.#pool?.close(reason);
  }
}

function withLevel(codec: CodecSpec): CodecSpec {
  return codec.codec === 'zstd' ? { codec: 'zstd', level: codec.level ?? ZSTD_LEVEL } : codec;
}
