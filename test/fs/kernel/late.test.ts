import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { CONTROL, STATE } from '../../../src/fs/kernel/channel.ts';
import { createLateMemory, LateRequests } from '../../../src/fs/kernel/late.ts';
import { callReader, Lead, releaseLead, TURN } from '../../../src/fs/kernel/lead.ts';
import { Request } from '../../../src/fs/protocol/request.ts';

const numbered = (n: number): Uint8Array =>
  new Uint8Array(new Uint32Array([80, 15, n, ...new Array(17).fill(n)]).buffer);

test('late requests come out as they went in, and no more of them than there is room for', () => {
  const late = new LateRequests(createLateMemory());
  const request = new Request();
  expect(late.pop(request)).toBe(false);
  expect(late.push(new Uint8Array(1000))).toBe(0);
  let pushed = 0;
  while (late.push(numbered(pushed)) !== 0) pushed++;
  expect(pushed).toBe(32);
  const seen = new Set<number>();
  while (late.pop(request)) {
    expect(request.length).toBe(80);
    expect(request.words[19]).toBe(request.words[2]);
    seen.add(request.words[2]!);
  }
  expect(seen.size).toBe(32);
  const place = late.push(numbered(99));
  expect(place).toBeGreaterThan(0);
  expect(late.takeBack(place)).toBe(true);
  expect(late.takeBack(place)).toBe(false);
  expect(late.pop(request)).toBe(false);
});

test('a late request that comes while the only reader gets the lead is not left lying', () => {
  const control = new Int32Array(new SharedArrayBuffer(64));
  const late = new LateRequests(createLateMemory());
  Atomics.store(control, CONTROL.STATE, STATE.GO);
  // The last look before the lead is taken finds nothing; the request comes right after, as the reader still counts as idle.
  let looks = 0;
  const watched = Object.assign(Object.create(late), {
    pop(request: Request) {
      const found = late.pop(request);
      if (++looks === 1) {
        expect(control[CONTROL.IDLE]).toBe(1);
        late.push(numbered(7));
      }
      return found;
    },
  });
  const lead = new Lead(control, watched, () => false, { worker: 0, fd: -1 });
  const request = new Request();
  expect(lead.take(request)).toBe(TURN.LATE);
  expect(request.words[2]).toBe(7);
  expect(control[CONTROL.IDLE]).toBe(0);
  // Who answers a late request leaves the kernel to others.
  expect(control[CONTROL.LEAD]! & 0xff).toBe(0);
  expect(lead.take(request)).toBe(TURN.LEAD);
});

test('a reader that died counts as idle no more', () => {
  const control = new Int32Array(new SharedArrayBuffer(64));
  control[CONTROL.IDLE] = 0b101;
  releaseLead(control, 2);
  expect(control[CONTROL.IDLE]).toBe(1);
});

/** Hangs when a reader sleeps over a late request: the leader waits for a kernel that says nothing. */
test.each([2, 3])(
  '%i readers answer each late request once, while one of them waits for the kernel',
  async (threads) => {
    const rounds = 5000;
    const control = new Int32Array(new SharedArrayBuffer(64));
    const memory = createLateMemory();
    const answered = new SharedArrayBuffer(rounds * 4);
    const kernel = new SharedArrayBuffer(4);
    const count = new Int32Array(answered);
    const queue = new Int32Array(kernel);
    const late = new LateRequests(memory);
    Atomics.store(control, CONTROL.STATE, STATE.GO);
    const workers = Array.from(
      { length: threads },
      (_, worker) =>
        new Worker(new URL('./late-worker.mjs', import.meta.url), {
          workerData: { control, late: memory, worker, answered, kernel },
        }),
    );
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    for (let n = 0; n < rounds; n++) {
      while (late.push(numbered(n)) === 0) {
        // As many as fit are under way.
      }
      callReader(control);
      // Others get the lead now and then.
      if (n % 7 === 0) {
        Atomics.add(queue, 0, 1);
        Atomics.notify(queue, 0);
      }
      // Until it is answered: at times each alone, at times many at once.
      if (n % 5 === 0) expect(Atomics.wait(count, n, 0, 20_000)).not.toBe('timed-out');
    }
    for (let n = 0; n < rounds; n++) expect(Atomics.wait(count, n, 0, 20_000)).not.toBe('timed-out');
    expect([...count]).toEqual(new Array(rounds).fill(1));
    const ended = workers.map((worker) => once(worker, 'message'));
    Atomics.store(control, CONTROL.STATE, STATE.STOP);
    callReader(control);
    Atomics.notify(control, CONTROL.LEAD);
    Atomics.add(queue, 0, 1);
    Atomics.notify(queue, 0);
    await Promise.all(ended);
    await Promise.all(workers.map((worker) => worker.terminate()));
  },
);

test('the lead of a reader that died is free, that of another is not touched', () => {
  const control = new Int32Array(new SharedArrayBuffer(64));
  control[CONTROL.LEAD] = 3;
  callReader(control);
  releaseLead(control, 1);
  expect(control[CONTROL.LEAD]! & 0xff).toBe(3);
  releaseLead(control, 2);
  expect(control[CONTROL.LEAD]! & 0xff).toBe(0);
});
