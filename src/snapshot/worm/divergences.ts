/** What diverged in a run: told in its report, and kept in the trees until somebody decides. */
import { INODE_FLAGS } from '../../archive/tree/schema.ts';
import type { WormPolicy } from '../../repository/snapshot-record.ts';
import type { DivergedFile } from '../backup/backup-types.ts';
import type { Displaced } from '../backup/comparison-types.ts';
import { FIELD, type Plan } from '../backup/plan.ts';
import type { Tally } from '../backup/tally.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { Archived, ArchivedRows } from './archived-rows.ts';
import { encodeSeenId, kindOf, type SeenRow } from './seen.ts';

const MAX_LISTED = 10_000;

export interface Divergence {
  path: Buffer;
  inode: number;
  archived: Archived;
  seen: SeenRow;
  action: DivergedFile['action'];
  exact: boolean;
  since: number | null;
  keptAs: Buffer | null;
}

export interface DivergencesOptions {
  plan: Plan;
  tally: Tally;
  rows: ArchivedRows;
  decide: (inode: number) => WormPolicy['onChange'];
  /** Of the snapshot to be. */
  sequence: number;
}

export class Divergences {
  readonly list: DivergedFile[] = [];
  count = 0;
  /** Of these, left as they are. */
  openCount = 0;
  /** By how much the archived contents, which the snapshot goes on having, are larger than those that the walk has met. */
  staysBytes = 0;
  readonly #options: DivergencesOptions;

  constructor(options: DivergencesOptions) {
    this.#options = options;
  }

  tell({ path, inode, archived, seen, action, exact, since, keptAs }: Divergence): void {
    this.count++;
    if (action === 'kept') this.openCount++;
    if (action !== 'accepted' && seen.contentId !== null) this.staysBytes += archived.size - seen.size;
    if (this.list.length >= MAX_LISTED) return;
    const facts = ({ size, mtimeSec, mtimeNs }: Archived | SeenRow) => ({ size, mtimeSec, mtimeNs });
    this.list.push({
      path,
      inode,
      kind: kindOf(archived, seen),
      action,
      archived: facts(archived),
      local: facts(seen),
      differsAt: seen.contentId === null ? null : seen.differsAt,
      exact,
      since,
      keptAs,
    });
  }

  /** Keeps in the trees what was seen. */
  see(inode: number, seen: SeenRow): void {
    const { version, size, mtimeSec, mtimeNs, firstSeen } = seen;
    const contentId = encodeSeenId(seen);
    this.#options.plan.seen.set(inode, { inode, version, contentId, size, mtimeSec, mtimeNs, firstSeen });
  }

  /** A file that diverged before and is as it was then. */
  still(inode: number, path: Buffer): void {
    const { rows, tally } = this.#options;
    const archived = rows.get(inode);
    const seen = rows.seen(inode, archived);
    if (seen === null) return;
    this.tell({ path, inode, archived, seen, action: 'kept', exact: true, since: seen.firstSeen, keptAs: null });
    tally.classified(path, '', { class: 'diverged', mode: S_IFREG, size: seen.size });
  }

  /**
   * Something of another kind stands in place of a file or folder. Answers whether that one stays current: else it counts as
   * deleted, and what stands there is new.
   */
  replaced({ inode, stat }: Pick<Displaced, 'inode' | 'stat'>, path: Buffer): boolean {
    const { sequence, decide, plan, rows, tally } = this.#options;
    const archived = rows.get(inode);
    const type = (stat.mode & S_IFMT) >>> 12;
    const before = rows.seen(inode, archived);
    // The time of a folder changes with what is in it: it is the same case all the same.
    const isFolder = (stat.mode & S_IFMT) === S_IFDIR;
    const isSame = before !== null && before.contentId === null && before.type === type;
    const known = isSame && (isFolder || before.mtimeSec === stat.mtimeSec) ? before : null;
    const { size, mtimeSec, mtimeNs } = stat;
    const fresh = { version: sequence, contentId: null, differsAt: 0, type, size, mtimeSec, mtimeNs };
    const seen: SeenRow = known ?? { ...fresh, firstSeen: sequence };
    const since = known?.firstSeen ?? null;
    const action = decide(inode) === 'accept' ? 'accepted' : 'kept';
    this.tell({ path, inode, archived, seen, action, exact: true, since, keptAs: null });
    if (action === 'accepted') return false;
    tally.classified(path, '', { class: 'diverged', mode: stat.mode, size });
    if (known === null) {
      plan.records.addFlags(rows.record(plan, inode), INODE_FLAGS.diverged);
      this.see(inode, seen);
    }
    return true;
  }

  /** What stood in place of this file or folder has gone; it is back. */
  broughtBack(inode: number, keptAs: Buffer | null): void {
    const { plan, rows } = this.#options;
    this.openCount--;
    plan.seen.delete(inode);
    let record = plan.records.count - 1;
    while (record >= 0 && plan.records.get(record, FIELD.inode) !== inode) record--;
    if (record < 0) record = rows.record(plan, inode);
    plan.records.set(record, FIELD.flags, plan.records.get(record, FIELD.flags) & ~INODE_FLAGS.diverged);
    const told = this.list.find((it) => it.inode === inode);
    if (told === undefined) return;
    told.action = 'restored';
    told.keptAs = keptAs;
  }
}
