/** From the spool to the store: data first, then the hot index, then the deduplication index. Every step may be repeated. */
import { hotIndexObject } from '../../archive/reader.ts';
import type { SealedArchive } from '../../archive/writer.ts';
import { RozenError } from '../../errors.ts';
import { dataName, indexName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import type { DedupIndex } from './index.ts';
import type { Recovered, Spool } from './spool.ts';

export interface Destination {
  repository: Repository;
  /** Ends a long upload; the next run goes on with it. */
  signal: AbortSignal | undefined;
}

/**
 * Stores a sealed archive and its hot index; returns when the store has acknowledged both. The spool's files stay until
 * the caller has entered the archive into the index and removes them. `hot`: it stays out of a cold storage class.
 */
export async function deliver(
  { repository, signal }: Destination,
  spool: Spool,
  sealed: { id: Buffer; size: number; hotIndex: Buffer; hot: boolean },
): Promise<void> {
  await spool.seal(sealed.hotIndex);
  const name = dataName(sealed.id);
  const { hot } = sealed;
  try {
    await repository.store.putFile(name, spool.path, { signal, hot });
  } catch (error) {
    await allowExisting(repository, name, sealed.size, error);
  }
  await deliverIndex(repository, sealed.id, sealed.hotIndex);
}

export async function deliverIndex(repository: Repository, id: Buffer, hotIndex: Buffer): Promise<void> {
  const name = indexName(id);
  try {
    await repository.store.put(name, hotIndex);
  } catch (error) {
    await allowExisting(repository, name, hotIndex.length, error);
  }
}

/** Ids are random: an object of this name and size is what a run before this one has put there. */
export async function allowExisting(repository: Repository, name: string, size: number, error: unknown): Promise<void> {
  if (!(error instanceof RozenError) || error.code !== 'exists') throw error;
  const found = await repository.store.stat(name);
  if (found?.size !== size) throw error;
}

/** Ends what a crash interrupted after the archive was whole; returns its number, undefined when nothing is left of it. */
export async function deliverRecovered(
  to: Destination,
  index: DedupIndex,
  from: Extract<Recovered, { found: 'sealed' | 'taken' }>,
): Promise<number | undefined> {
  const { repository } = to;
  if (from.found === 'taken') {
    // The spool file is gone: either the store took it, or somebody removed it.
    if ((await repository.store.stat(dataName(from.id))) === null) {
      from.remove();
      return undefined;
    }
    await deliverIndex(repository, from.id, from.hotIndex);
    const number = await index.enter(indexName(from.id), from.hotIndex);
    from.remove();
    return number;
  }
  const { spool, heads } = from;
  const hotIndex = await hotIndexObject(spool);
  const { id } = spool.state;
  await deliver(to, spool, { id, size: from.sealed, hotIndex, hot: heads });
  const number = await index.enter(indexName(id), hotIndex);
  spool.remove();
  return number;
}

/** What the index keeps of an archive: all but the bytes of its index object. */
export function withoutIndex(archive: SealedArchive): SealedArchive {
  return { ...archive, hotIndex: null };
}
