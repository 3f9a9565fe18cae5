import { closeSync, openSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { entryUrl } from '../../entries.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { startThread, stopThread } from '../../posix/thread.ts';
import { isRemote, type ObjectStore } from '../../store/object-store.ts';
import { type BlockRun, checkRun, type RunResult } from './blocks.ts';
import { getParallel, readRange, translate } from './object-file.ts';

/** `path`: the object as a local file; else `bytes` from the offset of the first block of the run. */
export interface RunJob {
  run: BlockRun;
  path: string | null;
  bytes: Uint8Array | null;
}

export type RunAnswer = { result: RunResult; error?: never } | { error: string; result?: never };

/** Runs that a worker holds at once: the next one waits there when it is done with one. */
const DEPTH = 2;
/** Runs of a remote object that are fetched at once, at least: some GETs each. */
const REMOTE_DEPTH = 4;
const MAX_WORKERS = 16;

interface Thread {
  worker: Worker;
  waiting: { resolve: (result: RunResult) => void; reject: (error: Error) => void }[];
}

/** Checks runs of blocks on all cores; with 0 threads on the calling one. */
export class BlockPool {
  readonly #threads: Thread[];
  readonly #store: ObjectStore;
  readonly #queue: (() => void)[] = [];
  /** Runs under way, and who waits for one of them to end. */
  #running = 0;
  readonly #waiting: (() => void)[] = [];
  #failure: Error | null = null;
  #closed = false;

  constructor(store: ObjectStore, threads = Math.min(availableParallelism(), MAX_WORKERS)) {
    this.#store = store;
    this.#threads = Array.from({ length: threads }, () => this.#start());
  }

  /** How many runs to have under way. */
  get depth(): number {
    return Math.max(isRemote(this.#store) ? REMOTE_DEPTH : 1, this.#threads.length * DEPTH);
  }

  async check(run: BlockRun): Promise<RunResult> {
    // Bytes that were fetched lie in memory until they are checked: of all objects together no more than `depth` runs.
    while (this.#running >= this.depth) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#running++;
    try {
      return await this.#check(run);
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  async #check(run: BlockRun): Promise<RunResult> {
    const path = this.#store.localPath(run.object);
    if (this.#threads.length === 0) return this.#inline(run, path);
    const bytes = path === null ? await this.#fetch(run) : null;
    const thread = await this.#free();
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) return reject(this.#failure);
      thread.waiting.push({ resolve, reject });
      const job: RunJob = { run, path, bytes };
      thread.worker.postMessage(job);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#threads.map(({ worker }) => stopThread(worker)));
  }

  async #inline(run: BlockRun, path: string | null): Promise<RunResult> {
    if (path === null) return checkRun(run, memoryReader(await this.#fetch(run), run.offsets[0]!, run.object));
    let fd = -1;
    try {
      return checkRun(run, (offset, length) =>
        translate(run.object, () => {
          if (fd < 0) fd = openSync(path, 'r');
          return readRange(fd, offset, length, run.object);
        }),
      );
    } finally {
      if (fd >= 0) closeSync(fd);
    }
  }

  /** The bytes of a run; fewer when the object ends before. */
  async #fetch(run: BlockRun): Promise<Uint8Array> {
    const last = run.lengths.length - 1;
    const from = run.offsets[0]!;
    const end = run.offsets[last]! + run.lengths[last]!;
    try {
      return await getParallel(this.#store, run.object, { offset: from, length: end - from });
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'corrupt') throw error;
      const size = (await this.#store.stat(run.object))?.size ?? 0;
      const rest = { offset: from, length: size - from };
      return size > from ? getParallel(this.#store, run.object, rest) : new Uint8Array(0);
    }
  }

  #free(): Promise<Thread> {
    const best = this.#threads.reduce((a, b) => (b.waiting.length < a.waiting.length ? b : a));
    if (best.waiting.length < DEPTH) return Promise.resolve(best);
    return new Promise<void>((resolve) => this.#queue.push(resolve)).then(() => this.#free());
  }

  #start(): Thread {
    const worker = startThread(entryUrl('blockWorker'));
    const thread: Thread = { worker, waiting: [] };
    const fail = (error: Error): void => {
      this.#failure ??= error;
      for (const { reject } of thread.waiting.splice(0)) reject(error);
      for (const wake of this.#queue.splice(0)) wake();
    };
    worker.on('message', ({ result, error }: RunAnswer) => {
      const job = thread.waiting.shift();
      if (error !== undefined) job?.reject(new RozenError('internal', `a verify thread failed: ${error}`));
      else job?.resolve(result!);
      this.#queue.shift()?.();
    });
    worker.on('error', fail);
    worker.on('exit', (code) => {
      if (!this.#closed) fail(new RozenError('internal', `a verify thread ended with code ${code}`));
    });
    return thread;
  }
}

/** A reader over bytes that begin at `from` of the object. */
export function memoryReader(bytes: Uint8Array, from: number, object: string) {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return (offset: number, length: number): Buffer => {
    if (offset < from || offset + length > from + buffer.length)
      throw corrupt(`${object}: ends at byte ${from + buffer.length}, expected at least ${offset + length}`);
    return buffer.subarray(offset - from, offset - from + length);
  };
}
