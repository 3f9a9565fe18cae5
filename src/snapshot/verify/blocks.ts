/**
 * Reading the blocks of a data archive and holding its chunks against their content ids. One call takes a run of blocks
 * and the chunks that begin in it. Synchronous and free of state: it runs in workers, and inline for little work.
 */
import { BLOCK_SIZE, HASH_SIZE } from '../../archive/format.ts';
import { blockHash, checkBlockHash, openFrame, type SealContext } from '../../archive/frame.ts';
import { RozenError } from '../../errors.ts';
import { ChunkHashes } from './chunk-hashes.ts';

export interface BlockRun {
  /** Object name, for messages. */
  object: string;
  context: SealContext;
  contentIdKey: Uint8Array;
  /** Number of the first block. */
  first: number;
  /** Blocks that this run answers for; the others after them are only read for the last chunk. */
  own: number;
  /** Place of each block in the object, the first one being block `first`. */
  offsets: Float64Array;
  lengths: Uint32Array;
  /** Plaintext length of each. */
  plain: Uint32Array;
  /** Chunks, ascending: stream offset, length, and their ids 32 bytes apart. */
  chunkOffsets: Float64Array;
  chunkLengths: Uint32Array;
  chunkIds: Uint8Array;
}

export interface RunResult {
  blocks: number;
  chunks: number;
  /** Sealed bytes that were opened. */
  bytes: number;
  badBlocks: { block: number; why: string; unreadable: boolean }[];
  /** Chunks whose blocks all opened, but whose bytes have another id: index in the run. */
  badChunks: number[];
  /** Block hashes of the own blocks, 32 bytes apart; zeros for what could not be opened. */
  hashes: Uint8Array;
}

/** Frames are read together up to this many bytes. */
const READ_SIZE = 4 * 1024 * 1024;

/** @param read bytes of the object; throws RozenError 'corrupt' or 'io' */
export function checkRun(run: BlockRun, read: (offset: number, length: number) => Buffer): RunResult {
  const result: RunResult = { blocks: 0, chunks: 0, bytes: 0, badBlocks: [], badChunks: [], hashes: new Uint8Array(0) };
  result.hashes = new Uint8Array(run.own * HASH_SIZE);
  const { offsets, lengths, plain } = run;
  const target = Buffer.allocUnsafeSlow(BLOCK_SIZE);
  const chunks = { offsets: run.chunkOffsets, lengths: run.chunkLengths, ids: run.chunkIds };
  const hashes = new ChunkHashes(run.contentIdKey, chunks, (chunk, sound) => {
    result.chunks++;
    if (!sound) result.badChunks.push(chunk);
  });
  let window: { offset: number; bytes: Buffer } | null = null;
  for (let i = 0; i < lengths.length; i++) {
    const own = i < run.own;
    if (!own && hashes.done) break;
    const offset = offsets[i]!;
    const length = lengths[i]!;
    const start = (run.first + i) * BLOCK_SIZE;
    let bytes: Buffer | null = null;
    try {
      if (window === null || offset + length > window.offset + window.bytes.length) {
        let last = i;
        while (last + 1 < lengths.length && offsets[last + 1]! + lengths[last + 1]! - offset <= READ_SIZE) last++;
        window = { offset, bytes: readAhead(read, offset, { length, upTo: offsets[last]! + lengths[last]! - offset }) };
      }
      const frame = window.bytes.subarray(offset - window.offset, offset - window.offset + length);
      bytes = openFrame(run.context, frame, { type: 'DATA', sequence: run.first + i + 1 }, target);
      if (bytes.length !== plain[i]) throw new RozenError('corrupt', `it holds ${bytes.length} bytes, not ${plain[i]}`);
      if (own && !checkBlockHash(frame)) throw new RozenError('corrupt', 'its block hash does not match');
      if (own) result.hashes.set(blockHash(frame), i * HASH_SIZE);
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
      if (own) {
        result.badBlocks.push({ block: run.first + i, why: error.message, unreadable: error.code === 'io' });
      }
    }
    if (own) {
      result.blocks++;
      result.bytes += length;
    }
    hashes.push(bytes, start, start + plain[i]!);
  }
  return result;
}

/** More than was asked for, where the object has it: a cut must cost only the blocks that it concerns. */
function readAhead(
  read: (offset: number, length: number) => Buffer,
  offset: number,
  { length, upTo }: { length: number; upTo: number },
): Buffer {
  if (upTo > length) {
    try {
      return read(offset, upTo);
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
    }
  }
  return read(offset, length);
}
