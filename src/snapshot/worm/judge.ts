/**
 * Holds the content of known files against the archived one, and does what the policy says where it differs. The row of a
 * file that diverged keeps size, times and version of the archived content, and takes everything else from the local file.
 */
import { setImmediate as breathe } from 'node:timers/promises';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, INODE_FLAGS, TREES, type TreeRoots, VERSION } from '../../archive/tree/schema.ts';
import { RozenError } from '../../errors.ts';
import { joinName } from '../../posix/folder.ts';
import { lstat, type Stat } from '../../posix/stat.ts';
import type { WormPolicy } from '../../repository/snapshot-record.ts';
import type { DivergedFile } from '../backup/backup-types.ts';
import { FIELD, type Plan, STATE } from '../backup/plan.ts';
import { describe, type Tally } from '../backup/tally.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';
import type { ArchivedContent } from './archived.ts';
import { LocalHasher } from './local-hash.ts';
import type { Proofs } from './proofs.ts';
import { putBack } from './put-back.ts';
import { encodeSeenId, kindOf, newestSeen, type SeenRow, versionsCursor } from './seen.ts';

export interface JudgeOptions {
  plan: Plan;
  tally: Tally;
  base: { source: PageSource; roots: TreeRoots };
  /** What to do about a file that diverged. */
  decide: (inode: number) => WormPolicy['onChange'];
  /** Files whose archived copy is damaged: a sound local one is stored once more. */
  repairs: (inode: number) => boolean;
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

const MAX_LISTED = 10_000;

interface Archived {
  version: number;
  size: number;
  blocks: number;
  mtimeSec: number;
  mtimeNs: number;
  contentId: Buffer;
}

export class Judge {
  readonly diverged: DivergedFile[] = [];
  divergedCount = 0;
  openCount = 0;
  proven = { files: 0, bytes: 0 };
  readonly #options: JudgeOptions;
  readonly #inodes: Cursor;
  readonly #versions: Cursor;
  readonly #hasher: LocalHasher;

  constructor(options: JudgeOptions) {
    const { base } = options;
    this.#options = options;
    this.#inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
    this.#versions = versionsCursor(base);
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

  /** A file that diverged before and is as it was then. */
  still(inode: number, path: Buffer): void {
    const archived = this.#archived(inode);
    const seen = newestSeen(this.#versions, inode, archived.version);
    if (seen === null) return;
    this.#tell({ path, inode, archived, seen, action: 'kept', exact: true, since: seen.firstSeen, keptAs: null });
    this.#options.tally.classified(path, '', { class: 'diverged', mode: S_IFREG, size: seen.size });
  }

  /**
   * Something that is no regular file stands in place of one. Answers whether the archived file stays current: else it
   * counts as deleted, and what stands there is new.
   */
  replaced(inode: number, path: Buffer, stat: Stat, isFolder: boolean): boolean {
    const { sequence, decide, plan } = this.#options;
    const archived = this.#archived(inode);
    const type = (stat.mode & S_IFMT) >>> 12;
    const before = newestSeen(this.#versions, inode, archived.version);
    const { size, mtimeSec, mtimeNs } = stat;
    const known =
      before !== null && before.contentId === null && before.type === type && before.mtimeSec === mtimeSec
        ? before
        : null;
    const seen: SeenRow = known ?? {
      version: sequence,
      contentId: null,
      differsAt: 0,
      type,
      size,
      mtimeSec,
      mtimeNs,
      firstSeen: sequence,
    };
    const since = known?.firstSeen ?? null;
    const action = isFolder ? 'deleted' : decide(inode) === 'accept' ? 'accepted' : 'kept';
    this.#tell({ path, inode, archived, seen, action, exact: true, since, keptAs: null });
    if (isFolder || action === 'accepted') return false;
    this.#options.tally.classified(path, '', { class: 'diverged', mode: stat.mode, size });
    if (known === null) {
      const record = this.#recordOf(inode);
      plan.records.addFlags(record, INODE_FLAGS.diverged);
      this.#see(inode, seen);
    }
    return true;
  }

  /** What stood in place of this file has gone; the file is back. */
  broughtBack(inode: number, keptAs: Buffer | null): void {
    this.openCount--;
    const told = this.diverged.find((it) => it.inode === inode);
    if (told === undefined) return;
    told.action = 'restored';
    told.keptAs = keptAs;
  }

  /**
   * A file that was taken for new turned out to be an old one with another content, which is stored by now: unless it is
   * accepted, no row leads to it.
   */
  async dispute(record: number, inode: number): Promise<void> {
    const { plan, decide, tally } = this.#options;
    const { records, contents } = plan;
    const contentId = contents.get(records.get(record, FIELD.content));
    const path = this.#path(record);
    const archived = this.#archived(inode);
    const accepted = decide(inode) === 'accept';
    records.set(record, FIELD.inode, inode);
    const cleared = accepted ? STATE.fresh : STATE.fresh | STATE.content;
    records.set(record, FIELD.state, (records.get(record, FIELD.state) & ~cleared) | STATE.put);
    if (!accepted) records.set(record, FIELD.version, archived.version);
    const stat = lstat(path);
    await this.#diverges(record, { path, stat, archived, contentId, stored: accepted });
    if (accepted) tally.classified(path, '', { class: 'changed', mode: stat.mode, size: stat.size });
  }

  async #check(record: number): Promise<void> {
    const { plan, tally, proofs, now } = this.#options;
    const { records } = plan;
    const inode = records.get(record, FIELD.inode);
    const path = this.#path(record);
    tally.progress.current = path;
    const found = await this.#hasher.hash(path, () => {
      if (this.#options.signal?.aborted) throw new RozenError('interrupted', 'the backup was interrupted');
      tally.tick();
    });
    if (found.status !== 'read') {
      this.#leave(record);
      const message =
        found.status === 'changing'
          ? 'it changes while it is read'
          : found.status === 'vanished'
            ? 'it is gone'
            : describe(found.error);
      const kind = found.status === 'changing' ? 'changed' : found.status;
      tally.problem({ kind, path, message });
      return;
    }
    const stat = found.stat!;
    if (!this.#isAsWalked(record, stat)) {
      records.fill(record, stat);
      records.mark(record, STATE.put | STATE.differs);
    }
    const archived = this.#archived(inode);
    if (!found.contentId.equals(archived.contentId)) {
      await this.#diverges(record, { path, stat, archived, contentId: found.contentId });
      return;
    }
    if (this.#options.repairs(inode)) {
      plan.rewritten.set(record, archived.contentId);
      plan.reading.push(record);
      records.mark(record, STATE.put);
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
    const { plan, tally, sequence, decide, archived: store, signal } = this.#options;
    const { records } = plan;
    const { path, stat, archived, contentId } = it;
    const inode = records.get(record, FIELD.inode);
    const before = newestSeen(this.#versions, inode, archived.version);
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
      this.#tell({ path, inode, archived, seen, action: 'accepted', exact, since, keptAs: null });
      return;
    }
    if (decision === 'restore') {
      const restored = await this.#restore(record, { path, stat, archived });
      if (restored !== null) {
        this.#tell({ path, inode, archived, seen, action: 'restored', exact, since, keptAs: restored.keptAs });
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
    this.#see(inode, seen);
    this.#tell({ path, inode, archived, seen, action: 'kept', exact, since, keptAs: null });
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
    if (stat.nlink > 1) {
      const message = 'not restored: it has several names (hard links), which a new file would part';
      tally.problem({ kind: 'unreadable', path, message });
      return null;
    }
    try {
      const keptAs = await putBack({
        reader: await store.reader(),
        file: { inode, version: archived.version, size: archived.size },
        contentId: archived.contentId,
        contentIdKey,
        path,
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
      if (error instanceof RozenError && error.code !== 'corrupt') throw error;
      tally.problem({ kind: 'unreadable', path, message: `not restored: ${describe(error)}` });
      return null;
    }
  }

  #see(inode: number, seen: SeenRow): void {
    const { version, size, mtimeSec, mtimeNs, firstSeen } = seen;
    this.#options.plan.seen.set(inode, {
      inode,
      version,
      contentId: encodeSeenId(seen),
      size,
      mtimeSec,
      mtimeNs,
      firstSeen,
    });
  }

  #tell(it: {
    path: Buffer;
    inode: number;
    archived: Archived;
    seen: SeenRow;
    action: DivergedFile['action'];
    exact: boolean;
    since: number | null;
    keptAs: Buffer | null;
  }): void {
    const { path, inode, archived, seen, action, exact, since, keptAs } = it;
    this.divergedCount++;
    if (action === 'kept') this.openCount++;
    if (this.diverged.length >= MAX_LISTED) return;
    const facts = ({ size, mtimeSec, mtimeNs }: Archived | SeenRow) => ({ size, mtimeSec, mtimeNs });
    this.diverged.push({
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

  #archived(inode: number): Archived {
    const inodes = this.#inodes;
    const versions = this.#versions;
    if (!inodes.find(inode)) throw new RozenError('internal', `inode ${inode} has no row`);
    const page = inodes.page!;
    const row = inodes.index;
    const version = page.num(INODE.version, row);
    if (!versions.find(inode, version)) {
      throw new RozenError('corrupt', `inode ${inode}: version ${version} has no content id`, {
        hint: 'run rozen verify',
      });
    }
    return {
      version,
      size: page.num(INODE.size, row),
      blocks: page.num(INODE.blocks, row),
      mtimeSec: page.num(INODE.mtimeSec, row),
      mtimeNs: page.num(INODE.mtimeNs, row),
      contentId: Buffer.from(versions.page!.slice(VERSION.contentId, versions.index)),
    };
  }

  /** A record that is the old row, to be written again. */
  #recordOf(inode: number): number {
    const { records } = this.#options.plan;
    const inodes = this.#inodes;
    inodes.find(inode);
    const page = inodes.page!;
    const row = inodes.index;
    const record = records.append();
    for (const name of ROW_FIELDS) records.set(record, FIELD[name], page.num(INODE[name], row));
    records.mark(record, STATE.put);
    return record;
  }

  /** The row stays as the snapshot before has it. */
  #leave(record: number): void {
    const { records } = this.#options.plan;
    records.set(record, FIELD.state, records.get(record, FIELD.state) & ~STATE.put);
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

  #path(record: number): Buffer {
    const { records, names, folders } = this.#options.plan;
    const name = names.arena.string(records.get(record, FIELD.nameAt), records.get(record, FIELD.nameLength));
    return joinName(folders[records.get(record, FIELD.folder)]!, name);
  }
}

const ROW_FIELDS = [
  'inode',
  'mode',
  'uid',
  'gid',
  'nlink',
  'size',
  'blocks',
  'mtimeSec',
  'mtimeNs',
  'ctimeSec',
  'ctimeNs',
  'btimeSec',
  'btimeNs',
  'rdev',
  'version',
  'parent',
  'flags',
  'sourceDev',
  'sourceIno',
] as const;
