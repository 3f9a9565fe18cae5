import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { asMap, decodeCbor, encodeCbor, field } from '../../src/archive/cbor.ts';
import { RozenError } from '../../src/errors.ts';

const what = 'test';
const decode = (hex: string) => decodeCbor(Buffer.from(hex, 'hex'), { what });

const { value } = fc.letrec<{ value: unknown; leaf: unknown }>((tie) => ({
  leaf: fc.oneof(
    fc.maxSafeInteger(),
    fc.double({ noNaN: true }).filter((n) => !Object.is(n, -0) && (!Number.isInteger(n) || Number.isSafeInteger(n))),
    fc.boolean(),
    fc.constant(null),
    fc.string({ unit: 'grapheme' }),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  ),
  value: fc.oneof(
    { depthSize: 'small', maxDepth: 5 },
    tie('leaf'),
    fc.array(tie('value'), { maxLength: 40 }),
    fc.dictionary(
      fc.string({ maxLength: 300 }).filter((key) => key !== '__proto__'),
      tie('value'),
      { maxKeys: 30, noNullPrototype: true },
    ),
  ),
}));

describe('CBOR', () => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(value, (original) => {
        expect(decodeCbor(encodeCbor(original), { what })).toEqual(original);
      }),
    );
  });

  it('copies: neither side holds on to the other', () => {
    const bytes = encodeCbor({ id: Buffer.from('abc') });
    const decoded = asMap(decodeCbor(bytes, { what }), what);
    bytes.fill(0);
    expect(field.bytes(decoded, 'id').toString()).toBe('abc');
    const first = encodeCbor({ a: 'first' });
    const copy = Buffer.from(first);
    encodeCbor({ b: 'second, which would overwrite it' });
    expect(first.equals(copy)).toBe(true);
  });

  it('outside the subset is refused', () => {
    const bad: Record<string, string> = {
      'nothing at all': '',
      'an indefinite array': '9fff',
      'an indefinite string': '5f4101ff',
      'a tag': 'c000',
      'a typed array': 'd8404101',
      undefined: 'f7',
      'a simple value': 'f8ff',
      'a half float': 'f93c00',
      'a single float': 'fa3f800000',
      'two values': '0000',
      'a cut string': '4201',
      'a cut integer': '1901',
      'a cut float': 'fb00000000000000',
      'a huge string': '5bffffffffffffffff',
      'a huge array': '9a7fffffff',
      'an integer beyond 2^53': '1b0020000000000000',
      'a cut map': 'a16161',
      'a number as key': 'a10000',
      'a key twice': 'a2616100616101',
      __proto__: 'a1695f5f70726f746f5f5fa0',
      'a reserved length': '1c',
      'a break': 'ff',
      'a record of cbor-x': 'd9dfff8361614101',
    };
    for (const [name, hex] of Object.entries(bad)) {
      expect(() => decode(hex), name).toThrow(RozenError);
    }
    expect(() => decode(`${'81'.repeat(17)}00`)).toThrow('nested');
    expect(decode(`${'81'.repeat(16)}00`)).toBeTruthy();
    expect(() => decode('81'.repeat(100_000))).toThrow('nested');
    expect(() => decodeCbor(Buffer.alloc(11), { what, maxBytes: 10 })).toThrow('at most 10');
  });

  it('never crashes on noise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => {
        try {
          decodeCbor(noise, { what });
        } catch (error) {
          expect((error as RozenError).code).toBe('corrupt');
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('does not encode what would not come back', () => {
    expect(() => encodeCbor({ a: 2 ** 60 })).toThrow(RozenError);
    expect(() => encodeCbor({ a: 1n })).toThrow(RozenError);
    expect(decodeCbor(encodeCbor({ a: undefined, b: 1 }), { what })).toEqual({ b: 1 });
  });

  it('members are read with their type', () => {
    const map = asMap(
      decodeCbor(encodeCbor({ n: 5, m: -5, f: 1.5, s: 'x', b: Buffer.alloc(3), l: ['a'], o: {}, t: true }), { what }),
      what,
    );
    expect(field.uint(map, 'n', 5)).toBe(5);
    expect(field.int(map, 'm')).toBe(-5);
    expect(field.text(map, 's')).toBe('x');
    expect(field.bytes(map, 'b', 3).length).toBe(3);
    expect(field.texts(map, 'l')).toEqual(['a']);
    expect(field.map(map, 'o')).toEqual({});
    expect(field.bool(map, 't')).toBe(true);
    expect(field.has(map, 'x')).toBe(false);
    for (const bad of [
      () => field.uint(map, 'n', 4),
      () => field.uint(map, 'm'),
      () => field.uint(map, 'f'),
      () => field.uint(map, 'x'),
      () => field.uint(map, 'toString'),
      () => field.text(map, 'n'),
      () => field.bytes(map, 'b', 4),
      () => field.bytes(map, 's'),
      () => field.bytes(map, 'b', undefined, 2),
      () => field.texts(map, 'o'),
      () => field.list(map, 'l', 0),
      () => field.map(map, 'l'),
      () => field.bool(map, 'n'),
      () => asMap([], what),
      () => asMap(null, what),
    ]) {
      expect(bad).toThrow(RozenError);
    }
  });
});
