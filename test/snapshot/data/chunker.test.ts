import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { keyedBlake3 } from '../../../src/archive/crypto/blake3.ts';
import { CHUNK_AVG, CHUNK_MAX, CHUNK_MIN } from '../../../src/archive/format.ts';
import { cutChunk, gearTable } from '../../../src/snapshot/data/chunker.ts';
import { noise } from './harness.ts';

const KEY = Buffer.alloc(32, 7);
const gear = gearTable(KEY);

function cuts(bytes: Uint8Array, table = gear): number[] {
  const lengths: number[] = [];
  for (let at = 0; at < bytes.length; at += lengths.at(-1)!)
    lengths.push(cutChunk(table, bytes, at, bytes.length, true));
  return lengths;
}

/** The rule of the header comment, one byte at a time. */
function slowCut(bytes: Uint8Array, start: number): number {
  const left = bytes.length - start;
  if (left <= CHUNK_MIN) return left;
  const [average, max] = [CHUNK_AVG, Math.min(left, CHUNK_MAX)];
  let h = 0;
  for (let i = start + CHUNK_MIN - 32; i < start + CHUNK_MIN - 1; i++) h = ((h << 1) + gear[bytes[i]!]!) >>> 0;
  for (let length = CHUNK_MIN; length < max; length++) {
    h = ((h << 1) + gear[bytes[start + length - 1]!]!) >>> 0;
    if (h >>> (length <= average ? 32 - 21 : 32 - 17) === 0) return length;
  }
  return max;
}

describe('chunker', () => {
  it('derives its table from the key as documented', () => {
    expect(gear[0]).toBe(keyedBlake3(KEY, Uint8Array.of(0)).readInt32LE(0));
    expect(gear[255]).toBe(keyedBlake3(KEY, Uint8Array.of(255)).readInt32LE(0));
    expect([...gear]).not.toEqual([...gearTable(Buffer.alloc(32, 8))]);
  });

  it('cuts where the slow rule cuts', () => {
    const bytes = noise(6 * 1024 * 1024 + 12345, 3);
    let at = 0;
    for (const length of cuts(bytes)) {
      expect(length).toBe(slowCut(bytes, at));
      at += length;
    }
    expect(at).toBe(bytes.length);
  });

  it('stays within its bounds and near its average', () => {
    const bytes = noise(64 * 1024 * 1024, 5);
    const lengths = cuts(bytes);
    expect(Math.min(...lengths.slice(0, -1))).toBeGreaterThanOrEqual(CHUNK_MIN);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(CHUNK_MAX);
    const average = bytes.length / lengths.length;
    expect(average).toBeGreaterThan(CHUNK_AVG * 0.8);
    expect(average).toBeLessThan(CHUNK_AVG * 1.4);
  });

  it('cuts constant bytes at the maximum only', () => {
    expect(cuts(new Uint8Array(5 * CHUNK_MAX))).toEqual(Array(5).fill(CHUNK_MAX));
  });

  it('depends on the key', () => {
    const bytes = noise(16 * 1024 * 1024, 9);
    expect(cuts(bytes)).not.toEqual(cuts(bytes, gearTable(Buffer.alloc(32, 1))));
  });

  it('finds its cuts again after bytes were inserted', () => {
    const bytes = noise(32 * 1024 * 1024, 11);
    const places = (lengths: number[]): number[] => {
      let end = 0;
      return lengths.map((length) => {
        end += length;
        return end;
      });
    };
    const before = new Set(places(cuts(bytes)));
    const changed = Buffer.concat([bytes.subarray(0, 1000), noise(777, 12), bytes.subarray(1000)]);
    const after = places(cuts(changed)).map((place) => place - 777);
    expect(after.filter((place) => before.has(place)).length).toBeGreaterThan(before.size * 0.8);
  });

  it('gives the same cuts when the bytes come piece by piece', () => {
    const bytes = noise(12 * 1024 * 1024, 21);
    const whole = cuts(bytes);
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 200_000, max: 3 * 1024 * 1024 }), { minLength: 1, maxLength: 8 }),
        (steps) => {
          const lengths: number[] = [];
          let start = 0;
          let end = 0;
          for (let i = 0; start < bytes.length; i++) {
            end = Math.min(bytes.length, end + steps[i % steps.length]!);
            for (;;) {
              const length = cutChunk(gear, bytes, start, end, end === bytes.length);
              if (length === 0) break;
              lengths.push(length);
              start += length;
            }
          }
          expect(lengths).toEqual(whole);
        },
      ),
      { numRuns: 20 },
    );
  });
});
