/**
 * Worker threads that may be stopped at any time. A thread that is terminated while it loads native code takes the whole
 * process with it (koffi: "FATAL ERROR … napi_throw", SIGABRT; seen in 1 of 20 exits right after a start). So every end,
 * `process.exit` included, first waits for the threads that still load. Loads nothing but worker_threads.
 */
import { getEnvironmentData, setEnvironmentData, Worker } from 'node:worker_threads';

const KEY = 'rozen.loaded';
/** The longest that an end waits, in ms: loading takes some 60 ms, and a thread that died of an error never tells. */
const PATIENCE = 5000;

/** Threads that have not ended; the word becomes 1 when the thread has loaded all that it needs. */
const threads = new Map<Worker, Int32Array>();
let hooked = false;

function waitForAll(): void {
  for (const loaded of threads.values()) Atomics.wait(loaded, 0, 0, PATIENCE);
}

/** Starts a thread whose module calls `threadLoaded`. */
export function startThread(module: URL, workerData?: unknown): Worker {
  if (!hooked) process.on('exit', waitForAll);
  hooked = true;
  const loaded = new Int32Array(new SharedArrayBuffer(4));
  setEnvironmentData(KEY, loaded);
  const worker = new Worker(module, { workerData });
  threads.set(worker, loaded);
  worker.on('exit', () => threads.delete(worker));
  return worker;
}

/** In a thread: everything native is loaded. */
export function threadLoaded(): void {
  const loaded = getEnvironmentData(KEY) as unknown as Int32Array;
  Atomics.store(loaded, 0, 1);
  Atomics.notify(loaded, 0);
}

/** Ends a thread, whatever it is doing; resolves when it has ended. */
export async function stopThread(worker: Worker): Promise<void> {
  const loaded = threads.get(worker);
  if (loaded !== undefined) await Atomics.waitAsync(loaded, 0, 0, PATIENCE).value;
  await worker.terminate();
}
