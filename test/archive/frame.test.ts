import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CodecSpec,
  compress,
  compressBound,
  compressInto,
  decompress,
  decompressPart,
  parseCodec,
} from '../../src/archive/codec/index.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import {
  BLOCK_SIZE,
  CODEC_LZ4,
  CODEC_NONE,
  CODEC_ZSTD,
  HASH_SIZE,
  NO_RECORD,
  OUTER_HEADER_SIZE,
  PART_SIZE,
} from '../../src/archive/format.ts';
import {
  blockHash,
  checkBlockHash,
  openFrame,
  openFrameHeader,
  parseOuterHeader,
  plainFrame,
  type SealContext,
  sealedFrameLength,
  sealFrame,
  UnsealedFrame,
} from '../../src/archive/frame.ts';
import { RozenError } from '../../src/errors.ts';

const context: SealContext = {
  archiveId: randomBytes(16),
  key: randomBytes(32),
  headerHash: randomBytes(32),
};
const codecs: CodecSpec[] = [{ codec: 'none' }, { codec: 'lz4' }, { codec: 'zstd' }, { codec: 'zstd', level: 9 }];

/** Bytes that compress somewhat: a random walk over a small alphabet with repeats. */
const content = fc.tuple(fc.nat(70_000), fc.integer({ min: 1, max: 256 }), fc.nat()).map(([length, alphabet, seed]) => {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = (state >>> 24) % alphabet;
  }
  return bytes;
});

describe('codecs', () => {
  it('restore what they compressed', () => {
    fc.assert(
      fc.property(content, fc.constantFrom(...codecs), (plain, spec) => {
        const packed = compress(spec, plain);
        expect(decompress(packed.codec, packed.bytes, plain.length).equals(plain)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('store what does not shrink by 3 % as it is', () => {
    const noise = randomBytes(100_000);
    for (const spec of codecs) expect(compress(spec, noise).codec).toBe(CODEC_NONE);
    const zeros = Buffer.alloc(100_000);
    expect(compress({ codec: 'zstd' }, zeros).codec).toBe(CODEC_ZSTD);
    expect(compress({ codec: 'lz4' }, zeros).codec).toBe(CODEC_LZ4);
  });

  it('refuse another length than the one that was said', () => {
    const plain = Buffer.alloc(50_000, 'abc');
    for (const spec of codecs) {
      const { codec, bytes } = compress(spec, plain);
      for (const length of [0, 1, plain.length - 1, plain.length + 1, BLOCK_SIZE]) {
        expect(() => decompress(codec, bytes, length)).toThrow(RozenError);
      }
      expect(() => decompress(codec, bytes.subarray(0, bytes.length - 1), plain.length)).toThrow(RozenError);
    }
    expect(() => decompress(77, plain, plain.length)).toThrow('unknown codec 77');
  });

  it('never crash on noise', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 3000 }),
        fc.constantFrom(1, 2),
        fc.nat(BLOCK_SIZE),
        (noise, codec, length) => {
          try {
            expect(decompress(codec, noise, length).length).toBe(length);
          } catch (error) {
            expect((error as RozenError).code).toBe('corrupt');
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('decode parts alone, and never more of a frame than there is', () => {
    const plain = Buffer.concat(Array.from({ length: 8 }, (_, i) => Buffer.alloc(PART_SIZE / 2, `part ${i % 5} `)));
    const target = Buffer.alloc(compressBound(plain.length));
    const packed = compressInto({ codec: 'zstd' }, plain, target, true);
    const bytes = target.subarray(0, packed.length);
    const memory = Buffer.alloc(BLOCK_SIZE);
    expect(decompress(packed.codec, bytes, plain.length).equals(plain)).toBe(true);
    expect(decompressPart(packed.codec, bytes, { from: 5, to: 6 }, memory.subarray(0, PART_SIZE - 1))).toBeNull();
    expect(decompressPart(packed.codec, bytes, { from: 5, to: 6 }, memory.subarray(0, PART_SIZE))?.length).toBe(1);
    expect(decompressPart(CODEC_NONE, plain, { from: 5, to: 9 }, memory.subarray(0, 3))).toBeNull();
    fc.assert(
      fc.property(fc.nat(plain.length - 1), fc.nat(plain.length), (from, length) => {
        const to = Math.min(plain.length, from + 1 + length);
        const part = decompressPart(packed.codec, bytes, { from, to }, memory);
        // All parts are all of it.
        const all = from < PART_SIZE && to > plain.length - PART_SIZE;
        expect(part === null).toBe(all);
        if (part !== null) expect(part.equals(plain.subarray(from, to))).toBe(true);
      }),
    );
    fc.assert(
      fc.property(
        fc.nat(bytes.length - 1),
        fc.nat(255),
        fc.nat(bytes.length),
        fc.nat(plain.length),
        (at, byte, end, to) => {
          const damaged = Buffer.from(bytes.subarray(0, end));
          if (at < end) damaged[at] = byte;
          try {
            const part = decompressPart(packed.codec, damaged, { from: 0, to }, memory);
            if (part !== null) expect(part.length).toBe(to);
          } catch (error) {
            expect((error as RozenError).code).toBe('corrupt');
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('are parsed from the command line', () => {
    expect(parseCodec('zstd:19')).toEqual({ codec: 'zstd', level: 19 });
    expect(parseCodec('lz4')).toEqual({ codec: 'lz4' });
    for (const bad of ['', 'zstd:', 'zstd:0', 'zstd:23', 'lz4:1', 'gzip'])
      expect(() => parseCodec(bad)).toThrow(RozenError);
  });
});

describe('frames', () => {
  it('open to what was sealed, into any target', () => {
    fc.assert(
      fc.property(
        content,
        fc.constantFrom(...codecs),
        fc.nat(1_000_000),
        fc.boolean(),
        (plaintext, codec, sequence, shared) => {
          const frame = sealFrame(context, { type: 'DATA', sequence, plaintext, codec, firstRecord: 5 });
          expect(frame.length).toBeLessThanOrEqual(sealedFrameLength(plaintext.length));
          expect(parseOuterHeader(frame).frameLength).toBe(frame.length);
          expect(checkBlockHash(frame)).toBe(true);
          const target = shared ? new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE + 7), 7) : undefined;
          const opened = openFrameHeader(context, frame, { type: 'DATA', sequence }, target);
          expect(opened.plaintext.equals(plaintext)).toBe(true);
          expect(opened.firstRecord).toBe(5);
          if (target !== undefined) expect(opened.plaintext.buffer).toBe(target.buffer);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('give any part of a block that was sealed in parts', () => {
    const memory = Buffer.alloc(BLOCK_SIZE);
    fc.assert(
      fc.property(content, fc.constantFrom(...codecs), fc.boolean(), fc.nat(), fc.nat(), (some, codec, parts, a, b) => {
        const plaintext = Buffer.concat([some, some, some]);
        if (plaintext.length === 0) return;
        const frame = sealFrame(context, { type: 'DATA', sequence: 4, plaintext, codec, parts });
        const [from, to] = [a % plaintext.length, 1 + (b % plaintext.length)].sort((x, y) => x - y) as [number, number];
        const part = new UnsealedFrame(context, frame, 4).part(from, to, memory);
        if (part !== null) expect(part.equals(plaintext.subarray(from, to))).toBe(true);
        expect(openFrame(context, frame, { type: 'DATA', sequence: 4 }).equals(plaintext)).toBe(true);
      }),
      { numRuns: 60 },
    );
    const frame = sealFrame(context, {
      type: 'DATA',
      sequence: 4,
      plaintext: Buffer.alloc(9),
      codec: { codec: 'none' },
    });
    const open = (sequence: number) => new UnsealedFrame(context, frame, sequence);
    expect(() => open(4).part(0, 10, memory)).toThrow(/ends at 9/);
    expect(() => open(4).whole(Buffer.alloc(8))).toThrow(/plaintext of 9/);
    expect(() => open(5)).toThrow(/sequence 4/);
    frame[frame.length - HASH_SIZE - 1]! ^= 1;
    expect(() => open(4)).toThrow(/authentication/);
  });

  it('opened by their tag alone are refused all the same, whatever was changed, but for the two hashes', () => {
    const plaintext = randomBytes(3000);
    const sealed = sealFrame(context, { type: 'DATA', sequence: 4, plaintext, codec: { codec: 'zstd' } });
    const { bodyOffset } = parseOuterHeader(sealed);
    fc.assert(
      fc.property(fc.nat(sealed.length - 1), fc.nat(7), (at, bit) => {
        const frame = Buffer.from(sealed);
        frame[at]! ^= 1 << bit;
        const open = () => openFrame(context, frame, { type: 'DATA', sequence: 4, tagOnly: true });
        const inHash = (at >= bodyOffset - HASH_SIZE && at < bodyOffset) || at >= frame.length - HASH_SIZE;
        if (inHash) expect(open().equals(plaintext)).toBe(true);
        else expect(open).toThrow(RozenError);
      }),
      { numRuns: 1000 },
    );
  });

  it('can be sealed into shared memory', () => {
    const plaintext = randomBytes(10_000);
    const target = new Uint8Array(new SharedArrayBuffer(20_000), 100);
    const frame = sealFrame(context, { type: 'PAGE', sequence: 1, plaintext, codec: { codec: 'zstd' }, target });
    expect(frame.buffer).toBe(target.buffer);
    expect(openFrame(context, Buffer.from(frame), { type: 'PAGE', sequence: 1 }).equals(plaintext)).toBe(true);
  });

  it('carry a CBOR header that is bound to the body', () => {
    const cborHeader = Buffer.from('a0', 'hex');
    const frame = sealFrame(context, {
      type: 'BIDX',
      sequence: 3,
      plaintext: Buffer.from('x'),
      codec: { codec: 'none' },
      cborHeader,
    });
    expect(openFrame(context, frame, { type: 'BIDX' }).toString()).toBe('x');
    const forged = Buffer.from(frame);
    forged[OUTER_HEADER_SIZE] = 0xa1;
    // An attacker repairs the hashes that need no key.
    forged.set(blake3(forged.subarray(0, OUTER_HEADER_SIZE + 1)), OUTER_HEADER_SIZE + 1);
    forged.set(blake3(forged.subarray(0, forged.length - HASH_SIZE)), forged.length - HASH_SIZE);
    expect(checkBlockHash(forged)).toBe(true);
    expect(() => openFrame(context, forged, { type: 'BIDX' })).toThrow('authentication failed');
  });

  it('refuse every flipped byte but those of the block hash, and every cut', () => {
    const plaintext = Buffer.from('The quick brown fox jumps over the lazy dog. '.repeat(4));
    for (const codec of codecs) {
      const frame = sealFrame(context, { type: 'DATA', sequence: 9, plaintext, codec });
      for (let at = 0; at < frame.length; at++) {
        const bad = Buffer.from(frame);
        bad[at] = bad[at]! ^ (1 << (at % 8));
        expect(checkBlockHash(bad)).toBe(false);
        if (at >= frame.length - HASH_SIZE) {
          expect(openFrame(context, bad, { type: 'DATA' }).equals(plaintext)).toBe(true);
        } else {
          expect(() => openFrame(context, bad, { type: 'DATA' })).toThrow(RozenError);
        }
        expect(() => openFrame(context, frame.subarray(0, at), { type: 'DATA' })).toThrow(RozenError);
      }
      expect(() => openFrame(context, Buffer.concat([frame, Buffer.alloc(1)]), { type: 'DATA' })).toThrow(RozenError);
    }
  });

  it('cannot be passed off as another frame', () => {
    const frame = sealFrame(context, {
      type: 'DATA',
      sequence: 9,
      plaintext: Buffer.alloc(9),
      codec: { codec: 'zstd' },
    });
    const why = (change: Partial<SealContext>, type: 'DATA' | 'PAGE' = 'DATA', sequence = 9) => {
      try {
        openFrame({ ...context, ...change }, frame, { type, sequence });
      } catch (error) {
        expect((error as RozenError).code).toBe('corrupt');
        return (error as Error).message;
      }
      return '';
    };
    expect(why({ archiveId: randomBytes(16) })).toContain('belongs to archive');
    expect(why({ key: randomBytes(32) })).toContain('authentication failed');
    expect(why({ headerHash: randomBytes(32) })).toContain('authentication failed');
    expect(why({}, 'PAGE')).toContain('of type DATA');
    expect(why({}, 'DATA', 8)).toContain('sequence 9');
  });

  it('say NO_RECORD when no record begins in them, and hold at most a block', () => {
    const frame = sealFrame(context, {
      type: 'DATA',
      sequence: 1,
      plaintext: Buffer.alloc(BLOCK_SIZE),
      codec: { codec: 'zstd' },
    });
    expect(openFrameHeader(context, frame, { type: 'DATA' }).firstRecord).toBe(NO_RECORD);
    expect(() =>
      sealFrame(context, {
        type: 'DATA',
        sequence: 1,
        plaintext: Buffer.alloc(BLOCK_SIZE + 1),
        codec: { codec: 'zstd' },
      }),
    ).toThrow('do not fit');
  });

  it('never crash on noise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.constantFrom('AHDR', 'DATA', 'AEND', 'aBCD'), (noise, type) => {
        const bytes = Buffer.concat([Buffer.from(type), noise]);
        expect(() => parseOuterHeader(bytes)).toThrow(RozenError);
        expect(() => openFrame(context, bytes, { type: 'DATA' })).toThrow(RozenError);
      }),
    );
  });

  it('without a seal keep their body in the clear', () => {
    const frame = plainFrame({ type: 'AEND', archiveId: context.archiveId, sequence: 7, body: Buffer.alloc(184, 1) });
    const header = parseOuterHeader(frame, { archiveId: context.archiveId });
    expect(header).toMatchObject({ type: 'AEND', sequence: 7, bodyLength: 184, frameLength: frame.length });
    expect(blockHash(frame).length).toBe(32);
    expect(() => parseOuterHeader(frame, { archiveId: randomBytes(16) })).toThrow('of archive');
  });
});
