/** Starting reader threads, also ahead of time. Loads nothing but worker_threads: it is the first thing a mount does. */
import type { Worker } from 'node:worker_threads';
import { entryUrl } from '../../entries.ts';
import { startThread } from '../../posix/thread.ts';

/** What a reader thread begins with; all else comes in its first message (`ReaderData`). */
export interface ReaderStart {
  /** Exports `createVfs`, see VfsModule. */
  module: string;
  /** Loads also what is needed where content is fetched (see VfsModule). */
  fetches: boolean;
}

/**
 * Starts a reader: it loads its modules and waits for its data. A thread takes 60 ms to come that far, which is why a
 * mount starts its first one before it has even read the key. One that ends early is noticed by `serve`.
 */
export function prepareReader(module: URL, fetches = false): Worker {
  const workerData: ReaderStart = { module: module.href, fetches };
  const reader = startThread(entryUrl('reader'), workerData);
  // Without a listener an error would end the process; `serve` adds those that tell of it.
  reader.on('error', () => {});
  return reader;
}
