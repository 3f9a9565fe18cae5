/**
 * Writes down in the plan what becomes of an entry whose inode number is known: a record of a new one, or of an old one where
 * something about it differs; and which files are to be read for that.
 */
import { readlinkSync } from 'node:fs';
import { Cursor } from '../../archive/tree/read.ts';
import { INODE, INODE_FLAGS, TREES } from '../../archive/tree/schema.ts';
import { joinName } from '../../posix/folder.ts';
import type { Stat } from '../../posix/stat.ts';
import { newestSeen, versionsCursor } from '../worm/seen.ts';
import type { ComparisonOptions, WormRules } from './comparison-types.ts';
import type { Departures } from './departures.ts';
import { RowComparison } from './old-rows.ts';
import { FIELD, LINK, STATE } from './plan.ts';
import { outsidePath } from './sources.ts';
import { type Folder, reachable, S_IFLNK, S_IFMT, S_IFREG } from './walk.ts';
import { XattrReader } from './xattr-reader.ts';

const XATTR_FLAGS = INODE_FLAGS.xattrs | INODE_FLAGS.accessAcl | INODE_FLAGS.defaultAcl;

/** In place of a record: the entry vanished. */
export const GONE = -2;

interface Entry {
  name: string;
  stat: Stat;
  inode: number;
  /** Where its attributes are read, if not at its name in the folder. */
  path: Buffer | null;
}

export class EntryRecords {
  /** Bytes of files to be read. */
  readingBytes = 0;
  readonly #options: ComparisonOptions;
  readonly #departures: Departures;
  readonly #inodes: Cursor | null;
  readonly #versions: Cursor | null;
  readonly #xattrs: XattrReader;
  readonly #rows: RowComparison;
  readonly #worm: WormRules | null;
  /** The folder whose path stands last in `plan.folders`. */
  #placed: Folder | null = null;

  constructor(options: ComparisonOptions, departures: Departures) {
    const { base, events } = options;
    this.#options = options;
    this.#departures = departures;
    this.#worm = options.worm ?? null;
    this.#inodes = base === null ? null : new Cursor(base.source, TREES.inodes, base.roots.inodes);
    this.#versions = base === null || this.#worm === null ? null : versionsCursor(base);
    this.#xattrs = new XattrReader((path, error) => events.problem('unreadable', outsidePath(path), error));
    this.#rows = new RowComparison(base?.walkedAt ?? 0);
  }

  /** A record for an entry without an old inode; GONE when it vanished meanwhile. */
  fresh(folder: Folder, it: Entry): number {
    const { plan, events, version } = this.#options;
    const { stat } = it;
    const from = it.path ?? reachable(folder, it.name);
    const target = this.#target(folder, it, from);
    if (target === null) return GONE;
    const record = this.#record(folder, { ...it, from, target, oldFlags: null });
    const frozen = this.#worm?.acceptNew === false;
    plan.records.mark(record, STATE.put | STATE.fresh);
    if ((stat.mode & S_IFMT) === S_IFREG) {
      plan.records.set(record, FIELD.version, version);
      if (stat.size > 0) {
        if (frozen) {
          this.#place(folder, it.name, record);
          plan.records.mark(record, STATE.tentative);
          plan.tentative.push(record);
        } else this.#read(folder, it.name, record);
        return record;
      }
    }
    // Of a frozen set a new folder is taken only if something known is in it, which is seen later.
    if (frozen && it.name !== '') this.#place(folder, it.name, record);
    else events.classified(folder, it.name, { class: 'new', mode: stat.mode, size: stat.size });
    return record;
  }

  /** An entry with an old inode. -1 when its row stays as it is. */
  known(folder: Folder, it: Entry & { moved: boolean }): number {
    const { plan, events, version: newVersion, fromNothing } = this.#options;
    const inodes = this.#inodes!;
    const { stat, moved } = it;
    inodes.find(it.inode);
    const page = inodes.page!;
    const row = inodes.index;
    const flags = page.num(INODE.flags, row);
    const version = page.num(INODE.version, row);
    const diverged = (flags & INODE_FLAGS.diverged) !== 0;
    const isFile = (stat.mode & S_IFMT) === S_IFREG;
    const worm = isFile ? this.#worm : null;
    if (worm !== null && diverged && this.#isAsSeen(folder, stat, it.inode)) {
      worm.stillDiverged(it.inode, joinName(folder.path, it.name));
      return -1;
    }
    const oldParent = page.num(INODE.parent, row);
    const returned = this.#worm !== null && page.num(INODE.nlink, row) === 0;
    if (this.#worm !== null && moved)
      this.#departures.moved.push({ inode: it.inode, from: oldParent, folder, name: it.name, mode: stat.mode });
    // What stood in place of a folder has gone.
    const isBack = diverged && !isFile;
    const sameRow = this.#rows.sameRow(inodes, stat, folder.inode) && !isBack;
    const sameContent = this.#rows.sameContent(inodes, stat, moved);
    const due = worm !== null && (diverged || (worm.due?.has(it.inode) ?? false));
    const mustRead = !sameContent || due || (fromNothing && isFile && stat.size > 0);
    if (sameRow && !mustRead && !fromNothing) {
      const what = moved ? 'moved' : 'unchanged';
      events.classified(folder, it.name, { class: what, mode: stat.mode, size: stat.size });
      return -1;
    }
    const from = it.path ?? reachable(folder, it.name);
    const target = this.#target(folder, it, from) ?? page.slice(INODE.target, row);
    const record = this.#record(folder, { ...it, from, target, oldFlags: fromNothing ? null : flags });
    const { records } = plan;
    records.set(record, FIELD.version, version);
    // Where attributes cannot be read, the row has another ctime each time.
    const ctimeNs = records.get(record, FIELD.ctimeNs);
    const staysRow =
      sameRow ||
      (ctimeNs !== stat.ctimeNs && this.#rows.sameRow(inodes, { ...stat, ctimeNs }, folder.inode) && !isBack);
    if (!staysRow || fromNothing) records.mark(record, STATE.put);
    if (!staysRow) records.mark(record, STATE.differs);
    if (moved) records.mark(record, STATE.moved);
    if (returned) records.mark(record, STATE.returned);
    const torn = (flags & INODE_FLAGS.incomplete) !== 0;
    if (worm !== null && mustRead && !torn) {
      records.addFlags(record, flags & INODE_FLAGS.holes);
      if (diverged) records.mark(record, STATE.put);
      this.#place(folder, it.name, record);
      plan.checking.push(record);
      if (stat.nlink > 1) plan.otherNames.set(record, []);
      return record;
    }
    if (!sameContent && worm === null) records.set(record, FIELD.version, newVersion);
    if (!mustRead) {
      records.addFlags(record, flags & (INODE_FLAGS.holes | (isBack ? 0 : INODE_FLAGS.diverged)));
      const what = returned ? 'returned' : moved ? 'moved' : staysRow ? 'unchanged' : 'metadata';
      events.classified(folder, it.name, { class: what, mode: stat.mode, size: stat.size });
    } else if (stat.size > 0) {
      this.#read(folder, it.name, record);
    } else {
      // Empty: no need to read, but old extents go.
      const emptied = page.num(INODE.size, row) > 0;
      if (!emptied) records.set(record, FIELD.version, version);
      else {
        records.set(record, FIELD.version, newVersion);
        records.mark(record, STATE.put | STATE.content);
      }
      const what = emptied ? 'changed' : moved ? 'moved' : staysRow ? 'unchanged' : 'metadata';
      events.classified(folder, it.name, { class: what, mode: stat.mode, size: 0 });
    }
    return record;
  }

  /** WORM: a file that diverged, and has not changed since that was seen. */
  #isAsSeen(folder: Folder, stat: Stat, inode: number): boolean {
    const inodes = this.#inodes!;
    if (!this.#worm!.trustSeen) return false;
    const page = inodes.page!;
    const row = inodes.index;
    const seen = newestSeen(this.#versions!, inode, page.num(INODE.version, row));
    return (
      seen !== null &&
      seen.contentId !== null &&
      seen.size === stat.size &&
      seen.mtimeSec === stat.mtimeSec &&
      seen.mtimeNs === stat.mtimeNs &&
      page.num(INODE.parent, row) === folder.inode &&
      this.#rows.sameInode(inodes, stat)
    );
  }

  /**
   * `from`: where its attributes are read; `oldFlags`: INODE_FLAGS of its row, null when that is not there. Attributes that
   * cannot be read stay as they were, and the ctime is told a nanosecond off: so the next run looks again.
   */
  #record(folder: Folder, it: Entry & { from: Buffer; target: Buffer; oldFlags: number | null }): number {
    const { plan } = this.#options;
    const record = plan.records.add(it.stat, it.inode, folder.inode);
    if (it.target.length > 0) plan.targets.set(record, Buffer.from(it.target));
    const xattrs = this.#xattrs.read(it.from, () => it.path ?? joinName(folder.path, it.name));
    if (!xattrs.whole) {
      plan.records.set(record, FIELD.ctimeNs, it.stat.ctimeNs ^ 1);
      if (it.oldFlags !== null) {
        plan.records.addFlags(record, it.oldFlags & XATTR_FLAGS);
        return record;
      }
    }
    plan.records.mark(record, STATE.xattrs);
    if (xattrs.attributes.length > 0) {
      plan.xattrs.set(record, xattrs.attributes);
      plan.records.addFlags(record, xattrs.flags);
    }
    return record;
  }

  #read(folder: Folder, name: string, record: number): void {
    const { plan } = this.#options;
    this.#place(folder, name, record);
    plan.reading.push(record);
    if (plan.records.get(record, FIELD.nlink) > 1) plan.records.mark(record, STATE.linked);
    this.readingBytes += plan.records.get(record, FIELD.size);
  }

  /** One more name of a file that is read. */
  link(folder: Folder, name: string, record: number): void {
    const { links, names } = this.#options.plan;
    const row = links.append();
    links.set(row, LINK.record, record);
    links.set(row, LINK.folder, this.#placeOf(folder));
    links.set(row, LINK.parent, folder.inode);
    links.set(row, LINK.nameAt, names.arena.add(name));
    links.set(row, LINK.nameLength, name.length);
  }

  /** The folder's place in `plan.folders`. */
  #placeOf(folder: Folder): number {
    const { folders } = this.#options.plan;
    if (this.#placed !== folder) {
      folders.push(folder.path);
      this.#placed = folder;
    }
    return folders.length - 1;
  }

  /** Where the file of a record is to be found. */
  #place(folder: Folder, name: string, record: number): void {
    const { records, names } = this.#options.plan;
    records.set(record, FIELD.folder, this.#placeOf(folder));
    if (records.get(record, FIELD.nameLength) === 0) {
      records.set(record, FIELD.nameAt, names.arena.add(name));
      records.set(record, FIELD.nameLength, name.length);
    }
  }

  /** The target of a symbolic link, empty for anything else; null when it is gone or no link any more. */
  #target(folder: Folder, { stat, name }: Entry, path: Buffer): Buffer | null {
    if ((stat.mode & S_IFMT) !== S_IFLNK) return EMPTY;
    try {
      return readlinkSync(path, 'buffer');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const kind = code === 'ENOENT' || code === 'EINVAL' ? 'vanished' : 'unreadable';
      this.#options.events.problem(kind, joinName(folder.path, name), error as Error);
      return null;
    }
  }
}

const EMPTY = Buffer.alloc(0);
