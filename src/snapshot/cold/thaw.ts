/**
 * Bringing packs back from cold storage. Nothing is remembered on this machine: what was asked for, and what has come, is asked of the
 * store each time, so that a run that was ended at any moment is simply made again.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { corrupt, RozenError } from '../../errors.ts';
import { dataName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import { type ColdState, ObjectMissing, type ThawTier } from '../../store/object-store.ts';
import type { NeededPack } from './packs.ts';
import { inParallel } from './parallel.ts';

/** A pack and how it lies in the store now. */
export interface ColdPack
  extends Pick<NeededPack, 'id' | 'object' | 'size'>,
    Pick<ColdState, 'storageClass' | 'state' | 'until'> {}

/** Where packs lie, and what those that are gone were merged into. */
export type PackPlace = Pick<Repository, 'store' | 'forwards'>;

/**
 * Asks the store for the state of each pack, in their order. One that was merged into another (an index in the cache outlives its
 * archive) is answered by that, so that several may be one. 'not-found' when one is gone, 'corrupt' when it is not as long as it must be.
 */
export async function coldPacks(
  place: PackPlace,
  packs: readonly Pick<NeededPack, 'id' | 'object' | 'size'>[],
  signal?: AbortSignal,
): Promise<ColdPack[]> {
  const found = new Array<ColdPack>(packs.length);
  await inParallel(
    packs,
    async (pack, index) => {
      found[index] = await coldPack(place, pack);
    },
    signal,
  );
  return found;
}

async function coldPack(
  { store, forwards }: PackPlace,
  { id, object, size }: Pick<NeededPack, 'id' | 'object' | 'size'>,
): Promise<ColdPack> {
  const cold = await store.coldState(object);
  if (cold === null) {
    const target = (await forwards.find(Buffer.from(id, 'hex')))?.target;
    if (target === undefined) throw new ObjectMissing(`${store.location}/${object} is gone`);
    return coldPack(
      { store, forwards },
      { id: target.id.toString('hex'), object: dataName(target.id), size: target.size },
    );
  }
  if (cold.size !== size)
    throw corrupt(`${store.location}/${object} has ${cold.size} bytes instead of ${size}`, {
      hint: '`rozen verify` shows what that concerns',
    });
  const { storageClass, state, until } = cold;
  return { id, object, size, storageClass, state, until };
}

/** Each pack once. */
export function distinctPacks(packs: readonly ColdPack[]): ColdPack[] {
  return [...new Map(packs.map((pack) => [pack.id, pack])).values()];
}

export interface ThawOptions {
  place: PackPlace;
  signal: AbortSignal;
}

/**
 * Asks for every frozen pack. `asked` is called after each one. What is thawing or there already is left as it is, so that nothing
 * is paid for twice.
 */
export async function requestThaw(
  { place, signal }: ThawOptions,
  packs: readonly ColdPack[],
  request: { tier: ThawTier; days: number; asked?: (pack: ColdPack) => void },
): Promise<void> {
  const { tier, days, asked } = request;
  const frozen = packs.filter(({ state }) => state === 'frozen');
  await orInterrupted(
    signal,
    inParallel(
      frozen,
      async (pack) => {
        await place.store.thaw(pack.object, { tier, days });
        asked?.(pack);
      },
      signal,
    ),
  );
}

/** After the signal it is said how to go on, whatever noticed it first. */
function orInterrupted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return work.catch((error) => {
    if (!signal.aborted) throw error;
    throw new RozenError('interrupted', 'thawing was interrupted', {
      hint: 'what was asked for comes all the same; run the same command again to go on',
    });
  });
}

/** What a wait tells each time it has looked. */
export interface ThawProgress {
  ready: number;
  total: number;
  readyBytes: number;
  totalBytes: number;
  /** Why the store could not be asked this time; it will be again. */
  trouble: RozenError | null;
}

/**
 * Resolves when every pack can be read. Looks at once, then each `pollMs`, at those that were not ready. A network that is away for
 * a while ends nothing: a thaw takes hours, and a laptop sleeps.
 *
 * @throws 'interrupted' after the signal; 'io' when a pack that was asked for is frozen again
 */
export function waitForThaw(
  thaw: ThawOptions,
  packs: readonly ColdPack[],
  options: { pollMs: number; progress?: (progress: ThawProgress) => void },
): Promise<void> {
  return orInterrupted(thaw.signal, wait(thaw, packs, options));
}

async function wait(
  { place, signal }: ThawOptions,
  packs: readonly ColdPack[],
  options: { pollMs: number; progress?: (progress: ThawProgress) => void },
): Promise<void> {
  let waiting = packs.filter(({ state }) => state !== 'hot');
  const sum = (list: readonly ColdPack[]): number => list.reduce((bytes, { size }) => bytes + size, 0);
  const totalBytes = sum(packs);
  for (;;) {
    let trouble: RozenError | null = null;
    try {
      const now = await coldPacks(place, waiting, signal);
      const again = now.find(({ state }) => state === 'frozen');
      if (again !== undefined) {
        throw new RozenError('io', `${place.store.location}/${again.object} is frozen again`, {
          hint: 'its copy has run out, or the store has dropped the request: run the same command again, with more --days',
        });
      }
      waiting = now.filter(({ state }) => state !== 'hot');
    } catch (error) {
      if (!(error instanceof RozenError) || !error.retryable) throw error;
      trouble = error;
    }
    const ready = packs.length - waiting.length;
    options.progress?.({ ready, total: packs.length, readyBytes: totalBytes - sum(waiting), totalBytes, trouble });
    if (waiting.length === 0) return;
    await delay(options.pollMs, undefined, { signal });
  }
}
