import { RozenError } from '../errors.ts';
import { type Lineages, type LineageTop, type OnProblem, strangerIn } from './lineages.ts';
import type { Repository } from './repository.ts';
import { isLineageOf } from './secrets.ts';
import type { AnyRecord, SnapshotBody, SnapshotRecord } from './snapshot-record.ts';

/**
 * Records that stand in a lineage which is not their writer's. A tag is a hash of the set's name and the writer, so whoever knows
 * the name can tell: this machine for its own sets, a reader for all, as the name is in the sealed part of a record. An enrolled
 * machine could else put its own trees in the place of another one's newest snapshot.
 */
export class Strangers {
  readonly #repository: Repository;
  readonly #owners = new Map<string, Buffer>();
  /** `tag writer`. */
  readonly #found = new Set<string>();
  /** Of newest snapshots that are where they should be, by name: whoever asked for them opens them next. */
  readonly #genuine = new Map<string, SnapshotBody>();
  /** Those that are well signed, and whose sealed part does not open all the same. */
  readonly #hollow = new Map<string, RozenError>();

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  /** This lineage is this machine's own. */
  own(tag: string, writerId: Buffer): void {
    this.#owners.set(tag, writerId);
  }

  /** Why the record has no place in its lineage; null when it has, for all that is known yet. */
  unfit(record: AnyRecord): RozenError | null {
    const { name, tag, writerId } = record;
    const owner = this.#owners.get(tag);
    const isStranger = owner === undefined ? this.#found.has(key(tag, writerId)) : !owner.equals(writerId);
    return isStranger ? this.#strangerIn(record) : (this.#hollow.get(name) ?? null);
  }

  #strangerIn(record: AnyRecord): RozenError {
    return strangerIn(`${this.#repository.store.location}/${record.name}`, record);
  }

  /** The newest records of all lineages, and the snapshots that they stand for, strangers passed over. */
  async genuineHeads(
    lineages: Lineages,
    onProblem?: OnProblem,
  ): Promise<{ tops: LineageTop[]; heads: SnapshotRecord[] }> {
    for (;;) {
      const tops = await lineages.tops(onProblem);
      const heads: SnapshotRecord[] = [];
      const newest: [AnyRecord, SnapshotRecord][] = [];
      for (const { records } of tops) {
        const head = await lineages.headOf(records[0]!, onProblem);
        if (head === null) continue;
        heads.push(head);
        newest.push([records[0]!, head]);
      }
      // Each round passes over one writer more, in one lineage at least.
      if (!(await this.#find(newest))) return { tops, heads };
    }
  }

  /** True when some of these are unfit. */
  async #find(newest: readonly (readonly [AnyRecord, SnapshotRecord])[]): Promise<boolean> {
    // Who can only write has no key to the names of sets.
    if (this.#repository.identities === null) return false;
    const before = this.#found.size + this.#hollow.size;
    await Promise.all(
      newest.map(async ([record, head]) => {
        if (!(await this.#isGenuine(head))) this.#found.add(key(head.tag, head.writerId));
        else if (!record.writerId.equals(head.writerId)) this.#found.add(key(record.tag, record.writerId));
      }),
    );
    return this.#found.size + this.#hollow.size > before;
  }

  async #isGenuine(head: SnapshotRecord): Promise<boolean> {
    if (this.#genuine.has(head.name)) return true;
    try {
      this.#genuine.set(head.name, await this.#repository.openBody(head));
      return true;
    } catch (error) {
      if (!(error instanceof RozenError) || (error.code !== 'untrusted' && error.code !== 'corrupt')) return true;
      if (error.code === 'untrusted') return false;
      this.#hollow.set(head.name, error);
      return true;
    }
  }

  /** What was opened to find out. */
  opened({ name }: SnapshotRecord): SnapshotBody | null {
    return this.#genuine.get(name) ?? null;
  }

  /** Throws 'untrusted' for a record that is not where the set's name says. */
  async check(record: SnapshotRecord, set: string): Promise<void> {
    const secrets = await this.#repository.loadSecrets();
    if (isLineageOf(secrets, record, set)) return;
    throw this.#strangerIn(record);
  }
}

function key(tag: string, writerId: Buffer): string {
  return `${tag} ${writerId.toString('hex')}`;
}
