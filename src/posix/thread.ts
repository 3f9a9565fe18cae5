/**
 * Worker threads that may be stopped at any time. A thread that is terminated while it loads native code takes the whole
 * process with it (koffi: "FATAL ERROR … napi_throw", SIGABRT; seen in 1 of 20 exits right after a start). So every end,
 * `process.exit` included, first waits for the threads that still load. Loads nothing but worker_threads.
 */
import { getEnvironmentData, setEnvironmentData, Worker } from 'node:worker_threads';

const KEY = 'rozen.loaded';
/** The longest that an end waits, in ms: loading takes some 60 ms, and a thread that died of an error never tells. */
const PATIENCE = 5000;

interface Loading {
  /** How often the thread said that it has loaded all that it was to load. */
  loaded: Int32Array;
  /** How often it has been told to. */
  told: number;
}

/** Threads that have not ended. */
const threads = new Map<Worker, Loading>();
let hooked = false;

function waitForAll(): void {
  for (const { loaded, told } of threads.values()) {
    for (let seen = Atomics.load(loaded, 0); seen < told; seen = Atomics.load(loaded, 0))
      if (Atomics.wait(loaded, 0, seen, PATIENCE) === 'timed-out') break;
  }
}

/** Starts a thread whose module calls `threadLoaded`. */
export function startThread(module: URL, workerData?: unknown): Worker {
  if (!hooked) process.on('exit', waitForAll);
  hooked = true;
  const loaded = new Int32Array(new SharedArrayBuffer(4));
  setEnvironmentData(KEY, loaded);
  const worker = new Worker(module, { workerData });
  threads.set(worker, { loaded, told: 1 });
  worker.on('exit', () => threads.delete(worker));
  return worker;
}

/** The next message makes the thread load more: it calls `threadLoaded` once more. */
export function threadLoads(worker: Worker): void {
  const loading = threads.get(worker);
  if (loading !== undefined) loading.told++;
}

/** In a thread: everything native is loaded. */
export function threadLoaded(): void {
  const loaded = getEnvironmentData(KEY) as unknown as Int32Array;
  Atomics.add(loaded, 0, 1);
  Atomics.notify(loaded, 0);
}

/** Ends a thread, whatever it is doing; resolves when it has ended. */
export async function stopThread(worker: Worker): Promise<void> {
  const loading = threads.get(worker);
  if (loading !== undefined) {
    const { loaded, told } = loading;
    for (let seen = Atomics.load(loaded, 0); seen < told; seen = Atomics.load(loaded, 0))
      if ((await Atomics.waitAsync(loaded, 0, seen, PATIENCE).value) === 'timed-out') break;
  }
  await worker.terminate();
}
