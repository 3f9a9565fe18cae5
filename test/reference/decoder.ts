/**
 * A slow, plain decoder of Rozen archives, written from docs/FORMAT.md: noble for the cryptography, nothing from src. It takes a
 * whole archive in memory, checks everything that can be checked and throws at the first thing that is wrong.
 */
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { decodeLz4 } from './lz4.ts';
import { decodeZstd } from './zstd.ts';

export interface ReferenceKeys {
  /** The archive's own 32-byte key, out of its envelope. */
  archiveKey: Uint8Array;
  /** The repository's index key, for CIDX. */
  indexKey: Uint8Array;
  /** The repository's content id key, for chunk ids. */
  contentKey: Uint8Array;
  /** The writer's Ed25519 public key. */
  writer: Uint8Array;
}

export interface ReferenceArchive {
  id: Uint8Array;
  kind: number;
  repositoryId: Uint8Array;
  envelope: Uint8Array;
  headerHash: Uint8Array;
  merkleRoot: Uint8Array;
  writerId: Uint8Array;
  /** Plaintext of DATA or PAGE frames, in order. */
  blocks: Uint8Array[];
  root: Uint8Array | null;
  chunks: ReferenceChunk[];
  /** Out of the stream, in a data archive. */
  records: Records | null;
}

interface ReferenceChunk {
  id: Uint8Array;
  ordinal: number;
  offset: number;
  length: number;
}

export interface ReferenceFile {
  folder: Uint8Array;
  name: Uint8Array;
  size: number;
  content: Uint8Array;
}

interface Frame {
  type: string;
  sequence: number;
  offset: number;
  bytes: Uint8Array;
  /** Outer header with its CBOR header. */
  outer: Uint8Array;
  cbor: Uint8Array;
  nonce: Uint8Array;
  body: Uint8Array;
  hash: Uint8Array;
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at]! + bytes[at + 1]! * 256;
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) + u16(bytes, at + 2) * 65536;
}

function u64(bytes: Uint8Array, at: number): number {
  return u32(bytes, at) + u32(bytes, at + 4) * 4294967296;
}

function text(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function join(...parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function derive(context: string, material: Uint8Array): Uint8Array {
  return blake3(material, { context: new TextEncoder().encode(context) });
}

/* ---- Frames (FORMAT.md §3) ---------------------------------------------------------------------------------------- */

function readFrame(archive: Uint8Array, offset: number): Frame {
  const rest = archive.subarray(offset);
  check(rest.length >= 120, `frame at ${offset}: cut off`);
  const bodyLength = u32(rest, 24);
  const cborLength = u32(rest, 28);
  const length = 56 + cborLength + 32 + bodyLength + 32;
  check(cborLength <= 131072 && bodyLength <= 67108864 && length <= rest.length, `frame at ${offset}: lengths`);
  const bytes = rest.subarray(0, length);
  const outer = bytes.subarray(0, 56 + cborLength);
  const bodyAt = outer.length + 32;
  check(same(blake3(outer), bytes.subarray(outer.length, bodyAt)), `frame at ${offset}: header hash`);
  const hash = bytes.subarray(length - 32);
  check(same(blake3(bytes.subarray(0, length - 32)), hash), `frame at ${offset}: block hash`);
  return {
    type: text(bytes.subarray(0, 4)),
    sequence: u32(bytes, 20),
    offset,
    bytes,
    outer,
    cbor: outer.subarray(56),
    nonce: bytes.subarray(32, 56),
    body: bytes.subarray(bodyAt, length - 32),
    hash,
  };
}

function openFrame(frame: Frame, key: Uint8Array, headerHash: Uint8Array): { plain: Uint8Array; firstRecord: number } {
  const aad = join(headerHash, frame.outer);
  const inner = xchacha20poly1305(key, frame.nonce, aad).decrypt(frame.body);
  const stored = inner.subarray(44);
  const codec = inner[0];
  check(codec === 0 || codec === 1 || codec === 2, `unknown codec ${codec}`);
  const plain = codec === 0 ? stored : codec === 1 ? decodeLz4(stored) : decodeZstd(stored);
  check(inner[1] === 0 && inner[2] === 0 && inner[3] === 0, 'reserved bytes');
  check(plain.length === u32(inner, 4), 'plaintext length');
  check(same(blake3(plain), inner.subarray(12, 44)), 'plaintext hash');
  return { plain, firstRecord: u32(inner, 8) };
}

/* ---- CBOR (FORMAT.md §2): only what AHDR and BIDX hold -------------------------------------------------------- */

type Value = number | string | Uint8Array | Value[] | { [key: string]: Value };

function decodeCbor(bytes: Uint8Array): Value {
  let at = 0;
  const item = (): Value => {
    const first = bytes[at++]!;
    const major = first >> 5;
    let argument = first & 31;
    if (argument >= 24) {
      const width = 2 ** (argument - 24);
      check(width <= 4, 'CBOR: width');
      argument = 0;
      for (let i = 0; i < width; i++) argument = argument * 256 + bytes[at++]!;
    }
    if (major === 0) return argument;
    if (major === 2 || major === 3) {
      const string = bytes.subarray(at, at + argument);
      at += argument;
      return major === 2 ? string : text(string);
    }
    if (major === 4) return Array.from({ length: argument }, item);
    check(major === 5, 'CBOR: type');
    const map: { [key: string]: Value } = {};
    for (let i = 0; i < argument; i++) {
      const key = item() as string;
      map[key] = item();
    }
    return map;
  };
  const value = item();
  check(at === bytes.length, 'CBOR: bytes after the end');
  return value;
}

/* ---- Merkle tree (FORMAT.md §7, RFC 6962 §2.1) ------------------------------------------------------------------ */

function merkleRoot(entries: Uint8Array[]): Uint8Array {
  if (entries.length === 0) return blake3(new Uint8Array(0));
  if (entries.length === 1) return blake3(join(Uint8Array.of(0), entries[0]!));
  let half = 1;
  while (half * 2 < entries.length) half *= 2;
  return blake3(join(Uint8Array.of(1), merkleRoot(entries.slice(0, half)), merkleRoot(entries.slice(half))));
}

/* ---- Tables (FORMAT.md §5, §6) ---------------------------------------------------------------------------------- */

/** Number `i` of a column of `count` numbers in four byte planes that begins at `at`. */
function planed(bytes: Uint8Array, at: number, count: number, i: number): number {
  return (
    bytes[at + i]! +
    bytes[at + count + i]! * 256 +
    bytes[at + 2 * count + i]! * 65536 +
    bytes[at + 3 * count + i]! * 16777216
  );
}

function readChunkTable(bytes: Uint8Array): ReferenceChunk[] {
  const count = u32(bytes, 0);
  check(bytes.length === 8 + 44 * count, 'CIDX: length');
  const chunks: ReferenceChunk[] = [];
  let end = 0;
  for (let i = 0; i < count; i++) {
    const offset = end + planed(bytes, 8, count, i);
    const length = planed(bytes, 8 + 4 * count, count, i);
    const ordinal = planed(bytes, 8 + 8 * count, count, i);
    const at = 8 + 12 * count + 32 * i;
    chunks.push({ id: bytes.subarray(at, at + 32), ordinal, offset, length });
    end = offset + length;
  }
  return chunks;
}

function checkBlockTable(bytes: Uint8Array, frames: Frame[], streamLength: number): void {
  const count = u32(bytes, 0);
  check(count === frames.length && bytes.length === 16 + 8 * count, 'BIDX: count');
  check(u64(bytes, 8) === streamLength, 'BIDX: stream length');
  let end: number | null = null;
  for (const [i, frame] of frames.entries()) {
    const gap = planed(bytes, 16, count, i);
    if (end !== null) check(frame.offset === end + gap, `BIDX: offset of block ${i}`);
    check(planed(bytes, 16 + 4 * count, count, i) === frame.bytes.length, `BIDX: length of block ${i}`);
    end = frame.offset + frame.bytes.length;
  }
}

/* ---- Records (FORMAT.md §8) ------------------------------------------------------------------------------------- */

interface Entry {
  id: string;
  ordinal: number;
  length: number;
}

/** What the records of one stream say about files, by link id. */
interface Records {
  begun: Map<string, { folder: Uint8Array; name: Uint8Array }>;
  /** Chunks of the FCNT records, in order. */
  own: Map<string, Entry[]>;
  ended: Map<string, { size: number; listed: Entry[]; contentId: Uint8Array | null; more: boolean }>;
  chunks: ReferenceChunk[];
  contents: Map<string, Uint8Array>;
}

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

function readEntries(bytes: Uint8Array, count: number): Entry[] {
  return Array.from({ length: count }, (_, i) => {
    const at = 40 * i;
    return { id: hex(bytes.subarray(at, at + 32)), ordinal: u32(bytes, at + 32), length: u32(bytes, at + 36) };
  });
}

const nameOf = (entry: Entry) => `${entry.id} ${entry.ordinal}`;

function readRecords(stream: Uint8Array, starts: Set<number>, contentKey: Uint8Array): Records {
  const records: Records = { begun: new Map(), own: new Map(), ended: new Map(), chunks: [], contents: new Map() };
  let at = 0;
  while (at < stream.length) {
    starts.delete(at);
    const type = text(stream.subarray(at, at + 4));
    const body = stream.subarray(at + 12, at + 12 + u32(stream, at + 4));
    const contentAt = at + 12 + body.length;
    const end = contentAt + u32(stream, at + 8);
    check(end <= stream.length, `${type} at ${at}: cut off`);
    const link = hex(body.subarray(0, 16));
    if (type === 'FHDR') {
      const folder = body.subarray(28, 28 + u16(body, 24));
      records.begun.set(link, { folder, name: body.subarray(28 + folder.length, 28 + folder.length + u16(body, 26)) });
    } else if (type === 'FCNT') {
      let offset = contentAt;
      for (const entry of readEntries(body.subarray(20), u32(body, 16))) {
        const content = stream.subarray(offset, offset + entry.length);
        check(hex(blake3(content, { key: contentKey })) === entry.id, `chunk at ${offset}: id`);
        const id = blake3(content, { key: contentKey });
        records.chunks.push({ id, ordinal: entry.ordinal, offset, length: entry.length });
        records.contents.set(nameOf(entry), content);
        records.own.set(link, [...(records.own.get(link) ?? []), entry]);
        offset += entry.length;
      }
      check(offset === end, `FCNT at ${at}: content length`);
    } else if (type === 'FEND') {
      const count = u32(body, 32);
      const flags = u32(body, 36);
      const before = records.ended.get(link)?.listed ?? [];
      const listed = [...before, ...readEntries(body.subarray(40), count)];
      check(u64(body, 24) + count === listed.length, `FEND at ${at}: index of its first chunk`);
      const contentId = flags & 1 ? body.subarray(40 + 40 * count) : null;
      records.ended.set(link, { size: u64(body, 16), listed, contentId, more: (flags & 2) !== 0 });
    } else {
      check(type === 'PAD_', `a record of type ${type}`);
    }
    at = end;
  }
  check(starts.size === 0, 'a first record where none begins');
  return records;
}

/** The files of one or more archives, out of their records alone. Chunks of one may lie in another. */
export function salvageFiles(archives: ReferenceArchive[], contentKey: Uint8Array): ReferenceFile[] {
  const contents = new Map(archives.flatMap((archive) => [...(archive.records?.contents ?? [])]));
  const files: ReferenceFile[] = [];
  for (const { records } of archives) {
    for (const [link, end] of records?.ended ?? []) {
      check(!end.more, 'a tally without its end');
      const { folder, name } = records!.begun.get(link)!;
      const list = end.listed.length > 0 ? end.listed : (records!.own.get(link) ?? []);
      const parts = list.map((entry) => {
        if (/^0+$/.test(entry.id)) return new Uint8Array(entry.ordinal * 4294967296 + entry.length);
        const content = contents.get(nameOf(entry));
        check(content !== undefined && content.length === entry.length, `a chunk ${entry.id} that lies nowhere`);
        return content;
      });
      const content = join(...parts);
      check(content.length === end.size, 'FEND: size');
      if (end.contentId !== null) check(same(blake3(content, { key: contentKey }), end.contentId), 'FEND: content id');
      files.push({ folder, name, size: end.size, content });
    }
  }
  return files;
}

/* ---- The archive (FORMAT.md §1) --------------------------------------------------------------------------------- */

/** The age file around the archive key, from the front of an archive. */
export function envelopeOf(archive: Uint8Array): Uint8Array {
  return (decodeCbor(readFrame(archive, 0).cbor) as { envelope: Uint8Array }).envelope;
}

export function decodeArchive(archive: Uint8Array, keys: ReferenceKeys): ReferenceArchive {
  const frames: Frame[] = [];
  for (let at = 0; at < archive.length; at += frames.at(-1)!.bytes.length) frames.push(readFrame(archive, at));
  const header = frames[0]!;
  const trailer = frames.at(-1)!;
  check(header.type === 'AHDR' && trailer.type === 'AEND', 'an archive is AHDR … AEND');
  const id = header.bytes.subarray(4, 20);
  for (const [i, frame] of frames.entries()) {
    check(frame.sequence === i && same(frame.bytes.subarray(4, 20), id), `frame ${i}: sequence or archive id`);
  }

  for (const frame of [header, trailer])
    check(
      frame.nonce.every((byte) => byte === 0),
      `${frame.type}: nonce`,
    );

  const fields = decodeCbor(header.cbor) as { [key: string]: Value };
  const { kind, repository, envelope, commitment, flags } = fields;
  check(fields.version === 1 && (kind === 1 || kind === 2), 'AHDR: version or kind');
  check(Array.isArray(flags) && flags[0] === 0, 'AHDR: incompatible flags');
  const headerHash = blake3(header.bytes);
  const context = 'rozen 1 2026';
  check(
    same(derive(`${context} archive key commitment`, keys.archiveKey), commitment as Uint8Array),
    'AHDR: commitment',
  );
  const blockKey = derive(`${context} archive block key`, keys.archiveKey);
  const indexKey = derive(`${context} chunk index key`, join(keys.indexKey, id));

  const only = (type: string): Frame | null => {
    const found = frames.filter((frame) => frame.type === type);
    check(found.length <= 1, `${found.length} frames ${type}`);
    return found[0] ?? null;
  };
  const blockFrames = frames.filter((frame) => frame.type === (kind === 1 ? 'DATA' : 'PAGE'));
  const opened = blockFrames.map((frame) => openFrame(frame, blockKey, headerHash));
  const blocks = opened.map((each) => each.plain);
  const rootFrame = only('ROOT');
  const chunkFrame = only('CIDX');
  const tableFrame = only('BIDX')!;
  check((kind === 1) === (chunkFrame !== null) && (kind === 2) === (rootFrame !== null), 'index frames of the kind');

  let records: Records | null = null;
  let chunks: ReferenceChunk[] = [];
  let streamLength = 0;
  if (kind === 1) {
    for (const block of blocks.slice(0, -1)) check(block.length === 262144, 'a short block inside the stream');
    const stream = join(...blocks);
    streamLength = stream.length;
    const starts = new Set<number>();
    for (const [i, each] of opened.entries())
      if (each.firstRecord !== 0xffffffff) starts.add(i * 262144 + each.firstRecord);
    records = readRecords(stream, starts, keys.contentKey);
    chunks = readChunkTable(openFrame(chunkFrame!, indexKey, headerHash).plain);
    check(JSON.stringify(records.chunks) === JSON.stringify(chunks), 'CIDX does not list the chunks of the stream');
  }
  checkBlockTable(openFrame(tableFrame, blockKey, headerHash).plain, blockFrames, streamLength);
  check(same((decodeCbor(tableFrame.cbor) as { header: Uint8Array }).header, header.bytes), 'BIDX: header copy');

  const end = trailer.body;
  check(end.length === 184, 'AEND: length');
  for (const [at, lengthAt, frame] of [
    [0, 24, chunkFrame],
    [8, 28, rootFrame],
    [16, 32, tableFrame],
  ] as const) {
    check(u64(end, at) === (frame?.offset ?? 0) && u32(end, lengthAt) === (frame?.bytes.length ?? 0), 'AEND: places');
  }
  check(u32(end, 36) === frames.length - 1, 'AEND: frames');
  const root = merkleRoot(frames.slice(0, -1).map((frame) => frame.hash));
  check(same(end.subarray(40, 72), root), 'AEND: Merkle root');
  check(same(end.subarray(88, 120), chunkFrame?.hash ?? new Uint8Array(32)), 'AEND: hash of CIDX');
  const domain = new TextEncoder().encode('rozen 1 archive trailer\0');
  const message = join(domain, repository as Uint8Array, headerHash, end.subarray(0, 120));
  check(ed25519.verify(end.subarray(120), message, keys.writer), 'AEND: signature');

  return {
    id,
    kind: kind as number,
    repositoryId: repository as Uint8Array,
    envelope: envelope as Uint8Array,
    headerHash,
    merkleRoot: root,
    writerId: end.subarray(72, 88),
    blocks,
    root: rootFrame === null ? null : openFrame(rootFrame, blockKey, headerHash).plain,
    chunks,
    records,
  };
}
