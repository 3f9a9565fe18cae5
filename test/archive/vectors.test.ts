import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { chunkAt } from '../../src/archive/chunk-table.ts';
import { unwrapKey } from '../../src/archive/crypto/age.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { openFrame } from '../../src/archive/frame.ts';
import {
  memorySource,
  type OpenedArchive,
  openArchive,
  openChunkTable,
  parseHotIndex,
} from '../../src/archive/reader.ts';
import { scanArchive, scanStream } from '../../src/archive/scan.ts';
import { verifyTrailer } from '../../src/archive/trailer.ts';
import { RozenError } from '../../src/errors.ts';
import { decodeArchive, salvageFiles } from '../reference/decoder.ts';
import { type Expectation, makeVectors } from './make-vectors.ts';

const folder = new URL('../vectors/archive/', import.meta.url).pathname;
if (process.env.ROZEN_MAKE_VECTORS === '1' && !existsSync(`${folder}vectors.json`)) await makeVectors(folder);

interface Good {
  file: string;
  hotIndex?: string;
  kind: 'data' | 'tree';
  id: string;
  size: number;
  headerHash: string;
  merkleRoot: string;
  frames: number;
  streamLength?: number;
  blocks: string[];
  root?: string;
  chunks?: { id: string; ordinal: number; offset: number; length: number }[];
  files?: { folder: string; name: string; size: number; blake3: string }[];
}

const vectors = JSON.parse(readFileSync(`${folder}vectors.json`, 'utf8')) as {
  keys: Record<'archiveKey' | 'indexKey' | 'contentKey' | 'repositoryId' | 'writerId' | 'writerPublicKey', string> & {
    identities: string[];
  };
  good: Good[];
  bad: Expectation[];
};
const key = (name: Exclude<keyof typeof vectors.keys, 'identities'>) => Buffer.from(vectors.keys[name], 'hex');
const read = (file: string) => readFileSync(`${folder}${file}`);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const digest = (bytes: Uint8Array) => hex(blake3(bytes));
const unwrap = (envelope: Buffer) =>
  unwrapKey([vectors.keys.identities[0]!], envelope).catch(() => unwrapKey([vectors.keys.identities[1]!], envelope));
const reference = (bytes: Uint8Array) =>
  decodeArchive(new Uint8Array(bytes), {
    archiveKey: key('archiveKey'),
    indexKey: key('indexKey'),
    contentKey: key('contentKey'),
    writer: key('writerPublicKey'),
  });
const binding = (headerHash: Uint8Array) => ({ repositoryId: key('repositoryId'), headerHash });

function readBlock(archive: OpenedArchive, bytes: Buffer, n: number): Buffer {
  const at = archive.blocks.offset(n);
  const type = archive.root === null ? 'DATA' : 'PAGE';
  return openFrame(archive.context, bytes.subarray(at, at + archive.blocks.length(n)), { type, sequence: n + 1 });
}

describe.each(vectors.good)('golden archive $file', (good) => {
  const bytes = read(good.file);

  it('opens to what was written', async () => {
    const archive = await openArchive(memorySource(bytes), {
      unwrap,
      expect: {
        id: Buffer.from(good.id, 'hex'),
        size: good.size,
        headerHash: Buffer.from(good.headerHash, 'hex'),
        merkleRoot: Buffer.from(good.merkleRoot, 'hex'),
      },
    });
    expect(archive.trailer.frames).toBe(good.frames);
    expect(archive.blocks.streamLength).toBe(good.streamLength ?? 0);
    const blocks = good.blocks.map((_, n) => readBlock(archive, bytes, n));
    expect(blocks.map(digest)).toEqual(good.blocks);
    if (good.root !== undefined) expect(digest(archive.root!)).toBe(good.root);
    expect(verifyTrailer(archive.trailer, binding(archive.headerHash), key('writerPublicKey'))).toBe(true);
    expect(hex(archive.trailer.writerId)).toBe(vectors.keys.writerId);

    const scan = await scanArchive(memorySource(bytes));
    expect(scan.torn).toBe(false);
    expect(hex(scan.merkleRoot)).toBe(good.merkleRoot);
    if (good.kind === 'tree') return;
    const files: { folder: string; name: string; size: number; blake3: string }[] = [];
    let content: Buffer[] = [];
    for await (const event of scanStream(memorySource(bytes), scan, { key: archive.blockKey, content: true })) {
      if (event.event === 'file') {
        files.push({ folder: event.folder.toString(), name: event.name.toString(), size: event.size, blake3: '' });
        content = [];
      }
      if (event.event === 'chunk') content.push(event.bytes!);
      if (event.event === 'end') files.at(-1)!.blake3 = digest(Buffer.concat(content));
    }
    expect(files).toEqual(good.files);
    const index = parseHotIndex(read(good.hotIndex!));
    const table = openChunkTable(index, key('indexKey'));
    const chunks = Array.from({ length: table.count }, (_, i) => chunkAt(table, i));
    expect(chunks.map((chunk) => ({ ...chunk, id: hex(chunk.id) }))).toEqual(good.chunks);
    const hot = await openArchive(memorySource(read(good.hotIndex!)), { unwrap, hotIndex: true });
    expect([...hot.blocks.offsets]).toEqual([...archive.blocks.offsets]);
  });

  it('is read to the same bytes by the reference decoder', () => {
    const archive = reference(bytes);
    expect(hex(archive.id)).toBe(good.id);
    expect(hex(archive.headerHash)).toBe(good.headerHash);
    expect(hex(archive.merkleRoot)).toBe(good.merkleRoot);
    expect(hex(archive.repositoryId)).toBe(vectors.keys.repositoryId);
    expect(archive.blocks.map(digest)).toEqual(good.blocks);
    if (good.root !== undefined) expect(digest(archive.root!)).toBe(good.root);
    if (good.kind === 'tree') return;
    expect(archive.chunks.map((chunk) => ({ ...chunk, id: hex(chunk.id) }))).toEqual(good.chunks);
    expect(
      salvageFiles([archive], key('contentKey')).map((file) => ({
        folder: Buffer.from(file.folder).toString(),
        name: Buffer.from(file.name).toString(),
        size: file.size,
        blake3: digest(file.content),
      })),
    ).toEqual(good.files);
  });
});

describe.each(vectors.bad)('failing archive $file', (bad) => {
  const bytes = read(bad.file);
  const codeOf = (error: unknown) => {
    if (error instanceof RozenError) return error.code;
    throw error;
  };

  it(bad.why, async () => {
    const archive = await openArchive(memorySource(bytes), { unwrap }).catch(codeOf);
    expect(typeof archive === 'string' ? archive : 'ok').toBe(bad.open);
    if (typeof archive !== 'string') {
      const blocks = Array.from({ length: archive.blocks.count }, (_, n) => {
        try {
          readBlock(archive, bytes, n);
          return 'ok';
        } catch (error) {
          return codeOf(error);
        }
      });
      expect(blocks).toEqual(bad.blocks);
      expect(verifyTrailer(archive.trailer, binding(archive.headerHash), key('writerPublicKey'))).toBe(bad.signature);
    }
    const scan = await scanArchive(memorySource(bytes));
    expect(scan.torn).toBe(bad.torn);
    if (bad.merkle !== undefined) expect(scan.trailer!.merkleRoot.equals(scan.merkleRoot)).toBe(bad.merkle);
    if (bad.why.startsWith('nothing:')) expect(reference(bytes).blocks.length).toBe(1);
    else expect(() => reference(bytes)).toThrow();
  });
});

it('every vector is listed', () => {
  const listed = [
    ...vectors.good.flatMap((good) => [good.file, good.hotIndex ?? good.file]),
    ...vectors.bad.map((bad) => bad.file),
  ];
  const there = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => /\.(rix|roz)$/.test(name));
  expect(there.sort()).toEqual([...new Set(listed)].sort());
});
