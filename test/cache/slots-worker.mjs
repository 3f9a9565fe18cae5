/** One of many threads that read random blocks; the content of a block is a function of its key. */
import { parentPort, workerData } from 'node:worker_threads';

const { BlockSlots } = await import('../../dist/cache/slots.js');
const { RozenError } = await import('../../dist/errors.js');
const { memory, seed, rounds, archives, blocks, tally, hold, failing, gate } = workerData;
const slots = new BlockSlots(memory);
const decoded = new Int32Array(tally);
const gates = gate ? new Int32Array(gate) : null;

let state = seed;
const random = (below) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};

let wrong = 0;
let failures = 0;
let bypasses = 0;
const messages = new Set();
if (gates) {
  parentPort.postMessage('ready');
  Atomics.wait(gates, 0, 0);
}
for (let round = 0; round < rounds; round++) {
  const archive = random(archives);
  const block = random(blocks);
  const value = ((archive * blocks + block) % 251) + 1;
  try {
    const slot = slots.acquire(archive, block, (target) => {
      Atomics.add(decoded, archive * blocks + block, 1);
      if (failing !== undefined && block === failing) {
        if (gates) Atomics.wait(gates, 1, 0, 50);
        throw new RozenError('corrupt', `block ${block} is damaged`);
      }
      target.fill(0);
      target.fill(value);
      return target.length - block;
    });
    if (slot < 0) {
      bypasses++;
      continue;
    }
    const bytes = slots.bytes(slot);
    if (hold && random(4) === 0) for (let spin = 0; spin < random(20_000); spin++);
    if (bytes.length !== memory.slotSize - block || bytes[0] !== value || bytes[bytes.length - 1] !== value) wrong++;
    if (bytes[random(bytes.length)] !== value) wrong++;
    slots.release(slot);
  } catch (error) {
    if (!(error instanceof RozenError) || error.code !== 'corrupt') throw error;
    messages.add(error.message);
    failures++;
  }
}
parentPort.postMessage({ wrong, failures, bypasses, messages: [...messages] });
