import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CodecSpec } from '../../src/archive/codec/index.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { HASH_SIZE, OUTER_HEADER_SIZE, OUTER_OFFSETS } from '../../src/archive/format.ts';
import { openFrame, parseOuterHeader } from '../../src/archive/frame.ts';
import {
  memorySource,
  type OpenOptions,
  openArchive,
  openChunkTable,
  parseHotIndex,
} from '../../src/archive/reader.ts';
import type { RecordEvent } from '../../src/archive/records.ts';
import { scanArchive, scanStream } from '../../src/archive/scan.ts';
import { verifyTrailer } from '../../src/archive/trailer.ts';
import type { SealedArchive } from '../../src/archive/writer.ts';
import { RozenError } from '../../src/errors.ts';
import { makeSecrets, makeStream, textLike, writeDataArchive, writeTreeArchive } from './sample.ts';

/**
 * Every byte of a small archive is flipped, and the archive is cut at every place. Whatever is done with the result gives
 * the right bytes or a RozenError; and no damage goes unnoticed by both the scan and the signed places.
 */
const secrets = makeSecrets();
const unwrap: OpenOptions['unwrap'] = async (envelope) => {
  if (!envelope.equals(secrets.envelope)) throw new RozenError('no-key', 'another envelope');
  return Buffer.from(secrets.key);
};

const stream = makeStream(
  [
    { folder: 'a', name: 'one', chunks: [textLike(700)] },
    { folder: 'a', name: 'two', chunks: [textLike(300, 5), textLike(200, 6)] },
  ],
  secrets.contentKey,
);

function* damaged(bytes: Buffer): Generator<{ bytes: Buffer; where: string }> {
  for (let at = 0; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at] = flipped[at]! ^ (1 << (at % 8));
    yield { bytes: flipped, where: `byte ${at} flipped` };
    yield { bytes: bytes.subarray(0, at), where: `cut at ${at}` };
  }
  yield { bytes: Buffer.concat([bytes, Buffer.alloc(1)]), where: 'one byte more' };
  yield { bytes: Buffer.concat([bytes, bytes]), where: 'twice' };
  yield { bytes: bytes.subarray(1), where: 'its first byte gone' };
}

/** The result, or null for an error that a reader may give. */
async function attempt<T>(where: string, work: () => Promise<T> | T): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof RozenError)) throw new Error(`${where}: not a RozenError`, { cause: error });
    expect(['corrupt', 'unsupported', 'untrusted'], `${where}: ${error.message}`).toContain(error.code);
    return null;
  }
}

async function readBlocks(bytes: Buffer, sealed: SealedArchive, type: 'DATA' | 'PAGE'): Promise<(Buffer | null)[]> {
  const { id, size, headerHash, merkleRoot, envelope } = sealed;
  const opened = await openArchive(memorySource(bytes), {
    unwrap,
    expect: { id, size, headerHash, merkleRoot, envelope },
  });
  const blocks: (Buffer | null)[] = [opened.root];
  for (let n = 0; n < opened.blocks.count; n++) {
    const offset = opened.blocks.offset(n);
    const frame = bytes.subarray(offset, offset + opened.blocks.length(n));
    blocks.push(await attempt(`block ${n}`, () => openFrame(opened.context, frame, { type, sequence: n + 1 })));
  }
  return blocks;
}

describe.each<CodecSpec>([{ codec: 'none' }, { codec: 'lz4' }, { codec: 'zstd' }])(
  'a damaged data archive ($codec)',
  (codec) => {
    it('gives the right bytes or an error', async () => {
      const { bytes, sealed } = await writeDataArchive(stream, secrets, { codec });
      const { blockKey } = await openArchive(memorySource(bytes), { unwrap });
      let wholeReads = 0;
      for (const bad of damaged(bytes)) {
        const blocks = await attempt(bad.where, () => readBlocks(bad.bytes, sealed, 'DATA'));
        if (blocks !== null) {
          for (const [n, block] of blocks.slice(1).entries()) {
            if (block !== null) expect(block.equals(stream.blocks[n]!.bytes), bad.where).toBe(true);
          }
          wholeReads++;
        }

        const scan = await scanArchive(memorySource(bad.bytes));
        expect(scan.torn, bad.where).toBe(true);
        const events: RecordEvent[] = [];
        if (scan.header !== null) {
          for await (const event of scanStream(memorySource(bad.bytes), scan, { key: blockKey, content: true }))
            events.push(event);
        }
        for (const event of events) {
          if (event.event !== 'chunk') continue;
          const right = stream.bytes.subarray(event.offset, event.offset + event.length);
          expect(event.bytes!.equals(right), bad.where).toBe(true);
        }
      }
      // Damage in AHDR, in the block itself or in CIDX does not keep the others from being read.
      expect(wholeReads).toBeGreaterThan(1000);
    });

    it('has a hot index that is intact or refused', async () => {
      const { sealed } = await writeDataArchive(stream, secrets, { codec });
      const rix = sealed.hotIndex!;
      const { id, size, headerHash, merkleRoot, envelope } = sealed;
      const expected = { id, size, headerHash, merkleRoot, envelope };
      const right = openChunkTable(parseHotIndex(rix), secrets.indexKey);
      for (const bad of damaged(rix)) {
        const table = await attempt(bad.where, () => {
          const index = parseHotIndex(bad.bytes);
          if (
            !verifyTrailer(index.trailer, { ...secrets, headerHash: index.header.headerHash }, secrets.signing.public)
          ) {
            throw new RozenError('untrusted', 'signature');
          }
          return openChunkTable(index, secrets.indexKey);
        });
        if (table !== null) expect(table).toEqual(right);
        const opened = await attempt(bad.where, () =>
          openArchive(memorySource(bad.bytes), { unwrap, hotIndex: true, expect: expected }),
        );
        if (opened !== null) expect(opened.blocks.streamLength).toBe(stream.bytes.length);
      }
    });
  },
);

describe('a damaged tree archive', () => {
  it('gives the right bytes or an error', async () => {
    const pages = [textLike(500, 7), textLike(400, 8), textLike(300, 9)];
    const root = textLike(200, 10);
    const { bytes, sealed } = await writeTreeArchive(pages, root, secrets);
    for (const bad of damaged(bytes)) {
      const blocks = await attempt(bad.where, () => readBlocks(bad.bytes, sealed, 'PAGE'));
      if (blocks !== null) {
        for (const [n, block] of blocks.entries()) {
          if (block !== null) expect(block.equals([root, ...pages][n]!), bad.where).toBe(true);
        }
      }
      expect((await scanArchive(memorySource(bad.bytes))).torn, bad.where).toBe(true);
    }
  });
});

describe('an archive that somebody forged', () => {
  /** Hashes that need no key are made to fit again; the seals and the signature cannot be. */
  function rehash(frame: Buffer): void {
    const end = Math.min(
      OUTER_HEADER_SIZE + frame.readUInt32LE(OUTER_OFFSETS.cborLength),
      frame.length - 2 * HASH_SIZE,
    );
    if (end < OUTER_HEADER_SIZE) return;
    frame.set(blake3(frame.subarray(0, end)), end);
    frame.set(blake3(frame.subarray(0, frame.length - HASH_SIZE)), frame.length - HASH_SIZE);
  }

  it.each(['data', 'tree'] as const)('gives the right bytes or an error (%s)', async (kind) => {
    const pages = [textLike(500, 7), textLike(400, 8)];
    const { bytes, sealed } =
      kind === 'data' ? await writeDataArchive(stream, secrets) : await writeTreeArchive(pages, textLike(200), secrets);
    const right = kind === 'data' ? stream.blocks.map((block) => Buffer.from(block.bytes)) : pages;
    const { frames } = await scanArchive(memorySource(bytes));
    const change = fc.tuple(fc.nat(400), fc.constantFrom(1, 2, 4, 8), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff));
    await fc.assert(
      fc.asyncProperty(
        fc.nat(frames.length - 1),
        fc.array(change, { minLength: 1, maxLength: 3 }),
        async (which, changes) => {
          const frame = frames[which]!;
          const bad = Buffer.from(bytes);
          const own = bad.subarray(frame.offset, frame.offset + frame.length);
          for (const [at, width, value] of changes)
            own.subarray(at % own.length).fill(value, 0, Math.min(width, own.length - (at % own.length)));
          rehash(own);
          const blocks = await attempt('forged', () => readBlocks(bad, sealed, kind === 'data' ? 'DATA' : 'PAGE'));
          for (const [n, block] of (blocks ?? []).slice(1).entries()) {
            if (block !== null) expect(block.equals(right[n]!)).toBe(true);
          }
          const scan = await scanArchive(memorySource(bad));
          if (scan.trailer !== null && scan.merkleRoot.equals(sealed.merkleRoot) && !scan.torn) {
            // Only AEND may differ, and then its signature fails or its Merkle root is not the signed one.
            const binding = { repositoryId: secrets.repositoryId, headerHash: sealed.headerHash };
            const isSame = bad.equals(bytes);
            expect(verifyTrailer(scan.trailer, binding, secrets.signing.public)).toBe(
              isSame || which !== frames.length - 1,
            );
          }
          if (kind === 'tree') return;
          const tail = frames.find((each) => each.type === 'CIDX')!.offset;
          const rix = Buffer.concat([bad.subarray(0, frames[0]!.length), bad.subarray(tail)]);
          const index = await attempt('forged', () => parseHotIndex(rix));
          if (index !== null) await attempt('forged', () => openChunkTable(index, secrets.indexKey));
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('a scan of a damaged archive', () => {
  const many = makeStream(
    Array.from({ length: 60 }, (_, i) => ({ folder: 'f', name: `n${i}`, chunks: [textLike(30_000, i + 1)] })),
    secrets.contentKey,
  );

  it('finds every frame that is whole, wherever bytes were lost, added or changed', async () => {
    const { bytes } = await writeDataArchive(many, secrets);
    const whole = await scanArchive(memorySource(bytes));
    expect(whole.frames.length).toBeGreaterThan(8);
    const victim = whole.frames[3]!;
    const middle = victim.offset + Math.floor(victim.length / 2);
    const cases: [string, Buffer][] = [
      ['changed', Buffer.concat([bytes.subarray(0, middle), Buffer.alloc(500, 1), bytes.subarray(middle + 500)])],
      ['lost', Buffer.concat([bytes.subarray(0, middle), bytes.subarray(middle + 500)])],
      ['added', Buffer.concat([bytes.subarray(0, middle), Buffer.alloc(500, 1), bytes.subarray(middle)])],
      ['header gone', Buffer.concat([bytes.subarray(0, victim.offset), bytes.subarray(victim.offset + 60)])],
    ];
    for (const [what, bad] of cases) {
      const scan = await scanArchive(memorySource(bad));
      expect(scan.torn, what).toBe(true);
      expect(scan.damage.length, what).toBe(1);
      expect(scan.damage[0]!.offset, what).toBe(victim.offset);
      expect(
        scan.frames.map((frame) => frame.sequence),
        what,
      ).toEqual(whole.frames.map((frame) => frame.sequence).filter((sequence) => sequence !== victim.sequence));
    }
  });

  it('works without its first frame, and tells chunks around a lost block', async () => {
    const { bytes, sealed } = await writeDataArchive(many, secrets);
    const whole = await scanArchive(memorySource(bytes));
    const headless = await scanArchive(memorySource(bytes.subarray(whole.frames[1]!.offset)));
    expect(headless.header).toBe(null);
    expect(headless.id!.equals(sealed.id)).toBe(true);
    expect(headless.frames.length).toBe(whole.frames.length - 1);

    const { blockKey } = await openArchive(memorySource(bytes), { unwrap });
    const lost = whole.frames[3]!;
    const bad = Buffer.from(bytes);
    bad.fill(0, lost.offset, lost.offset + lost.length);
    const scan = await scanArchive(memorySource(bad));
    const found = new Set<number>();
    let torn = 0;
    for await (const event of scanStream(memorySource(bad), scan, { key: blockKey, content: true })) {
      if (event.event === 'torn') torn++;
      if (event.event !== 'chunk') continue;
      found.add(event.offset);
      expect(event.bytes!.equals(many.bytes.subarray(event.offset, event.offset + event.length))).toBe(true);
    }
    const from = (lost.sequence - 1) * 256 * 1024;
    const intact = many.chunks.filter(
      (chunk) => chunk.offset + chunk.length <= from || chunk.offset >= from + 256 * 1024,
    );
    // The chunk whose record begins in the lost block is gone too, though its bytes may go on after it.
    for (const chunk of intact) {
      if (chunk.offset - 100 < from + 256 * 1024 && chunk.offset >= from + 256 * 1024) continue;
      expect(found.has(chunk.offset), `chunk at ${chunk.offset}`).toBe(true);
    }
    // The one chunk that runs into the lost block.
    expect(torn).toBe(1);
  });

  it('ends soon, even if somebody crafted headers that overlap and claim much', async () => {
    const { bytes, sealed } = await writeDataArchive(many, secrets);
    const header = Buffer.alloc(OUTER_HEADER_SIZE + HASH_SIZE);
    header.write('BIDX');
    header.set(sealed.id, OUTER_OFFSETS.archiveId);
    header.writeUInt32LE(2 * 1024 * 1024, OUTER_OFFSETS.bodyLength);
    header.set(blake3(header.subarray(0, OUTER_HEADER_SIZE)), OUTER_HEADER_SIZE);
    const crafted = Buffer.alloc(50_000 * header.length, header);
    const first = parseOuterHeader(bytes).frameLength;
    // Without a limit this would hash 50,000 times 2 MiB: half a minute.
    const begin = performance.now();
    const scan = await scanArchive(
      memorySource(Buffer.concat([bytes.subarray(0, first), crafted, bytes.subarray(first)])),
    );
    expect(performance.now() - begin).toBeLessThan(10_000);
    expect(scan.header).not.toBe(null);
    expect(scan.torn).toBe(true);
  });
});
