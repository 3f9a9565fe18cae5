import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { encodeCbor } from '../../src/archive/cbor.ts';
import { chunkAt } from '../../src/archive/chunk-table.ts';
import { keyedBlake3 } from '../../src/archive/crypto/blake3.ts';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { AEND_FRAME_SIZE, BLOCK_SIZE, KIND_DATA, SUFFIX_READ } from '../../src/archive/format.ts';
import { openFrame, parseOuterHeader, plainFrame, sealFrame } from '../../src/archive/frame.ts';
import { buildHeader, parseHeader } from '../../src/archive/header.ts';
import { chunkIndexKey, keyCommitment } from '../../src/archive/keys.ts';
import {
  hotIndexObject,
  memorySource,
  type OpenOptions,
  openArchive,
  openChunkTable,
  parseHotIndex,
} from '../../src/archive/reader.ts';
import { scanArchive, scanStream, streamFrames } from '../../src/archive/scan.ts';
import { verifyTrailer } from '../../src/archive/trailer.ts';
import { ArchiveWriter } from '../../src/archive/writer.ts';
import { RozenError } from '../../src/errors.ts';
import {
  CountingSource,
  MemorySink,
  makeSecrets,
  makeStream,
  textLike,
  writeDataArchive,
  writeTreeArchive,
} from './sample.ts';

const secrets = makeSecrets();
const unwrap: OpenOptions['unwrap'] = async (envelope) => {
  if (!envelope.equals(secrets.envelope)) throw new RozenError('no-key', 'another envelope');
  return Buffer.from(secrets.key);
};

const files = [
  { folder: 'papers', name: 'empty', chunks: [] },
  { folder: 'papers', name: 'small', chunks: [textLike(1234)] },
  { folder: 'photos', name: 'large', chunks: [textLike(200_000, 2), randomBytes(150_000), textLike(310_000, 3)] },
  { folder: 'photos', name: 'last', chunks: [textLike(99)] },
];
const stream = makeStream(files, secrets.contentKey);
const archive = writeDataArchive(stream, secrets);

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof RozenError)) throw error;
    return error.code;
  }
  return 'no error';
}

describe('a data archive', () => {
  it('opens with one suffix read and gives back its stream', async () => {
    const { bytes, sealed } = await archive;
    const source = new CountingSource(bytes);
    const opened = await openArchive(source, { unwrap, expect: { ...sealed } });
    expect([source.suffixes, source.reads]).toEqual([1, 0]);
    expect(opened.size).toBe(bytes.length);
    expect(opened.blocks.streamLength).toBe(stream.bytes.length);
    expect(opened.blocks.count).toBe(stream.blocks.length);
    expect(opened.blocks.offsets.buffer).toBeInstanceOf(SharedArrayBuffer);
    const plain: Buffer[] = [];
    for (let n = 0; n < opened.blocks.count; n++) {
      const offset = opened.blocks.offset(n);
      const frame = bytes.subarray(offset, offset + opened.blocks.length(n));
      const block = openFrame(opened.context, frame, { type: 'DATA', sequence: n + 1 });
      expect(block.length).toBe(opened.blocks.plainLength(n));
      plain.push(block);
    }
    expect(Buffer.concat(plain).equals(stream.bytes)).toBe(true);
    const { signing, repositoryId } = secrets;
    const { headerHash, trailer } = opened;
    expect(verifyTrailer(trailer, { repositoryId, headerHash }, signing.public)).toBe(true);
    expect(verifyTrailer(trailer, { repositoryId, headerHash }, generateSigningKey().public)).toBe(false);
    expect(verifyTrailer(trailer, { repositoryId: randomBytes(16), headerHash }, signing.public)).toBe(false);
  });

  it('has a hot index that opens in the same way, and whose chunk table needs only the index key', async () => {
    const { bytes, sealed } = await archive;
    const rix = sealed.hotIndex!;
    expect((await hotIndexObject(memorySource(bytes))).equals(rix)).toBe(true);
    const opened = await openArchive(memorySource(rix), { unwrap, hotIndex: true, expect: { size: bytes.length } });
    expect(opened.blocks.offset(1)).toBe(opened.blocks.offset(0) + opened.blocks.length(0));
    expect(opened.size).toBe(bytes.length);
    expect(await codeOf(() => openArchive(memorySource(rix), { unwrap }))).toBe('corrupt');
    expect(await codeOf(() => openArchive(memorySource(bytes), { unwrap, hotIndex: true }))).toBe('corrupt');

    const index = parseHotIndex(rix);
    expect(index.header.headerHash.equals(sealed.headerHash)).toBe(true);
    const table = openChunkTable(index, secrets.indexKey);
    expect(table.count).toBe(stream.chunks.length);
    for (let i = 0; i < table.count; i++) {
      const chunk = chunkAt(table, i);
      expect(chunk).toEqual(stream.chunks[i]);
      const content = stream.bytes.subarray(chunk.offset, chunk.offset + chunk.length);
      expect(keyedBlake3(secrets.contentKey, content).equals(chunk.id)).toBe(true);
    }
    expect(() => openChunkTable(index, randomBytes(32))).toThrow('authentication failed');

    // Another enrolled writer has the index key too, and puts a chunk table of his own in the place of this one.
    const { id, headerHash } = index.header;
    const forger = { archiveId: id, key: chunkIndexKey(secrets.indexKey, id), headerHash };
    const plaintext = openFrame(forger, index.cidx, { type: 'CIDX' });
    const sequence = parseOuterHeader(index.cidx).sequence;
    const forged = sealFrame(forger, { type: 'CIDX', sequence, plaintext, codec: { codec: 'zstd' } });
    expect(forged.length).toBe(index.cidx.length);
    const swapped = Buffer.from(rix);
    swapped.set(forged, index.header.frame.length);
    expect(() => parseHotIndex(swapped)).toThrow('CIDX: its block hash');
  });

  it('is scanned without any key, and its records are read with the block key', async () => {
    const { bytes, sealed } = await archive;
    const scan = await scanArchive(memorySource(bytes));
    expect(scan.torn).toBe(false);
    expect(scan.damage).toEqual([]);
    expect(scan.merkleRoot.equals(sealed.merkleRoot)).toBe(true);
    expect(scan.trailer!.merkleRoot.equals(sealed.merkleRoot)).toBe(true);
    expect(scan.frames.map((frame) => frame.type)).toEqual(['AHDR', 'DATA', 'DATA', 'DATA', 'CIDX', 'BIDX', 'AEND']);
    const { blockKey } = await openArchive(memorySource(bytes), { unwrap });
    const names: string[] = [];
    const content: Buffer[] = [];
    for await (const event of scanStream(memorySource(bytes), scan, { key: blockKey, content: true })) {
      if (event.event === 'file') names.push(`${event.folder}/${event.name}`);
      if (event.event === 'chunk') content.push(event.bytes!);
      expect(event.event).not.toBe('torn');
    }
    expect(names).toEqual(['papers/empty', 'papers/small', 'photos/large', 'photos/last']);
    expect(Buffer.concat(content).equals(Buffer.concat(files.flatMap((file) => file.chunks)))).toBe(true);
  });

  it('that is not the one a signed record names is refused', async () => {
    const { bytes, sealed } = await archive;
    const open = (expect: OpenOptions['expect']) => () => openArchive(memorySource(bytes), { unwrap, expect: expect! });
    expect(await codeOf(open({ size: sealed.size + 1 }))).toBe('corrupt');
    for (const wrong of [
      { id: randomBytes(16) },
      { headerHash: randomBytes(32) },
      { merkleRoot: randomBytes(32) },
      { envelope: randomBytes(50) },
    ]) {
      expect(await codeOf(open(wrong))).toBe('untrusted');
    }
    const named = openArchive(memorySource(bytes), {
      unwrap,
      expect: { id: randomBytes(16) },
      name: 'data/ab/abc.roz',
    });
    await expect(named).rejects.toThrow(/^data\/ab\/abc\.roz: its id/);
  });

  it('does not open with a key that its header does not commit to', async () => {
    const { bytes } = await archive;
    const wrong = { unwrap: async () => randomBytes(32) };
    await expect(openArchive(memorySource(bytes), wrong)).rejects.toThrow('commits to');
    const short = { unwrap: async () => randomBytes(31) };
    expect(await codeOf(() => openArchive(memorySource(bytes), short))).toBe('corrupt');
  });

  it('may hold nothing at all', async () => {
    const empty = await writeDataArchive(makeStream([], secrets.contentKey), secrets);
    const opened = await openArchive(memorySource(empty.bytes), { unwrap });
    expect(opened.blocks.count).toBe(0);
    expect(openChunkTable(parseHotIndex(empty.sealed.hotIndex!), secrets.indexKey).count).toBe(0);
  });
});

describe('a tree archive', () => {
  const pages = Array.from({ length: 30 }, (_, i) => Buffer.concat([Buffer.from(`page ${i} `), randomBytes(3000)]));

  it('opens with one suffix read, which holds the root and the last pages', async () => {
    const root = Buffer.from('the roots');
    const { bytes, sealed } = await writeTreeArchive(pages, root, secrets);
    const source = new CountingSource(bytes);
    const opened = await openArchive(source, { unwrap, expect: { ...sealed } });
    expect([source.suffixes, source.reads]).toEqual([1, 0]);
    expect(opened.root!.equals(root)).toBe(true);
    const last = opened.blocks.count - 1;
    const at = opened.blocks.offset(last) - opened.suffix.offset;
    const frame = opened.suffix.bytes.subarray(at, at + opened.blocks.length(last));
    expect(openFrame(opened.context, frame, { type: 'PAGE', sequence: last + 1 }).equals(pages[last]!)).toBe(true);
    expect(sealed.hotIndex).toBe(null);
  });

  it('with a longer tail takes a second read', async () => {
    const root = randomBytes(SUFFIX_READ + 1000);
    const { bytes } = await writeTreeArchive(pages, root, secrets);
    const source = new CountingSource(bytes);
    const opened = await openArchive(source, { unwrap });
    expect([source.suffixes, source.reads]).toEqual([1, 1]);
    expect(opened.root!.equals(root)).toBe(true);
  });
});

describe('the header', () => {
  const base = { repositoryId: secrets.repositoryId, envelope: secrets.envelope, key: secrets.key };

  it('names the incompatible features that this version lacks', () => {
    const frame = buildHeader({
      ...base,
      id: randomBytes(16),
      kind: KIND_DATA,
      flags: { incompatible: 0b1000_0000_1000, readCompatible: 0, compatible: 0 },
    });
    expect(() => parseHeader(frame)).toThrow(/parity frames, feature 11/);
    try {
      parseHeader(frame);
    } catch (error) {
      expect((error as RozenError).code).toBe('unsupported');
    }
  });

  it('accepts compatible features', () => {
    const flags = { incompatible: 0, readCompatible: 5, compatible: 0xffff_ffff };
    expect(parseHeader(buildHeader({ ...base, id: randomBytes(16), kind: KIND_DATA, flags })).flags).toEqual(flags);
  });

  it('of a newer version is unsupported, whatever else it holds', () => {
    const frame = plainFrame({
      type: 'AHDR',
      archiveId: randomBytes(16),
      sequence: 0,
      cborHeader: encodeCbor({ version: 2 }),
    });
    expect(() => parseHeader(frame)).toThrow(/format version 2/);
  });

  it('refuses fields that are missing or of a wrong size', () => {
    const fields = {
      version: 1,
      kind: 1,
      repository: randomBytes(16),
      flags: [0, 0, 0],
      envelope: Buffer.from('e'),
      commitment: keyCommitment(secrets.key),
    };
    const header = (change: object) =>
      plainFrame({
        type: 'AHDR',
        archiveId: randomBytes(16),
        sequence: 0,
        cborHeader: encodeCbor({ ...fields, ...change }),
      });
    expect(parseHeader(header({ more: 'unknown members are ignored' })).kind).toBe(KIND_DATA);
    for (const change of [
      { kind: 3 },
      { repository: randomBytes(15) },
      { flags: [0, 0] },
      { flags: [0, 0, -1] },
      { commitment: undefined },
      { envelope: 'text' },
      { version: '1' },
    ]) {
      expect(() => parseHeader(header(change))).toThrow(RozenError);
    }
  });
});

describe('the writer', () => {
  const create = (sink: MemorySink) =>
    ArchiveWriter.create({
      sink,
      kind: KIND_DATA,
      repositoryId: secrets.repositoryId,
      key: secrets.key,
      envelope: secrets.envelope,
    });
  const finish = (writer: ArchiveWriter) =>
    writer.finish({
      chunks: { key: chunkIndexKey(secrets.indexKey, writer.id), list: [] },
      writerId: secrets.writerId,
      signWith: secrets.signing.secret,
    });
  const full = Buffer.alloc(BLOCK_SIZE, 7);

  it('refuses every other order, and everything after a failure', async () => {
    const unopened = create(new MemorySink());
    expect(() => unopened.appendPlain('DATA', full)).toThrow('state "open"');
    await expect(finish(create(new MemorySink()))).rejects.toThrow('state "open"');

    const twice = create(new MemorySink());
    twice.begin();
    expect(() => twice.begin()).toThrow('state "blocks"');

    const wrong = create(new MemorySink());
    wrong.begin();
    expect(() => wrong.appendPlain('PAGE', full)).toThrow('a PAGE frame among the DATA frames');
    expect(() => wrong.appendPlain('DATA', full)).toThrow('failed before');
    await expect(finish(wrong)).rejects.toThrow('failed before');

    const done = create(new MemorySink());
    done.begin();
    await finish(done);
    expect(done.state).toBe('sealed');
    expect(() => done.appendPlain('DATA', full)).toThrow('state "sealed"');
    await expect(finish(done)).rejects.toThrow('state "sealed"');
  });

  it('takes frames that were sealed elsewhere only in their order', () => {
    const writer = create(new MemorySink());
    writer.begin();
    const seal = (sequence: number) =>
      sealFrame(writer.context, { type: 'DATA', sequence, plaintext: full, codec: { codec: 'lz4' } });
    writer.append(seal(1));
    expect(() => writer.append(seal(3))).toThrow('frame 3 where 2 is due');
    expect(writer.state).toBe('failed');
  });

  it('lets nothing follow a short block', () => {
    const writer = create(new MemorySink());
    writer.begin();
    writer.appendPlain('DATA', full);
    writer.appendPlain('DATA', full.subarray(1));
    expect(() => writer.appendPlain('DATA', full)).toThrow('after the last block');
  });

  it('does not call an archive sealed whose tail reads back changed', async () => {
    class LyingSink extends MemorySink {
      override readBack(offset: number, length: number): Buffer {
        const bytes = super.readBack(offset, length);
        bytes[length - AEND_FRAME_SIZE] = bytes[length - AEND_FRAME_SIZE]! ^ 1;
        return bytes;
      }
    }
    const writer = create(new LyingSink());
    writer.begin();
    await expect(finish(writer)).rejects.toThrow('reads back changed');
    expect(writer.state).toBe('failed');
  });

  it('waits for a slow sink, keeps the order, and fails with it', async () => {
    const sink = new MemorySink();
    let running = 0;
    const slow = {
      async append(bytes: Uint8Array) {
        expect(++running).toBe(1);
        await new Promise((resolve) => setImmediate(resolve));
        sink.append(bytes);
        running--;
      },
      readBack: (offset: number, length: number) => sink.readBack(offset, length),
    };
    const writer = ArchiveWriter.create({
      sink: slow,
      kind: KIND_DATA,
      repositoryId: secrets.repositoryId,
      key: secrets.key,
      envelope: secrets.envelope,
    });
    writer.begin();
    for (let i = 0; i < 5; i++) writer.appendPlain('DATA', full);
    await writer.ready();
    expect(sink.size).toBe(writer.size);
    await finish(writer);
    const opened = await openArchive(memorySource(sink.bytes()), { unwrap });
    expect(opened.blocks.count).toBe(5);

    const broken = { append: async () => Promise.reject(new Error('disk full')), readBack: () => Buffer.alloc(0) };
    const failing = ArchiveWriter.create({
      sink: broken,
      kind: KIND_DATA,
      repositoryId: secrets.repositoryId,
      key: secrets.key,
      envelope: secrets.envelope,
    });
    failing.begin();
    await expect(failing.ready()).rejects.toThrow('disk full');
    expect(() => failing.appendPlain('DATA', full)).toThrow('failed before');
  });

  it('goes on with what a crash left, wherever it was cut', async () => {
    const { bytes, sealed } = await archive;
    const complete = await scanArchive(memorySource(bytes));
    for (const frame of complete.frames) {
      for (const cut of [frame.offset, frame.offset + 1, frame.offset + frame.length - 1]) {
        const left = bytes.subarray(0, cut);
        const scan = await scanArchive(memorySource(left));
        expect(scan.torn).toBe(true);
        if (scan.header === null) {
          expect(cut).toBeLessThan(complete.frames[1]!.offset);
          continue;
        }
        const kept = streamFrames(scan);
        const isWhole = kept.length === stream.blocks.length;
        const lastLength = isWhole ? stream.blocks.at(-1)!.bytes.length : BLOCK_SIZE;
        const sink = new MemorySink();
        const writer = ArchiveWriter.resume(
          { sink, repositoryId: secrets.repositoryId, key: secrets.key },
          scan,
          lastLength,
        );
        sink.append(left.subarray(0, writer.size));
        expect(writer.sequence).toBe(kept.length + 1);
        for (const block of stream.blocks.slice(kept.length))
          writer.appendPlain('DATA', block.bytes, block.firstRecord);
        const again = await writer.finish({
          chunks: { key: chunkIndexKey(secrets.indexKey, writer.id), list: stream.chunks },
          writerId: secrets.writerId,
          signWith: secrets.signing.secret,
        });
        expect(again.id.equals(sealed.id)).toBe(true);
        const opened = await openArchive(memorySource(sink.bytes()), { unwrap, expect: { ...again } });
        expect(opened.blocks.streamLength).toBe(stream.bytes.length);
        const rescan = await scanArchive(memorySource(sink.bytes()));
        expect(rescan.torn).toBe(false);
        expect(rescan.merkleRoot.equals(again.merkleRoot)).toBe(true);
      }
    }
  });
});
