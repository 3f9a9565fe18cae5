/** A set on this machine: its lock, its place in the store, and local state that agrees with it. */
import { join } from 'node:path';
import { RozenError } from '../../errors.ts';
import { lockFile } from '../../posix/lock.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import type { Repository, SnapshotRecord, SnapshotSlot } from '../../repository/repository.ts';
import { type LineageState, LocalState, StateDamaged } from './local-state.ts';
import { readBack } from './read-back.ts';

export interface Lineage {
  slot: SnapshotSlot;
  generation: number;
  local: LocalState;
  /** The snapshot to compare with; null when the lineage begins. */
  state: LineageState | null;
  /** The set is a WORM set already, though nothing of it is known here: the lineage begins anew, or another machine has one. */
  wasWorm: boolean;
  /** For people: why local state was not used. Null when it was, and in the first run. */
  notice: string | null;
  /** Folder of this set on this machine, for the spool and the tree archive that is being written. */
  folder: string;
  /** Closes the state and gives the lock back. */
  close(): Promise<void>;
}

export interface LineageOptions {
  repository: Repository;
  stateDir: string;
  set: string;
  /** Wait for another run of this set. */
  wait: boolean;
  signal?: AbortSignal | undefined;
}

/** A week: whoever waits for a lock wants to wait. */
const LOCK_WAIT = 7 * 24 * 3600 * 1000;

/**
 * Takes the lock of the set and brings local state and store together, always by what the store says. Throws 'locked',
 * and whatever the repository's own checks throw ('untrusted' when the store was rolled back).
 */
export async function openLineage(options: LineageOptions): Promise<Lineage> {
  const { repository, stateDir, set } = options;
  const folder = join(stateDir, 'sets', repository.lineageTag(set));
  makeFolders(folder);
  const release = await lockSet(folder, options);
  try {
    const local = LocalState.open(join(folder, 'state'));
    try {
      const agreed = await agree(options, local);
      const close = async () => {
        await local.close();
        release();
      };
      return { ...agreed, local, folder, close };
    } catch (error) {
      if (error instanceof StateDamaged) await local.destroy();
      else await local.close();
      throw error;
    }
  } catch (error) {
    release();
    throw error;
  }
}

async function lockSet(folder: string, { set, wait, signal }: LineageOptions): Promise<() => void> {
  try {
    return await lockFile(join(folder, 'lock'), { wait: wait ? LOCK_WAIT : 0, signal });
  } catch (error) {
    if (!(error instanceof RozenError) || error.code !== 'locked') throw error;
    throw new RozenError('locked', `set '${set}' is being backed up: ${error.message}`, {
      hint: 'let it end, or add --wait',
      cause: error,
      retryable: true,
    });
  }
}

type Agreed = Pick<Lineage, 'slot' | 'generation' | 'state' | 'notice' | 'wasWorm'>;

async function agree({ repository, set, signal }: LineageOptions, local: LocalState): Promise<Agreed> {
  const state = local.read();
  const pending = local.readPending();
  for (const candidate of [pending, state]) {
    if (candidate === null) continue;
    const slot = await repository.nextSlot(set, candidate.generation);
    if (!slot.base?.id.equals(candidate.snapshotId)) continue;
    if (candidate === pending) local.fold(pending);
    local.dropFrom(candidate.nextRow);
    return { slot, generation: candidate.generation, state: candidate, notice: null, wasWorm: false };
  }
  local.clear();
  const newest = await newestGeneration(repository, set);
  if (newest.slot.base === null) {
    const wasWorm = (await wormHeads(repository, set)).length > 0;
    const gone = state === null ? [] : ['the snapshots that the state on this machine stood on are gone'];
    const begins = wasWorm
      ? [`'${set}' is a WORM set; this machine had no snapshot of it, and begins with this one`]
      : [];
    return { ...newest, state: null, wasWorm, notice: [...gone, ...begins].join('; ') || null };
  }
  const why =
    state === null
      ? 'the state on this machine was lost'
      : 'the state on this machine does not stand on the newest snapshot';
  if (await canRead(repository)) {
    const read = await readBack({ repository, record: newest.slot.base, generation: newest.generation, local, signal });
    return { ...newest, state: read, wasWorm: false, notice: `${why}; it was read back from the store` };
  }
  const generation = newest.generation + 1;
  const slot = await repository.nextSlot(set, generation);
  const wasWorm = newest.slot.base.worm === true;
  return {
    slot,
    generation,
    state: null,
    wasWorm,
    notice: `${why}; without an identity all metadata is written again`,
  };
}

/** Of a WORM set, the newest snapshot of each machine that feeds it, told without a key. The mode of a set is chosen once. */
export async function wormHeads(repository: Repository, set: string): Promise<SnapshotRecord[]> {
  const heads = await repository.heads(() => {});
  return heads.filter((head) => head.worm === true && repository.isOfSet(head, set));
}

async function newestGeneration(
  repository: Repository,
  set: string,
): Promise<{ slot: SnapshotSlot; generation: number }> {
  let generation = 0;
  let slot = await repository.nextSlot(set, 0);
  for (;;) {
    const next = await repository.nextSlot(set, generation + 1);
    if (next.base === null) return { slot, generation };
    slot = next;
    generation++;
  }
}

/** A backup must not fail because nobody is there to type a passphrase: it can do without. */
export async function canRead(repository: Repository): Promise<boolean> {
  try {
    return await repository.unlock();
  } catch (error) {
    if (error instanceof RozenError && error.code === 'no-key') return false;
    throw error;
  }
}
