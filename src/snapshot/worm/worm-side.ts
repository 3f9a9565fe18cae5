/** What a run does for a WORM set besides walking and reading: rules for the comparison, judgement, putting back, report. */
import { linkSync } from 'node:fs';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, TREES, type TreeRoots } from '../../archive/tree/schema.ts';
import { RozenError } from '../../errors.ts';
import { joinName } from '../../posix/folder.ts';
import { lstat, type Stat } from '../../posix/stat.ts';
import { DEFAULT_POLICY, type WormPolicy } from '../../repository/snapshot-record.ts';
import type { BackupOptions, WormReport } from '../backup/backup-types.ts';
import type { Comparison, WormRules } from '../backup/compare.ts';
import { InodeSet } from '../backup/inode-set.ts';
import type { Lineage } from '../backup/lineage.ts';
import { FIELD, type Plan, STATE } from '../backup/plan.ts';
import { layOutSources } from '../backup/sources.ts';
import { type Tally, describe as words } from '../backup/tally.ts';
import type { Folder } from '../backup/walk.ts';
import { InodeLookup, S_IFDIR, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { ArchivedContent, localTrees } from './archived.ts';
import { recogniseByContent } from './content-moves.ts';
import { Judge } from './judge.ts';
import { LocalHasher } from './local-hash.ts';
import { type NameConflict, type NewFile, nameConflicts } from './other-machines.ts';
import { dueFiles, oldestProof, Proofs } from './proofs.ts';
import { besideName } from './put-back.ts';
import { setInfo } from './set-info.ts';

const MAX_LISTED = 10_000;

export interface WormSideOptions {
  options: BackupOptions;
  lineage: Lineage;
  plan: Plan;
  tally: Tally;
  base: { source: PageSource; roots: TreeRoots } | null;
  /** Epoch milliseconds. */
  walkedAt: number;
  pump: () => void;
}

interface Lost {
  inode: number;
  folder: Folder;
  name: string;
  mode: number;
}

export class WormSide {
  /** What holds for this run. */
  readonly policy: WormPolicy;
  /** What the set keeps. */
  readonly kept: WormPolicy;
  readonly rules: WormRules;
  /** Content id of no bytes. */
  readonly emptyId: Buffer;
  readonly #options: WormSideOptions;
  readonly #judge: Judge | null;
  readonly #archived: ArchivedContent | null;
  readonly #proofs: Proofs;
  readonly #refused: Buffer[] = [];
  #refusedCount = 0;
  readonly #lost: Lost[] = [];
  readonly #displaced: Lost[] = [];
  #moves: WormReport['moves'] = [];
  #conflicts: NameConflict[] = [];

  private constructor(options: WormSideOptions, contentIdKey: Buffer) {
    this.#options = options;
    const { options: run, lineage, base, plan, tally } = options;
    const known = base === null ? DEFAULT_POLICY : (setInfo(base).policy ?? DEFAULT_POLICY);
    this.policy = { ...known, ...run.policy };
    this.kept = base === null ? this.policy : known;
    this.emptyId = new LocalHasher(contentIdKey).emptyId;
    this.#proofs = new Proofs(lineage.local);
    const record = lineage.slot.base;
    const dryRun = run.dryRun ?? false;
    const decide = (inode: number): WormPolicy['onChange'] => {
      if (dryRun) return 'warn';
      if (run.decisions === undefined) return this.policy.onChange;
      const action = run.decisions.get(inode)?.action ?? 'repair';
      return action === 'repair' ? 'warn' : action;
    };
    const repairs = (inode: number): boolean => run.decisions?.get(inode)?.action === 'repair';
    if (base === null || record === null) {
      this.#archived = null;
      this.#judge = null;
    } else {
      const trees = localTrees(base);
      const mayRead = run.readArchive ?? false;
      this.#archived = new ArchivedContent({ repository: run.repository, record, trees, mayRead });
      this.#judge = new Judge({
        plan,
        tally,
        base,
        decide,
        repairs,
        keepDiverged: run.keepDiverged ?? true,
        sequence: lineage.slot.sequence,
        contentIdKey,
        archived: this.#archived,
        proofs: this.#proofs,
        now: Math.floor(options.walkedAt / 1000),
        signal: run.signal,
        pump: options.pump,
      });
    }
    let due: InodeSet | null = null;
    if (run.decisions !== undefined) {
      due = new InodeSet();
      for (const inode of run.decisions.keys()) due.add(inode);
    } else if (base !== null && run.rehash !== undefined) due = dueFiles(base, this.#proofs, run.rehash);
    this.rules = {
      acceptNew: base === null || this.policy.acceptNew,
      trustSeen: run.decisions === undefined && (dryRun || this.policy.onChange === 'warn'),
      due,
      refused: (path, mode, size) => {
        this.#refusedCount++;
        if (this.#refused.length < MAX_LISTED) this.#refused.push(path);
        tally.classified(path, '', { class: 'refused', mode, size });
      },
      stillDiverged: (inode, path) => this.#judge?.still(inode, path),
      replaced: (inode, path, stat) => this.#replaced(inode, path, stat),
      restores: (lost) => {
        if (dryRun || this.policy.onDelete !== 'restore') return false;
        this.#lost.push(lost);
        return true;
      },
    };
  }

  static async open(options: WormSideOptions): Promise<WormSide> {
    const { contentIdKey } = await options.options.repository.loadSecrets();
    return new WormSide(options, contentIdKey);
  }

  #replaced(inode: number, path: Buffer, stat: Stat): boolean {
    const isFolder = (stat.mode & S_IFMT) === S_IFDIR;
    const stays = this.#judge!.replaced(inode, path, stat, isFolder);
    if (stays && !this.#options.options.dryRun && this.policy.onChange === 'restore') {
      const slash = path.lastIndexOf(0x2f);
      const parent = path.subarray(0, slash);
      const folder: Folder = { path: parent, text: parent.toString('latin1'), inode: 0, dev: 0, fd: -1 };
      this.#displaced.push({ inode, folder, name: path.toString('latin1', slash + 1), mode: 0 });
    }
    return stays;
  }

  /** Looks at the files that were decided on, instead of a walk. */
  lookAtDecided(comparison: Comparison): void {
    const { options, base, tally } = this.#options;
    const inodes = new Cursor(base!.source, TREES.inodes, base!.roots.inodes);
    for (const [inode, { action, path }] of options.decisions ?? []) {
      if (!inodes.find(inode)) continue;
      const slash = path.lastIndexOf(0x2f);
      const parent = path.subarray(0, Math.max(1, slash));
      const name = path.toString('latin1', slash + 1);
      const number = inodes.page!.num(INODE.parent, inodes.index);
      const folder: Folder = { path: parent, text: parent.toString('latin1'), inode: number, dev: 0, fd: -1 };
      try {
        const stat = lstat(path);
        if ((stat.mode & S_IFMT) === S_IFREG) comparison.again(folder, { name, stat, inode });
        else if (action === 'restore') {
          this.#judge!.replaced(inode, path, stat, false);
          this.#displaced.push({ inode, folder, name, mode: 0 });
        } else throw new RozenError('usage', 'what stands in place of a file cannot be its new content');
      } catch (error) {
        tally.problem({ kind: 'unreadable', path, message: words(error) });
      }
    }
  }

  /** Holds what is in doubt against the archive. Files to be stored are in the plan afterwards. */
  async judge(): Promise<void> {
    await this.#judge?.run();
  }

  /** When all was read: what moved, what is gone; then puts back what the policy says. */
  async settle(comparison: Comparison): Promise<void> {
    const { plan, base, tally, options } = this.#options;
    if (options.decisions === undefined) {
      for (const { record, inode } of recogniseByContent({ plan, base, comparison, tally }))
        await this.#judge!.dispute(record, inode);
      await this.#findConflicts();
      comparison.finish();
    }
    this.#moves = comparison.moves.slice(0, MAX_LISTED).map(({ from, to, mode }) => ({ from, to, mode }));
    for (const lost of this.#lost) {
      if (await this.#bringBack(lost))
        tally.classified(lost.folder.path, lost.name, { class: 'restored', mode: lost.mode, size: 0 });
    }
    for (const lost of this.#displaced) {
      const path = joinName(lost.folder.path, lost.name);
      let keptAs: Buffer | null = null;
      if (this.#options.options.keepDiverged ?? true)
        keptAs = await besideName(path, 'diverged', async (name) => linkSync(path, name));
      if (await this.#bringBack(lost)) this.#judge!.broughtBack(lost.inode, keptAs);
    }
  }

  /** Only with a key at hand: the other machines' trees must be read. */
  async #findConflicts(): Promise<void> {
    const { options, lineage, plan } = this.#options;
    const { repository, set, readArchive, dryRun } = options;
    if (dryRun || (repository.identities === null && !(readArchive === true && (await repository.unlock())))) return;
    const top = layOutSources(options.paths).top.length;
    const { records, names, folders, contents } = plan;
    const files = function* (): Generator<NewFile> {
      for (const record of plan.reading) {
        if (!records.is(record, STATE.fresh) || records.is(record, STATE.dropped)) continue;
        const name = names.arena.string(records.get(record, FIELD.nameAt), records.get(record, FIELD.nameLength));
        const path = joinName(folders[records.get(record, FIELD.folder)]!, name);
        yield { path, inside: path.subarray(top), contentId: contents.get(records.get(record, FIELD.content)) };
      }
    };
    if (files().next().done === true) return;
    this.#conflicts = await nameConflicts({ repository, set, own: lineage.slot.tag, files });
  }

  /** Restores an entry, and what is below it, to where it was. */
  async #bringBack({ inode, folder, name, mode }: Lost): Promise<boolean> {
    const { options, lineage, tally } = this.#options;
    const { signal } = options;
    const record = lineage.slot.base!;
    const reader = await this.#archived!.reader();
    const { restore } = await import('../restore/restore.ts');
    const { describe } = await import('../view/listing.ts');
    const path = joinName(folder.path, name);
    try {
      const inodes = new InodeLookup(reader);
      const attributes = await reader.archives.retry(() => inodes.get(inode));
      const place = {
        reader,
        snapshot: await describe(options.repository, record),
        sequence: record.sequence,
        inode,
        path: [Buffer.from(name, 'latin1')],
        attributes,
      };
      const isFolder = (mode & S_IFMT) === S_IFDIR;
      const report = await restore({
        place,
        target: isFolder ? path : folder.path,
        ...(signal === undefined ? {} : { signal }),
      });
      for (const problem of report.problems)
        tally.problem({ kind: 'unreadable', path, message: `not restored: ${problem.message}` });
      return report.problems.length === 0;
    } catch (error) {
      if (error instanceof RozenError && error.code === 'interrupted') throw error;
      tally.problem({ kind: 'unreadable', path, message: `not restored: ${words(error)}` });
      return false;
    }
  }

  /** Wipes keys of archives that were opened. */
  close(): void {
    this.#archived?.close();
  }

  get bytesRead(): number {
    return this.#judge?.bytesRead ?? 0;
  }

  get openCount(): number {
    return this.#judge?.openCount ?? 0;
  }

  /** What a snapshot says of the set when it looked at single files only. */
  statsAfterDecisions(base: { source: PageSource; roots: TreeRoots }): Record<string, number> {
    const { stats } = setInfo(base);
    const settled = (this.#judge?.divergedCount ?? 0) - this.openCount;
    return { ...stats, diverged: Math.max(0, (stats.diverged ?? 0) - settled) };
  }

  /** After the commit, or when nothing was to be committed. */
  saveProofs(): void {
    this.#proofs.save();
  }

  report(): WormReport {
    const { base, options } = this.#options;
    return {
      policy: this.policy,
      diverged: this.#judge?.diverged ?? [],
      divergedCount: this.#judge?.divergedCount ?? 0,
      openCount: this.openCount,
      moves: this.#moves,
      conflicts: this.#conflicts,
      refused: this.#refused,
      refusedCount: this.#refusedCount,
      proven: this.#judge?.proven ?? { files: 0, bytes: 0 },
      oldestProof: base === null || options.rehash === undefined ? null : oldestProof(base, this.#proofs),
    };
  }
}
