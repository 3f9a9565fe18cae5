/** The thread behind `BlockPool`. Synchronous: it has nothing else to do. */
import { closeSync, openSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { willNeed } from '../../posix/advice.ts';
import { threadLoaded } from '../../posix/thread.ts';
import type { RunAnswer, RunJob } from './block-pool.ts';
import { memoryReader } from './block-pool.ts';
import { type BlockRun, checkRun } from './blocks.ts';
import { readRange, translate } from './object-file.ts';

threadLoaded();
const port = parentPort!;
let open: { path: string; fd: number } | null = null;

function fileOf(path: string, object: string): number {
  if (open?.path === path) return open.fd;
  if (open !== null) closeSync(open.fd);
  open = null;
  const fd = translate(object, () => openSync(path, 'r'));
  open = { path, fd };
  return fd;
}

/** The disk reads on while blocks are decoded. */
function hint({ object, offsets, lengths }: BlockRun, path: string): void {
  const last = lengths.length - 1;
  try {
    willNeed(fileOf(path, object), offsets[0]!, offsets[last]! + lengths[last]! - offsets[0]!);
  } catch {
    // Reading meets the error too, and tells of it.
  }
}

port.on('message', (job: RunJob) => {
  let answer: RunAnswer;
  try {
    const { run, path, bytes } = job;
    if (path !== null) hint(run, path);
    const read =
      path === null
        ? memoryReader(bytes!, run.offsets[0]!, run.object)
        : (offset: number, length: number) =>
            translate(run.object, () => readRange(fileOf(path, run.object), offset, length, run.object));
    answer = { result: checkRun(run, read) };
  } catch (error) {
    answer = { error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  port.postMessage(answer);
});
