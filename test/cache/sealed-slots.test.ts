import { expect, test } from 'vitest';
import { MemoryPool } from '../../src/cache/memory-pool.ts';
import { createSealedMemory, SealedSlots } from '../../src/cache/sealed-slots.ts';

/** An archive of so many frames of 1000 bytes. */
const archive = (handle: number, frames: number) => ({
  handle,
  blockOffsets: Float64Array.from({ length: frames }, (_, i) => 500 + i * 1000),
});
const frame = (n: number): Buffer => Buffer.alloc(1000, n);

test('every thread finds what one has put in, by archive and offset', () => {
  const memory = createSealedMemory();
  const [one, other] = [new SealedSlots(memory), new SealedSlots(memory)];
  const place = archive(7, 100);
  for (let i = 0; i < 100; i++) expect(one.put(place, 500 + i * 1000, frame(i))).toBe(true);
  for (let i = 0; i < 100; i++) {
    expect(other.has(place, 500 + i * 1000)).toBe(true);
    expect(other.frame(place, 500 + i * 1000)?.equals(frame(i))).toBe(true);
  }
  expect(other.frame(place, 501)).toBeNull();
  expect(other.frame(archive(8, 100), 500)).toBeNull();
  expect(other.frame({ handle: 7, blockOffsets: null }, 500)).toBeNull();
  expect(one.put({ handle: 7, blockOffsets: null }, 500, frame(1))).toBe(false);
});

test('what one thread looks at stays as it is until it looks at something else, however much is put in', () => {
  const memory = createSealedMemory();
  const [one, other] = [new SealedSlots(memory), new SealedSlots(memory)];
  const place = archive(1, 3000);
  one.put(place, 500, frame(250));
  const seen = other.frame(place, 500)!;
  for (let i = 1; i < 3000; i++) one.put(place, 500 + i * 1000, frame(i % 200));
  expect(seen.equals(frame(250))).toBe(true);
  other.frame(place, 500 + 2_999_000);
  for (let i = 0; i < 3000; i++) one.put(archive(2, 3000), 500 + i * 1000, frame(i % 200));
  expect(other.frame(place, 500)).toBeNull();
});

test('memory that was given back is taken again, no more of it than was agreed', () => {
  const pool = new MemoryPool(1000, 2);
  const [a, b, c] = [pool.take(10), pool.take(1000), pool.take(500)];
  const large = pool.take(1001);
  expect(large.length).toBe(1001);
  for (const memory of [large, a, b, c]) pool.give(memory);
  const again = new Set([pool.take(1), pool.take(1), pool.take(1)]);
  expect([again.has(a), again.has(b), again.has(c), again.size]).toEqual([true, true, false, 3]);
});
