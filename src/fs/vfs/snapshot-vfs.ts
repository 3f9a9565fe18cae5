/**
 * The filesystem of a mount, in one thread: the folders of slot 0, the snapshots, and the view of versions. All threads
 * are alike; what the main thread opens it posts to the others. A Miss says what must be opened first.
 */
import { ROOT_INODE } from '../../archive/format.ts';
import type { PageSource } from '../../archive/tree/read.ts';
import { type BlockMeter, BlockReader } from '../../cache/blocks.ts';
import { closeRemoved } from '../../cache/frames.ts';
import { Miss } from '../../cache/miss.ts';
import { BlockSlots, type SlotMemory } from '../../cache/slots.ts';
import { PieceTasks, type TaskMemory } from '../../cache/tasks.ts';
import { RozenError } from '../../errors.ts';
import { EINVAL, EIO, EISDIR, ENOTDIR, ESTALE } from '../../posix/errno.ts';
import type { Warmth } from '../../store/object-store.ts';
import {
  type Attr,
  type DirectoryEntry,
  type DirectorySink,
  emptyAttr,
  type FileSystemStatistics,
  FsError,
  type ReadRange,
  type ReadSink,
  type Vfs,
} from '../vfs.ts';
import { Board, COUNT } from './board.ts';
import type { Catalogue, CatalogueSnapshot } from './catalogue.ts';
import type { ArchiveState } from './cold-archives.ts';
import { DeletedView } from './deleted.ts';
import { type HostMessage, type OpenSnapshot, SnapshotMiss, StateMiss, UsageMiss } from './messages.ts';
import { DELETED_BIT, isFolder, VIEW_BIT, VIRTUAL_SLOT } from './nodes.ts';
import { type ExtentVisitor, SnapshotTree } from './snapshot-tree.ts';
import { renderStatus, type StatusFacts } from './status.ts';
import { TreePages } from './tree-pages.ts';
import { VersionView } from './versions.ts';
import { VirtualFolders } from './virtual.ts';

export interface SnapshotVfsOptions {
  /** 0 the main thread, n + 1 reader n. */
  thread: number;
  slots: SlotMemory;
  tasks: TaskMemory;
  board: SharedArrayBuffer;
  /** Bytes of decoded pages that this thread may hold. */
  pageBytes: number;
  catalogue: Catalogue;
  status: StatusFacts;
  /** Archives may lie in cold storage. */
  remote: boolean;
  /** Takes in what was posted; called when the epoch has moved. */
  receive: (vfs: SnapshotVfs) => void;
  /** Work of a fraction of a millisecond begins: see ReaderThread.busy. */
  busy: (ahead?: boolean) => void;
  /** Calls another thread to `help`: see ReaderThread.call. */
  call: () => boolean;
  /** Content of an archive that must be fetched is read in order, and the reader is at this block. */
  inOrder: (handle: number, block: number) => void;
  /** Tells of damage that a request met. */
  report: (message: string) => void;
}

/** Trees whose cursors are kept; each holds a few pages. */
const TREES_KEPT = 16;
const ZEROS = Buffer.alloc(1024 * 1024);
const DOT = 0x2e;
const NOTHING = Buffer.alloc(0);
const ROZEN_XATTR = Buffer.from('user.rozen.');
const BLOCK = 4096;
/** Removed archives are looked for so often at most: up to 128 calls of fstat. */
const LOOK_EACH_MS = 30_000;

export class SnapshotVfs implements Vfs {
  readonly #options: SnapshotVfsOptions;
  readonly #board: Board;
  readonly #slots: BlockSlots;
  readonly #blocks: BlockReader;
  readonly #pages: TreePages;
  readonly #virtual: VirtualFolders;
  readonly #versions: VersionView;
  readonly #deletedView: DeletedView;
  readonly #opened = new Map<number, OpenSnapshot>();
  readonly #trees = new Map<number, SnapshotTree>();
  readonly #entry: DirectoryEntry = { source: NOTHING, start: 0, end: 0, attr: emptyAttr(), cookie: 0 };
  /** Of data archives, by id, as the main thread has told them. */
  readonly #states = new Map<string, ArchiveState>();
  #status: StatusFacts;
  #epoch: number;
  /** When to look for removed files next, in ms. */
  #lookAt = 0;

  constructor(options: SnapshotVfsOptions) {
    this.#options = options;
    this.#status = options.status;
    this.#board = new Board(options.board, options.thread);
    this.#epoch = this.#board.epoch;
    this.#slots = new BlockSlots(options.slots);
    const meter: BlockMeter = {
      frame: (sealed) => {
        this.#board.count(COUNT.framesRead);
        this.#board.count(COUNT.sealedBytes, sealed);
      },
      part: (helping) => {
        this.#board.count(COUNT.partsDecoded);
        if (helping) this.#board.count(COUNT.partsShared);
      },
      failed: () => this.#board.count(COUNT.partsFailed),
      busy: options.busy,
      call: options.call,
      inOrder: (access, block) => options.inOrder(access.handle, block),
    };
    this.#blocks = new BlockReader(this.#slots, meter, new PieceTasks(options.tasks, options.thread));
    this.#pages = new TreePages(options.pageBytes, options.busy);
    this.#virtual = new VirtualFolders(options.catalogue, this.#board, () => this.#statusText());
    this.#versions = new VersionView({
      olderThan: (slot) => this.#olderThan(slot),
      trees: (slots) => this.#allTrees(slots),
    });
    this.#deletedView = new DeletedView((slot) => this.#tree(slot));
  }

  get pagesDecoded(): number {
    return this.#pages.decoded;
  }

  /** Takes in a message of the main thread. */
  apply(message: HostMessage): void {
    if (message.kind === 'catalogue') this.#virtual.setCatalogue(message.catalogue);
    else if (message.kind === 'status') this.#status = message.facts;
    else if (message.kind === 'states') for (const state of message.states) this.#states.set(state.id, state);
    else if (message.kind === 'archive') {
      this.#pages.setArchive(message.scope, message.row, message.access);
      this.#blocks.know(message.access);
    } else this.#opened.set(message.snapshot.slot, message.snapshot);
  }

  lookup(slot: number, ino: number, name: Uint8Array, attr: Attr): boolean {
    try {
      return this.#lookup(slot, ino, name, attr);
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  getattr(slot: number, ino: number, attr: Attr): void {
    try {
      this.#getattr(slot, ino, attr);
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  readdir(slot: number, ino: number, options: { cookie: number; attributes: boolean; sink: DirectorySink }): void {
    try {
      slot = this.#real(slot);
      const { cookie, attributes, sink } = options;
      if (slot === VIRTUAL_SLOT) {
        const complete = (attr: Attr) => this.#fillIfOpen(attr);
        this.#virtual.readdir(ino, { cookie, attributes, sink, complete }, this.#entry);
      } else if (slot >= VIEW_BIT) {
        this.#versions.readdir({ slot, ino, parent: this.#parent(slot, ino) }, options, this.#entry);
      } else if (slot >= DELETED_BIT) {
        this.#deletedView.readdir({ slot, ino, parent: this.#parent(slot, ino) }, options, this.#entry);
      } else {
        const parent = cookie < 2 ? this.#parent(slot, ino) : { slot: 0, ino: 0 };
        this.#tree(slot).readdir(ino, { cookie, attributes, sink, parent }, this.#entry);
      }
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  readlink(slot: number, ino: number): Uint8Array {
    try {
      slot = this.#real(slot);
      if (slot === VIRTUAL_SLOT) return this.#virtual.readlink(ino);
      if (slot >= DELETED_BIT) throw new FsError(EINVAL);
      return this.#tree(slot).readlink(ino);
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  read(slot: number, ino: number, range: ReadRange): void {
    const held: number[] = [];
    try {
      slot = this.#real(slot);
      if (slot >= DELETED_BIT) throw new FsError(EISDIR);
      const { offset, size, sink, direct } = range;
      if (slot === VIRTUAL_SLOT) {
        sink.push(this.#virtual.read(ino).subarray(offset, offset + size));
        return;
      }
      sink.onRelease(() => this.#blocks.release(held));
      const visit: ExtentVisitor = (access, streamOffset, length) => {
        if (access === null) pushZeros(sink, length);
        else this.#blocks.read(access, { offset: streamOffset, length, direct }, held, sink);
        this.#board.count(COUNT.bytesRead, length);
      };
      const tree = this.#tree(slot);
      tree.extents(ino, range, visit, this.#contentTree(tree));
    } catch (error) {
      this.#blocks.release(held);
      throw this.#refusal(error);
    }
  }

  getxattr(slot: number, ino: number, name: Uint8Array): Uint8Array | null {
    try {
      slot = this.#real(slot);
      if (slot === VIRTUAL_SLOT || slot >= DELETED_BIT) return null;
      const tree = this.#tree(slot);
      if (ROZEN_XATTR.compare(name, 0, Math.min(name.length, ROZEN_XATTR.length)) === 0) {
        const value = this.#rozenXattr(tree, ino, Buffer.from(name).toString('latin1', ROZEN_XATTR.length));
        if (value !== undefined) return value === null ? null : Buffer.from(value);
      }
      return tree.getxattr(ino, name);
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  listxattr(slot: number, ino: number): Uint8Array {
    try {
      slot = this.#real(slot);
      return slot === VIRTUAL_SLOT || slot >= DELETED_BIT ? NOTHING : this.#tree(slot).listxattr(ino);
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  lseek(slot: number, ino: number, offset: number, whence: number): number {
    try {
      slot = this.#real(slot);
      if (slot === VIRTUAL_SLOT || slot >= DELETED_BIT) throw new FsError(EINVAL);
      return this.#tree(slot).lseek(ino, offset, whence);
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  statfs(): FileSystemStatistics {
    const { usage } = this.#virtual.catalogue;
    if (usage === null) throw this.#refusal(new UsageMiss());
    const { bytes, files } = usage;
    return { blocks: Math.ceil(bytes / BLOCK), blockSize: BLOCK, files };
  }

  pump(): void {
    this.#board.count(COUNT.requests);
    this.#board.put(COUNT.pagesDecoded, this.#pages.decoded);
    this.#receive();
  }

  #receive(): void {
    const { epoch } = this.#board;
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    this.#options.receive(this);
    // What has been told may be that archives were merged, and their files removed.
    if (Date.now() < this.#lookAt) return;
    this.#lookAt = Date.now() + LOOK_EACH_MS;
    closeRemoved();
  }

  idle(): boolean {
    return this.#blocks.workAhead();
  }

  help(): boolean {
    this.#receive();
    return this.#blocks.help();
  }

  /** A mount of one snapshot shows its root where else the folders of slot 0 begin; node 1 means both. */
  #real(slot: number): number {
    return slot === VIRTUAL_SLOT ? (this.#virtual.catalogue.root ?? VIRTUAL_SLOT) : slot;
  }

  #getattr(nodeSlot: number, ino: number, attr: Attr): void {
    const slot = this.#real(nodeSlot);
    if (slot === VIRTUAL_SLOT) this.#virtual.getattr(ino, attr);
    else if (slot >= VIEW_BIT) this.#versions.getattr(slot, ino, attr);
    else if (slot >= DELETED_BIT) this.#deletedView.getattr(slot, ino, attr);
    else this.#tree(slot).getattr(ino, attr);
    if (attr.ino === ROOT_INODE && attr.slot === this.#virtual.catalogue.root) attr.slot = VIRTUAL_SLOT;
  }

  #lookup(nodeSlot: number, ino: number, name: Uint8Array, attr: Attr): boolean {
    const slot = this.#real(nodeSlot);
    if (name[0] === DOT && name.length <= 2) {
      if (name.length === 1) {
        this.#getattr(slot, ino, attr);
        return true;
      }
      if (name[1] === DOT) {
        this.#getattr(slot, ino, attr);
        if (!isFolder(attr.mode)) throw new FsError(ENOTDIR);
        const parent = this.#parent(slot, ino);
        this.#getattr(parent.slot, parent.ino, attr);
        return true;
      }
    }
    if (slot >= VIEW_BIT) return this.#versions.lookup({ slot, ino }, name, attr);
    if (slot >= DELETED_BIT) return this.#deletedView.lookup({ slot, ino }, name, attr);
    if (slot === VIRTUAL_SLOT) {
      const found = this.#virtual.lookup(ino, name, attr);
      if (found === null) return false;
      if (found === 'named') this.#getattr(attr.slot, attr.ino, attr);
      return true;
    }
    const tree = this.#tree(slot);
    const child = tree.child(ino, name);
    if (child === 0) return false;
    tree.linked(child, attr);
    return true;
  }

  #parent(slot: number, ino: number): { slot: number; ino: number } {
    if (slot === VIRTUAL_SLOT) return { slot, ino: this.#virtual.parent(ino) };
    const { root } = this.#virtual.catalogue;
    if (ino === ROOT_INODE) {
      return { slot: VIRTUAL_SLOT, ino: slot === root ? ROOT_INODE : this.#virtual.parentOfRoot(slot) };
    }
    const parent = this.#tree(slot & ~(VIEW_BIT | DELETED_BIT)).parentOf(ino);
    return { slot: parent === ROOT_INODE && slot === root ? VIRTUAL_SLOT : slot, ino: parent };
  }

  /** For a listing of snapshots: attributes of those that are open; opening all of them would cost a read for each. */
  #fillIfOpen(attr: Attr): boolean {
    if (!this.#opened.has(attr.slot & ~(VIEW_BIT | DELETED_BIT))) return false;
    this.#getattr(attr.slot, attr.ino, attr);
    return true;
  }

  #tree(slot: number): SnapshotTree {
    let tree = this.#trees.get(slot);
    if (tree !== undefined) {
      if (this.#trees.size >= TREES_KEPT) {
        this.#trees.delete(slot);
        this.#trees.set(slot, tree);
      }
      return tree;
    }
    const snapshot = this.#opened.get(slot);
    if (snapshot === undefined) {
      if (this.#virtual.snapshot(slot) === undefined) throw new FsError(ESTALE);
      throw new SnapshotMiss([slot]);
    }
    const source: PageSource = this.#pages.source(snapshot.scope);
    tree = new SnapshotTree({ ...snapshot, source, archives: this.#pages });
    if (this.#trees.size >= TREES_KEPT) this.#trees.delete(this.#trees.keys().next().value!);
    this.#trees.set(slot, tree);
    return tree;
  }

  #allTrees(slots: readonly number[]): SnapshotTree[] {
    const missing = slots.filter((slot) => !this.#opened.has(slot) && this.#virtual.snapshot(slot) !== undefined);
    if (missing.length > 0) throw new SnapshotMiss(missing);
    return slots.map((slot) => this.#tree(slot));
  }

  #olderThan(slot: number): readonly CatalogueSnapshot[] {
    const place = this.#virtual.snapshot(slot);
    if (place === undefined) throw new FsError(ESTALE);
    const { snapshots } = place.set;
    return snapshots.slice(0, snapshots.indexOf(place.snapshot) + 1).reverse();
  }

  /** What Rozen itself says of a node; undefined for names that are not Rozen's. None of them is listed: copies stay alike. */
  #rozenXattr(tree: SnapshotTree, ino: number, name: string): string | null | undefined {
    if (name === 'snapshot') return tree.id;
    if (name === 'id') return tree.contentId(ino);
    if (name === 'archive') return tree.archiveIds(tree.contentRows(ino)).join(',') || null;
    if (name === 'state') return tree.contentVersion(ino) < 0 ? null : this.#stateOf(tree, ino);
    return undefined;
  }

  /** Through which the contents of a snapshot are read. */
  #contentTree(tree: SnapshotTree): SnapshotTree {
    const through = this.#virtual.snapshot(tree.slot)?.snapshot.contentSlot;
    return through === undefined ? tree : this.#tree(through);
  }

  /** Of all archives that a file's content lies in: frozen when one is. Throws Miss when that must be asked. */
  #stateOf(tree: SnapshotTree, ino: number): Warmth {
    if (!this.#options.remote) return 'hot';
    const through = this.#contentTree(tree);
    const ids = through.archiveIds(tree.contentRows(ino, Number.POSITIVE_INFINITY, through));
    const now = Date.now();
    const unknown = ids.filter((id) => (this.#states.get(id)?.until ?? 0) <= now);
    if (unknown.length > 0) throw new StateMiss(unknown);
    const states = ids.map((id) => this.#states.get(id)!.state);
    return states.includes('frozen') ? 'frozen' : states.includes('thawing') ? 'thawing' : 'hot';
  }

  #statusText(): string {
    const { sets, since } = this.#virtual.catalogue;
    const { slots, slotSize } = this.#options.slots;
    return renderStatus(this.#status, {
      since: since.sec * 1000 + since.ns / 1e6,
      sets: sets.length,
      snapshots: sets.reduce((sum, set) => sum + set.snapshots.length, 0),
      slots: { slots, slotSize },
      blocks: this.#slots.counters(),
      ...(Object.fromEntries(
        Object.entries(COUNT).map(([name, counter]) => [name, this.#board.total(counter)]),
      ) as Record<keyof typeof COUNT, number>),
    });
  }

  /** At the boundary there is only errno: damage is told to the main thread and becomes EIO for this request alone. */
  #refusal(error: unknown): unknown {
    if (error instanceof Miss) {
      this.#board.count(COUNT.misses);
      return error;
    }
    if (!(error instanceof RozenError)) return error;
    this.#options.report(error.message);
    return new FsError(EIO, error.message);
  }
}

function pushZeros(sink: ReadSink, length: number): void {
  for (let left = length; left > 0; left -= ZEROS.length)
    sink.push(left < ZEROS.length ? ZEROS.subarray(0, left) : ZEROS);
}
