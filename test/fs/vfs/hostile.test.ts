import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Miss } from '../../../src/cache/miss.ts';
import { OPCODE } from '../../../src/fs/protocol/abi.ts';
import { describeProblem, dispatch } from '../../../src/fs/protocol/dispatch.ts';
import { MAX_PAYLOAD, Reply } from '../../../src/fs/protocol/reply.ts';
import { Request } from '../../../src/fs/protocol/request.ts';
import { type MountHost, openVfsHost } from '../../../src/fs/vfs/host.ts';
import { BY_ID_BASE, LATEST_BASE, STATUS_BASE, setFolder, VIEW_BIT } from '../../../src/fs/vfs/nodes.ts';
import { FsError } from '../../../src/fs/vfs.ts';
import { TestRepository } from './repository.ts';

const folder = mkdtempSync(join(tmpdir(), 'rozen-hostile-'));
let host: MountHost;
const reports: string[] = [];

beforeAll(async () => {
  const made = await TestRepository.create(folder);
  for (let n = 0; n < 3; n++) {
    await made.commit(
      'set',
      [
        { path: '', type: 'folder', mtimeSec: n },
        { path: 'file', type: 'file', content: [randomBytes(300_000 + n), { hole: 100_000 }, randomBytes(10)] },
        { path: 'folder', type: 'folder' },
        ...Array.from({ length: 50 }, (_, i) => ({
          path: `folder/${i}`,
          type: 'file' as const,
          content: [randomBytes(10)],
        })),
        { path: 'link', type: 'symlink', target: 'file' },
        { path: 'xattrs', type: 'file', xattrs: { 'user.a': Buffer.from('b') } },
      ],
      { timeSec: 1_800_000_000 + n },
    );
  }
  host = await openVfsHost({
    store: made.store,
    repository: await made.reader(),
    pollMs: 0,
    blockBytes: 2 ** 20,
    log: (line) => reports.push(line),
  });
});

afterAll(async () => {
  await host.close();
  delete process.env.ROZEN_STATE_DIR;
  rmSync(folder, { recursive: true, force: true });
});

/** Whoever wrote the request: fields as the kernel lays them out, or any bytes at all. */
const slots = [0, 1, 2, 3, 4, VIEW_BIT | 1, VIEW_BIT | 2, VIEW_BIT | 3, VIEW_BIT, 0xffffff];
const inodes = [0, 1, 2, 3, 4, 5, 6, 57, 58, setFolder(0), BY_ID_BASE + 1, LATEST_BASE + 3, STATUS_BASE, 2 ** 40 - 1];
const names = [
  '.',
  '..',
  'file',
  'folder',
  'latest',
  'set',
  'status',
  'snapshots',
  '7',
  'user.rozen.archive',
  'user.a',
];
const number = fc.oneof(
  fc.nat(60),
  fc.nat(500_000),
  fc.constantFrom(2 ** 31, 2 ** 31 + 1, 2 ** 32 - 1, 2 ** 33 + 3, 2 ** 62, 2 ** 63),
  fc.double({ min: 0, max: 2 ** 63, noNaN: true }).map(Math.floor),
);
const request = fc
  .record({
    opcode: fc.oneof(fc.constantFrom(...Object.values(OPCODE)), fc.nat(60)),
    slot: fc.oneof(fc.constantFrom(...slots), fc.nat(0xffffff)),
    ino: fc.oneof(fc.constantFrom(...inodes), fc.nat(60)),
    fields: fc.array(number, { maxLength: 6 }),
    name: fc.option(fc.oneof(fc.constantFrom(...names), fc.string({ maxLength: 300, unit: 'binary' }))),
    cut: fc.option(fc.nat(150)),
  })
  .map(({ opcode, slot, ino, fields, name, cut }) => {
    const bytes = Buffer.alloc(40 + fields.length * 8 + (name === null ? 0 : Buffer.byteLength(name) + 1));
    bytes.writeUInt32LE(opcode, 4);
    bytes.writeBigUInt64LE(77n, 8);
    bytes.writeBigUInt64LE((BigInt(slot) << 40n) | BigInt(ino), 16);
    for (const [i, field] of fields.entries()) bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(field)), 40 + i * 8);
    if (name !== null) bytes.write(name, 40 + fields.length * 8);
    const sent = cut === null ? bytes : bytes.subarray(0, Math.min(cut, bytes.length));
    if (sent.length >= 4) sent.writeUInt32LE(sent.length, 0);
    return sent;
  });

test('whatever is asked of a real repository, the answer is well-formed and no surprise', async () => {
  const reply = new Reply();
  const asked = new Request();
  async function ask(bytes: Buffer): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      asked.bytes.fill(0xa5);
      asked.load(bytes);
      try {
        host.vfs.pump();
        return dispatch(asked, host.vfs, reply);
      } catch (error) {
        if (!(error instanceof Miss) || attempt > 50) throw error;
        try {
          await host.resolve(error);
        } catch (refusal) {
          expect(refusal).toBeInstanceOf(FsError);
          return reply.error((refusal as FsError).errno);
        }
      }
    }
  }
  await fc.assert(
    fc.asyncProperty(request, async (bytes) => {
      await ask(bytes);
      // An errno may be said on purpose; anything else would be a mistake of ours.
      if (reply.problem !== undefined) throw new Error(describeProblem(reply.problem));
      expect(reply.length === 0 || (reply.length >= 16 && reply.length <= 16 + MAX_PAYLOAD)).toBe(true);
      const pieces = reply.pieces.reduce((sum, piece) => sum + piece.length, 0);
      if (reply.pieces.length > 0) expect(pieces).toBe(reply.length);
      host.vfs.idle();
      reply.release();
      expect(host.pinned()).toBe(0);
    }),
    { numRuns: 6000 },
  );
  // Nothing in the repository is damaged, so nothing may be reported as such.
  expect(reports).toEqual([]);
});
