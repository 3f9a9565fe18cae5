import { corrupt, RozenError } from '../errors.ts';
import { type BlockTable, decodeBlockTable } from './block-table.ts';
import { asMap, decodeCbor, field } from './cbor.ts';
import { type ChunkTable, decodeChunkTable } from './chunk-table.ts';
import { AEND_FRAME_SIZE, type ArchiveKind, KIND_DATA, KIND_TREE, MAX_CBOR_HEADER, SUFFIX_READ } from './format.ts';
import { blockHash, cborHeaderOf, checkBlockHash, openFrame, parseOuterHeader, type SealContext } from './frame.ts';
import { type ArchiveHeader, parseHeader } from './header.ts';
import { chunkIndexKey, deriveArchiveKeys } from './keys.ts';
import { decodeTrailer, type Place, type Trailer } from './trailer.ts';

/** Where an archive lies: a file, a store object, memory. A test counts its calls. */
export interface RangeSource {
  /** Exactly `length` bytes from `offset`. */
  read(offset: number, length: number): Promise<Buffer>;
  /** The last `length` bytes (all of them if there are fewer) and the size of the whole. */
  suffix(length: number): Promise<{ bytes: Buffer; size: number }>;
}

/** What signed places say about an archive; whatever is given must hold. */
export interface ArchiveExpect {
  id?: Uint8Array;
  size?: number;
  headerHash?: Uint8Array;
  merkleRoot?: Uint8Array;
  envelope?: Uint8Array;
}

export interface OpenOptions {
  /** Turns the key envelope into the archive's 32-byte key (zeroed here after use). */
  unwrap: (envelope: Buffer) => Promise<Buffer>;
  expect?: ArchiveExpect;
  /** The source is a hot index object (.rix), not the archive itself. */
  hotIndex?: boolean;
  /** Names the object in errors. */
  name?: string;
}

export interface OpenedArchive {
  id: Buffer;
  kind: ArchiveKind;
  /** Bytes of the archive (also when it was opened through its hot index). */
  size: number;
  header: ArchiveHeader;
  headerHash: Buffer;
  blockKey: Buffer;
  recordKey: Buffer;
  /** What `openFrame` wants for DATA, PAGE, ROOT and BIDX frames. */
  context: SealContext;
  blocks: BlockTable;
  /** Plaintext of ROOT, in a tree archive. */
  root: Buffer | null;
  trailer: Trailer;
  /** The bytes that were read, with their offset in the archive: upper pages lie here. */
  suffix: { offset: number; bytes: Buffer };
}

/**
 * Opens an archive with one suffix read (a second one only if its tail is longer than SUFFIX_READ). Checked: trailer,
 * header copy, what is expected, key commitment, block table. Not checked: the trailer's signature (`verifyTrailer`) and the
 * blocks themselves.
 */
export async function openArchive(source: RangeSource, options: OpenOptions): Promise<OpenedArchive> {
  const name = options.name ?? 'archive';
  try {
    return await open(source, options);
  } catch (error) {
    if (error instanceof RozenError && error.code !== 'io' && !error.message.includes(name)) {
      throw new RozenError(error.code, `${name}: ${error.message}`, { hint: error.hint, cause: error });
    }
    throw error;
  }
}

async function open(source: RangeSource, options: OpenOptions): Promise<OpenedArchive> {
  const { expect = {}, hotIndex = false } = options;
  const first = await source.suffix(SUFFIX_READ);
  if (first.bytes.length !== Math.min(SUFFIX_READ, first.size)) {
    throw new RozenError('io', `a suffix read gave ${first.bytes.length} of ${first.size} bytes`, { retryable: true });
  }
  if (first.size < AEND_FRAME_SIZE) throw corrupt(`${first.size} bytes are too few for an archive`);
  const trailer = decodeTrailer(first.bytes.subarray(first.bytes.length - AEND_FRAME_SIZE));
  // Where bytes of the source lie in the archive: they differ for a hot index, which lacks the blocks.
  const shift = trailer.size - first.size;
  if (hotIndex ? shift < 0 : shift !== 0) {
    throw corrupt(`${first.size} bytes, but its trailer belongs to an archive of ${trailer.size}`);
  }
  const suffix = await completeTail(source, first.bytes, trailer, shift);
  const at = (place: Place) =>
    suffix.bytes.subarray(place.offset - suffix.offset, place.offset - suffix.offset + place.length);

  const bidx = at(trailer.bidx);
  const header = headerCopy(bidx, trailer);
  const tailStart = (trailer.cidx ?? trailer.root ?? trailer.bidx).offset;
  if (hotIndex && shift !== tailStart - header.frame.length) {
    throw corrupt(`a hot index of ${first.size} bytes for an archive of ${trailer.size}`);
  }
  checkExpected(expect, header, trailer);

  const key = await options.unwrap(header.envelope);
  const keys = deriveArchiveKeys(key, header.commitment);
  key.fill(0);
  const context: SealContext = { archiveId: header.id, key: keys.block, headerHash: header.headerHash };
  const blocks = decodeBlockTable(openFrame(context, bidx, { type: 'BIDX', sequence: trailer.frames - 1 }), {
    begin: header.frame.length,
    end: tailStart,
    hasStream: header.kind === KIND_DATA,
  });
  if ((header.kind === KIND_TREE) !== (trailer.root !== null))
    throw corrupt('AEND: a ROOT is expected in tree archives only');
  const root =
    trailer.root === null ? null : openFrame(context, at(trailer.root), { type: 'ROOT', sequence: trailer.frames - 2 });
  return {
    id: header.id,
    kind: header.kind,
    size: trailer.size,
    header,
    headerHash: header.headerHash,
    blockKey: keys.block,
    recordKey: keys.record,
    context,
    blocks,
    root,
    trailer,
    suffix,
  };
}

/** The suffix with ROOT and BIDX inside, in offsets of the archive. */
async function completeTail(
  source: RangeSource,
  bytes: Buffer,
  trailer: Trailer,
  shift: number,
): Promise<{ offset: number; bytes: Buffer }> {
  const need = (trailer.root ?? trailer.bidx).offset;
  const offset = trailer.size - bytes.length;
  if (need >= offset) return { offset, bytes };
  if (need - shift < 0) throw corrupt(`AEND: index frames at ${need}, before the beginning`);
  const missing = await source.read(need - shift, offset - need);
  if (missing.length !== offset - need) {
    throw new RozenError('io', `a read of ${offset - need} bytes gave ${missing.length}`, { retryable: true });
  }
  return { offset: need, bytes: Buffer.concat([missing, bytes]) };
}

/** The AHDR frame that BIDX repeats, byte-equal: so the header hash can be known without reading the front of the archive. */
function headerCopy(bidx: Buffer, trailer: Trailer): ArchiveHeader {
  const outer = parseOuterHeader(bidx, { archiveId: trailer.archiveId });
  if (outer.type !== 'BIDX' || outer.frameLength !== bidx.length) throw corrupt(`BIDX is expected, not ${outer.type}`);
  const map = asMap(
    decodeCbor(cborHeaderOf(bidx, outer), { what: 'BIDX header', maxBytes: MAX_CBOR_HEADER, maxDepth: 4 }),
    'BIDX header',
  );
  const header = parseHeader(field.bytes(map, 'header', undefined, MAX_CBOR_HEADER));
  if (!header.id.equals(trailer.archiveId)) throw corrupt('BIDX repeats the header of another archive');
  return header;
}

/** Whatever signed places said must be true. Intact bytes that differ are not damage: somebody swapped them. */
function checkExpected(expect: ArchiveExpect, header: ArchiveHeader, trailer: Trailer): void {
  const swapped = (what: string) =>
    new RozenError('untrusted', `its ${what} is not the one that the signed record names`, {
      hint: 'the object was swapped or belongs to another repository: do not trust this store',
    });
  if (expect.size !== undefined && expect.size !== trailer.size) {
    throw corrupt(`it has ${trailer.size} bytes, the signed record says ${expect.size}`);
  }
  if (expect.id !== undefined && !header.id.equals(expect.id)) throw swapped('id');
  if (expect.headerHash !== undefined && !header.headerHash.equals(expect.headerHash)) throw swapped('header');
  if (expect.envelope !== undefined && !header.envelope.equals(expect.envelope)) throw swapped('key envelope');
  if (expect.merkleRoot !== undefined && !trailer.merkleRoot.equals(expect.merkleRoot)) throw swapped('Merkle root');
}

/* ---- Hot index objects (.rix): AHDR, then the tail of a data archive from CIDX to AEND ------------------------ */

export interface HotIndex {
  header: ArchiveHeader;
  trailer: Trailer;
  /** The sealed CIDX frame. */
  cidx: Buffer;
}

/**
 * Reads a whole hot index object without any key: header, trailer and the chunk table frame that it names by hash. Trust it only
 * after `verifyTrailer`.
 */
export function parseHotIndex(object: Uint8Array): HotIndex {
  const bytes = Buffer.from(object.buffer, object.byteOffset, object.byteLength);
  if (bytes.length < AEND_FRAME_SIZE) throw corrupt(`a hot index of ${bytes.length} bytes`);
  const trailer = decodeTrailer(bytes.subarray(bytes.length - AEND_FRAME_SIZE));
  const outer = parseOuterHeader(bytes, { archiveId: trailer.archiveId });
  if (outer.frameLength > bytes.length) throw corrupt('a hot index cut off in its header');
  const header = parseHeader(bytes.subarray(0, outer.frameLength));
  if (header.kind !== KIND_DATA || trailer.cidx === null) throw corrupt('a hot index without a chunk table');
  if (header.frame.length + trailer.size - trailer.cidx.offset !== bytes.length) {
    throw corrupt(`a hot index of ${bytes.length} bytes for an archive of ${trailer.size}`);
  }
  const cidx = bytes.subarray(header.frame.length, header.frame.length + trailer.cidx.length);
  // Every enrolled writer can seal a chunk table: the signature of this one covers the hash of its own.
  if (!checkBlockHash(cidx) || !blockHash(cidx).equals(trailer.cidxHash))
    throw corrupt('CIDX: its block hash does not match');
  return { header, trailer, cidx };
}

/** Opens the chunk table of a data archive with the repository's index key: enrolled writers and readers can. */
export function openChunkTable(index: Pick<HotIndex, 'header' | 'cidx'>, indexKey: Uint8Array): ChunkTable {
  const { id, headerHash } = index.header;
  const key = chunkIndexKey(indexKey, id);
  try {
    return decodeChunkTable(openFrame({ archiveId: id, key, headerHash }, index.cidx, { type: 'CIDX' }));
  } finally {
    key.fill(0);
  }
}

/** The bytes of the hot index object, cut out of a sealed data archive. */
export async function hotIndexObject(source: RangeSource): Promise<Buffer> {
  const { bytes, size } = await source.suffix(AEND_FRAME_SIZE);
  const trailer = decodeTrailer(bytes);
  if (trailer.cidx === null || trailer.size !== size) throw corrupt('only a sealed data archive has a hot index');
  const tail = await source.read(trailer.cidx.offset, size - trailer.cidx.offset);
  const bidx = tail.subarray(
    trailer.bidx.offset - trailer.cidx.offset,
    trailer.bidx.offset - trailer.cidx.offset + trailer.bidx.length,
  );
  return Buffer.concat([headerCopy(bidx, trailer).frame, tail]);
}

/** A source over bytes in memory. */
export function memorySource(bytes: Uint8Array): RangeSource {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    async read(offset, length) {
      if (offset < 0 || offset + length > buffer.length)
        throw corrupt(`bytes ${offset} to ${offset + length} of ${buffer.length}`);
      return buffer.subarray(offset, offset + length);
    },
    async suffix(length) {
      return { bytes: buffer.subarray(Math.max(0, buffer.length - length)), size: buffer.length };
    },
  };
}
