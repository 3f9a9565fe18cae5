/**
 * Holds the content of known files against the archived one, and does what the policy says where it differs. The row of a
 * file that diverged keeps size, times and version of the archived content, and takes everything else from the local file.
 */
import { setImmediate as breathe } from 'node:timers/promises';
import { INODE_FLAGS } from '../../archive/tree/schema.ts';
import { RozenError } from '../../errors.ts';
import { lstat, type Stat } from '../../posix/stat.ts';
import type { WormPolicy } from '../../repository/snapshot-record.ts';
import { FIELD, type Plan, STATE } from '../backup/plan.ts';
import { sourceLength } from '../backup/sources.ts';
import { describe, type Tally } from '../backup/tally.ts';
import { S_IFREG } from '../view/attributes.ts';
import type { ArchivedContent } from './archived.ts';
import type { Archived, ArchivedRows } from './archived-rows.ts';
import type { Divergences } from './divergences.ts';
import { LocalHasher } from './local-hash.ts';
import type { Proofs } from './proofs.ts';
import { otherNames, putBack } from './put-back.ts';
import type { SeenRow } from './seen.ts';

export interface JudgeOptions {
  plan: Plan;
  tally: Tally;
  rows: ArchivedRows;
  divergences: Divergences;
  /** What to do about a file that diverged. */
  decide: (inode: number) => WormPolicy['onChange'];
  keepDiverged: boolean;
  /** Of the snapshot to be. */
  sequence: number;
  contentIdKey: Buffer;
  archived: ArchivedContent;
  proofs: Proofs;
  /** Epoch seconds of the run. */
  now: number;
  signal?: AbortSignal | undefined;
  /** Called now and then, and after files that are to be stored were added to the plan. */
  pump: () => void;
}

export class Judge {
  proven = { files: 0, bytes: 0 };
  readonly #options: JudgeOptions;
  readonly #hasher: LocalHasher;

  constructor(options: JudgeOptions) {
    this.#options = options;
    this.#hasher = new LocalHasher(options.contentIdKey);
  }

  get bytesRead(): number {
    return this.#hasher.bytes;
  }

  /** All records of `plan.checking`. */
  async run(): Promise<void> {
    const { plan, signal, pump, tally } = this.#options;
    let last = performance.now();
    for (const record of plan.checking) {
      if (signal?.aborted) throw new RozenError('interrupted', 'the backup was interrupted');
      await this.#check(record);
      if (performance.now() - last < 8) continue;
      pump();
      tally.tick();
      await breathe();
      last = performance.now();
    }
  }

  /** Reads a file that is new in a frozen set, to see whether it is a known one. False: it cannot be read, which is told. */
  async identify(record: number): Promise<boolean> {
    const { plan } = this.#options;
    const found = await this.#read(record);
    if (found === null) return false;
    plan.records.set(record, FIELD.content, plan.contents.add(found.contentId));
    return true;
  }

  /**
   * A file that was taken for new turned out to be an old one with another content. That is stored by now, if the set takes
   * what is new; unless it is accepted, no row leads to it.
   */
  async dispute(record: number, inode: number): Promise<void> {
    const { plan, decide, tally, rows } = this.#options;
    const { records, contents } = plan;
    if (records.get(record, FIELD.content) === 0 && !(await this.identify(record))) return this.#leave(record, inode);
    const contentId = contents.get(records.get(record, FIELD.content));
    const path = plan.pathOf(record);
    const archived = rows.get(inode);
    const stored = !records.is(record, STATE.tentative);
    const accepted = decide(inode) === 'accept';
    records.set(record, FIELD.inode, inode);
    const keeps = accepted && stored;
    const cleared = STATE.tentative | STATE.fresh | (keeps ? 0 : STATE.content);
    records.set(record, FIELD.state, (records.get(record, FIELD.state) & ~cleared) | STATE.put);
    if (!keeps) records.set(record, FIELD.version, archived.version);
    const stat = lstat(path);
    await this.#diverges(record, { path, stat, archived, contentId, stored });
    if (keeps) tally.classified(path, '', { class: 'changed', mode: stat.mode, size: stat.size });
  }

  /** Null when it cannot be read: told. */
  async #read(record: number): Promise<{ contentId: Buffer; stat: Stat } | null> {
    const { plan, tally, signal } = this.#options;
    const path = plan.pathOf(record);
    tally.progress.current = path;
    const { records } = plan;
    const walked = {
      dev: records.get(record, FIELD.sourceDev),
      ino: records.get(record, FIELD.sourceIno),
      trusted: sourceLength(plan.sources, plan.folders[records.get(record, FIELD.folder)]!),
    };
    const tick = (): void => {
      if (signal?.aborted) throw new RozenError('interrupted', 'the backup was interrupted');
      tally.tick();
    };
    const found = await this.#hasher.hash(path, tick, walked);
    if (found.status === 'read') return { contentId: found.contentId, stat: found.stat! };
    const message =
      found.status === 'changing'
        ? 'it changes while it is read'
        : found.status === 'vanished'
          ? 'it is gone'
          : describe(found.error);
    tally.problem({ kind: found.status === 'changing' ? 'changed' : found.status, path, message });
    return null;
  }

  async #check(record: number): Promise<void> {
    const { plan, tally, proofs, now, rows } = this.#options;
    const { records } = plan;
    const inode = records.get(record, FIELD.inode);
    const path = plan.pathOf(record);
    const found = await this.#read(record);
    if (found === null) return this.#leave(record, inode);
    const { stat, contentId } = found;
    if (!this.#isAsWalked(record, stat)) {
      records.fill(record, stat);
      records.mark(record, STATE.put | STATE.differs);
    }
    const archived = rows.get(inode);
    if (!contentId.equals(archived.contentId)) {
      await this.#diverges(record, { path, stat, archived, contentId });
      return;
    }
    proofs.set(inode, now);
    this.proven.files++;
    this.proven.bytes += stat.size;
    const is = (state: number): boolean => records.is(record, state);
    const what = is(STATE.returned)
      ? 'returned'
      : is(STATE.moved)
        ? 'moved'
        : is(STATE.differs)
          ? 'metadata'
          : 'unchanged';
    tally.classified(path, '', { class: what, mode: stat.mode, size: stat.size });
  }

  async #diverges(
    record: number,
    it: { path: Buffer; stat: Stat; archived: Archived; contentId: Buffer; stored?: boolean },
  ): Promise<void> {
    const { plan, tally, sequence, decide, archived: store, signal, divergences, rows } = this.#options;
    const { records } = plan;
    const { path, stat, archived, contentId } = it;
    const inode = records.get(record, FIELD.inode);
    const before = rows.seen(inode, archived);
    const known = before?.contentId?.equals(contentId) === true ? before : null;
    let exact = true;
    let differsAt = known?.differsAt ?? 0;
    if (known === null) {
      const file = { inode, version: archived.version, size: archived.size };
      const difference = await store.firstDifference(path, file, stat.size);
      differsAt = difference.at;
      exact = difference.exact;
    }
    if (signal?.aborted) throw new RozenError('interrupted', 'the backup was interrupted');
    const seen: SeenRow = {
      version: known?.version ?? sequence,
      contentId,
      differsAt,
      type: S_IFREG >>> 12,
      size: stat.size,
      mtimeSec: stat.mtimeSec,
      mtimeNs: stat.mtimeNs,
      firstSeen: known?.firstSeen ?? sequence,
    };
    const decision = decide(inode);
    const since = known?.firstSeen ?? null;
    if (decision === 'accept') {
      if (it.stored !== true) plan.reading.push(record);
      divergences.tell({ path, inode, archived, seen, action: 'accepted', exact, since, keptAs: null });
      return;
    }
    if (decision === 'restore') {
      const restored = await this.#restore(record, { path, stat, archived });
      if (restored !== null) {
        divergences.tell({ path, inode, archived, seen, action: 'restored', exact, since, keptAs: restored.keptAs });
        tally.classified(path, '', { class: 'restored', mode: stat.mode, size: archived.size });
        return;
      }
    }
    records.set(record, FIELD.size, archived.size);
    records.set(record, FIELD.blocks, archived.blocks);
    records.set(record, FIELD.mtimeSec, archived.mtimeSec);
    records.set(record, FIELD.mtimeNs, archived.mtimeNs);
    records.addFlags(record, INODE_FLAGS.diverged);
    records.mark(record, STATE.put);
    divergences.see(inode, seen);
    divergences.tell({ path, inode, archived, seen, action: 'kept', exact, since, keptAs: null });
    tally.classified(path, '', { class: 'diverged', mode: stat.mode, size: stat.size });
  }

  /** Null when it could not be done: told, and the file stays diverged. */
  async #restore(
    record: number,
    it: { path: Buffer; stat: Stat; archived: Archived },
  ): Promise<{ keptAs: Buffer | null } | null> {
    const { plan, tally, archived: store, contentIdKey, keepDiverged, proofs, now } = this.#options;
    const { records } = plan;
    const { path, stat, archived } = it;
    const inode = records.get(record, FIELD.inode);
    try {
      const others = otherNames(path, stat, plan.otherNames.get(record) ?? []);
      const keptAs = await putBack({
        reader: await store.reader(),
        file: { inode, version: archived.version, size: archived.size },
        contentId: archived.contentId,
        contentIdKey,
        path,
        others,
        wanted: {
          mode: stat.mode,
          uid: stat.uid,
          gid: stat.gid,
          mtimeSec: archived.mtimeSec,
          mtimeNs: archived.mtimeNs,
          xattrs: plan.xattrs.get(record) ?? [],
        },
        keep: keepDiverged,
      });
      records.fill(record, lstat(path));
      records.mark(record, STATE.put);
      proofs.set(inode, now);
      return { keptAs };
    } catch (error) {
      // Frozen content is put back by a run after it was thawed.
      const frozen = error instanceof RozenError && error.code === 'frozen';
      if (error instanceof RozenError && error.code !== 'corrupt' && error.code !== 'unsupported' && !frozen)
        throw error;
      const why = frozen ? 'its archived content lies in cold storage' : describe(error);
      tally.problem({ kind: 'unreadable', path, message: `not restored: ${why}` });
      return null;
    }
  }

  /** The row stays as the snapshot before has it. */
  #leave(record: number, inode: number): void {
    const { records } = this.#options.plan;
    records.set(record, FIELD.inode, inode);
    const cleared = STATE.put | STATE.fresh | STATE.tentative;
    records.set(record, FIELD.state, records.get(record, FIELD.state) & ~cleared);
  }

  #isAsWalked(record: number, stat: Stat): boolean {
    const { records } = this.#options.plan;
    return (
      records.get(record, FIELD.size) === stat.size &&
      records.get(record, FIELD.mtimeSec) === stat.mtimeSec &&
      records.get(record, FIELD.mtimeNs) === stat.mtimeNs &&
      records.get(record, FIELD.ctimeSec) === stat.ctimeSec &&
      records.get(record, FIELD.ctimeNs) === stat.ctimeNs
    );
  }
}
