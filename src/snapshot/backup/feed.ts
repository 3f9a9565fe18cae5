/** Between the plan and the data side: hands files over, and writes down in the plan what became of them. */
import { closeSync } from 'node:fs';
import { Cursor } from '../../archive/tree/read.ts';
import { EXTENT, INODE_FLAGS, TREES } from '../../archive/tree/schema.ts';
import { descriptorPath, FOLDER_FLAGS, joinName, openBeneath } from '../../posix/folder.ts';
import { emptyStat, lstat, type Stat } from '../../posix/stat.ts';
import { type DataStore, type FileToStore, HOLE, type StoredFile } from '../data/types.ts';
import type { ArchiveRows } from './archive-rows.ts';
import type { OldTrees } from './mutations.ts';
import { OtherNames } from './other-names.ts';
import { FIELD, type Plan, STATE } from './plan.ts';
import { sourceLength } from './sources.ts';
import { describe, type Tally } from './tally.ts';
import { S_IFMT, S_IFREG } from './walk.ts';

const MAX_PATH = 4095;
const GONE = 'it is gone';

export interface FeedOptions {
  plan: Plan;
  tally: Tally;
  writer: DataStore;
  rows: ArchiveRows;
  /** The trees to compare contents with; null when they begin empty. */
  old: OldTrees | null;
  /** Version of new contents. */
  version: number;
}

export class Feed {
  bytesRead = 0;
  bytesNew = 0;
  readonly #options: FeedOptions;
  readonly #oldExtents: Cursor | null;
  readonly #stat: Stat = emptyStat();
  /** Place in `plan.reading` of the next file. */
  #next = 0;
  #given = 0;
  #answered = 0;
  /** Files that were gone by the name they were to be read by, and have others. */
  #missed: number[] = [];
  /** Those that are read by another name. */
  readonly #renamed = new Set<number>();
  #failure: unknown = null;
  #wake: (() => void) | null = null;

  constructor(options: FeedOptions) {
    const { old } = options;
    this.#options = options;
    this.#oldExtents = old === null ? null : new Cursor(old.source, TREES.extents, old.roots.extents);
  }

  /** Hands over as many files as the data side takes without waiting. */
  pump(): void {
    this.#check();
    const { plan, writer } = this.#options;
    while (this.#next < plan.reading.length && !writer.full) this.#add(plan.reading[this.#next++]!);
  }

  /** Hands over all the rest and waits until everything is answered. The walk must be over. */
  async drain(): Promise<void> {
    const { plan, writer } = this.#options;
    while (this.#next < plan.reading.length) {
      if (writer.full) await writer.ready();
      this.pump();
    }
    await this.#allAnswered();
    if (this.#missed.length > 0) await this.#readByOtherNames();
  }

  async #allAnswered(): Promise<void> {
    this.#options.writer.flush();
    while (this.#answered < this.#given) {
      this.#check();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#check();
  }

  async #readByOtherNames(): Promise<void> {
    const { plan, tally, writer } = this.#options;
    const names = new OtherNames(plan, this.#missed);
    const gone = (path: Buffer): void => tally.problem({ kind: 'vanished', path, message: GONE });
    while (this.#missed.length > 0) {
      for (const record of this.#missed.splice(0)) {
        if (!names.next(record, gone)) {
          this.#drop(record);
          continue;
        }
        this.#renamed.add(record);
        if (writer.full) await writer.ready();
        this.#add(record);
      }
      await this.#allAnswered();
    }
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  #add(record: number): void {
    const { plan, tally, writer } = this.#options;
    const { records } = plan;
    this.#given++;
    const name = plan.names.arena.string(records.get(record, FIELD.nameAt), records.get(record, FIELD.nameLength));
    const folder = plan.folders[records.get(record, FIELD.folder)]!;
    const size = records.get(record, FIELD.size);
    const file: FileToStore = {
      path: joinName(folder, name),
      trusted: sourceLength(plan.sources, folder),
      folder,
      name: Buffer.from(name, 'latin1'),
      size,
      dev: records.get(record, FIELD.sourceDev),
      ino: records.get(record, FIELD.sourceIno),
      mtimeSec: records.get(record, FIELD.mtimeSec),
      mtimeNs: records.get(record, FIELD.mtimeNs),
      sparse: records.get(record, FIELD.blocks) * 512 < size,
    };
    const path = file.path;
    tally.progress.current = path;
    let fd = -1;
    if (path.length > MAX_PATH) {
      try {
        fd = openBeneath(folder, file.trusted, FOLDER_FLAGS);
        const open = descriptorPath(fd);
        file.path = joinName(open, name);
        file.trusted = open.length;
      } catch (error) {
        this.#answered++;
        this.#lost(record, path, { kind: 'unreadable', message: describe(error) });
        return;
      }
    }
    writer.add(file).then(
      (stored) => {
        try {
          this.#take(record, file, { stored, path });
        } catch (error) {
          this.#failure ??= error;
        }
        this.#settle(fd);
      },
      (error) => {
        this.#failure ??= error;
        this.#settle(fd);
      },
    );
  }

  #settle(fd: number): void {
    if (fd >= 0) closeSync(fd);
    this.#answered++;
    const { progress } = this.#options.tally;
    progress.filesDone++;
    if (this.#failure === null && this.#answered < this.#given) return;
    this.#wake?.();
    this.#wake = null;
  }

  #take(record: number, file: FileToStore, answer: { stored: StoredFile; path: Buffer }): void {
    const { plan, tally } = this.#options;
    const { stored, path } = answer;
    if (plan.records.is(record, STATE.linked) && this.#isMissed(record, file, stored)) {
      this.#missed.push(record);
      tally.progress.filesDone--;
      return;
    }
    tally.progress.bytesDone += file.size;
    if (stored.status === 'vanished' || stored.status === 'unreadable') {
      const message = stored.status === 'vanished' ? GONE : (stored.error ?? 'it cannot be read');
      this.#lost(record, path, { kind: stored.status, message });
      return;
    }
    this.bytesRead += stored.size;
    this.bytesNew += stored.newBytes;
    if (stored.status === 'changed') {
      tally.problem({ kind: 'changed', path, message: 'it changed while it was read; the last reading is kept' });
      plan.records.addFlags(record, INODE_FLAGS.incomplete);
    }
    const rewritten = plan.rewritten.get(record);
    if (rewritten !== undefined) {
      this.#rewrite(record, path, { stored, wanted: rewritten });
      return;
    }
    if (plan.worm) plan.records.set(record, FIELD.content, plan.contents.add(stored.contentId));
    if (stored.restat || stored.status === 'changed' || this.#renamed.has(record))
      this.#restat(record, file.path, stored);
    const isFresh = plan.records.is(record, STATE.fresh);
    if (!isFresh && this.#options.old !== null && this.#sameContent(record, stored))
      this.#keepContent(record, file, stored);
    else this.#newContent(record, file, { stored, isFresh });
  }

  /** Gone by this name, or another one stands there now that is no longer the others' file. */
  #isMissed(record: number, file: FileToStore, stored: StoredFile): boolean {
    if (stored.status === 'vanished') return true;
    return this.#renamed.has(record) && (stored.ino !== file.ino || stored.dev !== file.dev);
  }

  #keepContent(record: number, file: FileToStore, stored: StoredFile): void {
    const { plan } = this.#options;
    const { records } = plan;
    const cursor = this.#oldExtents!;
    records.set(record, FIELD.version, cursor.page!.num(EXTENT.version, cursor.index));
    if (stored.extents.some((extent) => extent.archive === HOLE)) records.addFlags(record, INODE_FLAGS.holes);
    if (stored.status === 'changed') records.mark(record, STATE.put);
    const changed = records.is(record, STATE.differs) || stored.status === 'changed';
    this.#classify(record, file, records.is(record, STATE.moved) ? 'moved' : changed ? 'metadata' : 'unchanged');
  }

  #newContent(record: number, file: FileToStore, answer: { stored: StoredFile; isFresh: boolean }): void {
    const { plan, version, old } = this.#options;
    const { records } = plan;
    const { stored, isFresh } = answer;
    this.#addExtents(record, stored);
    // With empty trees to begin with, unchanged content is stored again under the version that it has.
    if (old !== null) records.set(record, FIELD.version, version);
    records.mark(record, STATE.put | STATE.content);
    const kept = old === null && !isFresh && records.get(record, FIELD.version) !== version;
    const unchanged = records.is(record, STATE.moved)
      ? 'moved'
      : records.is(record, STATE.differs)
        ? 'metadata'
        : 'unchanged';
    this.#classify(record, file, isFresh ? 'new' : kept ? unchanged : 'changed');
  }

  /** WORM: the same content once more, in another archive. */
  #rewrite(record: number, path: Buffer, { stored, wanted }: { stored: StoredFile; wanted: Buffer }): void {
    if (wanted.equals(stored.contentId)) this.#addExtents(record, stored);
    else this.#lost(record, path, { kind: 'unreadable', message: 'it has changed since it was compared' });
  }

  #addExtents(record: number, stored: StoredFile): void {
    const { plan, rows } = this.#options;
    const { records, extents } = plan;
    records.set(record, FIELD.extents, extents.count);
    records.set(record, FIELD.extentCount, stored.extents.length);
    for (const { offset, length, archive, streamOffset } of stored.extents) {
      const isHole = archive === HOLE;
      if (isHole) records.addFlags(record, INODE_FLAGS.holes);
      extents.add({ offset, length, row: isHole ? 0 : rows.rowOf(archive), streamOffset: isHole ? 0 : streamOffset });
    }
  }

  #classify(record: number, file: FileToStore, what: 'new' | 'changed' | 'metadata' | 'moved' | 'unchanged'): void {
    // Of a WORM set: its content may be known under another name, which is looked up when all was read.
    if (what === 'new' && this.#options.plan.worm) return;
    const { records } = this.#options.plan;
    const mode = records.get(record, FIELD.mode);
    const size = records.get(record, FIELD.size);
    this.#options.tally.classified(file.folder, file.name.toString('latin1'), { class: what, mode, size });
  }

  /** New entries are left out; known ones stay as the snapshot before has them. */
  #lost(record: number, path: Buffer, problem: { kind: 'unreadable' | 'vanished'; message: string }): void {
    this.#drop(record);
    this.#options.tally.problem({ ...problem, path });
  }

  #drop(record: number): void {
    const { plan, old } = this.#options;
    const { records } = plan;
    if (old === null || records.is(record, STATE.fresh)) records.mark(record, STATE.dropped);
    else records.set(record, FIELD.state, records.get(record, FIELD.state) & ~STATE.put);
    plan.rewritten.delete(record);
  }

  /** The file is not what the walk saw: the row gets attributes that belong to the content that was read. */
  #restat(record: number, path: Buffer, stored: StoredFile): void {
    const { records } = this.#options.plan;
    const stat = this.#stat;
    records.mark(record, STATE.put | STATE.differs);
    try {
      lstat(path, stat);
    } catch {
      stat.mode = 0;
    }
    const isIt =
      (stat.mode & S_IFMT) === S_IFREG &&
      stat.dev === stored.dev &&
      stat.ino === stored.ino &&
      stat.size === stored.size &&
      stat.mtimeSec === stored.mtimeSec &&
      stat.mtimeNs === stored.mtimeNs;
    if (isIt) {
      records.fill(record, stat);
      return;
    }
    // It has changed once more: the next run sees that by its ctime and reads it again.
    records.set(record, FIELD.size, stored.size);
    records.set(record, FIELD.mtimeSec, stored.mtimeSec);
    records.set(record, FIELD.mtimeNs, stored.mtimeNs);
  }

  /** True when the old row's extents are just these; the cursor then stands on the first of them. */
  #sameContent(record: number, stored: StoredFile): boolean {
    const { plan, rows } = this.#options;
    const cursor = this.#oldExtents!;
    const inode = plan.records.get(record, FIELD.inode);
    const { extents } = stored;
    const version = plan.worm ? plan.records.get(record, FIELD.version) : undefined;
    if (extents.length === 0 || !cursor.seek(inode, version)) return false;
    const first = cursor.rank;
    for (const [i, extent] of extents.entries()) {
      const page = cursor.page;
      if (page === null || page.num(EXTENT.inode, cursor.index) !== inode) return false;
      if (version !== undefined && page.num(EXTENT.version, cursor.index) !== version) return false;
      const row = page.num(EXTENT.row, cursor.index);
      const streamOffset = page.num(EXTENT.streamOffset, cursor.index);
      if (
        page.num(EXTENT.offset, cursor.index) !== extent.offset ||
        page.num(EXTENT.length, cursor.index) !== extent.length ||
        (row === 0) !== (extent.archive === HOLE)
      ) {
        return false;
      }
      const now = { number: extent.archive, streamOffset: extent.streamOffset };
      if (row !== 0 && !rows.samePlace({ row, streamOffset }, now)) return false;
      if (i < extents.length - 1) cursor.next();
    }
    const more =
      cursor.next() &&
      cursor.page!.num(EXTENT.inode, cursor.index) === inode &&
      (version === undefined || cursor.page!.num(EXTENT.version, cursor.index) === version);
    return !more && cursor.seekRank(first);
  }
}
