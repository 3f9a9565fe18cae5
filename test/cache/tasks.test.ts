import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { createTaskMemory, type Piece, PieceTasks } from '../../src/cache/tasks.ts';

const piece: Piece = { handle: 7, block: 5, from: 10, upTo: 14 };

describe('pieces of work', () => {
  test('are done by another thread, never by their owner', () => {
    const memory = createTaskMemory(64);
    const [owner, other] = [new PieceTasks(memory, 0), new PieceTasks(memory, 1)];
    expect(other.help(() => null)).toBe(false);
    expect(owner.post(piece)).toBe(true);
    expect(owner.help(() => null)).toBe(false);
    const seen: Piece[] = [];
    const helped = other.help((asked, target) => {
      seen.push(asked);
      target.write('--made--');
      return target.subarray(2, 6);
    });
    expect(helped).toBe(true);
    expect(seen).toEqual([piece]);
    expect(owner.collect()!.toString()).toBe('made');
    expect(other.help(() => null)).toBe(false);
  });

  test('are taken back when nobody has begun, and cannot be begun then', () => {
    const memory = createTaskMemory(64);
    const [owner, other] = [new PieceTasks(memory, 0), new PieceTasks(memory, 1)];
    owner.post(piece);
    expect(owner.collect()).toBeNull();
    expect(other.help(() => null)).toBe(false);
    owner.post(piece);
    expect(owner.withdraw()).toBe(true);
    expect(owner.withdraw()).toBe(false);
  });

  test('that fail or cannot be done are their owner’s', () => {
    const memory = createTaskMemory(64);
    const [owner, other] = [new PieceTasks(memory, 0), new PieceTasks(memory, 1)];
    owner.post(piece);
    other.help(() => {
      throw new Error('no such block');
    });
    expect(owner.collect()).toBeNull();
    owner.post(piece);
    other.help(() => null);
    expect(owner.collect()).toBeNull();
    expect(owner.post(piece)).toBe(true);
  });

  test('that a thread dies over are given up, and their cell is not used while it may still be written', () => {
    const memory = createTaskMemory(64);
    const [owner, other] = [new PieceTasks(memory, 0), new PieceTasks(memory, 1)];
    owner.post(piece);
    other.help(() => {
      expect(owner.collect()).toBeNull();
      expect(owner.post(piece)).toBe(false);
      return null;
    });
    expect(owner.post(piece)).toBe(true);
  });

  test('need a cell: threads beyond those neither post nor help', () => {
    const memory = createTaskMemory(64);
    const far = new PieceTasks(memory, 99);
    expect(far.post(piece)).toBe(false);
    expect(far.withdraw()).toBe(false);
    new PieceTasks(memory, 0).post(piece);
    expect(far.help(() => null)).toBe(false);
  });

  test('cross threads whole, each once', async () => {
    const rounds = 3000;
    const memory = createTaskMemory(4096);
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const workers = [1, 2].map(
      (thread) => new Worker(new URL('./tasks-worker.mjs', import.meta.url), { workerData: { memory, thread, stop } }),
    );
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    const owner = new PieceTasks(memory, 0);
    let made = 0;
    for (let n = 0; n < rounds; n++) {
      expect(owner.post({ handle: n, block: n * 2, from: n % 100, upTo: 4000 })).toBe(true);
      // At times it is begun before it is collected, at times not.
      for (let spin = (n % 7) * 300; spin > 0; spin--) Atomics.load(stop, 0);
      const bytes = owner.collect();
      if (bytes === null) continue;
      made++;
      expect(bytes.length).toBe(4000 - (n % 100));
      expect(bytes.equals(Buffer.alloc(bytes.length, n % 251))).toBe(true);
    }
    Atomics.store(stop, 0, 1);
    const helped = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as number));
    expect(helped[0]! + helped[1]!).toBe(made);
    expect(made).toBeGreaterThan(0);
    await Promise.all(workers.map((worker) => worker.terminate()));
  });
});
