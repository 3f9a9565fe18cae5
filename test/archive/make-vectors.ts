/**
 * Makes the golden archives in test/vectors/archive. They were made once and stay for ever: nothing is overwritten. To add vectors of
 * a new format version, extend this file and run `ROZEN_MAKE_VECTORS=1 npx vitest run test/archive/vectors.test.ts`.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { encodeBlockTable } from '../../src/archive/block-table.ts';
import { encodeCbor } from '../../src/archive/cbor.ts';
import { encodeChunkTable } from '../../src/archive/chunk-table.ts';
import type { CodecSpec } from '../../src/archive/codec/index.ts';
import { randomNonce, sealAead } from '../../src/archive/crypto/aead.ts';
import { generateIdentity, recipientOf, wrapKey } from '../../src/archive/crypto/age.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { generateSigningKey, publicKeyOf } from '../../src/archive/crypto/ed25519.ts';
import {
  AEND_FRAME_SIZE,
  type FrameType,
  HASH_SIZE,
  INNER_HEADER_SIZE,
  INNER_OFFSETS,
  KIND_DATA,
  OUTER_HEADER_SIZE,
} from '../../src/archive/format.ts';
import { blockHash, plainFrame, type SealContext, sealFrame } from '../../src/archive/frame.ts';
import { buildHeader } from '../../src/archive/header.ts';
import { chunkIndexKey, deriveArchiveKeys, keyCommitment } from '../../src/archive/keys.ts';
import { merkleRoot } from '../../src/archive/merkle.ts';
import { memorySource } from '../../src/archive/reader.ts';
import { type ScannedFrame, scanArchive } from '../../src/archive/scan.ts';
import { encodeTrailer, type Place } from '../../src/archive/trailer.ts';
import { makeStream, type SampleFile, type Secrets, textLike, writeDataArchive, writeTreeArchive } from './sample.ts';

const secret = (name: string) => blake3(Buffer.from(`rozen test vector: ${name}`));

/** Contents that compress well but not to nothing. */
function prose(length: number, seed: number): Buffer {
  const words = ['archive', 'block', 'chunk', 'page', 'record', 'snapshot', 'tree', 'writer', 'and', 'the', 'of', '\n'];
  const parts: string[] = [];
  let state = seed >>> 0;
  for (let size = 0; size < length; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const word = `${words[(state >>> 16) % words.length]} `;
    parts.push(word);
    size += word.length;
  }
  return Buffer.from(parts.join('')).subarray(0, length);
}

const small: SampleFile[] = [
  { folder: '', name: 'empty', chunks: [] },
  { folder: 'papers', name: 'note.txt', chunks: [prose(600, 1)] },
  { folder: 'papers/2026', name: 'two chunks', chunks: [prose(500, 2), textLike(300, 3)] },
];
const large: SampleFile[] = [
  ...small,
  { folder: 'photos', name: 'größer', chunks: [prose(200_000, 4), textLike(30_000, 5), prose(100_000, 6)] },
  { folder: 'photos', name: 'last', chunks: [prose(40_000, 7)] },
];

export interface Expectation {
  /** The file in test/vectors/archive. */
  file: string;
  why: string;
  /** What opening it gives: 'ok' or the code of the error. */
  open: string;
  /** For each block: 'ok' or the code of the error. */
  blocks?: string[];
  /** Whether a scan without keys finds it torn. */
  torn: boolean;
  /** Whether the writer's signature holds. */
  signature?: boolean;
  /** Whether the Merkle root of the trailer is that of the frames. */
  merkle?: boolean;
}

export async function makeVectors(folder: string): Promise<void> {
  const save = (name: string, bytes: Uint8Array | string) => {
    const path = join(folder, name);
    if (existsSync(path)) throw new Error(`${path} exists: golden vectors are never overwritten`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
  };
  const signing = generateSigningKey();
  const identity = await generateIdentity('x25519');
  const hybrid = await generateIdentity('hybrid');
  const key = secret('archive key');
  const secrets: Secrets = {
    key,
    envelope: await wrapKey([await recipientOf(identity)], key),
    repositoryId: secret('repository').subarray(0, 16),
    indexKey: secret('index key'),
    contentKey: secret('content key'),
    writerId: secret('writer').subarray(0, 16),
    signing,
  };
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  const good: object[] = [];

  const codecs: CodecSpec['codec'][] = ['none', 'lz4', 'zstd'];
  const data = async (name: string, files: SampleFile[], options: { codec: CodecSpec; envelope?: Buffer }) => {
    const stream = makeStream(files, secrets.contentKey);
    const { bytes, sealed } = await writeDataArchive(stream, secrets, options);
    save(`${name}.roz`, bytes);
    save(`${name}.rix`, sealed.hotIndex!);
    good.push({
      file: `${name}.roz`,
      hotIndex: `${name}.rix`,
      kind: 'data',
      id: hex(sealed.id),
      size: sealed.size,
      headerHash: hex(sealed.headerHash),
      merkleRoot: hex(sealed.merkleRoot),
      frames: sealed.frames,
      streamLength: stream.bytes.length,
      blocks: stream.blocks.map((block) => hex(blake3(block.bytes))),
      chunks: stream.chunks.map((chunk) => ({ ...chunk, id: hex(chunk.id) })),
      files: files.map((file) => {
        const content = Buffer.concat(file.chunks);
        const { folder, name } = file;
        return { folder, name, size: content.length, blake3: hex(blake3(content)) };
      }),
    });
    return bytes;
  };
  let base: Buffer = Buffer.alloc(0);
  for (const codec of codecs) {
    const bytes = await data(`data-${codec}`, codec === 'none' ? small : large, { codec: { codec } });
    if (codec === 'none') base = bytes;
    const pages = [1, 2, 3, 4].map((seed) => prose(900 * seed, seed));
    const root = prose(300, 9);
    const tree = await writeTreeArchive(pages, root, secrets, { codec: { codec } });
    save(`tree-${codec}.roz`, tree.bytes);
    const { id, size, headerHash, merkleRoot, frames } = tree.sealed;
    good.push({
      file: `tree-${codec}.roz`,
      kind: 'tree',
      id: hex(id),
      size,
      headerHash: hex(headerHash),
      merkleRoot: hex(merkleRoot),
      frames,
      blocks: pages.map((page) => hex(blake3(page))),
      root: hex(blake3(root)),
    });
  }
  const envelope = await wrapKey([await recipientOf(hybrid)], key);
  await data('data-hybrid', small.slice(0, 2), { codec: { codec: 'zstd' }, envelope });

  const bad = await makeBad(base, secrets);
  for (const each of bad) save(each.expectation.file, each.bytes);
  save(
    'vectors.json',
    `${JSON.stringify(
      {
        keys: {
          archiveKey: hex(key),
          indexKey: hex(secrets.indexKey),
          contentKey: hex(secrets.contentKey),
          repositoryId: hex(secrets.repositoryId),
          writerId: hex(secrets.writerId),
          writerPublicKey: hex(signing.public),
          writerSecret: hex(signing.secret),
          identities: [identity, hybrid],
        },
        good,
        bad: bad.map((each) => each.expectation),
      },
      null,
      2,
    )}\n`,
  );
}

interface Bad {
  bytes: Buffer;
  expectation: Expectation;
}

/** Failing cases, all from one small archive of a single DATA block that is stored without compression. */
async function makeBad(base: Buffer, secrets: Secrets): Promise<Bad[]> {
  const bad: Bad[] = [];
  const add = (name: string, why: string, bytes: Buffer, expectation: Omit<Expectation, 'file' | 'why'>) => {
    bad.push({ bytes, expectation: { file: `bad/${name}.roz`, why, ...expectation } });
  };
  const { frames } = await scanArchive(memorySource(base));
  const find = (type: string): ScannedFrame => frames.find((frame) => frame.type === type)!;
  const flip = (at: number): Buffer => {
    const bytes = Buffer.from(base);
    bytes[at] = bytes[at]! ^ 0x10;
    return bytes;
  };
  const [header, block, cidx, bidx, end] = ['AHDR', 'DATA', 'CIDX', 'BIDX', 'AEND'].map(find) as ScannedFrame[];
  const fine = { open: 'ok', blocks: ['ok'], torn: true, signature: true, merkle: false };
  const lost = { ...fine, blocks: ['corrupt'] };
  const shut = { open: 'corrupt', torn: true };

  add(
    'ahdr-flip',
    'one bit of the key envelope in AHDR: readers use the copy in BIDX',
    flip(header!.offset + 200),
    fine,
  );
  add('block-type-flip', 'one bit of the type of a block', flip(block!.offset), lost);
  add('block-sequence-flip', 'one bit of the sequence of a block', flip(block!.offset + 20), lost);
  add('block-nonce-flip', 'one bit of the nonce of a block', flip(block!.offset + 40), lost);
  add('block-body-flip', 'one bit of the sealed body of a block', flip(block!.offset + 300), lost);
  add('block-tag-flip', 'one bit of the tag of a block', flip(block!.offset + block!.length - 40), lost);
  add(
    'block-hash-flip',
    'one bit of the block hash: the block itself is whole',
    flip(block!.offset + block!.length - 1),
    fine,
  );
  add('cidx-flip', 'one bit of the chunk table: reading goes on', flip(cidx!.offset + 130), fine);
  add('bidx-header-flip', 'one bit of the header copy in BIDX', flip(bidx!.offset + 300), shut);
  add('bidx-body-flip', 'one bit of the sealed block table', flip(bidx!.offset + bidx!.length - 60), shut);
  add('aend-place-flip', 'one bit of the places in AEND', flip(end!.offset + 88), shut);
  add('aend-signature-flip', 'one bit of the signature in AEND', flip(end!.offset + 88 + 100), shut);
  add('cut-trailer', 'the last byte is missing', base.subarray(0, -1), shut);
  add('cut-bidx', 'cut inside BIDX', base.subarray(0, bidx!.offset + 100), shut);
  add('cut-block', 'cut inside the block, as by a crash', base.subarray(0, block!.offset + 500), shut);
  add('byte-appended', 'one byte too many', Buffer.concat([base, Buffer.alloc(1)]), shut);
  add('empty', 'no byte at all', Buffer.alloc(0), shut);

  const made = (options: Parameters<typeof craft>[1]) => craft(secrets, options);
  const whole = { ...fine, torn: false, merkle: true };
  const payload = Buffer.from('PAD_\0\0\0\0\x04\0\0\0rest');
  const blockOf = (change: { codec?: number; length?: number; hash?: Buffer; reserved?: number }) =>
    made({ inner: { payload, ...change } });
  const evil = { ...whole, blocks: ['corrupt'] };
  add('crafted-sound', 'nothing: the frame that the next ones differ from', blockOf({}), whole);
  add(
    'crafted-ancillary',
    'nothing: a frame of an unknown ancillary type is skipped',
    made({ ancillary: true }),
    whole,
  );
  add('codec-unknown', 'a sealed block of codec 9', blockOf({ codec: 9 }), evil);
  add(
    'length-larger',
    'a plaintext length one larger than the plaintext',
    blockOf({ length: payload.length + 1 }),
    evil,
  );
  add('length-huge', 'a plaintext length of 4 GiB', blockOf({ length: 0xffff_ffff }), evil);
  add('hash-wrong', 'a plaintext hash of something else', blockOf({ hash: Buffer.alloc(32) }), evil);
  add('reserved-set', 'a reserved byte of the inner header that is not zero', blockOf({ reserved: 1 }), evil);
  add('zstd-noise', 'noise that says it is zstd', blockOf({ codec: 2 }), evil);
  add('lz4-noise', 'noise that says it is lz4', blockOf({ codec: 1, length: 200_000 }), evil);
  add('other-key', 'a block sealed under another key', made({ blockKey: secret('another key') }), evil);
  add('other-header', 'a block bound to another header', made({ headerHash: secret('another header') }), evil);
  add('version-2', 'format version 2', made({ header: { version: 2 } }), { open: 'unsupported', torn: true });
  add('feature-unknown', 'incompatible flag 3', made({ header: { flags: [8, 0, 0] } }), {
    open: 'unsupported',
    torn: true,
  });
  add('kind-unknown', 'kind 7', made({ header: { kind: 7 } }), { open: 'corrupt', torn: true });
  add('commitment-wrong', 'a commitment to another key', made({ header: { commitment: Buffer.alloc(32) } }), {
    open: 'corrupt',
    torn: false,
    signature: true,
    merkle: true,
  });
  add('signature-stranger', 'a signature by somebody else', made({ signWith: generateSigningKey().secret }), {
    ...whole,
    signature: false,
  });
  add('merkle-wrong', 'a signed Merkle root of other frames', made({ merkleRoot: Buffer.alloc(32) }), {
    ...whole,
    merkle: false,
  });
  add('cidx-hash-wrong', 'a signed hash of another chunk table', made({ cidxHash: Buffer.alloc(32) }), whole);
  add(
    'stream-length-wrong',
    'a block table of one block for a stream of 300,000 bytes',
    made({ streamLength: 300_000 }),
    {
      open: 'corrupt',
      torn: false,
      signature: true,
      merkle: true,
    },
  );
  if (publicKeyOf(secrets.signing.secret).compare(secrets.signing.public) !== 0) throw new Error('signing key');
  return bad;
}

/** One archive by hand, with whatever is wrong in it; hashes and signature always fit. */
function craft(
  secrets: Secrets,
  wrong: {
    header?: { version?: number; kind?: number; flags?: number[]; commitment?: Buffer };
    inner?: { payload: Buffer; codec?: number; length?: number; hash?: Buffer; reserved?: number };
    blockKey?: Buffer;
    headerHash?: Buffer;
    merkleRoot?: Buffer;
    cidxHash?: Buffer;
    signWith?: Buffer;
    streamLength?: number;
    ancillary?: boolean;
  },
): Buffer {
  const { key, envelope, repositoryId } = secrets;
  const archiveId = secret('crafted archive').subarray(0, 16);
  const plain = {
    version: 1,
    kind: KIND_DATA,
    repository: repositoryId,
    flags: [0, 0, 0],
    envelope,
    commitment: keyCommitment(key),
  };
  const cborHeader = encodeCbor({ ...plain, ...wrong.header });
  const header =
    wrong.header === undefined
      ? buildHeader({ id: archiveId, kind: KIND_DATA, repositoryId, envelope, key })
      : plainFrame({ type: 'AHDR', archiveId, sequence: 0, cborHeader });
  const headerHash = blake3(header);
  const blockKey = deriveArchiveKeys(key).block;
  const context: SealContext = { archiveId, key: blockKey, headerHash };
  const none: CodecSpec = { codec: 'none' };
  const inner = wrong.inner ?? { payload: Buffer.from('PAD_\0\0\0\0\0\0\0\0') };
  const blockContext = { archiveId, key: wrong.blockKey ?? blockKey, headerHash: wrong.headerHash ?? headerHash };
  const block = craftBlock(blockContext, inner);
  const index: SealContext = { archiveId, key: chunkIndexKey(secrets.indexKey, archiveId), headerHash };
  const extra = wrong.ancillary
    ? [plainFrame({ type: 'nEW_' as FrameType, archiveId, sequence: 2, body: Buffer.from('of a later version') })]
    : [];
  const next = 2 + extra.length;
  const cidx = sealFrame(index, { type: 'CIDX', sequence: next, plaintext: encodeChunkTable([]), codec: none });
  const table = encodeBlockTable({
    begin: header.length,
    streamLength: wrong.streamLength ?? inner.payload.length,
    offsets: [header.length],
    lengths: [block.length],
  });
  const bidx = sealFrame(context, {
    type: 'BIDX',
    sequence: next + 1,
    plaintext: table,
    codec: none,
    cborHeader: encodeCbor({ header }),
  });
  const frames = [header, block, ...extra, cidx, bidx];
  const place = (frame: Buffer): Place => ({
    offset: frames.slice(0, frames.indexOf(frame)).reduce((sum, each) => sum + each.length, 0),
    length: frame.length,
  });
  const trailer = encodeTrailer(
    {
      archiveId,
      cidx: place(cidx),
      root: null,
      bidx: place(bidx),
      frames: frames.length,
      merkleRoot: wrong.merkleRoot ?? merkleRoot(frames.map(blockHash)),
      writerId: secrets.writerId,
      cidxHash: wrong.cidxHash ?? blockHash(cidx),
    },
    { repositoryId, headerHash },
    wrong.signWith ?? secrets.signing.secret,
  );
  if (trailer.length !== AEND_FRAME_SIZE) throw new Error('trailer');
  return Buffer.concat([...frames, trailer]);
}

/** A DATA frame whose inner header says what it likes. */
function craftBlock(
  context: SealContext,
  inner: { payload: Buffer; codec?: number; length?: number; hash?: Buffer; reserved?: number },
): Buffer {
  const head = Buffer.alloc(INNER_HEADER_SIZE);
  head[INNER_OFFSETS.codec] = inner.codec ?? 0;
  head[1] = inner.reserved ?? 0;
  head.writeUInt32LE(inner.length ?? inner.payload.length, INNER_OFFSETS.plainLength);
  head.set(inner.hash ?? blake3(inner.payload), INNER_OFFSETS.plainHash);
  // A frame in its right form gives the place of every field; body, nonce and hashes are put in anew.
  const frame = sealFrame(context, {
    type: 'DATA',
    sequence: 1,
    plaintext: inner.payload,
    codec: { codec: 'none' },
    firstRecord: 0,
  });
  const nonce = randomNonce();
  frame.set(nonce, 32);
  const outer = frame.subarray(0, OUTER_HEADER_SIZE);
  frame.set(blake3(outer), OUTER_HEADER_SIZE);
  const sealed = sealAead(context.key, nonce, Buffer.concat([context.headerHash, outer]), [head, inner.payload]);
  frame.set(sealed, OUTER_HEADER_SIZE + HASH_SIZE);
  frame.set(blake3(frame.subarray(0, frame.length - HASH_SIZE)), frame.length - HASH_SIZE);
  return frame;
}
