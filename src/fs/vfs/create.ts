/** The filesystem of a reader thread: what the main thread has opened, and nothing that needs a key envelope or a store. */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { addFrameCache } from '../../cache/frames.ts';
import { SealedSlots } from '../../cache/sealed-slots.ts';
import type { ReaderThread, Vfs } from '../vfs.ts';
import { Board, COUNT } from './board.ts';
import type { FromReader, HostMessage, VfsInit } from './messages.ts';
import { SnapshotVfs } from './snapshot-vfs.ts';

/** The same message is not posted again before this many ms: the main thread counts, it need not drown. */
const REPEAT_MS = 1000;

/** The database of the block cache: 35 ms. */
export function loadForFetching(): Promise<unknown> {
  return import('../../cache/reader-cache.ts');
}

/** `init` is what `MountHost.workerInit` made. */
export async function createVfs(init: unknown, thread: ReaderThread): Promise<Vfs> {
  const { port, slots, tasks, board, pageBytes, catalogue, status, snapshots, archives, cache, sealed, remote } =
    init as VfsInit;
  const post = (message: FromReader): void => port.postMessage(message);
  const report = reporter(post);
  if (sealed !== null) addFrameCache(new SealedSlots(sealed));
  if (cache !== null) {
    const { readCacheHere } = await import('../../cache/reader-cache.ts');
    const counters = new Board(board, thread.worker + 1);
    readCacheHere(cache, {
      report,
      hit: () => counters.count(COUNT.cacheHits),
      used: (keys) => post({ kind: 'used', keys }),
      damaged: (key) => post({ kind: 'damaged', key }),
    });
  }
  const vfs = new SnapshotVfs({
    thread: thread.worker + 1,
    slots,
    tasks,
    board,
    pageBytes,
    catalogue,
    status,
    remote,
    receive: (own) => receive(port, own),
    busy: thread.busy,
    call: thread.call,
    inOrder: (handle, block) => post({ kind: 'in order', handle, block }),
    report,
  });
  for (const snapshot of snapshots) vfs.apply({ kind: 'snapshot', snapshot });
  for (const { scope, row, access } of archives) vfs.apply({ kind: 'archive', scope, row, access });
  // What was posted between the making of `init` and now.
  receive(port, vfs);
  return vfs;
}

function receive(port: MessagePort, vfs: SnapshotVfs): void {
  for (let packet = receiveMessageOnPort(port); packet !== undefined; packet = receiveMessageOnPort(port)) {
    vfs.apply(packet.message as HostMessage);
  }
}

function reporter(post: (message: FromReader) => void): (message: string) => void {
  const posted = new Map<string, number>();
  return (message) => {
    const now = Date.now();
    if (now - (posted.get(message) ?? 0) < REPEAT_MS) return;
    if (posted.size >= 100) posted.clear();
    posted.set(message, now);
    post({ kind: 'problem', message });
  };
}
