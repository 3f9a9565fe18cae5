/** Names by which a file can be read whose first one has gone since the walk. */
import { emptyStat, lstat } from '../../posix/stat.ts';
import { FIELD, LINK, NAME_OP, type Plan, REPLACES, STATE } from './plan.ts';

interface Names {
  /** Rows of `plan.links` that were not tried yet, in walk order. */
  links: number[];
  /** Changes that give these names to a new file, that of its present one first. */
  ops: number[];
}

const stat = emptyStat();

/** To be made when the walk is over. Looks once through all names, whatever number of files it is for. */
export class OtherNames {
  readonly #plan: Plan;
  readonly #names = new Map<number, Names>();

  constructor(plan: Plan, records: Iterable<number>) {
    this.#plan = plan;
    for (const record of records) this.#names.set(record, { links: [], ops: [] });
    for (let row = 0; row < plan.links.count; row++) this.#names.get(plan.links.get(row, LINK.record))?.links.push(row);
    const { ops } = plan.names;
    for (let op = 0; op < ops.count; op++) this.#names.get(ops.get(op, NAME_OP.record) - 1)?.ops.push(op);
  }

  /** The present name of a record has gone. Takes the next one under which the very file still is; false: there is none. */
  next(record: number, gone: (path: Buffer) => void): boolean {
    const { records, links } = this.#plan;
    const names = this.#names.get(record)!;
    gone(this.#plan.pathOf(record));
    for (let row = names.links.shift(); row !== undefined; row = names.links.shift()) {
      this.#forget(record, names.ops);
      for (const field of ['folder', 'parent', 'nameAt', 'nameLength'] as const)
        records.set(record, FIELD[field], links.get(row, LINK[field]));
      const path = this.#plan.pathOf(record);
      if (this.#isThere(record, path)) return true;
      gone(path);
    }
    return false;
  }

  /** A new file does not get the name that has gone. An old one keeps it, as it does when it has no other one. */
  #forget(record: number, ops: number[]): void {
    const { names, records } = this.#plan;
    const op = records.is(record, STATE.fresh) ? ops.shift() : undefined;
    if (op === undefined) return;
    const replaces = (names.ops.get(op, NAME_OP.type) & REPLACES) !== 0;
    this.#plan.forgotten.files++;
    this.#plan.forgotten.bytes += records.get(record, FIELD.size);
    names.fill(op, { inode: 0, type: 0, record: -1 });
    if (!replaces) names.cancel(op);
  }

  #isThere(record: number, path: Buffer): boolean {
    const { records } = this.#plan;
    try {
      lstat(path, stat);
    } catch {
      return false;
    }
    return stat.dev === records.get(record, FIELD.sourceDev) && stat.ino === records.get(record, FIELD.sourceIno);
  }
}
