/** Archives that were merged long enough ago go: never before what they were merged into is seen to be there, never what is locked. */
import { KIND_DATA } from '../../archive/format.ts';
import { type ArchiveFacts, OpenArchives } from '../../cache/archives.ts';
import { RozenError } from '../../errors.ts';
import type { StoredArchives } from '../../repository/archive-listing.ts';
import { dataName, FORWARD_PREFIX, indexName, parseForwardName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import type { Amount, CompactReport } from './types.ts';

export interface RemoveOptions {
  repository: Repository;
  stored: StoredArchives;
  graceMs: number;
  now: number;
  dryRun: boolean;
  signal: AbortSignal | undefined;
  problem(object: string, error: unknown): void;
}

type Removal = Pick<CompactReport, 'removed' | 'waiting' | 'locked'>;

const DAY_MS = 86_400_000;

export async function removeMerged(options: RemoveOptions): Promise<Removal> {
  return new Removing(options).run();
}

class Removing {
  readonly #options: RemoveOptions;
  readonly #result: Removal = {
    removed: nothing(),
    waiting: { ...nothing(), until: null },
    locked: { ...nothing(), until: null },
  };
  /** Archives that others were merged into, by id: whether they are there and the ones that the records name. */
  readonly #sound = new Map<string, boolean>();

  constructor(options: RemoveOptions) {
    this.#options = options;
  }

  async run(): Promise<Removal> {
    const { repository, stored, graceMs, now, signal } = this.#options;
    const { forwards } = repository;
    const written = await this.#recordTimes();
    const seen = new Set<string>();
    const archives = new OpenArchives({ store: repository.store, keys: repository });
    try {
      for (const { number, created, sources } of forwards.records) {
        // Counted from the later of two clocks, that of the machine that wrote the record and that of the store.
        const due = Math.max(created * 1000, written.get(number) ?? 0) + graceMs;
        for (const { id, size } of sources) {
          const key = id.toString('hex');
          if (seen.has(key) || (!stored.data.has(key) && !stored.index.has(key))) continue;
          seen.add(key);
          if (signal?.aborted) throw new RozenError('interrupted', 'compact was interrupted', { hint: 'run it again' });
          if (due > now) {
            count(this.#result.waiting, size, due);
            continue;
          }
          const { target } = forwards.known(id)!;
          if (!(await this.#isSound(archives, target))) continue;
          await this.#remove(id, size);
        }
      }
    } finally {
      archives.close();
    }
    return this.#result;
  }

  async #remove(id: Buffer, size: number): Promise<void> {
    const { repository, dryRun, now } = this.#options;
    const { store } = repository;
    const until = Math.max(...(await Promise.all([indexName(id), dataName(id)].map((name) => this.#lockOf(name)))));
    if (until > now) {
      count(this.#result.locked, size, until);
      return;
    }
    // In this order: an archive without its index can still be read, and nobody begins to deduplicate against it.
    if (!dryRun) for (const name of [indexName(id), dataName(id)]) await store.delete(name);
    count(this.#result.removed, size);
  }

  /** Until when nobody may delete it; 0 for no such time. */
  async #lockOf(name: string): Promise<number> {
    const { store, config } = this.#options.repository;
    const until = await store.lockedUntil(name);
    const days = config.keeping?.lockDays;
    if (until !== null || days === undefined) return until ?? 0;
    // Keys that may not ask for locks are told of none.
    const info = await store.stat(name);
    return info === null ? 0 : info.modified + days * DAY_MS;
  }

  async #isSound(archives: OpenArchives, target: ArchiveFacts): Promise<boolean> {
    const { repository, stored, problem } = this.#options;
    const key = target.id.toString('hex');
    let sound = this.#sound.get(key);
    if (sound !== undefined) return sound;
    const object = dataName(target.id);
    try {
      const size = stored.data.get(key)?.size ?? (await repository.store.stat(object))?.size;
      if (size !== target.size)
        throw new RozenError('corrupt', `it has ${size ?? 'no'} bytes, the forward record says ${target.size}`);
      if (!stored.index.has(key)) throw new RozenError('not-found', 'its hot index is not there');
      await archives.open({ ...target, kind: KIND_DATA });
      sound = true;
    } catch (error) {
      if (!(error instanceof RozenError) || error.code === 'no-key' || error.code === 'interrupted') throw error;
      problem(object, error);
      sound = false;
    }
    this.#sound.set(key, sound);
    return sound;
  }

  async #recordTimes(): Promise<Map<number, number>> {
    const times = new Map<number, number>();
    for await (const { name, modified } of this.#options.repository.store.list(FORWARD_PREFIX)) {
      const number = parseForwardName(name);
      if (number !== null) times.set(number, modified);
    }
    return times;
  }
}

function nothing(): Amount {
  return { archives: 0, bytes: 0 };
}

function count(amount: Amount & { until?: number | null }, bytes: number, until?: number): void {
  amount.archives++;
  amount.bytes += bytes;
  if (until !== undefined) amount.until = Math.max(amount.until ?? 0, until);
}
