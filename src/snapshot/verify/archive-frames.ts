/** One archive, frame by frame, without its key: what a scan found wrong, told by frame and block. */
import type { BlockTable } from '../../archive/block-table.ts';
import { HASH_SIZE, OUTER_HEADER_SIZE } from '../../archive/format.ts';
import { blockHash, readOuterHeader } from '../../archive/frame.ts';
import type { ArchiveHeader } from '../../archive/header.ts';
import { MerkleTree } from '../../archive/merkle.ts';
import type { RangeSource } from '../../archive/reader.ts';
import type { ScanResult } from '../../archive/scan.ts';
import type { Trailer } from '../../archive/trailer.ts';
import type { Findings } from './findings.ts';
import type { Finding } from './types.ts';

export interface ExpectedFrame {
  type: string;
  sequence: number;
  offset: number;
  length: number;
}

/** What is known of an archive's layout: from itself, its hot index, or both. */
export interface Layout {
  /** Type of the frames that the block table names. */
  blockType: 'DATA' | 'PAGE';
  header: ArchiveHeader | null;
  blocks: BlockTable | null;
  trailer: Trailer | null;
}

/** The frames that should be there, as far as anything says so, in the order of their offsets. */
export function expectedFrames({ blockType, header, blocks, trailer }: Layout): ExpectedFrame[] {
  const frames: ExpectedFrame[] = [];
  if (header !== null) frames.push({ type: 'AHDR', sequence: 0, offset: 0, length: header.frame.length });
  if (blocks !== null) {
    for (let i = 0; i < blocks.count; i++)
      frames.push({ type: blockType, sequence: i + 1, offset: blocks.offset(i), length: blocks.length(i) });
  }
  if (trailer !== null) {
    const index = [
      { type: 'CIDX', place: trailer.cidx },
      { type: 'ROOT', place: trailer.root },
      { type: 'BIDX', place: trailer.bidx },
    ].filter(({ place }) => place !== null);
    for (const [i, { type, place }] of index.entries())
      frames.push({ type, sequence: trailer.frames - index.length + i, ...place! });
    const end = trailer.bidx.offset + trailer.bidx.length;
    frames.push({ type: 'AEND', sequence: trailer.frames, offset: end, length: trailer.size - end });
  }
  return frames;
}

/** Tells every damaged range of a scan as the frames that lie in it. Answers the findings. */
export function tellDamage(
  findings: Findings,
  object: string,
  damage: { scan: ScanResult; expected: readonly ExpectedFrame[]; blockType: 'DATA' | 'PAGE'; shift?: number },
): { finding: Finding; frame: ExpectedFrame | null }[] {
  const { scan, expected, blockType, shift = 0 } = damage;
  const told: { finding: Finding; frame: ExpectedFrame | null }[] = [];
  for (const range of scan.damage) {
    const end = range.offset + range.length;
    const inside = expected.filter(
      (frame) =>
        frame.offset - shiftOf(frame, shift) < end &&
        frame.offset - shiftOf(frame, shift) + frame.length > range.offset,
    );
    for (const frame of inside) {
      const offset = frame.offset - shiftOf(frame, shift);
      const cut = offset + frame.length > scan.size;
      const finding = findings.add({
        kind: 'damaged',
        object,
        frame: { type: frame.type, sequence: frame.sequence },
        block: frame.type === 'DATA' ? frame.sequence - 1 : null,
        offset,
        length: frame.length,
        message: cut ? `cut off in its ${frame.type} frame` : `its ${frame.type} frame ${frame.sequence} is damaged`,
      });
      told.push({ finding, frame });
    }
    if (inside.length > 0) continue;
    // Nothing says what should be here: the frame before tells the number.
    const before = scan.frames.filter((frame) => frame.offset < range.offset).at(-1);
    const sequence = before === undefined ? 0 : before.sequence + 1;
    const type = before === undefined ? 'AHDR' : blockType;
    const block = type === 'DATA' ? sequence - 1 : null;
    const finding = findings.add({
      kind: 'damaged',
      object,
      frame: { type, sequence },
      block,
      offset: range.offset,
      length: range.length,
      message: `${range.length} bytes belong to no whole frame`,
    });
    told.push({ finding, frame: null });
  }
  return told;
}

/** In a hot index all frames but the header lie earlier than in the archive. */
function shiftOf(frame: ExpectedFrame, shift: number): number {
  return frame.type === 'AHDR' ? 0 : shift;
}

/**
 * Recomputes the Merkle root of a data archive from its block hashes, looking at each outer header on the way: 120 bytes
 * for each block. False when anything is not as the table says; a full scan then tells what.
 */
export async function skimArchive(
  source: RangeSource,
  layout: ArchiveTables & { tail: Buffer },
  advance: (bytes: number, read: number) => void,
): Promise<boolean> {
  const { header, blocks, trailer, tail } = layout;
  const hashes = new Uint8Array(blocks.count * HASH_SIZE);
  const headSize = OUTER_HEADER_SIZE + HASH_SIZE;
  let at = header.frame.length;
  let head = blocks.count === 0 ? null : await source.read(at, headSize);
  for (let i = 0; i < blocks.count; i++) {
    const outer = readOuterHeader(head!);
    const fits =
      typeof outer !== 'string' &&
      outer.type === 'DATA' &&
      outer.sequence === i + 1 &&
      outer.archiveId.equals(header.id) &&
      blocks.offset(i) === at &&
      blocks.length(i) === outer.frameLength;
    if (!fits) return false;
    at += blocks.length(i);
    // The end of a block with the beginning of what follows.
    const seam = await source.read(at - HASH_SIZE, HASH_SIZE + headSize);
    hashes.set(seam.subarray(0, HASH_SIZE), i * HASH_SIZE);
    head = seam.subarray(HASH_SIZE);
    advance(blocks.length(i), HASH_SIZE + headSize);
  }
  return at === tailStart(trailer) && merkleRootOf(layout, { hashes, tail }).equals(trailer.merkleRoot);
}

interface ArchiveTables {
  header: ArchiveHeader;
  blocks: BlockTable;
  trailer: Trailer;
}

/** Where the index frames of an archive begin. */
function tailStart({ cidx, root, bidx }: Trailer): number {
  return (cidx ?? root ?? bidx).offset;
}

/** The Merkle root of a data archive whose blocks have these hashes, 32 bytes apart. `tail`: its bytes from CIDX on. */
export function merkleRootOf(
  { header, trailer }: ArchiveTables,
  { hashes, tail }: { hashes: Uint8Array; tail: Buffer },
): Buffer {
  const merkle = new MerkleTree();
  merkle.add(blockHash(header.frame));
  for (let at = 0; at < hashes.length; at += HASH_SIZE) merkle.add(hashes.subarray(at, at + HASH_SIZE));
  const start = tailStart(trailer);
  for (const place of [trailer.cidx, trailer.bidx]) {
    if (place !== null) merkle.add(blockHash(tail.subarray(place.offset - start, place.offset - start + place.length)));
  }
  return merkle.root();
}
