import { corrupt, RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { MAX_SNAPSHOT_RECORD } from './format.ts';
import type { Losses } from './losses.ts';
import {
  afterLineage,
  lineagePrefix,
  parseSnapshotName,
  SNAPSHOTS_PREFIX,
  type SnapshotNameParts,
  snapshotName,
} from './names.ts';
import type { ObjectCache } from './object-cache.ts';
import type { RecordReference } from './pin.ts';
import { type AnyRecord, decodeRecordBody, decodeRecordOuter, type SnapshotRecord } from './snapshot-record.ts';

/** Called instead of throwing for a record that is damaged; untrusted stores are never excused. */
export type OnProblem = (error: RozenError, name: string) => void;

export interface LineagesOptions {
  store: ObjectStore;
  /** Records that were read before, of a remote store. */
  objects?: ObjectCache | null | undefined;
  repositoryId: Buffer;
  /** Whether the signature is by that writer, and the writer enrolled: throws 'untrusted' otherwise. */
  checkWriter: (outer: { writerId: Buffer; body: Buffer; signature: Buffer }, what: string) => Promise<void>;
  /** The records that the store must still have, by lineage tag. */
  pinned: Map<string, RecordReference>;
  /** What an owner has declared lost; asked for each time, as a later config may say more. */
  losses: () => Pick<Losses, 'has' | 'highest'>;
  /** Why a record that is well signed has no place in its lineage; null when it has. It is told, passed over, and holds nobody up. */
  unfit: (record: AnyRecord) => RozenError | null;
  /** Takes in later configs, before a record that is gone is held against the store. */
  refresh: () => Promise<void>;
}

/** The newest record of a lineage; several when one writer's state was used on two machines (a fork: the first counts). */
export interface LineageTop {
  tag: string;
  records: AnyRecord[];
  /** Highest sequence that any name shows: above that of `records` when the newest record is damaged. */
  sequence: number;
}

interface NewestNames {
  tag: string;
  sequence: number;
  names: string[];
}

/**
 * A name of a record that cannot be read counts as taken when it is so near to the one before it: no more runs than that can
 * have been lost, and a name that somebody made up must not use up all numbers.
 */
const MAX_GAP = 1 << 20;
/** Predecessors that `heads` follows from a new head towards the pinned record; `records` follows all of them. */
const MAX_STEPS = 64;
const PARALLEL = 16;
/** A listing comes in pages of so many names: going on over the rest of a page costs nothing. */
const LIST_PAGE = 1000;

/** Reads and checks the records of all lineages. Records are immutable, so each is read once in the life of this object. */
export class Lineages {
  readonly #options: LineagesOptions;
  readonly #known = new Map<string, AnyRecord>();

  constructor(options: LineagesOptions) {
    this.#options = options;
  }

  /** The checked record under an object name. */
  async read(name: string): Promise<AnyRecord> {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const { store, objects, repositoryId } = this.#options;
    const kept = objects?.get(repositoryId, name) ?? null;
    let record = kept === null ? null : await this.#check(name, kept).catch(() => null);
    if (record === null) {
      if (kept !== null) objects?.remove(repositoryId, name);
      const bytes = await store.get(name, MAX_SNAPSHOT_RECORD);
      record = await this.#check(name, bytes);
      objects?.put(repositoryId, name, bytes);
    }
    this.#known.set(name, record);
    return record;
  }

  async #check(name: string, bytes: Buffer): Promise<AnyRecord> {
    const { store, checkWriter } = this.#options;
    const what = `${store.location}/${name}`;
    const outer = decodeRecordOuter(bytes, what);
    await checkWriter(outer, what);
    return decodeRecordBody(outer, { name, bytes, what });
  }

  /**
   * The newest records of every lineage, after the checks that need no history: nothing pinned is missing, no head that
   * another head has seen is missing. One listing as long as there are few records, and one read for each head that is new
   * to this object.
   */
  async tops(onProblem?: OnProblem): Promise<LineageTop[]> {
    const newest = await this.#newestNames();
    const read = await Promise.all(newest.map((names) => this.#readTop(names, onProblem)));
    const tops = read.filter(({ records }) => records.length > 0);
    await this.#checkPins(tops, onProblem);
    await this.#checkSeen(tops);
    return tops;
  }

  /** The records that this machine has seen last, when the store cannot be asked whether there are newer ones. */
  async remembered(): Promise<AnyRecord[]> {
    const records: AnyRecord[] = [];
    for (const [tag, { sequence, id, hash }] of this.#options.pinned) {
      const name = snapshotName(tag, sequence, id);
      if (this.#isLost(name)) continue;
      const record = await this.read(name);
      if (!record.hash.equals(hash)) throw this.#replaced(record.name, 'the state of this machine');
      records.push(record);
    }
    return records;
  }

  /**
   * The snapshot that a top stands for: itself, or the one that it found unchanged. Null when no snapshot of the lineage
   * can be read (told to `onProblem`).
   */
  async headOf(record: AnyRecord, onProblem?: OnProblem): Promise<SnapshotRecord | null> {
    if (record.kind === 'snapshot') return { ...record, confirmed: null };
    try {
      const base = await this.#follow(record, record.base);
      if (base === null) return await this.#newestReadable(record.tag);
      if (base.kind !== 'snapshot') throw corrupt(`${record.name}: refers to a record that is no snapshot`);
      return { ...base, confirmed: { timeSec: record.timeSec, timeNs: record.timeNs } };
    } catch (error) {
      if (onProblem === undefined || !isCorrupt(error)) throw error;
      onProblem(error, snapshotName(record.tag, record.base.sequence, record.base.id));
      return this.#newestReadable(record.tag);
    }
  }

  /** The way around damage: the newest snapshot of the lineage that is whole. */
  async #newestReadable(tag: string): Promise<SnapshotRecord | null> {
    for await (const { name } of this.#options.store.list(lineagePrefix(tag))) {
      if (parseSnapshotName(name) === null) continue;
      const record = await this.#tolerant(name, () => {});
      if (record?.kind === 'snapshot') return { ...record, confirmed: null };
    }
    return null;
  }

  /** An older record of the same lineage, null when it is declared lost; 'untrusted' when the store no longer shows it as it was. */
  async #follow(record: AnyRecord, reference: RecordReference): Promise<AnyRecord | null> {
    const name = snapshotName(record.tag, reference.sequence, reference.id);
    let found: AnyRecord;
    try {
      found = await this.read(name);
    } catch (error) {
      if (isCorrupt(error) && this.#isLost(name)) return null;
      if (!(error instanceof RozenError) || error.code !== 'not-found') throw error;
      await this.#mustBeLost(name, followedBy(record));
      return null;
    }
    if (!found.hash.equals(reference.hash)) throw this.#replaced(name, record.name);
    return found;
  }

  /** Every record, newest first within a lineage, with every link of every chain checked; what `tops` checks is not. */
  async all(onProblem?: OnProblem): Promise<AnyRecord[]> {
    const names: string[] = [];
    for await (const { name } of this.#options.store.list(SNAPSHOTS_PREFIX)) {
      if (parseSnapshotName(name) !== null) names.push(name);
    }
    const records: (AnyRecord | null)[] = new Array(names.length).fill(null);
    let next = 0;
    const work = async () => {
      for (let index = next++; index < names.length; index = next++)
        records[index] = await this.#tolerant(names[index]!, onProblem);
    };
    await Promise.all(Array.from({ length: PARALLEL }, work));
    const present = new Set(names);
    for (const record of records) {
      if (record !== null) await this.#checkLink(record, present);
    }
    return records.filter((record) => record !== null);
  }

  async #checkLink(record: AnyRecord, present: Set<string>): Promise<void> {
    const references = record.kind === 'unchanged' ? [record.previous, record.base] : [record.previous];
    for (const reference of references) {
      if (reference === null) continue;
      const name = snapshotName(record.tag, reference.sequence, reference.id);
      if (!present.has(name)) await this.#mustBeLost(name, followedBy(record));
      const known = this.#known.get(name);
      if (known !== undefined && !known.hash.equals(reference.hash)) throw this.#replaced(name, record.name);
    }
  }

  /** Of each lineage the names with its highest sequence. */
  async #newestNames(): Promise<NewestNames[]> {
    const found: NewestNames[] = [];
    let after: string | null = SNAPSHOTS_PREFIX;
    while (after !== null) {
      const from: string = after;
      after = null;
      let listed = 0;
      for await (const { name } of this.#options.store.list(SNAPSHOTS_PREFIX, { after: from })) {
        listed++;
        const parts = parseSnapshotName(name);
        if (parts === null) continue;
        const last = found.at(-1);
        if (last?.tag !== parts.tag) found.push({ tag: parts.tag, sequence: parts.sequence, names: [name] });
        else if (parts.sequence === last.sequence) last.names.push(name);
        else if (listed >= LIST_PAGE) {
          after = afterLineage(parts.tag);
          break;
        }
      }
    }
    return found;
  }

  async #readTop({ tag, sequence, names }: NewestNames, onProblem?: OnProblem): Promise<LineageTop> {
    const read = await Promise.all(names.map((name) => this.#tolerant(name, onProblem)));
    const records = read.filter((record) => record !== null);
    // A damaged newest record is told, and the one before it stands in.
    if (records.length === 0) records.push(...(await this.#topBelow(tag, new Set(names), onProblem)));
    const newest = records[0]?.sequence ?? 0;
    const isTaken = sequence - newest <= MAX_GAP && !names.every((name) => this.passesOver(name));
    return { tag, records, sequence: Math.max(isTaken ? sequence : newest, this.#options.losses().highest(tag)) };
  }

  async #topBelow(tag: string, tried: Set<string>, onProblem?: OnProblem): Promise<AnyRecord[]> {
    const records: AnyRecord[] = [];
    for await (const { name } of this.#options.store.list(lineagePrefix(tag))) {
      const parts = parseSnapshotName(name);
      if (parts === null || tried.has(name)) continue;
      if (records.length > 0 && parts.sequence !== records[0]!.sequence) break;
      const record = await this.#tolerant(name, onProblem);
      if (record !== null) records.push(record);
    }
    return records;
  }

  /** True for a record that was read, and found unfit. */
  passesOver(name: string): boolean {
    const record = this.#known.get(name);
    return record !== undefined && this.#options.unfit(record) !== null;
  }

  async #tolerant(name: string, onProblem: OnProblem | undefined): Promise<AnyRecord | null> {
    try {
      const record = await this.read(name);
      const why = this.#options.unfit(record);
      if (why === null) return record;
      onProblem?.(why, name);
      return null;
    } catch (error) {
      if (!isCorrupt(error)) throw error;
      if (this.#isLost(name)) return null;
      if (onProblem === undefined) throw error;
      onProblem(error, name);
      return null;
    }
  }

  async #checkPins(tops: LineageTop[], onProblem: OnProblem | undefined): Promise<void> {
    const byTag = new Map(tops.map((top) => [top.tag, top]));
    for (const [tag, pinned] of this.#options.pinned) {
      const name = snapshotName(tag, pinned.sequence, pinned.id);
      const newest = byTag.get(tag)?.records[0];
      if (newest?.sequence === pinned.sequence && newest.id.equals(pinned.id)) {
        if (!newest.hash.equals(pinned.hash)) throw this.#replaced(name, 'the state of this machine');
        continue;
      }
      if (!(await this.#isStored(name))) {
        await this.#mustBeLost(name, 'which this machine has seen');
        continue;
      }
      if (newest !== undefined) await this.#walkDown(newest, pinned, onProblem);
    }
  }

  /** From a new head to the pinned record: what lies between must all be there. */
  async #walkDown(newest: AnyRecord, pinned: RecordReference, onProblem: OnProblem | undefined): Promise<void> {
    let record = newest;
    for (let steps = 0; steps < MAX_STEPS && record.previous !== null && record.sequence > pinned.sequence; steps++) {
      const { previous } = record;
      try {
        const before = await this.#follow(record, previous);
        // What lies before a loss is for `records` to check.
        if (before === null) return;
        record = before;
      } catch (error) {
        if (onProblem === undefined || !isCorrupt(error)) throw error;
        // It is there, so nothing was taken away; what lies before it is for `records` to check.
        onProblem(error, snapshotName(record.tag, previous.sequence, previous.id));
        return;
      }
      if (previous.id.equals(pinned.id) && !previous.hash.equals(pinned.hash)) {
        throw this.#replaced(record.name, 'the state of this machine');
      }
    }
  }

  /** Each head names the heads that its writer saw: a later or equal one must be here. */
  async #checkSeen(tops: LineageTop[]): Promise<void> {
    const byTag = new Map(tops.map((top) => [top.tag, top]));
    for (const { records } of tops) {
      for (const record of records) {
        for (const seen of record.seen) {
          if (!(await this.#isShown(seen, byTag.get(seen.tag)))) {
            const name = snapshotName(seen.tag, seen.sequence, seen.id);
            await this.#mustBeLost(name, `which ${record.name} has seen`);
          }
        }
      }
    }
  }

  async #isShown(seen: SnapshotNameParts, top: LineageTop | undefined): Promise<boolean> {
    if (top?.records.some((record) => record.sequence > seen.sequence || record.id.equals(seen.id))) return true;
    return this.#isStored(snapshotName(seen.tag, seen.sequence, seen.id));
  }

  async #isStored(name: string): Promise<boolean> {
    return (await this.#options.store.stat(name)) !== null;
  }

  #isLost(name: string): boolean {
    return this.#options.losses().has(name);
  }

  /** For a record that is gone: throws 'untrusted' unless the newest config says that it is lost. `by` tells who knows it. */
  async #mustBeLost(name: string, by: string): Promise<void> {
    if (this.#isLost(name)) return;
    await this.#options.refresh();
    if (this.#isLost(name)) return;
    throw new RozenError('untrusted', `${this.#options.store.location} was rolled back: ${name}, ${by}, is gone`, {
      hint:
        'somebody restored an old copy of the repository or removed snapshots; bring the missing objects back, ' +
        'or, if they are lost for good, let an owner say so: rozen repair --accept-loss',
    });
  }

  #replaced(name: string, by: string): RozenError {
    return new RozenError(
      'untrusted',
      `${this.#options.store.location}/${name} is not the record that ${by} refers to`,
      {
        hint: 'the object was replaced; restore it from a copy of the repository',
      },
    );
  }
}

/** The error for a record that another writer than the lineage's own has signed. */
export function strangerIn(what: string, { writerId }: Pick<AnyRecord, 'writerId'>): RozenError {
  return new RozenError(
    'untrusted',
    `${what} is in the lineage of another machine than writer ${writerId.toString('hex').slice(0, 8)}, who signed it: it is passed over`,
    { hint: 'somebody uses the writer file of that machine: see rozen key list' },
  );
}

function followedBy(record: AnyRecord): string {
  return `which ${record.name} follows`;
}

function isCorrupt(error: unknown): error is RozenError {
  return error instanceof RozenError && error.code === 'corrupt';
}

/** The same damage is met on several ways; it is told once. */
export function once(tell: OnProblem | undefined): OnProblem | undefined {
  if (tell === undefined) return undefined;
  const told = new Set<string>();
  return (error, name) => {
    if (told.has(name)) return;
    told.add(name);
    tell(error, name);
  };
}
