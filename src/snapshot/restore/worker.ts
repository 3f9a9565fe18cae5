/** The thread that decodes blocks and writes files. Synchronous but for blocks that must be fetched. */
import { parentPort, workerData } from 'node:worker_threads';
import { libc } from '../../posix/libc.ts';
import { threadLoaded } from '../../posix/thread.ts';
import { BlockWindow } from './block-window.ts';
import { FileWriter } from './file-writer.ts';
import { FrameRequests } from './frame-requests.ts';
import { type Batch, type BatchResult, decodeBatch, type ToWorker, type WorkerSetup } from './messages.ts';
import { describe, isFatal } from './report.ts';
import { Settler } from './settle.ts';

libc();
threadLoaded();
const setup = workerData as WorkerSetup;
const port = parentPort!;
const blocks = new BlockWindow();
const settler = new Settler();
const requests = new FrameRequests((message) => port.postMessage(message));
let chain: Promise<void> = Promise.resolve();

const writer = new FileWriter({
  blocks,
  settler,
  verify: setup.verify,
  temporary: setup.temporary,
  fetch: ({ handle, offset, length }) => requests.fetch(handle, offset, length),
  ahead: (handle, block, last) => requests.ahead(blocks.archive(handle), block, last),
  progress: (bytes) => {
    setup.done[1] = setup.done[1]! + bytes;
  },
});

async function run(batch: Batch): Promise<void> {
  const result: BatchResult = {
    created: 0,
    replaced: 0,
    kept: 0,
    bytesRestored: 0,
    bytesKept: 0,
    problems: [],
    notices: [],
    fatal: null,
  };
  let file = 0;
  for (const { item, folder, nameZ } of decodeBatch(batch)) {
    try {
      const dirfd = batch.folders[folder]!;
      const what = await writer.restore(item, { dirfd, group: batch.groups[folder]!, nameZ });
      if (what === 'new') result.created++;
      else if (what === 'replaced') result.replaced++;
      else result.kept++;
      if (what === 'kept') result.bytesKept += item.size;
      else result.bytesRestored += item.size;
    } catch (error) {
      const problem = describe(error);
      if (isFatal(error)) {
        result.fatal = problem.message;
        break;
      }
      result.problems.push({ file, inode: item.inode, ...problem });
    }
    setup.done[0] = setup.done[0]! + 1;
    file++;
  }
  result.notices = settler.takeNotices();
  port.postMessage({ kind: 'done', result });
}

port.on('message', (message: ToWorker) => {
  if (message.kind === 'archive') blocks.addArchive(message.access);
  else if (message.kind === 'frame' || message.kind === 'no-frame') requests.answer(message);
  else {
    chain = chain
      .then(() => run(message.batch))
      .catch((error: Error) => port.postMessage({ kind: 'broken', message: error.stack ?? error.message }));
  }
});
