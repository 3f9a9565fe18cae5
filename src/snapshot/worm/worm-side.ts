/** What a run does for a WORM set besides walking and reading: rules for the comparison, judgement, putting back, report. */
import type { PageSource } from '../../archive/tree/read.ts';
import type { TreeRoots } from '../../archive/tree/schema.ts';
import { joinName } from '../../posix/folder.ts';
import { DEFAULT_POLICY, type WormPolicy } from '../../repository/snapshot-record.ts';
import type { BackupOptions, WormReport } from '../backup/backup-types.ts';
import type { Comparison } from '../backup/compare.ts';
import type { Displaced, WormRules } from '../backup/comparison-types.ts';
import { InodeSet } from '../backup/inode-set.ts';
import type { Lineage } from '../backup/lineage.ts';
import { FIELD, type Plan, STATE } from '../backup/plan.ts';
import { layOutSources } from '../backup/sources.ts';
import type { Tally } from '../backup/tally.ts';
import type { Folder } from '../backup/walk.ts';
import { ArchivedContent, localTrees } from './archived.ts';
import { ArchivedRows } from './archived-rows.ts';
import { BringBack, type Lost } from './bring-back.ts';
import { recogniseByContent } from './content-moves.ts';
import { lookAtDecided } from './decided.ts';
import { Divergences } from './divergences.ts';
import { sortFrozen } from './frozen.ts';
import { Judge } from './judge.ts';
import { LocalHasher } from './local-hash.ts';
import { type NameConflict, type NewFile, nameConflicts, otherMachines } from './other-machines.ts';
import { dueFiles, oldestProof, Proofs } from './proofs.ts';
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
  readonly #divergences: Divergences | null;
  readonly #rows: ArchivedRows | null;
  readonly #archived: ArchivedContent | null;
  readonly #proofs: Proofs;
  readonly #refused: Buffer[] = [];
  #refusedCount = 0;
  readonly #lost: Lost[] = [];
  readonly #displaced: Lost[] = [];
  #moves: WormReport['moves'] = [];
  /** What a look at single entries has added to the set. */
  #grown = { files: 0, bytes: 0 };
  #conflicts: NameConflict[] = [];
  #uncompared: string[] = [];

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
      return run.decisions === undefined ? this.policy.onChange : (run.decisions.get(inode)?.action ?? 'warn');
    };
    if (base === null || record === null) {
      this.#archived = null;
      this.#judge = null;
      this.#divergences = null;
      this.#rows = null;
    } else {
      const trees = localTrees(base);
      const mayRead = run.readArchive ?? false;
      this.#archived = new ArchivedContent({ repository: run.repository, record, trees, mayRead });
      const rows = new ArchivedRows(base);
      this.#rows = rows;
      const { sequence } = lineage.slot;
      const divergences = new Divergences({ plan, tally, rows, decide, sequence });
      this.#divergences = divergences;
      this.#judge = new Judge({
        plan,
        tally,
        rows,
        divergences,
        decide,
        keepDiverged: run.keepDiverged ?? true,
        sequence,
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
      // What a person has accepted is no surprise, in a frozen set either.
      acceptNew: base === null || this.policy.acceptNew || run.decisions !== undefined,
      trustSeen: run.decisions === undefined && (dryRun || this.policy.onChange === 'warn'),
      due,
      refused: (path, mode, size) => {
        this.#refusedCount++;
        if (this.#refused.length < MAX_LISTED) this.#refused.push(path);
        tally.classified(path, '', { class: 'refused', mode, size });
      },
      stillDiverged: (inode, path) => this.#divergences?.still(inode, path),
      replaced: (it) => this.#replaced(it),
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

  #replaced(it: Displaced): boolean {
    const { folder, name } = it;
    const stays = this.#divergences!.replaced(it, joinName(folder.path, name));
    if (stays && !this.#options.options.dryRun && this.policy.onChange === 'restore') this.#puts(it);
    return stays;
  }

  /** What has the name of a known file or folder is to make room for it. */
  #puts({ inode, folder, name }: Displaced): void {
    const { mode } = this.#rows!.get(inode);
    this.#displaced.push({ inode, folder: { ...folder, fd: -1 }, name, mode });
  }

  /** Bytes that the snapshot has more than the walk has met, as archived contents stay. */
  get staysBytes(): number {
    return this.#divergences?.staysBytes ?? 0;
  }

  /** Looks at what was decided on, or is to be repaired, instead of a walk. Answers folders that are to be walked. */
  lookAtDecided(comparison: Comparison): Promise<Folder[]> {
    const { options, base, tally, plan } = this.#options;
    const divergences = this.#divergences!;
    return lookAtDecided({ options, base: base!, tally, plan, comparison, divergences, puts: (it) => this.#puts(it) });
  }

  /** Holds what is in doubt against the archive. Files to be stored are in the plan afterwards. */
  async judge(comparison: Comparison): Promise<void> {
    const { plan, base, tally } = this.#options;
    await this.#judge?.run();
    if (this.rules.acceptNew || base === null) return;
    await sortFrozen({ plan, base, comparison, tally, judge: this.#judge!, refused: this.rules.refused });
  }

  /** When all was read: what moved, what is gone; then puts back what the policy says. */
  async settle(comparison: Comparison): Promise<void> {
    const { plan, base, tally, options } = this.#options;
    if (this.rules.acceptNew) {
      const candidates = plan.reading;
      for (const { record, inode } of recogniseByContent({ plan, base, comparison, tally, candidates, frozen: false }))
        await this.#judge!.dispute(record, inode);
    }
    if (options.decisions === undefined && options.repairs === undefined) await this.#findConflicts();
    comparison.finish();
    const { moves, goneFiles, goneBytes } = comparison.departures;
    this.#moves = moves.slice(0, MAX_LISTED).map(({ from, to, mode }) => ({ from, to, mode }));
    this.#grown = { files: comparison.totalFiles - goneFiles, bytes: comparison.totalBytes - goneBytes };
    await this.#bringBack();
  }

  async #bringBack(): Promise<void> {
    if (this.#lost.length === 0 && this.#displaced.length === 0) return;
    const { lineage, tally, options } = this.#options;
    const { repository, signal, keepDiverged = true } = options;
    const record = lineage.slot.base!;
    const back = new BringBack({ repository, archived: this.#archived!, record, tally, signal });
    for (const lost of this.#lost) {
      if (await back.missing(lost))
        tally.classified(lost.folder.path, lost.name, { class: 'restored', mode: lost.mode, size: 0 });
    }
    for (const lost of this.#displaced) {
      const done = await back.displaced(lost, keepDiverged);
      if (done !== null) this.#divergences!.broughtBack(lost.inode, done.keptAs);
    }
  }

  /** With a key at hand: else the other machines' trees cannot be read. */
  async #findConflicts(): Promise<void> {
    const { options, lineage, plan } = this.#options;
    const { repository, set, readArchive, dryRun } = options;
    if (dryRun) return;
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
    const own = lineage.slot.tag;
    if (repository.identities === null && !(readArchive === true && (await repository.unlock()))) {
      this.#uncompared = await otherMachines({ repository, set, own });
      return;
    }
    this.#conflicts = await nameConflicts({ repository, set, own, files });
  }

  /** Wipes keys of archives that were opened. */
  close(): void {
    this.#archived?.close();
  }

  get bytesRead(): number {
    return this.#judge?.bytesRead ?? 0;
  }

  get openCount(): number {
    return this.#divergences?.openCount ?? 0;
  }

  /** What a snapshot says besides. */
  stats(): Record<string, number> {
    const { base, plan } = this.#options;
    const repaired = (base === null ? 0 : (setInfo(base).stats.repaired ?? 0)) + plan.rewritten.size;
    return { diverged: this.openCount, ...(repaired === 0 ? {} : { repaired }) };
  }

  /** What a snapshot says of the set when it looked at single files only. */
  statsAfterDecisions(base: { source: PageSource; roots: TreeRoots }): Record<string, number> {
    const { stats } = setInfo(base);
    const settled = (this.#divergences?.count ?? 0) - this.openCount;
    return {
      ...stats,
      ...this.stats(),
      files: (stats.files ?? 0) + this.#grown.files,
      bytes: (stats.bytes ?? 0) + this.#grown.bytes,
      diverged: Math.max(0, (stats.diverged ?? 0) - settled),
    };
  }

  /** After the commit, or when nothing was to be committed. */
  saveProofs(): void {
    this.#proofs.save();
  }

  report(): WormReport {
    const { base, options, plan } = this.#options;
    return {
      policy: this.policy,
      diverged: this.#divergences?.list ?? [],
      divergedCount: this.#divergences?.count ?? 0,
      openCount: this.openCount,
      moves: this.#moves,
      conflicts: this.#conflicts,
      uncompared: this.#uncompared,
      refused: this.#refused,
      refusedCount: this.#refusedCount,
      proven: this.#judge?.proven ?? { files: 0, bytes: 0 },
      repaired: plan.rewritten.size,
      oldestProof: base === null || options.rehash === undefined ? null : oldestProof(base, this.#proofs),
    };
  }
}
