/**
 * The folders that Rozen itself makes (slot 0):
 *
 *   snapshots/<set>/<time>    the root of a snapshot, node (slot, 1); `latest` is a symlink to the newest
 *   by-id/<snapshot id>       a symlink: a folder cannot have two places in a kernel's tree
 *   versions/<set>            the view from the newest snapshot back, node (slot | VIEW_BIT, 1)
 *   worm/<set>/current        a symlink to the newest snapshot of a WORM set
 *   worm/<set>/deleted        what is gone, node (slot | DELETED_BIT, 1) of the newest
 *   .rozen/status             a text, made anew for each lookup
 *
 * Listings only grow at their end, so a cookie (the number of the entry) stays right when a snapshot appears.
 */
import { EINVAL, EISDIR, ENOTDIR, ESTALE } from '../../posix/errno.ts';
import { type Attr, type DirectoryEntry, type DirectorySink, FsError } from '../vfs.ts';
import type { Board } from './board.ts';
import type { Catalogue, CatalogueSet, CatalogueSnapshot } from './catalogue.ts';
import { addName, DOTS, FIRST_ROW } from './dots.ts';
import {
  BY_ID,
  BY_ID_BASE,
  CURRENT_BASE,
  DELETED_BASE,
  DELETED_BIT,
  DOT_ROZEN,
  LATEST_BASE,
  linkOfInode,
  ROOT,
  S_IFDIR,
  S_IFLNK,
  S_IFREG,
  SNAPSHOTS,
  STATUS_BASE,
  STATUS_LIMIT,
  setFolder,
  setOfInode,
  VERSIONS,
  VIEW_BIT,
  VIRTUAL_SLOT,
  WORM,
  wormFolder,
  wormSetOfInode,
} from './nodes.ts';

/** What a name in a virtual folder leads to. */
interface Child {
  name: Buffer;
  slot: number;
  ino: number;
  mode: number;
}

interface IndexedSnapshot {
  set: CatalogueSet;
  snapshot: CatalogueSnapshot;
}

export class VirtualFolders {
  readonly #board: Board;
  readonly #statusText: () => string;
  #catalogue!: Catalogue;
  #sets!: Map<number, CatalogueSet>;
  #bySlot!: Map<number, IndexedSnapshot>;
  /** Children of each folder by name, made when first needed after a change. */
  #children = new Map<number, { list: Child[]; byName: Map<string, Child> }>();

  constructor(catalogue: Catalogue, board: Board, statusText: () => string) {
    this.#board = board;
    this.#statusText = statusText;
    this.setCatalogue(catalogue);
  }

  get catalogue(): Catalogue {
    return this.#catalogue;
  }

  setCatalogue(catalogue: Catalogue): void {
    this.#catalogue = catalogue;
    this.#sets = new Map(catalogue.sets.map((set) => [set.number, set]));
    this.#bySlot = new Map(
      catalogue.sets.flatMap((set) => set.snapshots.map((snapshot) => [snapshot.slot, { set, snapshot }])),
    );
    this.#children = new Map();
  }

  snapshot(slot: number): IndexedSnapshot | undefined {
    return this.#bySlot.get(slot);
  }

  /** The folder in which the root of a snapshot (or of its view) stands. */
  parentOfRoot(slot: number): number {
    if (slot >= VIEW_BIT) return VERSIONS;
    const deleted = slot >= DELETED_BIT;
    const place = this.#bySlot.get(slot & ~DELETED_BIT);
    if (place === undefined) return ROOT;
    return deleted ? wormFolder(place.set.number) : setFolder(place.set.number);
  }

  /**
   * The child with this name: fills slot, ino and mode of `attr`, and all of it (answer true) for nodes of slot 0. Null
   * when there is none. `.` and `..` are the caller's.
   */
  lookup(ino: number, name: Uint8Array, attr: Attr): 'filled' | 'named' | null {
    const children = this.#folder(ino);
    const child = children.byName.get(Buffer.from(name).toString('latin1'));
    if (child === undefined) return null;
    attr.slot = child.slot;
    attr.ino = child.ino;
    attr.mode = child.mode;
    if (child.slot !== VIRTUAL_SLOT) return 'named';
    if (child.ino === STATUS_BASE) {
      const { serial, length } = this.#board.keepText(this.#statusText());
      attr.ino = STATUS_BASE + serial;
      this.#fill(attr, { mode: S_IFREG | 0o444, size: length, sec: Math.floor(Date.now() / 1000), ns: 0 });
      return 'filled';
    }
    this.getattr(child.ino, attr);
    return 'filled';
  }

  parent(ino: number): number {
    if (wormSetOfInode(ino) >= 0) return WORM;
    return setOfInode(ino) >= 0 ? SNAPSHOTS : ROOT;
  }

  getattr(ino: number, attr: Attr): void {
    const { since } = this.#catalogue;
    attr.slot = VIRTUAL_SLOT;
    attr.ino = ino;
    if (FIXED.has(ino)) {
      const folders = ino === DOT_ROZEN || ino === BY_ID ? 0 : this.#folder(ino).list.length;
      this.#fill(attr, { mode: S_IFDIR | 0o555, nlink: 2 + folders, ...since });
      return;
    }
    if (ino >= STATUS_BASE && ino < STATUS_LIMIT) {
      const text = this.#board.text(ino - STATUS_BASE);
      if (text === null) throw new FsError(ESTALE);
      this.#fill(attr, { mode: S_IFREG | 0o444, size: text.length, sec: Math.floor(Date.now() / 1000), ns: 0 });
      return;
    }
    const link = linkOfInode(ino);
    if (link !== null) {
      const { snapshot } = this.#place(link.slot);
      const target = this.readlink(ino);
      this.#fill(attr, { mode: S_IFLNK | 0o777, size: target.length, sec: snapshot.timeSec, ns: snapshot.timeNs });
      return;
    }
    const ofWorm = wormSetOfInode(ino);
    const set = this.#sets.get(ofWorm >= 0 ? ofWorm : setOfInode(ino));
    if (set === undefined) throw new FsError(ESTALE);
    const newest = newestOf(set);
    const time = { sec: newest.timeSec, ns: newest.timeNs };
    this.#fill(attr, {
      mode: S_IFDIR | 0o555,
      nlink: 2 + (ofWorm >= 0 ? Math.max(1, set.machines.length) : set.snapshots.length),
      ...time,
    });
  }

  /** `complete(attr)` fills the attributes of a node of a snapshot, or says that it is not open yet. */
  readdir(
    ino: number,
    options: { cookie: number; attributes: boolean; sink: DirectorySink; complete: (attr: Attr) => boolean },
    entry: DirectoryEntry,
  ): void {
    const { list } = this.#folder(ino);
    const { attr } = entry;
    const { cookie, sink } = options;
    // Unlike others, these are known here at once.
    for (let index = cookie; index < FIRST_ROW; index++) {
      this.getattr(index === 0 ? ino : this.parent(ino), attr);
      attr.complete = true;
      if (!addName(entry, DOTS[index]!, index + 1, sink)) return;
    }
    for (let index = Math.max(0, cookie - FIRST_ROW); index < list.length; index++) {
      const child = list[index]!;
      attr.slot = child.slot;
      attr.ino = child.ino;
      attr.mode = child.mode;
      attr.complete = true;
      if (child.slot !== VIRTUAL_SLOT) attr.complete = options.attributes && options.complete(attr);
      else if (child.ino === STATUS_BASE) attr.complete = false;
      else if (options.attributes) this.getattr(child.ino, attr);
      if (!addName(entry, child.name, index + 1 + FIRST_ROW, sink)) return;
    }
  }

  readlink(ino: number): Buffer {
    const link = linkOfInode(ino);
    if (link === null) throw new FsError(EINVAL);
    const { set, snapshot } = this.#place(link.slot);
    if (link.as === 'deleted')
      return Buffer.from(`deleted-${set.machines.find((machine) => machine.slot === link.slot)?.name ?? ''}`);
    if (link.as === 'latest') return Buffer.from(snapshot.name);
    return Buffer.from(`${link.as === 'id' ? '..' : '../..'}/snapshots/${set.name}/${snapshot.name}`);
  }

  read(ino: number): Buffer {
    if (ino < STATUS_BASE || ino >= STATUS_LIMIT) throw new FsError(EISDIR);
    const text = this.#board.text(ino - STATUS_BASE);
    if (text === null) throw new FsError(ESTALE);
    return text;
  }

  #place(slot: number): IndexedSnapshot {
    const place = this.#bySlot.get(slot);
    if (place === undefined) throw new FsError(ESTALE);
    return place;
  }

  #folder(ino: number): { list: Child[]; byName: Map<string, Child> } {
    let folder = this.#children.get(ino);
    if (folder === undefined) {
      const list = this.#list(ino);
      folder = { list, byName: new Map(list.map((child) => [child.name.toString('latin1'), child])) };
      this.#children.set(ino, folder);
    }
    return folder;
  }

  #list(ino: number): Child[] {
    const { sets } = this.#catalogue;
    const own = (name: string, child: number, mode: number): Child => node(name, VIRTUAL_SLOT, child, mode);
    if (ino === ROOT) {
      return [
        own('snapshots', SNAPSHOTS, S_IFDIR),
        own('by-id', BY_ID, S_IFDIR),
        own('versions', VERSIONS, S_IFDIR),
        own('.rozen', DOT_ROZEN, S_IFDIR),
        ...(sets.some((set) => set.worm) ? [own('worm', WORM, S_IFDIR)] : []),
      ];
    }
    if (ino === DOT_ROZEN) return [own('status', STATUS_BASE, S_IFREG)];
    if (ino === SNAPSHOTS) return sets.map((set) => own(set.name, setFolder(set.number), S_IFDIR));
    if (ino === BY_ID) {
      return [...this.#bySlot.values()]
        .sort((a, b) => a.snapshot.slot - b.snapshot.slot)
        .map(({ snapshot }) => own(snapshot.id, BY_ID_BASE + snapshot.slot, S_IFLNK));
    }
    if (ino === VERSIONS) {
      return sets.map((set) => node(set.name, newestOf(set).slot | VIEW_BIT, ROOT, S_IFDIR));
    }
    if (ino === WORM) {
      return sets.filter((set) => set.worm).map((set) => own(set.name, wormFolder(set.number), S_IFDIR));
    }
    const worm = this.#sets.get(wormSetOfInode(ino));
    if (worm !== undefined) {
      const { slot } = newestOf(worm);
      const views = [own('current', CURRENT_BASE + slot, S_IFLNK)];
      if (worm.machines.length === 0) views.push(node('deleted', slot | DELETED_BIT, ROOT, S_IFDIR));
      else views.push(own('deleted', DELETED_BASE + slot, S_IFLNK));
      for (const machine of worm.machines) {
        views.push(own(`current-${machine.name}`, CURRENT_BASE + machine.slot, S_IFLNK));
        views.push(node(`deleted-${machine.name}`, machine.slot | DELETED_BIT, ROOT, S_IFDIR));
      }
      return views;
    }
    const set = this.#sets.get(setOfInode(ino));
    if (set === undefined) {
      const known = linkOfInode(ino) !== null || (ino >= STATUS_BASE && ino < STATUS_LIMIT);
      throw new FsError(known ? ENOTDIR : ESTALE);
    }
    return [
      own('latest', LATEST_BASE + newestOf(set).slot, S_IFLNK),
      ...set.snapshots.map((snapshot) => node(snapshot.name, snapshot.slot, ROOT, S_IFDIR)),
    ];
  }

  #fill(attr: Attr, values: { mode: number; nlink?: number; size?: number; sec: number; ns: number }): void {
    const { uid, gid } = this.#catalogue.owner;
    attr.slot = VIRTUAL_SLOT;
    attr.generation = 0;
    attr.mode = values.mode;
    attr.nlink = values.nlink ?? 1;
    attr.uid = uid;
    attr.gid = gid;
    attr.rdev = 0;
    attr.size = values.size ?? 0;
    attr.blocks = 0;
    attr.mtimeSec = attr.ctimeSec = attr.btimeSec = values.sec;
    attr.mtimeNs = attr.ctimeNs = attr.btimeNs = values.ns;
    attr.volatile = true;
    attr.complete = true;
  }
}

const FIXED: ReadonlySet<number> = new Set([ROOT, SNAPSHOTS, BY_ID, VERSIONS, DOT_ROZEN, WORM]);

function newestOf(set: CatalogueSet): CatalogueSnapshot {
  return set.snapshots[set.snapshots.length - 1]!;
}

function node(name: string, slot: number, ino: number, mode: number): Child {
  return { name: Buffer.from(name), slot, ino, mode };
}
