/**
 * A frozen set takes nothing new; but names and places may change in it, also from one file system to another, where only the
 * content tells. So new files that may be known ones are read, and what turns out to be new is left out. A new folder is
 * taken if something known is in it.
 */
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, TREES, type TreeRoots } from '../../archive/tree/schema.ts';
import type { Comparison } from '../backup/compare.ts';
import type { WormRules } from '../backup/comparison-types.ts';
import { FIELD, type Plan, STATE } from '../backup/plan.ts';
import type { Tally } from '../backup/tally.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { recogniseByContent } from './content-moves.ts';
import type { Judge } from './judge.ts';

export interface FrozenOptions {
  plan: Plan;
  base: { source: PageSource; roots: TreeRoots };
  comparison: Comparison;
  tally: Tally;
  judge: Judge;
  refused: WormRules['refused'];
}

/** After the walk and the judgement of what is known, before anything is sealed. */
export async function sortFrozen(options: FrozenOptions): Promise<void> {
  const { plan, judge } = options;
  const { records } = plan;
  const sizes = plan.tentative.length === 0 ? new Set<number>() : sizesMissed(options);
  for (const record of plan.tentative) {
    if (!sizes.has(records.get(record, FIELD.size))) continue;
    if (!(await judge.identify(record))) records.mark(record, STATE.dropped);
  }
  const candidates = plan.tentative;
  for (const { record, inode } of recogniseByContent({ ...options, candidates, frozen: true }))
    await judge.dispute(record, inode);
  leaveOut(options);
}

/** Sizes of known files that the walk did not meet. */
function sizesMissed({ base, comparison }: FrozenOptions): Set<number> {
  const sizes = new Set<number>();
  const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
  for (let on = inodes.seek(0); on; on = inodes.next()) {
    const page = inodes.page!;
    const row = inodes.index;
    if ((page.num(INODE.mode, row) & S_IFMT) !== S_IFREG || comparison.hasMet(page.num(INODE.inode, row))) continue;
    sizes.add(page.num(INODE.size, row));
  }
  return sizes;
}

function leaveOut({ plan, tally, refused }: FrozenOptions): void {
  const { records, names } = plan;
  const isLeft = (record: number): boolean => records.is(record, STATE.fresh) && !records.is(record, STATE.dropped);
  const out: number[] = [];
  const drop = (record: number): void => {
    records.mark(record, STATE.dropped);
    out.push(record);
  };
  for (const record of plan.tentative) if (isLeft(record)) drop(record);
  const groups = new Map<number, { first: number; end: number }>();
  for (const [at, parent] of names.parents.entries())
    groups.set(parent, { first: names.starts[at]!, end: names.starts[at + 1] ?? names.ops.count });
  // From the last one on, so that a folder comes after those that are in it.
  for (let record = records.count - 1; record >= 0; record--) {
    if (!isLeft(record) || (records.get(record, FIELD.mode) & S_IFMT) !== S_IFDIR) continue;
    const { first, end } = groups.get(records.get(record, FIELD.inode)) ?? { first: 0, end: 0 };
    let holds = false;
    for (let op = first; op < end && !holds; op++) holds = plan.nameOutcome(op) === 'set';
    if (holds) tally.classified(plan.pathOf(record), '', { class: 'new', mode: S_IFDIR, size: 0 });
    else drop(record);
  }
  const folders = new Set(out.map((record) => records.get(record, FIELD.inode)));
  for (const record of out.sort((a, b) => a - b)) {
    // The top of what is new tells of all that is in it.
    if (folders.has(records.get(record, FIELD.parent))) continue;
    refused(plan.pathOf(record), records.get(record, FIELD.mode), records.get(record, FIELD.size));
  }
}
