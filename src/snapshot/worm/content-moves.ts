/**
 * Recognises new files by their content once it was read: one whose content belongs to a file that is not where it was is
 * that file, under another name or on another file system, and keeps its inode number; one whose content is there as
 * well is a copy. New folders that hold what an old folder held are that folder.
 */
import type { PageSource } from '../../archive/tree/read.ts';
import type { TreeRoots } from '../../archive/tree/schema.ts';
import { joinName } from '../../posix/folder.ts';
import type { Comparison } from '../backup/compare.ts';
import { FIELD, NAME_OP, type Plan, STATE, VOID } from '../backup/plan.ts';
import type { Tally } from '../backup/tally.ts';
import type { Folder } from '../backup/walk.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { ContentIndex } from './content-index.ts';
import { KnownFiles } from './known-files.ts';

export interface ContentMovesOptions {
  plan: Plan;
  /** Records of files that may be known ones; those with a content id were read. */
  candidates: readonly number[];
  /** Nothing of what is new was told yet. */
  frozen: boolean;
  base: { source: PageSource; roots: TreeRoots } | null;
  comparison: Comparison;
  tally: Tally;
}

/** A new file under the name of an old one whose content it does not have, in a folder that turned out to be the old one. */
export interface Disputed {
  record: number;
  inode: number;
}

/**
 * Looks for known files among new ones. Answers those that are an old file with another content. In a frozen set, what is
 * not recognised stays unclassified.
 */
export function recogniseByContent(options: ContentMovesOptions): Disputed[] {
  const { plan, candidates } = options;
  const fresh = candidates.filter((record) => isNew(plan, record));
  if (fresh.length === 0) return [];
  const moves = new ContentMoves(options);
  moves.files(fresh);
  moves.folders();
  moves.report();
  moves.classify(fresh);
  return moves.disputed;
}

function isNew({ records }: Plan, record: number): boolean {
  if (!records.is(record, STATE.fresh) || records.is(record, STATE.dropped)) return false;
  return records.get(record, FIELD.content) > 0 || records.is(record, STATE.tentative);
}

/** Changes of the names in one folder: place of the group, first change, and the one behind the last. */
interface Group {
  at: number;
  first: number;
  end: number;
}

class ContentMoves {
  readonly #options: ContentMovesOptions;
  /** Null in a first backup. */
  readonly #known: KnownFiles | null;
  /** By record: changes of names that lead to it. */
  #ops: Map<number, number[]> | null = null;
  readonly #copies = new Set<number>();
  readonly disputed: Disputed[] = [];
  /** Records that became an old inode, and the folder which that was in. */
  readonly #taken = new Map<number, number>();
  /** Paths of folders among them. */
  readonly #folders = new Map<number, Buffer>();

  constructor(options: ContentMovesOptions) {
    this.#options = options;
    this.#known = options.base === null ? null : new KnownFiles(options.base);
  }

  files(fresh: readonly number[]): void {
    const { plan, comparison } = this.#options;
    const { records, contents } = plan;
    const known = this.#known;
    const old = known?.byContent() ?? null;
    const added = new ContentIndex(fresh.length);
    for (const record of fresh) {
      // Of a frozen set: its size says that it is no known one.
      if (records.get(record, FIELD.content) === 0) continue;
      const id = contents.get(records.get(record, FIELD.content));
      const holds = (inode: number): boolean => known?.contentId(inode)?.equals(id) === true;
      const name = this.#name(record);
      const gone = (inode: number): boolean => !comparison.hasMet(inode) && holds(inode);
      // Of several with this content, the one that had this name.
      let inode = old?.find(id, (it) => gone(it) && this.#hadName(it, name)) ?? -1;
      if (inode < 0) inode = old?.find(id, gone) ?? -1;
      if (inode >= 0) {
        this.#take(record, inode);
        continue;
      }
      const twin = added.find(id, (it) => contents.get(records.get(it, FIELD.content)).equals(id));
      if (twin >= 0 || (old?.find(id, holds) ?? -1) >= 0) this.#copies.add(record);
      if (twin < 0) added.add(id, record);
    }
  }

  /** Built with the first file that is recognised: a first backup of a million files has no use for it. */
  #opsOf(record: number): readonly number[] {
    this.#ops ??= this.#findOps();
    return this.#ops.get(record) ?? [];
  }

  #findOps(): Map<number, number[]> {
    const { ops } = this.#options.plan.names;
    const found = new Map<number, number[]>();
    for (let op = 0; op < ops.count; op++) {
      const record = ops.get(op, NAME_OP.record) - 1;
      if (record < 0) continue;
      const list = found.get(record);
      if (list === undefined) found.set(record, [op]);
      else list.push(op);
    }
    return found;
  }

  #name(record: number): Buffer {
    const { records, names } = this.#options.plan;
    return names.arena.bytes(records.get(record, FIELD.nameAt), records.get(record, FIELD.nameLength));
  }

  #hadName(inode: number, name: Buffer): boolean {
    const row = this.#known!.row(inode);
    return row !== null && this.#known!.isNamed(inode, row.parent, name);
  }

  /** The record is this old inode: its content is the one that it has, its attributes those of the new file. */
  #take(record: number, inode: number): void {
    const { plan, comparison } = this.#options;
    const { records } = plan;
    const { parent, version, isGone } = this.#known!.row(inode)!;
    records.set(record, FIELD.version, version);
    this.#become(record, inode);
    // A deleted file that is back where it was.
    const isBack = isGone && parent === records.get(record, FIELD.parent);
    records.mark(record, isBack ? STATE.returned : STATE.moved);
    this.#taken.set(record, parent);
    comparison.meet(inode);
  }

  #become(record: number, inode: number): void {
    const { records, names } = this.#options.plan;
    records.set(record, FIELD.inode, inode);
    const state = records.get(record, FIELD.state) & ~(STATE.fresh | STATE.content | STATE.tentative);
    records.set(record, FIELD.state, state | STATE.put | STATE.differs);
    for (const op of this.#opsOf(record)) names.ops.set(op, NAME_OP.inode, inode);
  }

  /**
   * A new folder becomes the old one that most of what was recognised in it came from, if that one is gone. Innermost
   * first, as a folder may hold nothing but folders.
   */
  folders(): void {
    const { plan, comparison } = this.#options;
    if (this.#taken.size === 0) return;
    const { records, names } = plan;
    const groups = new Map<number, Group>();
    for (const [at, parent] of names.parents.entries()) {
      groups.set(parent, { at, first: names.starts[at]!, end: names.starts[at + 1] ?? names.ops.count });
    }
    for (let record = records.count - 1; record >= 0; record--) {
      if (!records.is(record, STATE.fresh) || (records.get(record, FIELD.mode) & S_IFMT) !== S_IFDIR) continue;
      const group = groups.get(records.get(record, FIELD.inode));
      const old = group === undefined ? 0 : this.#origin(group);
      if (old === 0 || comparison.hasMet(old) || this.#known!.row(old)?.kind !== S_IFDIR) continue;
      this.#takeFolder(record, old, group!);
    }
  }

  #origin({ first, end }: Group): number {
    const { ops } = this.#options.plan.names;
    const counts = new Map<number, number>();
    let known = 0;
    for (let op = first; op < end; op++) {
      const from = this.#taken.get(ops.get(op, NAME_OP.record) - 1);
      if (from === undefined) continue;
      known++;
      counts.set(from, (counts.get(from) ?? 0) + 1);
    }
    for (const [from, count] of counts) if (count * 2 > known) return from;
    return 0;
  }

  #takeFolder(record: number, old: number, group: Group): void {
    const { plan, comparison, tally } = this.#options;
    const { records, names } = plan;
    const { parent, isGone } = this.#known!.row(old)!;
    const path = this.#pathOf(group);
    this.#become(record, old);
    records.mark(record, isGone ? STATE.returned : STATE.moved);
    this.#taken.set(record, parent);
    this.#folders.set(record, path);
    comparison.meet(old);
    if (!this.#options.frozen) tally.classes.new.folders--;
    tally.classified(path, '', { class: isGone ? 'returned' : 'moved', mode: S_IFDIR, size: 0 });
    for (let op = group.first; op < group.end; op++) {
      const child = names.ops.get(op, NAME_OP.record) - 1;
      if (child >= 0) records.set(child, FIELD.parent, old);
    }
    const folder: Folder = { path, text: path.toString('latin1'), inode: old, dev: 0, ino: 0, fd: -1 };
    this.#mergeNames(folder, group);
  }

  /** The names of the new folder, written down once more as changes of the old one. */
  #mergeNames(folder: Folder, group: Group): void {
    const { plan, comparison } = this.#options;
    const { names } = plan;
    const { ops, arena } = names;
    const old = this.#known!.namesIn(folder.inode);
    names.parents[group.at] = VOID;
    names.begin(folder.inode);
    let at = 0;
    const drop = (): void => {
      const { name, inode } = old[at++]!;
      names.remove(name);
      comparison.lost(inode, folder, name);
    };
    for (let op = group.first; op < group.end; op++) {
      const name = arena.string(ops.get(op, NAME_OP.at), ops.get(op, NAME_OP.length));
      while (at < old.length && old[at]!.name < name) drop();
      let inode = ops.get(op, NAME_OP.inode);
      const record = ops.get(op, NAME_OP.record) - 1;
      if (old[at]?.name === name) {
        const before = old[at++]!.inode;
        if (before !== inode && record >= 0 && isNew(plan, record) && this.#isGoneFile(before)) {
          this.disputed.push({ record, inode: before });
          comparison.meet(before);
          inode = before;
        } else if (before !== inode && plan.nameOutcome(op) === 'set') comparison.lost(before, folder, name);
      }
      if (plan.nameOutcome(op) !== 'set') continue;
      names.set(name, { inode, type: ops.get(op, NAME_OP.type) & 0xff, record, replaces: false });
    }
    while (at < old.length) drop();
  }

  #isGoneFile(inode: number): boolean {
    return !this.#options.comparison.hasMet(inode) && this.#known!.row(inode)?.kind === S_IFREG;
  }

  #pathOf({ first, end }: Group): Buffer {
    const { plan } = this.#options;
    for (let op = first; op < end; op++) {
      const record = plan.names.ops.get(op, NAME_OP.record) - 1;
      if (!this.#taken.has(record)) continue;
      const folder = this.#folders.get(record);
      if (folder !== undefined) return folder.subarray(0, folder.lastIndexOf(0x2f));
      return plan.folders[plan.records.get(record, FIELD.folder)]!;
    }
    return Buffer.alloc(0);
  }

  /** Tells what moved, the top of each move. */
  report(): void {
    const { plan, comparison } = this.#options;
    const { records } = plan;
    for (const [record, from] of this.#taken) {
      if (this.#isWhereItWas(record)) continue;
      const own = this.#folders.get(record);
      const path = own?.subarray(0, own.lastIndexOf(0x2f)) ?? plan.folders[records.get(record, FIELD.folder)]!;
      const inode = records.get(record, FIELD.inode);
      const parent = records.get(record, FIELD.parent);
      const folder: Folder = { path, text: path.toString('latin1'), inode: parent, dev: 0, ino: 0, fd: -1 };
      const name = this.#name(record).toString('latin1');
      comparison.recognised({ inode, from, folder, name, mode: records.get(record, FIELD.mode) });
    }
  }

  /** What feed.ts has left open. */
  classify(fresh: readonly number[]): void {
    const { plan, tally } = this.#options;
    const { records, folders } = plan;
    const disputed = new Set(this.disputed.map(({ record }) => record));
    for (const record of fresh) {
      if (disputed.has(record) || records.is(record, STATE.tentative)) continue;
      const is = (state: number): boolean => records.is(record, state);
      const taken = this.#taken.has(record);
      const settled = taken && this.#isWhereItWas(record);
      const what = is(STATE.returned)
        ? 'returned'
        : settled
          ? 'metadata'
          : taken
            ? 'moved'
            : this.#copies.has(record)
              ? 'copied'
              : 'new';
      const path = joinName(folders[records.get(record, FIELD.folder)]!, this.#name(record).toString('latin1'));
      tally.classified(path, '', { class: what, mode: S_IFREG, size: records.get(record, FIELD.size) });
    }
  }

  /** True for a file under its old name in its old folder, which may itself have moved. */
  #isWhereItWas(record: number): boolean {
    const { records } = this.#options.plan;
    const folder = records.get(record, FIELD.parent);
    return this.#known!.isNamed(records.get(record, FIELD.inode), folder, this.#name(record));
  }
}
