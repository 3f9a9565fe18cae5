/** What was made of several archives is read back whole before it is sent: others will be removed because it exists. */
import { setImmediate as breathe } from 'node:timers/promises';
import { BLOCK_SIZE } from '../../archive/format.ts';
import { checkBlockHash, openFrame } from '../../archive/frame.ts';
import { openArchive, openChunkTable } from '../../archive/reader.ts';
import { corrupt, RozenError } from '../../errors.ts';
import type { Repository } from '../../repository/repository.ts';
import { ChunkHashes } from '../verify/chunk-hashes.ts';
import type { Merged } from './merge.ts';

/** Signals and timers are heard after so many blocks. */
const BREATHE_EACH = 32;

/** Opens the archive in the spool by its key envelope, all of its blocks, and holds every chunk against its content id. Throws 'io' when it is not whole. */
export async function proveMerged(
  repository: Repository,
  { spool, merge, chunks }: Pick<Merged, 'spool' | 'merge' | 'chunks'>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const name = spool.path;
  try {
    const unwrap = (envelope: Buffer): Promise<Buffer> => repository.unwrap(envelope);
    const archive = await openArchive(spool, { unwrap, expect: merge.target, name });
    const { blocks, trailer, header, context } = archive;
    const { contentIdKey, indexKey } = await repository.loadSecrets();
    const { offset, length } = trailer.cidx!;
    const table = openChunkTable({ header, cidx: spool.readBack(offset, length) }, indexKey);
    let proven = 0;
    const hashes = new ChunkHashes(contentIdKey, table, (chunk, sound) => {
      if (!sound) throw corrupt(`chunk ${chunk} is not what its content id says`);
      proven++;
    });
    const target = Buffer.allocUnsafeSlow(BLOCK_SIZE);
    for (let i = 0; i < blocks.count; i++) {
      if (signal?.aborted) throw new RozenError('interrupted', 'compact was interrupted', { hint: 'run it again' });
      const frame = spool.readBack(blocks.offset(i), blocks.length(i));
      if (!checkBlockHash(frame)) throw corrupt(`block ${i}: its block hash does not match`);
      const bytes = openFrame(context, frame, { type: 'DATA', sequence: i + 1 }, target);
      hashes.push(bytes, i * BLOCK_SIZE, i * BLOCK_SIZE + bytes.length);
      if (i % BREATHE_EACH === 0) await breathe();
    }
    if (proven !== chunks) throw corrupt(`${proven} of ${chunks} chunks`);
    archive.blockKey.fill(0);
    archive.recordKey.fill(0);
  } catch (error) {
    if (!(error instanceof RozenError) || error.code === 'interrupted') throw error;
    throw new RozenError('io', `${name} does not read back as it was written: ${error.message}`, {
      hint: 'nothing was merged; check the memory and the disk of this machine',
      cause: error,
    });
  }
}
