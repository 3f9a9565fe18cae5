/** `--read-data`: every block of data archives opened, every chunk held against its content id. */
import { BLOCK_SIZE, HASH_SIZE } from '../../archive/format.ts';
import type { DataArchive, LostRange } from './archive-check.ts';
import { streamRange } from './archive-check.ts';
import type { BlockPool } from './block-pool.ts';
import type { BlockRun, RunResult } from './blocks.ts';
import type { Findings } from './findings.ts';

/** 32 MiB of plaintext: enough that the chunk at the end, whose rest is read twice, does not count. */
const RUN_BLOCKS = 128;

export interface DataCheck {
  pool: BlockPool;
  findings: Findings;
  contentIdKey: Uint8Array;
  /** Percentage of the blocks, chosen at random; at least one of each archive. */
  sample: number;
  lost: (range: LostRange) => void;
}

/** Answers the block hashes, 32 bytes apart, of the blocks that were read and could be opened; zeros for the others. */
export async function checkBlocks(check: DataCheck, archive: DataArchive): Promise<Uint8Array> {
  const { findings, pool } = check;
  const hashes = new Uint8Array(archive.blocks.count * HASH_SIZE);
  const working = new Set<Promise<void>>();
  let failure: unknown;
  for (const [first, end] of ranges(archive.blocks.count, check.sample)) {
    if (failure !== undefined) break;
    const run = makeRun(check, archive, { first, end });
    const work = pool
      .check(run)
      .then((result) => {
        hashes.set(result.hashes, run.first * HASH_SIZE);
        tell(check, archive, run, result);
      })
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => working.delete(work));
    working.add(work);
    if (working.size >= pool.depth) await Promise.race(working);
  }
  await Promise.all(working);
  if (failure !== undefined) findings.caught(failure, { object: archive.object });
  return hashes;
}

/** Blocks to read, as ranges from … to (exclusive). */
function* ranges(count: number, sample: number): Generator<[number, number]> {
  if (sample >= 100) {
    for (let first = 0; first < count; first += RUN_BLOCKS) yield [first, Math.min(count, first + RUN_BLOCKS)];
    return;
  }
  const sure = Math.floor(Math.random() * count);
  const chosen = (block: number): boolean => block === sure || Math.random() * 100 < sample;
  let first = -1;
  for (let block = 0; block <= count; block++) {
    const take = block < count && chosen(block);
    if (first >= 0 && (!take || block - first === RUN_BLOCKS)) {
      yield [first, block];
      first = -1;
    }
    if (take && first < 0) first = block;
  }
}

function makeRun(
  { contentIdKey, sample }: DataCheck,
  { blocks, chunks, object, context }: DataArchive,
  { first, end }: { first: number; end: number },
): BlockRun {
  const own = end - first;
  let low = 0;
  let high = 0;
  let last = end;
  if (chunks !== null) {
    low = lowerBound(chunks.offsets, first * BLOCK_SIZE);
    high = lowerBound(chunks.offsets, end * BLOCK_SIZE);
    if (sample < 100) {
      // Blocks that were not chosen are not read: a chunk counts only if it lies in chosen ones.
      while (high > low && chunks.offsets[high - 1]! + chunks.lengths[high - 1]! > end * BLOCK_SIZE) high--;
    } else if (high > low) {
      const reach = Math.ceil((chunks.offsets[high - 1]! + chunks.lengths[high - 1]!) / BLOCK_SIZE);
      last = Math.min(blocks.count, Math.max(end, reach));
    }
  }
  const plain = new Uint32Array(last - first);
  for (let i = 0; i < plain.length; i++) plain[i] = blocks.plainLength(first + i);
  return {
    object,
    context,
    contentIdKey,
    first,
    own,
    offsets: Float64Array.from(blocks.offsets.subarray(first, last)),
    lengths: Uint32Array.from(blocks.lengths.subarray(first, last)),
    plain,
    chunkOffsets: chunks === null ? new Float64Array(0) : chunks.offsets.slice(low, high),
    chunkLengths: chunks === null ? new Uint32Array(0) : chunks.lengths.slice(low, high),
    chunkIds:
      chunks === null ? new Uint8Array(0) : Uint8Array.from(chunks.ids.subarray(low * HASH_SIZE, high * HASH_SIZE)),
  };
}

function tell({ findings, lost }: DataCheck, archive: DataArchive, run: BlockRun, result: RunResult): void {
  const { object, blocks } = archive;
  findings.counts.blocks += result.blocks;
  findings.counts.chunks += result.chunks;
  for (const { block, why, unreadable } of result.badBlocks) {
    const finding = findings.add({
      kind: unreadable ? 'unreadable' : 'damaged',
      object,
      frame: { type: 'DATA', sequence: block + 1 },
      block,
      offset: blocks.offset(block),
      length: blocks.length(block),
      message: `block ${block}: ${why}`,
    });
    lost({ finding, archive: archive.id, ...streamRange(block) });
  }
  for (const index of result.badChunks) {
    const from = run.chunkOffsets[index]!;
    const to = from + run.chunkLengths[index]!;
    const block = Math.floor(from / BLOCK_SIZE);
    const finding = findings.add({
      kind: 'inconsistent',
      object,
      frame: { type: 'DATA', sequence: block + 1 },
      block,
      offset: blocks.offset(block),
      length: blocks.length(block),
      message: `the content from stream offset ${from} to ${to} is not what its content id says`,
    });
    lost({ finding, archive: archive.id, from, to });
  }
  findings.advance(result.bytes);
}

/** The first index whose value is not below `value`. */
export function lowerBound(sorted: Float64Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
