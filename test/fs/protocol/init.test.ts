import { expect, test } from 'vitest';
import { INIT_FLAGS, OPCODE } from '../../../src/fs/protocol/abi.ts';
import { answerInit } from '../../../src/fs/protocol/init.ts';
import { invalidateEntry, invalidateInode } from '../../../src/fs/protocol/notify.ts';
import { Reply } from '../../../src/fs/protocol/reply.ts';
import { Request } from '../../../src/fs/protocol/request.ts';

const ALL = 0x7fffffff;

function init(major: number, minor: number, { flags = ALL, size = 104, enforce = true } = {}) {
  const bytes = Buffer.alloc(size);
  [size, OPCODE.INIT, 2, 0, 0, 0, 0, 0, 0, 0, major, minor, 131072, flags, 0xffff].forEach((word, i) => {
    if (i * 4 < size) bytes.writeUInt32LE(word >>> 0, i * 4);
  });
  const request = new Request();
  request.load(bytes);
  const reply = new Reply();
  const session = answerInit(request, reply, { enforceAcls: enforce });
  return { session, error: reply.bytes.readInt32LE(4), body: reply.bytes.subarray(16, reply.length) };
}

test('takes what the kernel offers and we want, no more', () => {
  const { session, error, body } = init(7, 45);
  expect(error).toBe(0);
  expect(body.length).toBe(64);
  expect([0, 4, 8].map((at) => body.readUInt32LE(at))).toEqual([7, 45, 131072]);
  const flags = body.readUInt32LE(12);
  expect(flags).toBe(session!.flags);
  for (const wanted of [
    'NO_OPEN_SUPPORT',
    'NO_OPENDIR_SUPPORT',
    'CACHE_SYMLINKS',
    'MAX_PAGES',
    'POSIX_ACL',
    'PARALLEL_DIROPS',
  ] as const) {
    expect(flags & INIT_FLAGS[wanted]).not.toBe(0);
  }
  expect(flags & (INIT_FLAGS.WRITEBACK_CACHE | INIT_FLAGS.POSIX_LOCKS | INIT_FLAGS.SPLICE_READ)).toBe(0);
  expect([16, 18].map((at) => body.readUInt16LE(at))).toEqual([4096, 3072]);
  expect([24, 28].map((at) => body.readUInt16LE(at))).toEqual([1, 256]);
  expect(init(7, 45, { enforce: false }).session!.flags & INIT_FLAGS.POSIX_ACL).toBe(0);
  expect(init(7, 31, { flags: INIT_FLAGS.ASYNC_READ, size: 56 }).session!.flags).toBe(INIT_FLAGS.ASYNC_READ);
  expect(init(7, 99).body.readUInt32LE(4)).toBe(45);
});

test('asks a newer kernel to come again, and refuses an old one', () => {
  const newer = init(8, 0);
  expect([newer.session, newer.error, newer.body.readUInt32LE(0)]).toEqual([null, 0, 7]);
  expect(init(7, 30)).toMatchObject({ session: { minor: 30 }, error: -71 });
  expect(init(6, 99)).toMatchObject({ session: { minor: 0 }, error: -71 });
  expect(init(7, 31, { size: 48 })).toMatchObject({ session: { minor: 0 }, error: -71 });
});

test('notifications', () => {
  const inode = invalidateInode(3, 5, -1);
  expect([inode.length, inode.readUInt32LE(0), inode.readInt32LE(4)]).toEqual([40, 40, 2]);
  expect([inode.readBigUInt64LE(8), inode.readBigUInt64LE(16)]).toEqual([0n, (3n << 40n) | 5n]);
  expect([inode.readBigInt64LE(24), inode.readBigInt64LE(32)]).toEqual([-1n, 0n]);
  const entry = invalidateEntry(0, 1, Buffer.from('latest'));
  expect([entry.length, entry.readUInt32LE(0), entry.readInt32LE(4)]).toEqual([39, 39, 3]);
  expect([entry.readBigUInt64LE(16), entry.readUInt32LE(24), entry.toString('latin1', 32)]).toEqual([
    1n,
    6,
    'latest\0',
  ]);
});
