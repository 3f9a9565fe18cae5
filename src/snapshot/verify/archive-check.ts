/** Archives held against what signed places say of them. */
import type { BlockTable } from '../../archive/block-table.ts';
import type { ChunkTable } from '../../archive/chunk-table.ts';
import { AEND_FRAME_SIZE, BLOCK_SIZE, KIND_DATA, KIND_TREE } from '../../archive/format.ts';
import { checkBlockHash, type SealContext } from '../../archive/frame.ts';
import { memorySource, type OpenedArchive, openArchive, openChunkTable, parseHotIndex } from '../../archive/reader.ts';
import { type ScanResult, scanArchive } from '../../archive/scan.ts';
import { decodeTrailer, type Trailer, verifyTrailer } from '../../archive/trailer.ts';
import type { ArchiveFacts, KeyOpener } from '../../cache/archives.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { archiveName, indexName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import { isRemote, type ObjectStore } from '../../store/object-store.ts';
import { expectedFrames, type Layout, merkleRootOf, skimArchive, tellDamage } from './archive-frames.ts';
import type { Findings } from './findings.ts';
import { type ObjectFile, openObject } from './object-file.ts';
import type { Finding } from './types.ts';

export interface ArchiveCheck {
  store: ObjectStore;
  repository: Repository;
  keys: KeyOpener;
  findings: Findings;
  /** All blocks are opened afterwards, and held against the Merkle root by `settleBlocks`. */
  readsAll: boolean;
}

/** A data archive whose block table could be read. */
export interface DataArchive {
  id: string;
  object: string;
  context: SealContext;
  blocks: BlockTable;
  /** Null when neither copy could be read. */
  chunks: ChunkTable | null;
  /** What the blocks are to give together, when nobody has looked at them yet. */
  unread: { facts: ArchiveFacts; opened: OpenedArchive; tail: Buffer } | null;
}

/** Stream bytes of a data archive that cannot be read; `to` may be Infinity. */
export interface LostRange {
  finding: Finding;
  archive: string;
  from: number;
  to: number;
}

const INDEX_LIMIT = 160 * 1024 * 1024;

/** A tree archive, all of its bytes. */
export async function checkTreeArchive(check: ArchiveCheck, facts: ArchiveFacts): Promise<void> {
  const { findings } = check;
  const object = archiveName(KIND_TREE, facts.id);
  const file = await open(check, object);
  if (file === null) return;
  try {
    checkSize(findings, file, facts);
    const scan = await scanArchive(file);
    findings.advance(file.size);
    const opened = await tryOpen(check, file, facts);
    const layout: Layout = {
      blockType: 'PAGE',
      header: scan.header ?? opened.archive?.header ?? null,
      blocks: opened.archive?.blocks ?? null,
      trailer: scan.trailer,
    };
    tellDamage(findings, object, { scan, expected: expectedFrames(layout), blockType: 'PAGE' });
    judgeScan(check, object, scan, facts);
    if (opened.error !== null && !findings.has(object)) findings.caught(opened.error, { object });
  } catch (error) {
    findings.caught(error, { object });
  } finally {
    file.close();
  }
}

/**
 * A data archive and its hot index: both copies of header, tables and trailer, and where the store is local the Merkle root over the
 * block hashes that stand in the archive, unless all blocks are opened afterwards. `lost` gets what cannot be read. Blocks themselves are for `checkRun`.
 */
export async function checkDataArchive(
  check: ArchiveCheck,
  facts: ArchiveFacts,
  lost: (range: LostRange) => void,
): Promise<DataArchive | null> {
  const { findings } = check;
  const id = facts.id.toString('hex');
  const object = archiveName(KIND_DATA, facts.id);
  const index = await readHotIndex(check, facts);
  const file = await open(check, object);
  if (file === null) {
    const finding = findings.all.find((it) => it.object === object)!;
    lost({ finding, archive: id, from: 0, to: Number.POSITIVE_INFINITY });
    return null;
  }
  try {
    checkSize(findings, file, facts);
    const own = await tryOpen(check, file, facts);
    const best = index?.opened ?? own.archive;
    const sound = own.archive !== null && index !== null && (await sameCopies(file, own.archive, index.bytes));
    const tail = index?.bytes.subarray(index.opened.header.frame.length) ?? Buffer.alloc(0);
    if (sound && (check.readsAll || isRemote(check.store))) {
      // Blocks that are opened afterwards need no look before (of a cold disk: a third of the time). And of a remote store a few bytes of each
      // would be thousands of requests.
      checkTrailer(check, object, own.archive!.trailer, facts.headerHash);
      const { context, blocks } = own.archive!;
      const unread = check.readsAll ? { facts, opened: own.archive!, tail } : null;
      return { id, object, context, blocks, chunks: index!.chunks, unread };
    }
    const skimmed =
      sound && (await skimArchive(file, { ...own.archive!, tail }, (bytes, read) => findings.advance(bytes, read)));
    if (skimmed) checkTrailer(check, object, own.archive!.trailer, facts.headerHash);
    else await scanData({ check, facts, lost }, file, { own, index: index?.opened ?? null, sound });
    if (best === null) {
      const finding = findings.all.find((it) => it.object === object || it.object === indexName(facts.id))!;
      lost({ finding, archive: id, from: 0, to: Number.POSITIVE_INFINITY });
      return null;
    }
    const chunks = index?.chunks ?? (await ownChunks(check, file, best).catch(() => null));
    return { id, object, context: best.context, blocks: best.blocks, chunks, unread: null };
  } catch (error) {
    findings.caught(error, { object });
    return null;
  } finally {
    file.close();
  }
}

interface DataScan {
  check: ArchiveCheck;
  facts: ArchiveFacts;
  lost: (range: LostRange) => void;
}

/** All bytes of a data archive, frame by frame. */
async function scanData(
  { check, facts, lost }: DataScan,
  file: ObjectFile,
  { own, index, sound }: { own: Tried; index: OpenedArchive | null; sound: boolean },
): Promise<void> {
  const { findings } = check;
  const object = file.name;
  const id = facts.id.toString('hex');
  const best = index ?? own.archive;
  const scan = await scanArchive(file);
  findings.advance(file.size);
  const layout: Layout = {
    blockType: 'DATA',
    header: scan.header ?? best?.header ?? null,
    blocks: best?.blocks ?? null,
    trailer: scan.trailer ?? best?.trailer ?? null,
  };
  const told = tellDamage(findings, object, { scan, expected: expectedFrames(layout), blockType: 'DATA' });
  for (const { finding, frame } of told) {
    if (frame?.type === 'DATA' && best !== null) lost({ finding, archive: id, ...streamRange(frame.sequence - 1) });
  }
  judgeScan(check, object, scan, facts);
  if (own.error !== null && !findings.has(object)) findings.caught(own.error, { object });
  const same = sound && scan.frames.length > 0 && isLaidOut(scan, own.archive!.blocks);
  if (!same && !findings.has(object) && index !== null)
    findings.add({ kind: 'inconsistent', object, message: 'it is sound, but not the archive of its hot index' });
}

/** Whether the frames of the blocks lie where the block table says. */
function isLaidOut(scan: ScanResult, blocks: BlockTable): boolean {
  const found = scan.frames.filter(({ type }) => type === 'DATA');
  return (
    found.length === blocks.count &&
    found.every(({ offset, length }, i) => offset === blocks.offset(i) && length === blocks.length(i))
  );
}

/**
 * After all blocks of an archive were opened: whether they are those that the signed record names. Where they are not, though each
 * of them is sound, the archive is read once more to tell what is wrong.
 */
export async function settleBlocks(
  check: ArchiveCheck,
  archive: DataArchive,
  { hashes, lost }: { hashes: Uint8Array; lost: (range: LostRange) => void },
): Promise<void> {
  const { unread, object } = archive;
  if (unread === null || check.findings.has(object)) return;
  const { facts, opened, tail } = unread;
  if (merkleRootOf(opened, { hashes, tail }).equals(facts.merkleRoot)) return;
  const file = await open(check, object);
  if (file === null) return;
  try {
    await scanData({ check, facts, lost }, file, {
      own: { archive: opened, error: null },
      index: opened,
      sound: true,
    });
    if (!check.findings.has(object))
      check.findings.add({
        kind: 'untrusted',
        object,
        message: 'its blocks are not those that the signed record names',
      });
  } catch (error) {
    check.findings.caught(error, { object });
  } finally {
    file.close();
  }
}

/** Stream range of a block. */
export function streamRange(block: number): { from: number; to: number } {
  return { from: block * BLOCK_SIZE, to: (block + 1) * BLOCK_SIZE };
}

export interface HotIndexCheck {
  bytes: Buffer;
  opened: OpenedArchive;
  chunks: ChunkTable;
}

export async function readHotIndex(check: ArchiveCheck, facts: ArchiveFacts): Promise<HotIndexCheck | null> {
  const { store, repository, keys, findings } = check;
  const object = indexName(facts.id);
  let bytes: Buffer;
  try {
    bytes = await store.get(object, INDEX_LIMIT);
  } catch (error) {
    findings.caught(error, { object });
    return null;
  }
  findings.counts.objects++;
  findings.advance(0, bytes.length);
  try {
    const parsed = parseHotIndex(bytes);
    const unwrap = (envelope: Buffer) => keys.unwrap(envelope);
    const opened = await openArchive(memorySource(bytes), { unwrap, expect: facts, hotIndex: true, name: object });
    checkTrailer(check, object, opened.trailer, facts.headerHash);
    if (!parsed.header.frame.equals(opened.header.frame)) throw corrupt('its two copies of the header differ');
    const { bidx, size } = opened.trailer;
    const at = bidx.offset - (size - bytes.length);
    if (!checkBlockHash(bytes.subarray(at, at + bidx.length))) throw corrupt('BIDX: its block hash does not match');
    const { indexKey } = await repository.loadSecrets();
    const chunks = openChunkTable(parsed, indexKey);
    checkChunkTable(chunks, opened.blocks.streamLength);
    return { bytes, opened, chunks };
  } catch (error) {
    await tellIndexDamage(findings, object, bytes);
    if (!findings.has(object)) findings.caught(error, { object });
    return null;
  }
}

/** Which frame of a hot index is damaged: it is an archive without its blocks. */
export async function tellIndexDamage(findings: Findings, object: string, bytes: Buffer): Promise<void> {
  const scan = await scanArchive(memorySource(bytes));
  let trailer: Trailer | null = null;
  let shift = 0;
  try {
    trailer = decodeTrailer(bytes.subarray(bytes.length - AEND_FRAME_SIZE));
    shift = trailer.size - bytes.length;
  } catch (error) {
    if (!(error instanceof RozenError)) throw error;
  }
  const layout: Layout = { blockType: 'DATA', header: scan.header, blocks: null, trailer };
  if (scan.header === null && trailer !== null) {
    const length = (trailer.cidx ?? trailer.bidx).offset - shift;
    const head = { type: 'AHDR', sequence: 0, offset: 0, length };
    tellDamage(findings, object, { scan, expected: [head, ...expectedFrames(layout)], blockType: 'DATA', shift });
  } else tellDamage(findings, object, { scan, expected: expectedFrames(layout), blockType: 'DATA', shift });
}

function checkChunkTable(chunks: ChunkTable, streamLength: number): void {
  const last = chunks.count - 1;
  if (last >= 0 && chunks.offsets[last]! + chunks.lengths[last]! > streamLength)
    throw corrupt(`CIDX: its last chunk ends beyond the stream of ${streamLength} bytes`);
}

/** Header and tail of the archive are byte-equal to its hot index. */
async function sameCopies(file: ObjectFile, own: OpenedArchive, index: Buffer): Promise<boolean> {
  const headLength = own.header.frame.length;
  const tailLength = index.length - headLength;
  if (headLength + tailLength > file.size) return false;
  const head = await file.read(0, headLength);
  const tail = await file.read(file.size - tailLength, tailLength);
  return head.equals(index.subarray(0, headLength)) && tail.equals(index.subarray(headLength));
}

async function ownChunks(
  { repository }: ArchiveCheck,
  file: ObjectFile,
  { header, trailer, blocks }: OpenedArchive,
): Promise<ChunkTable | null> {
  if (trailer.cidx === null) return null;
  const cidx = await file.read(trailer.cidx.offset, trailer.cidx.length);
  const chunks = openChunkTable({ header, cidx }, (await repository.loadSecrets()).indexKey);
  checkChunkTable(chunks, blocks.streamLength);
  return chunks;
}

async function open({ store, findings }: ArchiveCheck, object: string): Promise<ObjectFile | null> {
  try {
    const file = await openObject(store, object);
    if (file === null) findings.add({ kind: 'missing', object, message: 'it is not in the store' });
    else findings.counts.objects++;
    return file;
  } catch (error) {
    findings.caught(error, { object });
    return null;
  }
}

function checkSize(findings: Findings, file: ObjectFile, facts: ArchiveFacts): void {
  if (file.size === facts.size) return;
  const offset = Math.min(file.size, facts.size);
  const how = file.size < facts.size ? 'cut off' : 'bytes were added';
  const message = `${how}: it has ${file.size} bytes, the signed record says ${facts.size}`;
  findings.add({ kind: 'damaged', object: file.name, offset, length: Math.abs(file.size - facts.size), message });
}

type Tried = { archive: OpenedArchive; error: null } | { archive: null; error: RozenError };

async function tryOpen({ keys }: ArchiveCheck, file: ObjectFile, expect: ArchiveFacts): Promise<Tried> {
  try {
    const unwrap = (envelope: Buffer) => keys.unwrap(envelope);
    return { archive: await openArchive(file, { unwrap, expect, name: file.name }), error: null };
  } catch (error) {
    if (!(error instanceof RozenError) || error.code === 'no-key') throw error;
    return { archive: null, error };
  }
}

/** What a scan says beyond damaged ranges: order, header, Merkle root, signature. */
function judgeScan(check: ArchiveCheck, object: string, scan: ScanResult, facts: ArchiveFacts): void {
  const { findings } = check;
  if (scan.headerError !== null) findings.caught(scan.headerError, { object, offset: 0 });
  if (scan.header !== null && !scan.header.headerHash.equals(facts.headerHash))
    findings.add({ kind: 'untrusted', object, message: 'its header is not the one that the signed record names' });
  if (scan.trailer !== null) checkTrailer(check, object, scan.trailer, facts.headerHash);
  if (scan.damage.length > 0) return;
  if (scan.torn && !findings.has(object))
    findings.add({ kind: 'inconsistent', object, message: 'its frames are not in order' });
  if (!scan.merkleRoot.equals(facts.merkleRoot) && !findings.has(object))
    findings.add({ kind: 'untrusted', object, message: 'its Merkle root is not the one that the signed record names' });
}

function checkTrailer(check: ArchiveCheck, object: string, trailer: Trailer, headerHash: Buffer): void {
  const { findings, repository } = check;
  try {
    const key = repository.writerPublicKey(trailer.writerId);
    if (!verifyTrailer(trailer, { repositoryId: repository.id, headerHash }, key))
      throw new RozenError('untrusted', 'forged: the signature is not by the writer its trailer names');
  } catch (error) {
    findings.caught(error, { object, frame: { type: 'AEND', sequence: trailer.frames } });
  }
}
