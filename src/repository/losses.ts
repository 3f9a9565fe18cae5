import { type SnapshotNameParts, snapshotName } from './names.ts';

/** Snapshot records that an owner has declared lost: nobody refuses the repository because they are gone or damaged. */
export class Losses {
  readonly #names: ReadonlySet<string>;
  readonly #highest = new Map<string, number>();

  constructor(records: readonly SnapshotNameParts[] = []) {
    this.#names = new Set(records.map(({ tag, sequence, id }) => snapshotName(tag, sequence, id)));
    for (const { tag, sequence } of records) this.#highest.set(tag, Math.max(this.highest(tag), sequence));
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** Highest sequence that was lost of a lineage, 0 if none: a record that turns up again must not meet another one there. */
  highest(tag: string): number {
    return this.#highest.get(tag) ?? 0;
  }
}

export function isLost(losses: Losses, tag: string, record: Omit<SnapshotNameParts, 'tag'>): boolean {
  return losses.has(snapshotName(tag, record.sequence, record.id));
}
