/**
 * Archives that were merged into others. Rows of snapshots go on naming the old ones for ever; whoever does not find one in the store
 * asks here. Records are immutable and form one chain, so each is read once in the life of this object.
 */
import { BLOCK_SIZE, KIND_DATA } from '../archive/format.ts';
import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { MAX_FORWARD } from './format.ts';
import {
  decodeForward,
  encodeForward,
  type ForwardRecord,
  type ForwardSource,
  type ForwardTarget,
  type Merge,
} from './forward-record.ts';
import type { Genesis } from './genesis.ts';
import { FORWARD_PREFIX, forwardName, parseForwardName } from './names.ts';
import type { ObjectCache } from './object-cache.ts';
import type { Pin } from './pin.ts';
import { putProven } from './put-proven.ts';

/** Where the content of an archive lies now. */
export interface Forwarding {
  /** The archive as rows name it. */
  source: ForwardSource;
  target: ForwardTarget & { kind: typeof KIND_DATA };
  /** Where its stream begins in that of the target, in bytes. */
  start: number;
  /** Where it ends there: a multiple of the size of a block, for the last one was filled up. */
  end: number;
  /** When the archive was merged, seconds since 1970. It stays in the store for a while. */
  created: number;
}

/** Records put together: the last place of each archive, however often its content was moved. */
export class ForwardMap {
  readonly #bySource = new Map<string, { record: ForwardRecord; source: ForwardSource }>();
  readonly #targets = new Set<string>();

  /** In the order of their numbers: of two records that name an archive, the first counts. */
  add(record: ForwardRecord): void {
    this.#targets.add(record.target.id.toString('hex'));
    for (const source of record.sources) {
      const id = source.id.toString('hex');
      if (!this.#bySource.has(id)) this.#bySource.set(id, { record, source });
    }
  }

  get size(): number {
    return this.#bySource.size;
  }

  /** Whether an archive was made by merging others. */
  isTarget(id: Uint8Array): boolean {
    return this.#targets.has(hex(id));
  }

  /** Null for an archive that was never merged. */
  get(id: Uint8Array): Forwarding | null {
    return this.places(id).at(-1) ?? null;
  }

  /** Every archive that the content was moved to, one after another. */
  places(id: Uint8Array): Forwarding[] {
    const places: Forwarding[] = [];
    const first = this.#bySource.get(hex(id));
    let next = first;
    for (let block = 0, number = 0; first !== undefined && next !== undefined; ) {
      const { record, source } = next;
      // Numbers that only rise end every chain. What a place in the middle does not hold is not led on.
      if (record.number <= number || block + first.source.blocks > source.blocks) break;
      block += source.block;
      number = record.number;
      places.push({
        source: first.source,
        target: { ...record.target, kind: KIND_DATA },
        start: block * BLOCK_SIZE,
        end: (block + first.source.blocks) * BLOCK_SIZE,
        created: first.record.created,
      });
      next = this.#bySource.get(record.target.id.toString('hex'));
    }
    return places;
  }
}

export interface ForwardsOptions {
  store: ObjectStore;
  /** Records that were read before, of a remote store. */
  objects: ObjectCache | null;
  genesis: Genesis;
  pin: Pin;
  savePin: () => void;
}

/** Records read at once. */
const PARALLEL = 16;

export class Forwards {
  readonly #options: ForwardsOptions;
  readonly #map = new ForwardMap();
  /** Record n at n - 1; null for one that is damaged. */
  readonly #records: (ForwardRecord | null)[] = [];
  /** Of records that are damaged; what they say is unknown until they are restored. */
  readonly #damage: RozenError[] = [];
  #refreshing: Promise<void> | null = null;

  constructor(options: ForwardsOptions) {
    this.#options = options;
  }

  /** All records that could be read so far, in order. */
  get records(): ForwardRecord[] {
    return this.#records.filter((record) => record !== null);
  }

  /** What is known without asking the store. */
  known(id: Uint8Array): Forwarding | null {
    return this.#map.get(id);
  }

  /** Every archive that the content was moved to, one after another, as far as is known without asking the store. */
  places(id: Uint8Array): Forwarding[] {
    return this.#map.places(id);
  }

  isTarget(id: Uint8Array): boolean {
    return this.#map.isTarget(id);
  }

  /** Where an archive that the store does not have was merged into; asks the store when that is not known. Null: nowhere. */
  async find(id: Uint8Array): Promise<Forwarding | null> {
    const known = this.known(id);
    if (known !== null) return known;
    await this.refresh();
    const found = this.known(id);
    if (found === null && this.#damage.length > 0) throw this.#damage[0]!;
    return found;
  }

  /**
   * Reads the records that are new: one listing, and one read for each. Throws 'untrusted' for a record that is forged or out of
   * the chain, and when one that this machine has seen is gone. What is damaged is passed over.
   */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  /**
   * Writes the next record; `draft` is asked again, after the new records were read, when another machine was faster, and ends
   * it by answering null. Returns once the store shows it.
   */
  async append(rootSecret: Buffer, draft: () => Merge | null): Promise<ForwardRecord | null> {
    const { store, genesis } = this.#options;
    await this.refresh();
    for (;;) {
      const what = draft();
      if (what === null) return null;
      const number = this.#records.length + 1;
      const before = this.#records.at(-1);
      // Its hash is not known, so that nothing can follow it.
      if (before === null) throw this.#damage.at(-1)!;
      const record = { ...what, number, previous: before?.hash ?? null, created: Math.floor(Date.now() / 1000) };
      try {
        await putProven(store, forwardName(number), encodeForward(record, genesis, rootSecret));
      } catch (error) {
        if (!(error instanceof RozenError) || error.code !== 'exists') throw error;
        await this.refresh();
        // A store that has it and does not list it: asking again would go on for ever.
        if (this.#records.length < number) throw error;
        continue;
      }
      await this.refresh();
      return this.#records[number - 1]!;
    }
  }

  async #refresh(): Promise<void> {
    const { store, pin } = this.#options;
    let newest = 0;
    const after = this.#records.length === 0 ? {} : { after: forwardName(this.#records.length) };
    for await (const { name } of store.list(FORWARD_PREFIX, after))
      newest = Math.max(newest, parseForwardName(name) ?? 0);
    newest = Math.max(newest, this.#records.length);
    const seen = pin.forward?.number ?? 0;
    if (newest < seen) throw this.#rolledBack(`${forwardName(seen)}, which this machine has seen, is gone`);
    const first = this.#records.length + 1;
    for (let from = first; from <= newest; from += PARALLEL) {
      const numbers = Array.from({ length: Math.min(PARALLEL, newest - from + 1) }, (_, i) => from + i);
      for (const record of await Promise.all(numbers.map((number) => this.#read(number)))) this.#accept(record);
    }
    const last = this.#records.at(-1);
    if (last === undefined || last === null || last.number <= seen) return;
    pin.forward = { number: last.number, hash: last.hash };
    this.#options.savePin();
  }

  #accept(record: ForwardRecord | RozenError): void {
    const number = this.#records.length + 1;
    if (record instanceof RozenError) {
      this.#damage.push(record);
      this.#records.push(null);
      return;
    }
    const before = this.#records.at(-1);
    const { pin, store } = this.#options;
    if (before && !record.previous?.equals(before.hash))
      throw this.#rolledBack(`${forwardName(number)} does not follow ${forwardName(number - 1)}`);
    if (pin.forward?.number === number && !pin.forward.hash.equals(record.hash)) {
      throw new RozenError(
        'untrusted',
        `${store.location}/${forwardName(number)} is not the record that this machine has seen`,
        { hint: 'the object was replaced; restore it from a copy of the repository' },
      );
    }
    this.#records.push(record);
    this.#map.add(record);
  }

  /** A record, or what damage it has. Checked, also when it comes from the cache. */
  async #read(number: number): Promise<ForwardRecord | RozenError> {
    const { store, objects, genesis } = this.#options;
    const name = forwardName(number);
    const where = { genesis, number, what: `${store.location}/${name}` };
    const kept = objects?.get(genesis.repositoryId, name) ?? null;
    if (kept !== null) {
      try {
        return decodeForward(kept, where);
      } catch (error) {
        if (!(error instanceof RozenError)) throw error;
        objects?.remove(genesis.repositoryId, name);
      }
    }
    try {
      const bytes = await store.get(name, MAX_FORWARD);
      const record = decodeForward(bytes, where);
      objects?.put(genesis.repositoryId, name, bytes);
      return record;
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
      if (error.code === 'not-found') throw this.#rolledBack(`${name} is gone, although there are later ones`);
      if (error.code !== 'corrupt') throw error;
      return error;
    }
  }

  #rolledBack(why: string): RozenError {
    return new RozenError('untrusted', `${this.#options.store.location} was rolled back: ${why}`, {
      hint: 'somebody restored an old copy of the repository or removed objects; bring the missing ones back',
    });
  }
}

function hex(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('hex');
}
