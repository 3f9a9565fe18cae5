/** Hashes without ever returning to the event loop, as a reader of a mount does; answers how many bytes the process grew by. */
import { parentPort, workerData } from 'node:worker_threads';
import { Blake3Stream, blake3, keyedBlake3 } from '../../dist/archive/crypto/blake3.js';

const data = Buffer.alloc(64, 1);
const key = Buffer.alloc(32, 2);
const stream = new Blake3Stream();
const run = (rounds) => {
  for (let i = 0; i < rounds; i++) {
    blake3(data);
    keyedBlake3(key, data);
    stream.reset().update(data).digest();
  }
};
run(20_000);
const before = process.memoryUsage.rss();
run(workerData.rounds);
parentPort.postMessage(process.memoryUsage.rss() - before);
