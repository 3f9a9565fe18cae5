/** Helps until it is told to stop. */
import { parentPort, workerData } from 'node:worker_threads';

const { PieceTasks } = await import('../../dist/cache/tasks.js');
const { memory, thread, stop } = workerData;
const tasks = new PieceTasks(memory, thread);
let helped = 0;
const work = ({ handle, from, upTo }, target) => target.fill(handle % 251, 0, upTo - from).subarray(0, upTo - from);
parentPort.postMessage('ready');
while (Atomics.load(stop, 0) === 0) if (tasks.help(work)) helped++;
parentPort.postMessage(helped);
