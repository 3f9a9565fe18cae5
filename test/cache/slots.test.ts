import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { BlockSlots, createSlotMemory } from '../../src/cache/slots.ts';
import { RozenError } from '../../src/errors.ts';

interface Outcome {
  wrong: number;
  failures: number;
  bypasses: number;
  messages: string[];
}

interface Job {
  memory: ReturnType<typeof createSlotMemory>;
  rounds: number;
  archives: number;
  blocks: number;
  tally: SharedArrayBuffer;
  hold?: boolean;
  failing?: number;
}

/** Starts threads that wait at a gate until all are there, so that they really race. */
async function race(threads: number, job: Job): Promise<Outcome[]> {
  const gate = new SharedArrayBuffer(8);
  const workers = Array.from(
    { length: threads },
    (_, index) =>
      new Worker(new URL('./slots-worker.mjs', import.meta.url), { workerData: { ...job, gate, seed: index + 1 } }),
  );
  const outcomes = workers.map(
    (worker) =>
      new Promise<Outcome>((resolve, reject) => {
        worker.on('error', reject);
        worker.on('message', (message) => {
          if (message !== 'ready') resolve(message as Outcome);
        });
      }),
  );
  await Promise.all(workers.map((worker) => new Promise<void>((resolve) => worker.once('message', () => resolve()))));
  Atomics.store(new Int32Array(gate), 0, 1);
  Atomics.notify(new Int32Array(gate), 0);
  const done = await Promise.all(outcomes);
  await Promise.all(workers.map((worker) => worker.terminate()));
  return done;
}

const load = (value: number, length: number) => (target: Buffer) => {
  target.fill(value, 0, length);
  return length;
};

describe('block slots in one thread', () => {
  it('keeps what fits, counts, and gives back pins', () => {
    const slots = new BlockSlots(createSlotMemory({ bytes: 64 * 4096, slotSize: 4096 }));
    const first = slots.acquire(1, 7, load(5, 100));
    expect(slots.bytes(first)).toEqual(Buffer.alloc(100, 5));
    const second = slots.acquire(1, 7, () => {
      throw new Error('must not be decoded again');
    });
    expect(second).toBe(first);
    expect(slots.pinned()).toBe(2);
    slots.release(first);
    slots.release(second);
    expect(slots.pinned()).toBe(0);
    expect(slots.has(1, 7)).toBe(true);
    expect(slots.has(1, 8)).toBe(false);
    expect(slots.ahead(1, 8, load(6, 4096))).toBe(true);
    expect(slots.ahead(1, 8, load(6, 4096))).toBe(false);
    expect(slots.counters()).toMatchObject({ decodes: 2, hits: 1, ahead: 1, evictions: 0 });
  });

  it('never takes a pinned slot, and says so when all are pinned', () => {
    const slots = new BlockSlots(createSlotMemory({ bytes: 8 * 4096, slotSize: 4096 }));
    const pinned = Array.from({ length: 8 }, (_, block) => slots.acquire(0, block, load(block, 10)));
    expect(new Set(pinned).size).toBe(8);
    expect(slots.acquire(0, 100, load(1, 1))).toBe(-1);
    expect(slots.ahead(0, 100, load(1, 1))).toBe(false);
    for (const [block, slot] of pinned.entries()) expect(slots.bytes(slot)).toEqual(Buffer.alloc(10, block));
    slots.release(pinned[3]!);
    expect(slots.acquire(0, 100, load(9, 10))).toBe(pinned[3]);
    expect(slots.counters()).toMatchObject({ bypasses: 1, evictions: 1 });
  });

  it('gives a second chance to what was used, and none to what was read to its end', () => {
    const slots = new BlockSlots(createSlotMemory({ bytes: 8 * 4096, slotSize: 4096 }));
    for (let block = 0; block < 8; block++) {
      const slot = slots.acquire(0, block, load(block, 10));
      if (block === 5) slots.spent(slot, false);
      slots.release(slot);
    }
    slots.release(slots.acquire(0, 8, load(8, 10)));
    expect(slots.has(0, 5)).toBe(false);
    for (const block of [0, 1, 2, 3, 4, 6, 7, 8]) expect(slots.has(0, block)).toBe(true);
  });

  it('goes round in the slots of one sequential reader, whatever is empty or used', () => {
    const slots = new BlockSlots(createSlotMemory({ bytes: 8 * 4096, slotSize: 4096 }));
    slots.release(slots.acquire(0, 1000, load(1, 10)));
    const used = new Set<number>();
    for (let block = 0; block < 100; block++) {
      const slot = slots.acquire(0, block, load(block, 10));
      slots.spent(slot, true);
      // While it is pinned it is nobody else's.
      const ahead = slots.acquire(0, block + 1, load(block + 1, 10));
      expect(ahead).not.toBe(slot);
      slots.release(ahead);
      slots.release(slot);
      used.add(slot);
    }
    expect(used.size).toBe(2);
    expect(slots.has(0, 1000)).toBe(true);
  });

  it('forgets a failed block at once, and the next request tries again', () => {
    const slots = new BlockSlots(createSlotMemory({ bytes: 8 * 4096, slotSize: 4096 }));
    const fail = () => {
      throw new RozenError('corrupt', 'damaged');
    };
    expect(() => slots.acquire(0, 0, fail)).toThrow('damaged');
    expect(slots.has(0, 0)).toBe(false);
    expect(slots.pinned()).toBe(0);
    const slot = slots.acquire(0, 0, load(3, 3));
    expect(slots.bytes(slot)).toEqual(Buffer.alloc(3, 3));
    expect(slots.counters()).toMatchObject({ decodes: 1, failures: 1 });
  });

  it('has whoever waits too long for a slow disk decode the block too', async () => {
    const memory = createSlotMemory({ bytes: 8 * 4096, slotSize: 4096 });
    const gate = new Int32Array(new SharedArrayBuffer(8));
    const source = `
      const { parentPort, workerData } = require('node:worker_threads');
      import(workerData.module).then(({ BlockSlots }) => {
        const { memory, gate } = workerData;
        const slots = new BlockSlots(memory);
        const slot = slots.acquire(0, 0, (target) => {
          Atomics.store(gate, 0, 1);
          Atomics.notify(gate, 0);
          Atomics.wait(gate, 1, 0);
          target[0] = 9;
          return 1;
        });
        const value = slots.bytes(slot)[0];
        slots.release(slot);
        parentPort.postMessage(value);
      });`;
    const module = new URL('../../dist/cache/slots.js', import.meta.url).href;
    const slow = new Worker(source, { eval: true, workerData: { memory, gate, module } });
    const answer = once(slow, 'message');
    await expect.poll(() => Atomics.load(gate, 0)).toBe(1);
    const slots = new BlockSlots(memory, 20);
    const slot = slots.acquire(0, 0, load(5, 9));
    expect(slots.bytes(slot)).toEqual(Buffer.alloc(9, 5));
    slots.release(slot);
    Atomics.store(gate, 1, 1);
    Atomics.notify(gate, 1);
    expect(await answer).toEqual([9]);
    await slow.terminate();
    expect(slots.pinned()).toBe(0);
    expect(slots.has(0, 0)).toBe(true);
  });

  it('refuses a loader that claims more than a slot holds', () => {
    const slots = new BlockSlots(createSlotMemory({ bytes: 8 * 4096, slotSize: 4096 }));
    expect(() => slots.acquire(0, 0, () => 4097)).toThrow('4097');
  });
});

describe('block slots in many threads', () => {
  it('decodes every block exactly once while all fit', async () => {
    const memory = createSlotMemory({ bytes: 256 * 4096, slotSize: 4096 });
    const [archives, blocks] = [3, 32];
    const tally = new SharedArrayBuffer(archives * blocks * 4);
    const outcomes = await race(6, { memory, rounds: 20_000, archives, blocks, tally });
    expect(outcomes.reduce((sum, outcome) => sum + outcome.wrong + outcome.failures + outcome.bypasses, 0)).toBe(0);
    expect([...new Int32Array(tally)]).toEqual(new Array(archives * blocks).fill(1));
    const slots = new BlockSlots(memory);
    expect(slots.counters()).toMatchObject({ decodes: archives * blocks, hits: 6 * 20_000 - archives * blocks });
    expect(slots.pinned()).toBe(0);
  });

  it('never shows a wrong byte while slots are taken from each other', async () => {
    const memory = createSlotMemory({ bytes: 16 * 4096, slotSize: 4096 });
    const [archives, blocks] = [4, 50];
    const tally = new SharedArrayBuffer(archives * blocks * 4);
    const outcomes = await race(6, { memory, rounds: 10_000, archives, blocks, tally, hold: true });
    expect(outcomes.reduce((sum, outcome) => sum + outcome.wrong + outcome.failures, 0)).toBe(0);
    const slots = new BlockSlots(memory);
    const counters = slots.counters();
    expect(counters.decodes).toBe(new Int32Array(tally).reduce((sum, count) => sum + count, 0));
    expect(counters.decodes + counters.hits + counters.bypasses).toBe(6 * 10_000);
    expect(counters.evictions).toBe(counters.decodes - 16);
    expect(slots.pinned()).toBe(0);
  });

  it('tells every waiter of a failed decode why', async () => {
    const memory = createSlotMemory({ bytes: 64 * 4096, slotSize: 4096 });
    const tally = new SharedArrayBuffer(8);
    const outcomes = await race(6, { memory, rounds: 40, archives: 1, blocks: 2, tally, failing: 1 });
    const failures = outcomes.reduce((sum, outcome) => sum + outcome.failures, 0);
    expect(outcomes.reduce((sum, outcome) => sum + outcome.wrong, 0)).toBe(0);
    expect(outcomes.flatMap((outcome) => outcome.messages)).toEqual(new Array(6).fill('block 1 is damaged'));
    const slots = new BlockSlots(memory);
    // Some waited for another thread's failure: fewer attempts than failures.
    expect(slots.counters().failures).toBeLessThan(failures);
    expect(slots.counters().failures).toBe(new Int32Array(tally)[1]);
    expect(slots.pinned()).toBe(0);
  });
});
