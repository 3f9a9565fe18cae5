import { constants } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Miss } from '../../../src/cache/miss.ts';
import { OPCODE } from '../../../src/fs/protocol/abi.ts';
import { describeProblem, dispatch } from '../../../src/fs/protocol/dispatch.ts';
import { MAX_PAYLOAD, Reply } from '../../../src/fs/protocol/reply.ts';
import { Request } from '../../../src/fs/protocol/request.ts';
import { describeReply, describeRequest } from '../../../src/fs/protocol/trace.ts';
import { CONTENT, TinyVfs } from './tiny-vfs.ts';

const SLOT = 0x7ffff1;

/** A request as the kernel lays it out; `payload` are 32-bit words, then a name. */
function raw(opcode: number, ino: number, payload: number[] = [], name = '', slot = SLOT): Buffer {
  const bytes = Buffer.alloc(40 + payload.length * 4 + (name === '' ? 0 : Buffer.byteLength(name) + 1));
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(0x1122334455667788n, 8);
  bytes.writeBigUInt64LE((BigInt(slot) << 40n) | BigInt(ino), 16);
  for (const [i, word] of payload.entries()) bytes.writeUInt32LE(word, 40 + i * 4);
  bytes.write(name, 40 + payload.length * 4);
  return bytes;
}

/** The bytes that would be written to the kernel. */
function sent(reply: Reply): Buffer {
  const bytes =
    reply.pieces.length > 0 ? Buffer.concat(reply.pieces) : Buffer.from(reply.bytes.subarray(0, reply.length));
  expect(bytes.length).toBe(reply.length);
  return bytes;
}

function ask(bytes: Buffer, vfs = new TinyVfs(), reply = new Reply()): { error: number; body: Buffer; reply: Reply } {
  const request = new Request();
  request.load(bytes);
  dispatch(request, vfs, reply);
  const out = sent(reply);
  if (out.length === 0) return { error: 0, body: out, reply };
  expect(out.readUInt32LE(0)).toBe(out.length);
  expect(out.readBigUInt64LE(8)).toBe(0x1122334455667788n);
  return { error: out.readInt32LE(4), body: out.subarray(16), reply };
}

const read = (ino: number, offset: number, size: number): Buffer =>
  raw(OPCODE.READ, ino, [0, 0, offset, 0, size, 0, 0, 0, 0, 0]);
const list = (opcode: number, cookie: number, size: number, ino = 1): Buffer =>
  raw(opcode, ino, [0, 0, cookie, 0, size, 0, 0, 0, 0, 0]);

test('LOOKUP gives node, generation, time-outs and attributes at their places', () => {
  const { error, body } = ask(raw(OPCODE.LOOKUP, 1, [], 'device'));
  expect(error).toBe(0);
  expect(body.length).toBe(128);
  expect(body.readBigUInt64LE(0)).toBe((BigInt(SLOT) << 40n) | 4n);
  expect(body.readBigUInt64LE(8)).toBe(9n);
  expect(body.readBigUInt64LE(16)).toBe(0x7fffffffn);
  expect(body.readBigUInt64LE(24)).toBe(0x7fffffffn);
  const attr = body.subarray(40);
  expect(attr.readBigUInt64LE(0)).toBe((BigInt(SLOT) << 40n) | 4n);
  expect(attr.readBigUInt64LE(8)).toBe(5000n);
  expect(attr.readBigUInt64LE(16)).toBe(16n);
  expect([24, 32, 40].map((at) => attr.readBigInt64LE(at))).toEqual([-2n, -2n, 2n ** 33n]);
  expect([48, 52, 56].map((at) => attr.readUInt32LE(at))).toEqual([5, 5, 6]);
  expect([60, 64, 68, 72, 76].map((at) => attr.readUInt32LE(at))).toEqual([0o020600, 3, 10, 20, 0x12305]);
  expect(attr.length).toBe(88);
});

test('a missing name is remembered for ever inside a snapshot, and not at all outside', () => {
  const { error, body } = ask(raw(OPCODE.LOOKUP, 1, [], 'none'));
  expect([error, body.readBigUInt64LE(0), body.readBigUInt64LE(16)]).toEqual([0, 0n, 0x7fffffffn]);
  expect(ask(raw(OPCODE.LOOKUP, 1, [], 'none', 0)).error).toBe(-2);
  expect(ask(raw(OPCODE.LOOKUP, 1, [], 'file', 0)).body.readBigUInt64LE(16)).toBe(0n);
  expect(ask(raw(OPCODE.LOOKUP, 1, [], 'n'.repeat(256))).error).toBe(-36);
});

test('GETATTR and STATX', () => {
  const attr = ask(raw(OPCODE.GETATTR, 2, [0, 0, 0, 0])).body;
  expect([attr.length, attr.readUInt32LE(16 + 60)]).toEqual([104, 0o100644]);
  const statx = ask(raw(OPCODE.STATX, 4, [0, 0, 0, 0, 0, 0])).body.subarray(32);
  expect(statx.length).toBe(256);
  expect(statx.readUInt32LE(0)).toBe(0xfff);
  expect([16, 20, 24].map((at) => statx.readUInt32LE(at))).toEqual([3, 10, 20]);
  expect(statx.readUInt16LE(28)).toBe(0o020600);
  expect(statx.readBigUInt64LE(32)).toBe((BigInt(SLOT) << 40n) | 4n);
  expect(statx.readBigUInt64LE(40)).toBe(5000n);
  expect([64, 80, 96, 112].map((at) => statx.readBigInt64LE(at))).toEqual([-2n, 77n, 2n ** 33n, -2n]);
  expect([128, 132].map((at) => statx.readUInt32LE(at))).toEqual([0x123, 0x05]);
  expect(ask(raw(OPCODE.GETATTR, 99)).error).toBe(-116);
});

test('owners and permissions can be mapped', () => {
  const mapped = new Reply({ uid: 1000, gid: 1001, umask: 0o027 });
  const attr = ask(raw(OPCODE.GETATTR, 1), new TinyVfs(), mapped).body;
  expect([60, 68, 72].map((at) => attr.readUInt32LE(16 + at))).toEqual([0o040750, 1000, 1001]);
});

/** [name, inode of the dirent, node of the entry or null] */
function entries(body: Buffer, plus: boolean): [string, number, number | null, number][] {
  const found: [string, number, number | null, number][] = [];
  for (let at = 0; at < body.length; ) {
    const node = plus ? Number(body.readBigUInt64LE(at) & 0xffffn) : null;
    if (plus) at += 128;
    const length = body.readUInt32LE(at + 16);
    const name = body.toString('latin1', at + 24, at + 24 + length);
    found.push([name, Number(body.readBigUInt64LE(at) & 0xffffn), node, body.readUInt32LE(at + 20)]);
    expect(body.subarray(at + 24 + length, (at + 24 + length + 7) & ~7).every((byte) => byte === 0)).toBe(true);
    at = (at + 24 + length + 7) & ~7;
  }
  return found;
}

test('READDIR and READDIRPLUS, whole and in pieces', () => {
  const whole = entries(ask(list(OPCODE.READDIR, 0, 4096)).body, false);
  expect(whole.map(([name, ino, , type]) => [name, ino, type])).toEqual([
    ['.', 1, 4],
    ['..', 1, 4],
    ['file', 2, 8],
    ['link', 3, 10],
    ['device', 4, 2],
    ['missing', 5, 8],
    ['broken', 6, 8],
  ]);
  const plus = entries(ask(list(OPCODE.READDIRPLUS, 0, 4096)).body, true);
  expect(plus.map(([, , node]) => node)).toEqual([0, 0, 2, 3, 0, 5, 6]);
  for (const opcode of [OPCODE.READDIR, OPCODE.READDIRPLUS]) {
    const pieces: string[] = [];
    for (let cookie = 0; ; ) {
      const some = entries(ask(list(opcode, cookie, 200)).body, opcode === OPCODE.READDIRPLUS);
      if (some.length === 0) break;
      pieces.push(...some.map(([name]) => name));
      cookie += some.length;
    }
    expect(pieces).toEqual(whole.map(([name]) => name));
  }
  expect(ask(list(OPCODE.READDIR, 0, 4096, 2)).error).toBe(-20);
});

test.each([0, constants.O_DIRECT])('READ says whether the kernel keeps the answer (open flags %i)', (flags) => {
  const reply = new Reply();
  // Reused: the one before was of the other kind.
  reply.range.direct = flags === 0;
  expect(ask(raw(OPCODE.READ, 2, [0, 0, 0, 0, 10, 0, 0, 0, flags, 0]), new TinyVfs(), reply).error).toBe(0);
  expect(reply.range.direct).toBe(flags !== 0);
});

test('READ gives the pieces, and lets go of them exactly once', () => {
  const vfs = new TinyVfs();
  for (const [offset, size] of [
    [0, 5000],
    [3, 10],
    [4990, 100],
    [5000, 10],
    [9000, 10],
    [0, 0],
    [0, 7],
  ] as const) {
    const { error, body, reply } = ask(read(2, offset, size), vfs);
    expect(error).toBe(0);
    expect(body.equals(CONTENT.subarray(offset, offset + size))).toBe(true);
    reply.release();
    reply.release();
    expect(vfs.pinned).toBe(0);
  }
  expect(ask(read(1, 0, 100), vfs).error).toBe(-21);
  expect(vfs.pinned).toBe(0);
});

test('a miss is thrown and leaves nothing behind; corruption is EIO with a reason', () => {
  const vfs = new TinyVfs();
  expect(() => ask(read(5, 0, 100), vfs)).toThrow(Miss);
  expect(vfs.pinned).toBe(0);
  const { error, reply } = ask(read(6, 0, 100), vfs);
  expect([error, describeProblem(reply.problem)]).toEqual([-5, 'archive abc: block 7 fails its check']);
  expect(vfs.pinned).toBe(0);
});

test('extended attributes', () => {
  const get = (size: number, name: string) => ask(raw(OPCODE.GETXATTR, 2, [size, 0], name));
  expect(get(0, 'user.a').body.readUInt32LE(0)).toBe(5);
  expect(get(5, 'user.a').body.toString()).toBe('value');
  expect(get(4, 'user.a').error).toBe(-34);
  expect(get(5, 'user.none').error).toBe(-61);
  const names = (size: number) => ask(raw(OPCODE.LISTXATTR, 2, [size, 0]));
  expect(names(0).body.readUInt32LE(0)).toBe(14);
  expect(names(100).body.toString()).toBe('user.a\0user.b\0');
  expect(names(13).error).toBe(-34);
});

test('READLINK, LSEEK, STATFS', () => {
  expect(ask(raw(OPCODE.READLINK, 3)).body.toString()).toBe('target');
  expect(ask(raw(OPCODE.READLINK, 2)).error).toBe(-22);
  const seek = (offset: number, whence: number) => ask(raw(OPCODE.LSEEK, 2, [0, 0, offset, 0, whence, 0]));
  expect(seek(10, 3).body.readBigUInt64LE(0)).toBe(10n);
  expect(seek(10, 4).body.readBigUInt64LE(0)).toBe(5000n);
  expect([seek(5000, 3).error, seek(0, 1).error]).toEqual([-6, -22]);
  const statfs = ask(raw(OPCODE.STATFS, 1)).body;
  expect([statfs.length, Number(statfs.readBigUInt64LE(0)), statfs.readUInt32LE(40), statfs.readUInt32LE(44)]).toEqual([
    80, 10, 4096, 255,
  ]);
});

test('what opens is not needed, what writes is refused, what wants no answer gets none', () => {
  expect(ask(raw(OPCODE.OPEN, 2, [0x8000, 0])).error).toBe(-38);
  expect(ask(raw(OPCODE.OPEN, 2, [1, 0])).error).toBe(-30);
  expect(ask(raw(OPCODE.OPENDIR, 1, [0, 0])).error).toBe(-38);
  for (const opcode of ['SETATTR', 'MKDIR', 'UNLINK', 'WRITE', 'CREATE', 'RENAME2', 'SETXATTR', 'FALLOCATE'] as const) {
    expect(ask(raw(OPCODE[opcode], 1, [0, 0, 0, 0])).error).toBe(-30);
  }
  for (const opcode of ['FORGET', 'BATCH_FORGET', 'INTERRUPT'] as const) {
    expect(ask(raw(OPCODE[opcode], 1, [0, 0])).reply.length).toBe(0);
  }
  expect(ask(raw(OPCODE.RELEASE, 1)).error).toBe(0);
  expect(ask(raw(9999, 1)).error).toBe(-38);
});

test('whatever bytes come in, the answer is well-formed', () => {
  const vfs = new TinyVfs();
  const reply = new Reply();
  const request = new Request();
  const opcode = fc.oneof(
    fc.constantFrom(...Object.values(OPCODE)),
    fc.nat(70),
    fc.integer({ min: 0, max: 0xffffffff }),
  );
  const word = fc.oneof(fc.nat(10), fc.nat(6000), fc.integer({ min: 0, max: 0xffffffff }));
  const whole = fc
    .tuple(
      opcode,
      fc.nat(8),
      fc.array(word, { maxLength: 24 }),
      fc.string({ maxLength: 300, unit: 'binary' }),
      fc.nat(0xffffff),
    )
    .map(([code, ino, words, name, slot]) => raw(code, ino, words, name, slot));
  const torn = fc.tuple(whole, fc.nat(200), fc.boolean()).map(([bytes, cut, honest]) => {
    const part = Buffer.from(bytes.subarray(0, cut));
    if (honest && part.length >= 4) part.writeUInt32LE(part.length, 0);
    return part;
  });
  const noise = fc.uint8Array({ maxLength: 20_000 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof(whole, torn, noise), (bytes) => {
      request.bytes.fill(0xa5);
      request.load(bytes);
      try {
        dispatch(request, vfs, reply);
      } catch (error) {
        expect(error).toBeInstanceOf(Miss);
        expect(reply.length).toBe(0);
      }
      const out = sent(reply);
      if (out.length > 0) {
        expect(out.length).toBeGreaterThanOrEqual(16);
        expect(out.length).toBeLessThanOrEqual(16 + MAX_PAYLOAD);
        expect(out.readUInt32LE(0)).toBe(out.length);
        const error = out.readInt32LE(4);
        expect(error <= 0 && error > -512).toBe(true);
        if (error !== 0) expect(out.length).toBe(16);
      }
      expect(describeRequest(request)).toMatch(/^[\x20-\x7e\u00a0-\uffff]+$/);
      expect(describeReply(reply)).toMatch(/^= /);
      reply.release();
      expect(vfs.pinned).toBe(0);
    }),
    { numRuns: 20_000 },
  );
});
