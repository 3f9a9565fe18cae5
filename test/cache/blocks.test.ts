/** Blocks read by several threads, here by several readers of one thread that call each other. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { BLOCK_SIZE, KIND_DATA, PART_SIZE } from '../../src/archive/format.ts';
import { sealFrame } from '../../src/archive/frame.ts';
import { BlockReader } from '../../src/cache/blocks.ts';
import { type ArchiveAccess, closeArchives, closeRemoved } from '../../src/cache/frames.ts';
import { Miss } from '../../src/cache/miss.ts';
import { BlockSlots, createSlotMemory, type SlotMemory } from '../../src/cache/slots.ts';
import { createTaskMemory, PieceTasks, type TaskMemory } from '../../src/cache/tasks.ts';

const BLOCKS = 12;
const KIB = 1024;

const folder = mkdtempSync(join(tmpdir(), 'rozen-blocks-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Text that shrinks by half, no two places of it alike; the last block is short, and one in the middle is noise. */
function makeContent(): Buffer {
  const content = Buffer.alloc(BLOCKS * BLOCK_SIZE - 70_000);
  for (let at = 0, n = 0; at < content.length; at += 64, n++)
    content.write(createHash('sha256').update(`${n}`).digest('hex'), at, 'latin1');
  randomBytes(BLOCK_SIZE).copy(content, 7 * BLOCK_SIZE);
  return content;
}

let archives = 0;

function makeArchive(content: Buffer): ArchiveAccess {
  const context = { archiveId: randomBytes(16), key: randomBytes(32), headerHash: randomBytes(32) };
  const frames = Array.from({ length: Math.ceil(content.length / BLOCK_SIZE) }, (_, block) =>
    sealFrame(context, {
      type: 'DATA',
      sequence: block + 1,
      plaintext: content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE),
      codec: { codec: 'zstd' },
      parts: true,
    }),
  );
  const path = join(folder, `${++archives}.roz`);
  writeFileSync(path, Buffer.concat(frames));
  const lengths = frames.map((frame) => frame.length);
  return {
    handle: 1000 + archives,
    scope: '',
    row: 1,
    id: context.archiveId,
    kind: KIND_DATA,
    object: `data/${archives}`,
    path,
    size: lengths.reduce((sum, length) => sum + length, 0),
    headerHash: context.headerHash,
    blockKey: context.key,
    blockOffsets: Float64Array.from(lengths, (_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0)),
    blockLengths: Uint32Array.from(lengths),
    streamStart: 0,
    streamEnd: content.length,
  };
}

interface Counted {
  reader: BlockReader;
  parts: number;
  helped: number;
  failed: number;
}

function makeReader(
  thread: number,
  { slots, tasks, call }: { slots: SlotMemory; tasks: TaskMemory; call: () => boolean },
): Counted {
  const counted = { parts: 0, helped: 0, failed: 0 } as Counted;
  const meter = {
    frame: () => {},
    busy: () => {},
    call,
    part: (helping?: boolean) => {
      if (helping) counted.helped++;
      else counted.parts++;
    },
    failed: () => {
      counted.failed++;
    },
  };
  counted.reader = new BlockReader(new BlockSlots(slots), meter, new PieceTasks(tasks, thread));
  return counted;
}

function readBy({ reader }: Counted, access: ArchiveAccess, offset: number, length: number): Buffer {
  const held: number[] = [];
  const pieces: Buffer[] = [];
  try {
    // Copied, as a reply is written before anything else is read.
    reader.read(access, { offset, length, direct: false }, held, { push: (bytes) => pieces.push(Buffer.from(bytes)) });
    return Buffer.concat(pieces);
  } finally {
    reader.release(held);
  }
}

const memory = () => ({
  slots: createSlotMemory({ bytes: 2 << 20, slotSize: BLOCK_SIZE }),
  tasks: createTaskMemory(BLOCK_SIZE),
});

describe('random reads', () => {
  const content = makeContent();
  const access = makeArchive(content);
  afterAll(() => closeArchives([access.handle]));

  /** Two readers; when the first calls, the second helps at once. */
  function pair() {
    const shared = memory();
    const helper = makeReader(1, { ...shared, call: () => false });
    const reader = makeReader(0, { ...shared, call: () => helper.reader.help() });
    helper.reader.know(access);
    return { reader, helper };
  }

  test('what lies in a second block is decoded by another thread', () => {
    const { reader, helper } = pair();
    const offset = 3 * BLOCK_SIZE - 40 * KIB;
    expect(readBy(reader, access, offset, 128 * KIB).equals(content.subarray(offset, offset + 128 * KIB))).toBe(true);
    expect([reader.parts, helper.helped]).toEqual([1, 1]);
  });

  test('three parts of one block are shared, too', () => {
    const { reader, helper } = pair();
    const offset = 3 * BLOCK_SIZE + 20 * KIB;
    expect(readBy(reader, access, offset, 128 * KIB).equals(content.subarray(offset, offset + 128 * KIB))).toBe(true);
    expect([reader.parts, helper.helped]).toEqual([1, 1]);
  });

  test('a read of one part is not worth it', () => {
    const { reader, helper } = pair();
    expect(readBy(reader, access, PART_SIZE, 4 * KIB).equals(content.subarray(PART_SIZE, PART_SIZE + 4 * KIB))).toBe(
      true,
    );
    expect([reader.parts, helper.helped]).toEqual([1, 0]);
  });

  test('nobody comes: the piece is taken back', () => {
    const shared = memory();
    const helper = makeReader(1, { ...shared, call: () => false });
    helper.reader.know(access);
    const reader = makeReader(0, { ...shared, call: () => true });
    const offset = 3 * BLOCK_SIZE - 40 * KIB;
    expect(readBy(reader, access, offset, 128 * KIB).equals(content.subarray(offset, offset + 128 * KIB))).toBe(true);
    expect(reader.parts).toBe(2);
    expect(helper.reader.help()).toBe(false);
  });

  test('one that does not know the archive declines', () => {
    const shared = memory();
    const helper = makeReader(1, { ...shared, call: () => false });
    const reader = makeReader(0, { ...shared, call: () => helper.reader.help() });
    const offset = 3 * BLOCK_SIZE + 20 * KIB;
    expect(readBy(reader, access, offset, 128 * KIB).equals(content.subarray(offset, offset + 128 * KIB))).toBe(true);
    expect([reader.parts, helper.helped]).toEqual([2, 0]);
  });

  test('damage in a piece of another thread is met by whoever reads it', () => {
    const damaged = makeArchive(content);
    const bytes = Buffer.alloc(damaged.size, 0xff);
    const good = damaged.blockOffsets![3]!;
    writeFileSync(damaged.path!, bytes.subarray(0, bytes.length - good), { flag: 'r+', flush: true });
    const { reader, helper } = pair();
    helper.reader.know(damaged);
    expect(() => readBy(reader, damaged, 3 * BLOCK_SIZE - 40 * KIB, 128 * KIB)).toThrow(/DATA frame/);
    // The slots have not seen it.
    expect([helper.helped, helper.failed, reader.failed]).toEqual([0, 0, 1]);
    closeArchives([damaged.handle]);
  });

  test('whatever is read in whatever order comes right', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            offset: fc.nat(content.length - 1),
            length: fc.integer({ min: 1, max: 300 * KIB }),
            second: fc.boolean(),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        (reads) => {
          const { reader, helper } = pair();
          for (const { offset, length, second } of reads) {
            const end = Math.min(content.length, offset + length);
            const got = readBy(second ? helper : reader, access, offset, end - offset);
            expect(got.equals(content.subarray(offset, end))).toBe(true);
            if (second) helper.reader.workAhead();
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe('a local archive whose file changes', () => {
  const openOf = (path: string): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(path);
      } catch {
        return false;
      }
    }).length;

  test('a good copy in the place of a damaged one is read at once, damage that stays is told', () => {
    const content = makeContent();
    const access = makeArchive(content);
    const path = access.path!;
    const good = readFileSync(path);
    const damaged = Buffer.from(good);
    damaged[access.blockOffsets![3]! + 1000]! ^= 1;
    writeFileSync(path, damaged);
    const reader = makeReader(0, { ...memory(), call: () => false });
    const at = 3 * BLOCK_SIZE;
    for (const length of [BLOCK_SIZE, 4096]) {
      expect(() => readBy(reader, access, at, length)).toThrow('authentication failed');
    }
    writeFileSync(`${path}.new`, good);
    renameSync(`${path}.new`, path);
    for (const length of [4096, BLOCK_SIZE])
      expect(readBy(reader, access, at, length).equals(content.subarray(at, at + length))).toBe(true);
    closeArchives([access.handle]);
  });

  test('what was removed is closed, what is there stays open', () => {
    const content = makeContent();
    const [stays, goes] = [makeArchive(content), makeArchive(content)];
    const reader = makeReader(0, { ...memory(), call: () => false });
    for (const access of [stays, goes]) readBy(reader, access, 0, BLOCK_SIZE);
    rmSync(goes.path!);
    expect([openOf(stays.path!), openOf(goes.path!)]).toEqual([1, 1]);
    closeRemoved();
    expect([openOf(stays.path!), openOf(goes.path!)]).toEqual([1, 0]);
    expect(() => readBy(reader, goes, BLOCK_SIZE, BLOCK_SIZE)).toThrow(Miss);
    closeArchives([stays.handle]);
  });
});
