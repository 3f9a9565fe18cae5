/** The worker threads of a restore, and what waits for them. */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import type { ArchiveAccess } from '../../cache/frames.ts';
import { entryUrl } from '../../entries.ts';
import { RozenError } from '../../errors.ts';
import { startThread, stopThread } from '../../posix/thread.ts';
import type { Batch, BatchResult, FromWorker, ToWorker, WorkerSetup } from './messages.ts';

/** Batches that a worker holds: one at work, one to go on with. */
const DEPTH = 2;
const MAX_WORKERS = 16;

export interface PoolOptions {
  threads?: number | undefined;
  verify: boolean;
  temporary: string;
  /** What a restore is told that cannot go on for this reason. */
  ended(reason: string): RozenError;
  /** A frame of an archive that does not lie on this machine, in a buffer of its own, which is given away. */
  fetch(access: ArchiveAccess, offset: number, length: number): Promise<Uint8Array>;
}

/** A batch that becomes one only when a worker is free: until then its folders need not be open. */
export interface Job {
  /** Null when nothing of it is left to do. */
  begin(): Batch | null;
  end(result: BatchResult): void;
}

interface Thread {
  worker: Worker;
  held: Job[];
}

export class RestorePool {
  readonly #threads: Thread[];
  readonly #done: Float64Array[] = [];
  readonly #waiting: Job[] = [];
  readonly #archives = new Map<number, ArchiveAccess>();
  readonly #options: PoolOptions;
  #failure: Error | null = null;
  #wake: (() => void) | null = null;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    const count = Math.max(1, Math.min(options.threads ?? availableParallelism(), MAX_WORKERS));
    this.#threads = Array.from({ length: count }, () => this.#start());
  }

  /** Files and bytes that are done, as of now. */
  progress(): { files: number; bytes: number } {
    let files = 0;
    let bytes = 0;
    for (const done of this.#done) {
      files += done[0]!;
      bytes += done[1]!;
    }
    return { files, bytes };
  }

  /** Introduces an archive; before the first batch that needs it. */
  addArchive(access: ArchiveAccess): void {
    this.#archives.set(access.handle, access);
    for (const { worker } of this.#threads) worker.postMessage({ kind: 'archive', access } satisfies ToWorker);
  }

  submit(job: Job): void {
    this.#waiting.push(job);
    this.#dispatch();
  }

  /** Resolves when at most `jobs` wait or are at work. Throws what ended the work. */
  async until(jobs: number): Promise<void> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      const held = this.#threads.reduce((sum, thread) => sum + thread.held.length, 0);
      if (this.#waiting.length + held <= jobs) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Enough jobs that no worker idles while the next ones are found. */
  ready(): Promise<void> {
    return this.until(this.#threads.length * (DEPTH + 2));
  }

  /** Nothing more is begun, and whoever waits hears why. */
  stop(reason: Error): void {
    this.#fail(reason);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#threads.map(({ worker }) => stopThread(worker)));
  }

  #start(): Thread {
    const done = new Float64Array(new SharedArrayBuffer(16));
    this.#done.push(done);
    const { verify, temporary } = this.#options;
    const workerData: WorkerSetup = { verify, temporary, done };
    const worker = startThread(entryUrl('restoreWorker'), workerData);
    const thread: Thread = { worker, held: [] };
    worker.on('message', (message: FromWorker) => this.#heard(thread, message));
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', (code) => {
      if (!this.#closed) this.#fail(new RozenError('internal', `a restore worker ended with code ${code}`));
    });
    return thread;
  }

  #heard(thread: Thread, message: FromWorker): void {
    if (message.kind === 'broken') {
      this.#fail(new RozenError('internal', `a restore worker failed: ${message.message}`));
    } else if (message.kind === 'miss') {
      const { handle, offset, length } = message;
      const answer = (it: ToWorker, moved: ArrayBuffer[] = []): void => thread.worker.postMessage(it, moved);
      this.#options.fetch(this.#archives.get(handle)!, offset, length).then(
        (bytes) => answer({ kind: 'frame', handle, offset, bytes }, [bytes.buffer as ArrayBuffer]),
        (error: Error) => {
          const code = error instanceof RozenError ? error.code : 'io';
          answer({ kind: 'no-frame', handle, offset, code, message: error.message });
        },
      );
    } else {
      const job = thread.held.shift()!;
      if (message.result.fatal !== null) this.#fail(this.#options.ended(message.result.fatal));
      job.end(message.result);
      this.#dispatch();
      this.#wakeUp();
    }
  }

  #dispatch(): void {
    if (this.#failure !== null) return;
    for (let depth = 0; depth < DEPTH; depth++) {
      for (const thread of this.#threads) {
        while (thread.held.length <= depth) {
          const job = this.#waiting.shift();
          if (job === undefined) return;
          const batch = job.begin();
          if (batch === null) continue;
          thread.held.push(job);
          thread.worker.postMessage({ kind: 'batch', batch } satisfies ToWorker, [
            batch.folders.buffer as ArrayBuffer,
            batch.groups.buffer as ArrayBuffer,
            batch.numbers.buffer as ArrayBuffer,
            batch.bytes.buffer as ArrayBuffer,
          ]);
        }
      }
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
