/**
 * The worker threads of the data side. Jobs wait here, not in the workers' mailboxes: pieces of the file a worker has open go
 * first (nothing can be sealed meanwhile without them), then sealing (it frees memory), then batches of files.
 */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import type { CodecSpec } from '../../archive/codec/index.ts';
import type { SealContext } from '../../archive/frame.ts';
import { entryUrl } from '../../entries.ts';
import { RozenError } from '../../errors.ts';
import { startThread, stopThread } from '../../posix/thread.ts';
import type { Answer, Job, WorkerSetup } from './messages.ts';
import { openSlab, openSlot, type Slab, type Slot } from './slab.ts';

/** Jobs that a worker holds at once: enough to have the next one when the main thread is busy, few enough for priorities to count. */
const DEPTH = 3;
const MAX_WORKERS = 16;

export interface PoolOptions {
  contentIdKey: Uint8Array;
  chunkerKey: Uint8Array;
  codec: CodecSpec;
  workers?: number;
  idBytes?: number;
}

type Waiting = { job: ScanJob | SealJob; resolve: (value: number) => void; reject: (error: Error) => void };
type ScanJob = Extract<Job, { kind: 'scan' | 'open' | 'piece' }>;
type SealJob = Extract<Job, { kind: 'seal' }>;

interface Thread {
  worker: Worker;
  /** Jobs given out and not answered. */
  held: number;
  /** Pieces of the file that this worker has open. */
  own: Waiting[];
}

export class WorkerPool {
  readonly slabs: Slab[];
  readonly slots: Slot[];
  readonly #threads: Thread[];
  readonly #given = new Map<number, Waiting>();
  readonly #seals: Waiting[] = [];
  readonly #scans: Waiting[] = [];
  readonly #freeSlots: number[];
  #slotWaiter: { count: number; resolve: () => void; reject: (error: Error) => void } | null = null;
  #nextJob = 1;
  #failure: Error | null = null;
  #closed = false;

  constructor(options: PoolOptions) {
    const count = Math.max(1, Math.min(options.workers ?? availableParallelism(), MAX_WORKERS));
    // Slabs: one that is read and one that waits for each worker, and two for the pieces of a large file.
    this.slabs = Array.from({ length: 2 * count + 2 }, () => openSlab());
    // Slots: what two slabs hold, some for each worker to seal, and the open blocks of the archives.
    this.slots = Array.from({ length: 36 + 6 * count }, () => openSlot());
    this.#freeSlots = Array.from(this.slots.keys());
    const setup: WorkerSetup = {
      slabs: this.slabs.map((slab) => slab.memory),
      slots: this.slots.map((slot) => slot.memory),
      contentIdKey: Uint8Array.from(options.contentIdKey),
      chunkerKey: Uint8Array.from(options.chunkerKey),
      codec: options.codec,
      idBytes: options.idBytes ?? 32,
    };
    this.#threads = Array.from({ length: count }, () => this.#start(setup));
  }

  get workers(): number {
    return this.#threads.length;
  }

  /** Reads, chunks and hashes the files described in a slab; resolves to the number of chunks. */
  scan(slab: number, count: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const job: ScanJob = { kind: 'scan', job: this.#nextJob++, slab, count };
      this.#scans.push({ job, resolve, reject });
      this.#dispatch();
    });
  }

  /** A worker for one large file, from `open` to the last piece: the file stays open there. */
  session(): FileSession {
    let best = this.#threads[0]!;
    for (const thread of this.#threads)
      if (thread.held + thread.own.length < best.held + best.own.length) best = thread;
    const run = (kind: 'open' | 'piece', slab: number): Promise<number> =>
      new Promise((resolve, reject) => {
        const job: ScanJob = { kind, job: this.#nextJob++, slab };
        best.own.push({ job, resolve, reject });
        this.#dispatch();
      });
    return {
      open: (slab) => run('open', slab),
      piece: (slab) => run('piece', slab),
      close: () => this.#tell(best, { kind: 'close' }),
    };
  }

  /** Seals a slot's plaintext; resolves to the length of the frame in `slot.frame`. */
  seal(job: Omit<SealJob, 'kind' | 'job'>): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#seals.push({ job: { kind: 'seal', job: this.#nextJob++, ...job }, resolve, reject });
      this.#dispatch();
    });
  }

  get freeSlots(): number {
    return this.#freeSlots.length;
  }

  /** An empty slot; the caller has seen to it that there is one. */
  takeSlot(): number {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) throw new RozenError('internal', 'no slot is left for a block');
    return slot;
  }

  releaseSlot(slot: number): void {
    this.#freeSlots.push(slot);
    const waiter = this.#slotWaiter;
    if (waiter === null || this.#freeSlots.length < waiter.count) return;
    this.#slotWaiter = null;
    waiter.resolve();
  }

  /** Resolves when `count` slots are free. For one waiter at a time. */
  async slotsFree(count: number): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#freeSlots.length >= count) return;
    await new Promise<void>((resolve, reject) => {
      this.#slotWaiter = { count, resolve, reject };
    });
  }

  /** Introduces an archive to all workers; must come before its first `seal`. */
  addArchive(archive: number, context: SealContext): void {
    // Copies: a small Buffer is a view of a pool, and all of that would be cloned.
    const copy = {
      archiveId: Uint8Array.from(context.archiveId),
      key: Uint8Array.from(context.key),
      headerHash: Uint8Array.from(context.headerHash),
    };
    for (const thread of this.#threads) this.#tell(thread, { kind: 'archive', archive, context: copy });
    copy.key.fill(0);
  }

  forgetArchive(archive: number): void {
    for (const thread of this.#threads) this.#tell(thread, { kind: 'forget', archive });
  }

  /** Stops the workers at once; jobs that are not answered reject with `reason`. */
  async close(reason: Error = new RozenError('interrupted', 'the data workers were stopped')): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#fail(reason);
    await Promise.all(this.#threads.map((thread) => stopThread(thread.worker)));
  }

  #start(setup: WorkerSetup): Thread {
    const worker = startThread(entryUrl('dataWorker'), setup);
    const thread: Thread = { worker, held: 0, own: [] };
    worker.on('message', (answer: Answer) => this.#answered(thread, answer));
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', (code) => {
      if (!this.#closed) this.#fail(new RozenError('internal', `a data worker ended with code ${code}`));
    });
    return thread;
  }

  #answered(thread: Thread, answer: Answer): void {
    const given = this.#given.get(answer.job);
    thread.held--;
    if (given === undefined) return;
    this.#given.delete(answer.job);
    if (answer.error === undefined) given.resolve(answer.value);
    else this.#fail(new RozenError('internal', `a data worker failed: ${answer.error}`), given);
    this.#dispatch();
  }

  #dispatch(): void {
    if (this.#failure !== null) return this.#fail(this.#failure);
    for (let depth = 0; depth < DEPTH; depth++) {
      for (const thread of this.#threads) {
        if (thread.held > depth) continue;
        const next = thread.own.shift() ?? this.#seals.shift() ?? this.#scans.shift();
        if (next === undefined) continue;
        thread.held++;
        this.#given.set(next.job.job, next);
        this.#tell(thread, next.job);
      }
    }
  }

  #tell(thread: Thread, job: Job): void {
    thread.worker.postMessage(job);
  }

  /** A worker that failed may have lost a file's state or half a block: nothing more is done. */
  #fail(error: Error, first?: Waiting): void {
    this.#failure ??= error;
    first?.reject(error);
    const waiting = [
      ...this.#given.values(),
      ...this.#seals.splice(0),
      ...this.#scans.splice(0),
      ...this.#threads.flatMap((thread) => thread.own.splice(0)),
    ];
    this.#given.clear();
    for (const job of waiting) job.reject(this.#failure);
    this.#slotWaiter?.reject(this.#failure);
    this.#slotWaiter = null;
  }
}

export interface FileSession {
  open(slab: number): Promise<number>;
  piece(slab: number): Promise<number>;
  close(): void;
}
