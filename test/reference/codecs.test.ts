import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { compressLz4, lz4Bound } from '../../src/archive/codec/lz4.ts';
import { compressZstd, compressZstdParts, zstdBound } from '../../src/archive/codec/zstd.ts';
import { textLike } from '../archive/sample.ts';
import { decodeLz4 } from './lz4.ts';
import { decodeZstd } from './zstd.ts';

const program = readFileSync(process.execPath).subarray(8_000_000, 8_262_144);
const samples: Record<string, Buffer> = {
  nothing: Buffer.alloc(0),
  'one byte': Buffer.from('x'),
  'a sentence': Buffer.from('It was the best of times, it was the worst of times'),
  zeros: Buffer.alloc(262_144),
  noise: randomBytes(10_000),
  'noise twice': Buffer.concat(Array.from({ length: 2 }, () => textLike(40_000, 3))),
  letters: textLike(100_000),
  'few letters': textLike(300, 9),
  'a program': program,
  'its source': readFileSync(new URL('./zstd.ts', import.meta.url)),
};

describe('the reference decoders', () => {
  it.each(Object.keys(samples))('restore %s', (name) => {
    const plain = samples[name]!;
    const packed = Buffer.alloc(zstdBound(plain.length));
    for (const level of [1, 3, 6, 9, 15, 19, 22]) {
      const length = compressZstd(plain, packed, level);
      expect(Buffer.compare(decodeZstd(packed.subarray(0, length)), plain), `level ${level}`).toBe(0);
      const parts = compressZstdParts(plain, packed, level);
      if (parts > 0) expect(Buffer.compare(decodeZstd(packed.subarray(0, parts)), plain), `level ${level}`).toBe(0);
    }
    const lz4 = Buffer.alloc(lz4Bound(plain.length));
    expect(Buffer.compare(decodeLz4(lz4.subarray(0, compressLz4(plain, lz4))), plain)).toBe(0);
  });
});
