/** A snapshot compared with the files of this machine, both ways. Content is rehashed here and held against stored ids. */
import { closeSync, readlinkSync } from 'node:fs';
import { INODE_FLAGS } from '../../archive/tree/schema.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import { joinName, listFolder, openFolder } from '../../posix/folder.ts';
import { reasonOf } from '../../posix/reason.ts';
import { lstat, type Stat } from '../../posix/stat.ts';
import type { Repository } from '../../repository/repository.ts';
import { xattrs } from '../backup/compare-entries.ts';
import { KEPT_NAME } from '../backup/kept-files.ts';
import { XattrReader } from '../backup/xattr-reader.ts';
import { differingFields, isIdle } from '../diff/difference.ts';
import { type Attributes, InodeLookup, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../view/attributes.ts';
import { ContentReader } from '../view/content.ts';
import { EnteredFolders } from '../view/entered-folders.ts';
import { EntryWalk, forEachStep } from '../view/entry-walk.ts';
import type { OpenPlace } from '../view/place.ts';
import type { AgainstListener, AgainstReport, Divergence, DivergenceKind } from './against-types.ts';
import { LocalContent } from './local-content.ts';

const S_IFSOCK = 0o140000;
const XATTR_FLAGS = INODE_FLAGS.xattrs | INODE_FLAGS.accessAcl | INODE_FLAGS.defaultAcl;

export interface AgainstOptions {
  place: OpenPlace;
  /** What the place is compared with: a folder for a folder, else a file. */
  folder: Buffer;
  /** Where the place is from. */
  repository: Repository;
  signal?: AbortSignal;
}

export async function against(options: AgainstOptions, listener: AgainstListener = {}): Promise<AgainstReport> {
  const { place, folder } = options;
  const startedAt = Date.now();
  const comparison = new Comparison(options, listener);
  let top: Stat;
  try {
    top = lstat(folder);
  } catch (cause) {
    throw new RozenError('not-found', `${folder.toString()}: no such file or folder`, { cause });
  }
  await comparison.entry(Buffer.alloc(0), folder, { attributes: place.attributes, stat: top });
  await comparison.findMoves();
  const { divergences, equal, files, bytes } = comparison;
  divergences.sort((a, b) => a.path.compare(b.path));
  return {
    snapshotId: place.snapshot.id,
    set: place.snapshot.set,
    folder,
    divergences,
    equal,
    files,
    bytes,
    startedAt,
    finishedAt: Date.now(),
  };
}

interface Missing {
  path: Buffer;
  attributes: Attributes;
}

interface Extra {
  path: Buffer;
  local: Buffer;
  stat: Stat;
}

class Comparison {
  readonly divergences: Divergence[] = [];
  equal = 0;
  files = 0;
  readonly #reader: SnapshotReader;
  readonly #options: AgainstOptions;
  readonly #listener: AgainstListener;
  readonly #entered = new EnteredFolders();
  readonly #inodes: InodeLookup;
  readonly #missing: Missing[] = [];
  readonly #extra: Extra[] = [];
  readonly #content: LocalContent;
  readonly #xattrs = new XattrReader(() => {});

  constructor(options: AgainstOptions, listener: AgainstListener) {
    this.#options = options;
    this.#listener = listener;
    this.#reader = options.place.reader;
    this.#inodes = new InodeLookup(this.#reader);
    const stored = new ContentReader(this.#reader);
    this.#content = new LocalContent(options.repository, this.#reader, (file) => stored.read(file));
  }

  get bytes(): number {
    return this.#content.bytes;
  }

  #tell(kind: DivergenceKind, path: Buffer, message: string, from?: Buffer): void {
    const divergence: Divergence = { kind, path, message, ...(from === undefined ? {} : { from }) };
    this.divergences.push(divergence);
    this.#listener.divergence?.(divergence);
  }

  #tellContent(path: Buffer, message: string, { attributes, stat }: { attributes: Attributes; stat: Stat }): void {
    const isFile = (stat.mode & S_IFMT) === S_IFREG;
    const { size, mtimeSec, mtimeNs } = attributes;
    const decayed = isFile && stat.size === size && stat.mtimeSec === mtimeSec && stat.mtimeNs === mtimeNs;
    const divergence: Divergence = { kind: 'content', path, message, decayed, ...(isFile ? { file: attributes } : {}) };
    this.divergences.push(divergence);
    this.#listener.divergence?.(divergence);
  }

  /** Something that is on both sides, and all that lies below it. */
  async entry(path: Buffer, local: Buffer, both: { attributes: Attributes; stat: Stat }): Promise<void> {
    const { attributes, stat } = both;
    if (this.#options.signal?.aborted) throw new RozenError('interrupted', 'verify was interrupted');
    const type = attributes.mode & S_IFMT;
    if ((stat.mode & S_IFMT) !== type) {
      this.#tell('type', path, 'another kind of file');
      if (type === S_IFDIR) await this.#allMissing(path, attributes.inode);
      return;
    }
    try {
      const message = await this.#difference(local, both);
      if (message !== null) this.#tellContent(path, message, both);
      else {
        const fields = differingFields(attributes, { ...attributes, ...stat, target: attributes.target });
        if (!(await this.#sameXattrs(local, attributes))) fields.push('xattrs');
        if (isIdle(attributes.mode, fields)) this.equal++;
        else this.#tell('metadata', path, fields.join(', '));
      }
    } catch (error) {
      this.#cannot(path, error);
    }
    if (type === S_IFDIR) await this.#folder(path, local, attributes.inode);
  }

  /** Local files that cannot be read are a result; damage of the repository is not this comparison's. */
  #cannot(path: Buffer, error: unknown): void {
    if (error instanceof RozenError || typeof (error as NodeJS.ErrnoException).errno !== 'number') throw error;
    this.#tell('unreadable', path, reasonOf(error));
  }

  async #folder(path: Buffer, local: Buffer, inode: number): Promise<void> {
    let names: string[] = [];
    try {
      const fd = openFolder(local);
      try {
        names = listFolder(fd, local);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      this.#cannot(path, error);
      return;
    }
    const stored = await this.#entries(inode);
    let at = 0;
    for (const { name, attributes } of stored) {
      const text = name.toString('latin1');
      while (at < names.length && names[at]! < text) this.#isExtra(path, local, names[at++]!);
      const below = joinPath(path, name);
      if (names[at] !== text) {
        await this.#isMissing(below, attributes);
        continue;
      }
      at++;
      const localPath = joinName(local, text);
      let stat: Stat;
      try {
        stat = lstat(localPath);
      } catch (error) {
        this.#cannot(below, error);
        continue;
      }
      await this.entry(below, localPath, { attributes, stat });
    }
    while (at < names.length) this.#isExtra(path, local, names[at++]!);
  }

  async #entries(inode: number): Promise<{ name: Buffer; attributes: Attributes }[]> {
    this.#entered.enter(inode);
    const found: { name: Buffer; inode: number }[] = [];
    const walk = new EntryWalk(this.#reader, inode, { recursive: false });
    await forEachStep(
      this.#reader,
      () => walk.next(),
      (entry) => {
        found.push({ name: Buffer.from(entry.name), inode: entry.inode });
      },
    );
    const entries: { name: Buffer; attributes: Attributes }[] = [];
    for (const { name, inode } of found) {
      const attributes = await retrying(this.#reader, () => this.#inodes.get(inode));
      entries.push({ name, attributes: { ...attributes, target: Buffer.from(attributes.target) } });
    }
    return entries;
  }

  async #isMissing(path: Buffer, attributes: Attributes): Promise<void> {
    this.#missing.push({ path, attributes });
    if ((attributes.mode & S_IFMT) === S_IFDIR) await this.#allMissing(path, attributes.inode);
  }

  async #allMissing(path: Buffer, inode: number): Promise<void> {
    for (const { name, attributes } of await this.#entries(inode))
      await this.#isMissing(joinPath(path, name), attributes);
  }

  #isExtra(path: Buffer, local: Buffer, name: string): void {
    const below = joinPath(path, Buffer.from(name, 'latin1'));
    const localPath = joinName(local, name);
    try {
      const stat = lstat(localPath);
      // What is never backed up.
      const isKept = this.#options.place.snapshot.mode === 'worm' && KEPT_NAME.test(name);
      if ((stat.mode & S_IFMT) === S_IFSOCK || isKept) return;
      this.#extra.push({ path: below, local: localPath, stat });
      if ((stat.mode & S_IFMT) !== S_IFDIR) return;
      const fd = openFolder(localPath);
      try {
        for (const inside of listFolder(fd, localPath)) this.#isExtra(below, localPath, inside);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      this.#cannot(below, error);
    }
  }

  /** What is missing at one path and lies at another one was moved: same size, and same bytes. */
  async findMoves(): Promise<void> {
    const bySize = new Map<number, Extra[]>();
    for (const extra of this.#extra) {
      if ((extra.stat.mode & S_IFMT) !== S_IFREG || extra.stat.size === 0) continue;
      const list = bySize.get(extra.stat.size);
      if (list === undefined) bySize.set(extra.stat.size, [extra]);
      else list.push(extra);
    }
    const moved = new Set<Extra>();
    for (const { path, attributes } of this.#missing) {
      const candidates = (attributes.mode & S_IFMT) === S_IFREG ? (bySize.get(attributes.size) ?? []) : [];
      let found: Extra | undefined;
      for (const candidate of candidates) {
        if (moved.has(candidate) || !(await this.#isSame(candidate.local, attributes))) continue;
        found = candidate;
        break;
      }
      if (found === undefined) this.#tell('missing', path, 'not on this machine');
      else {
        moved.add(found);
        this.#tell('moved', found.path, 'moved', path);
      }
    }
    for (const extra of this.#extra) if (!moved.has(extra)) this.#tell('extra', extra.path, 'not in the snapshot');
  }

  async #isSame(local: Buffer, attributes: Attributes): Promise<boolean> {
    try {
      return (await this.#content.difference(local, attributes, () => this.#tick(local))) === null;
    } catch (error) {
      if (error instanceof RozenError) throw error;
      return false;
    }
  }

  #tick(local: Buffer): void {
    if (this.#options.signal?.aborted) throw new RozenError('interrupted', 'verify was interrupted');
    this.#listener.progress?.({ files: this.files, bytes: this.bytes, current: local });
  }

  /** How the content differs; null when it does not. */
  async #difference(
    local: Buffer,
    { attributes, stat }: { attributes: Attributes; stat: Stat },
  ): Promise<string | null> {
    const type = attributes.mode & S_IFMT;
    if (type === S_IFLNK) {
      const target = readlinkSync(local, 'buffer');
      return target.equals(attributes.target) ? null : `a symlink to ${target.toString()}`;
    }
    if (type !== S_IFREG) return null;
    this.files++;
    if (stat.size !== attributes.size) return `${stat.size} bytes, in the snapshot ${attributes.size}`;
    if (stat.size === 0) return null;
    const found = await this.#content.difference(local, attributes, () => this.#tick(local));
    return found === null ? null : `differs between bytes ${found.from} and ${found.to}`;
  }

  async #sameXattrs(local: Buffer, attributes: Attributes): Promise<boolean> {
    const mine = this.#xattrs.read(local).attributes;
    if (mine.length === 0 && (attributes.flags & XATTR_FLAGS) === 0) return true;
    const stored = await xattrs({ reader: this.#reader, attributes });
    return (
      mine.length === stored.length &&
      mine.every((pair, i) => pair.name.equals(stored[i]!.name) && pair.value.equals(stored[i]!.value))
    );
  }
}

function joinPath(folder: Buffer, name: Buffer): Buffer {
  return folder.length === 0 ? name : Buffer.concat([folder, SLASH, name]);
}

const SLASH = Buffer.from('/');
