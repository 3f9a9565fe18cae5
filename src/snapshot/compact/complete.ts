/**
 * Merged archives that are recorded and have no hot index: whoever made them was killed, and may never come back to put it. The
 * archive itself has all that is in there, so that any owner can.
 */
import { hotIndexObject, memorySource, openArchive, parseHotIndex } from '../../archive/reader.ts';
import { verifyTrailer } from '../../archive/trailer.ts';
import { corrupt, RozenError } from '../../errors.ts';
import { storedArchives } from '../../repository/archive-listing.ts';
import type { ForwardRecord } from '../../repository/forward-record.ts';
import { dataName, forwardName, indexName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import { deliverIndex } from '../data/deliver.ts';
import { DAMAGE, INDEX_LIMIT } from './merge.ts';

export interface CompleteOptions {
  repository: Repository;
  signal: AbortSignal | undefined;
  problem(object: string, error: unknown): void;
}

/** Puts the hot indexes that are missing. Answers the archives that got one. */
export async function putMissingIndexes(options: CompleteOptions): Promise<{ size: number }[]> {
  const { repository, signal, problem } = options;
  const { records } = repository.forwards;
  const completed: { size: number }[] = [];
  if (records.length === 0) return completed;
  const { data, index } = await storedArchives(repository);
  for (const record of records) {
    const { id, size } = record.target;
    const key = id.toString('hex');
    // One that was merged again is on its way out, its index first.
    if (index.has(key) || data.get(key)?.size !== size || repository.forwards.known(id) !== null) continue;
    if (signal?.aborted) throw new RozenError('interrupted', 'compact was interrupted', { hint: 'run it again' });
    try {
      const hotIndex = await readIndex(repository, record);
      await recorded(repository, record, hotIndex);
      completed.push({ size });
    } catch (error) {
      if (!(error instanceof RozenError) || !DAMAGE.has(error.code)) throw error;
      problem(indexName(id), error);
    }
  }
  return completed;
}

/** What follows once the record is there: from here on others may refer to the archive. */
export async function recorded(
  repository: Repository,
  { target, number }: ForwardRecord,
  hotIndex: Buffer,
): Promise<void> {
  await repository.store.retain([dataName(target.id), forwardName(number)]);
  await deliverIndex(repository, target.id, hotIndex);
}

/** Cut out of the archive, and held against what the record and the archive's maker have signed. */
async function readIndex(repository: Repository, { target }: ForwardRecord): Promise<Buffer> {
  const { store } = repository;
  const name = dataName(target.id);
  const bytes = await hotIndexObject({
    read(offset, length) {
      if (length > INDEX_LIMIT) throw corrupt(`${name}: its tables have ${length} bytes`);
      return store.getRange(name, offset, length);
    },
    suffix: (length) => store.getSuffix(name, length),
  });
  const unwrap = (envelope: Buffer): Promise<Buffer> => repository.unwrap(envelope);
  const archive = await openArchive(memorySource(bytes), { unwrap, expect: target, hotIndex: true, name });
  archive.blockKey.fill(0);
  archive.recordKey.fill(0);
  const { trailer, header } = parseHotIndex(bytes);
  const signer = repository.writerPublicKey(trailer.writerId);
  const binding = { repositoryId: repository.id, headerHash: header.headerHash };
  if (!verifyTrailer(trailer, binding, signer))
    throw new RozenError('untrusted', `${name}: the signature is not by the writer that its trailer names`);
  return bytes;
}
