/** A reader that never meets a kernel: with the lead it sleeps until it is told to go on, late requests it counts. */
import { parentPort, workerData } from 'node:worker_threads';

const { LateRequests } = await import('../../../dist/fs/kernel/late.js');
const { Lead, TURN } = await import('../../../dist/fs/kernel/lead.js');
const { Request } = await import('../../../dist/fs/protocol/request.js');
const { control, late, worker, answered, kernel } = workerData;
const lead = new Lead(control, new LateRequests(late), () => false, { worker, fd: 0 });
const request = new Request();
const count = new Int32Array(answered);
const queue = new Int32Array(kernel);
parentPort.postMessage('ready');
for (;;) {
  const turn = lead.take(request);
  if (turn === TURN.END) break;
  if (turn === TURN.LATE) {
    Atomics.add(count, request.words[2], 1);
    Atomics.notify(count, request.words[2]);
    continue;
  }
  // read(2): until something comes.
  const seen = Atomics.load(queue, 0);
  Atomics.wait(queue, 0, seen);
  lead.pass();
}
parentPort.postMessage('ended');
