/**
 * The boundary between the kernel protocol and what is served. Everything here is synchronous and holds no state per
 * file: a node is (slot, ino), both plain numbers, and any thread can answer any request. A method that lacks a page,
 * block or archive throws a `Miss`; one that must refuse throws a `FsError`.
 */

/** Refusal with an errno (positive, as in errno.h). */
export class FsError extends Error {
  readonly errno: number;

  constructor(errno: number, message = `errno ${errno}`) {
    super(message);
    this.errno = errno;
  }
}

/** Attributes of one node. One instance is filled again and again: a listing allocates nothing per file. */
export interface Attr {
  slot: number;
  ino: number;
  /** Hash of the snapshot id, so that a slot that is reused gives ESTALE. */
  generation: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** As the kernel's new_encode_dev. */
  rdev: number;
  size: number;
  /** 512-byte units. */
  blocks: number;
  mtimeSec: number;
  mtimeNs: number;
  ctimeSec: number;
  ctimeNs: number;
  btimeSec: number;
  btimeNs: number;
  /** False inside a snapshot (cached for ever); true for folders and files that Rozen itself changes. */
  volatile: boolean;
  /**
   * False when a listing knows only slot, ino and the file type of `mode`, because the rest would mean to open a snapshot
   * for each entry: READDIRPLUS then gives the entry without a node (node id 0), and the kernel looks it up if it must.
   */
  complete: boolean;
}

export function emptyAttr(): Attr {
  return {
    slot: 0,
    ino: 0,
    generation: 0,
    mode: 0,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 0,
    blocks: 0,
    mtimeSec: 0,
    mtimeNs: 0,
    ctimeSec: 0,
    ctimeNs: 0,
    btimeSec: 0,
    btimeNs: 0,
    volatile: true,
    complete: true,
  };
}

/** One entry of a folder. Like Attr, one instance is filled again and again. */
export interface DirectoryEntry {
  /** The name is `source` from `start` to `end`: no view is made per entry. */
  source: Uint8Array;
  start: number;
  end: number;
  /** At least slot, ino and mode; all of it when asked for and `complete`. */
  attr: Attr;
  /** Where the next call goes on after this entry: what the kernel calls its offset. */
  cookie: number;
}

/** Receives the entries of a folder; `add` answers false when the reply is full (the entry was not taken). */
export interface DirectorySink {
  add(entry: DirectoryEntry): boolean;
}

/** Receives pieces of file content in order. Pieces may alias shared memory that is pinned until `release` runs. */
export interface ReadSink {
  push(bytes: Uint8Array): void;
  /** Called exactly once by the dispatcher after the reply was written or dropped. */
  onRelease(release: () => void): void;
}

export interface FileSystemStatistics {
  blocks: number;
  blockSize: number;
  files: number;
}

export interface ReadRange {
  offset: number;
  size: number;
  sink: ReadSink;
  /** The kernel keeps nothing of the answer (O_DIRECT): who wants it again asks again. */
  direct: boolean;
}

export interface Vfs {
  /** Fills `attr`; false when there is no such name. `.` and `..` work on every folder. */
  lookup(slot: number, ino: number, name: Uint8Array, attr: Attr): boolean;
  getattr(slot: number, ino: number, attr: Attr): void;
  /** `cookie` 0 begins; entries include `.` and `..`. */
  readdir(slot: number, ino: number, options: { cookie: number; attributes: boolean; sink: DirectorySink }): void;
  readlink(slot: number, ino: number): Uint8Array;
  read(slot: number, ino: number, range: ReadRange): void;
  /** Null when the node has no such attribute. */
  getxattr(slot: number, ino: number, name: Uint8Array): Uint8Array | null;
  /** Names, each ended by NUL. */
  listxattr(slot: number, ino: number): Uint8Array;
  /** SEEK_DATA (3) and SEEK_HOLE (4); throws ENXIO beyond the end. */
  lseek(slot: number, ino: number, offset: number, whence: number): number;
  statfs(): FileSystemStatistics;
  /** Takes in what the main thread has posted; called before each request, must cost one atomic load when idle. */
  pump(): void;
  /**
   * Called after a reply was written: decode ahead. Must return soon (a block or two). True when the request was one of a program that reads in
   * order.
   */
  idle(): boolean;
  /** Does a piece of what another thread works on, after it has called; false when there is none. Costs next to nothing then. */
  help(): boolean;
}

/** What a reader thread is to the vfs that it has made. */
export interface ReaderThread {
  /** 0, 1, … */
  worker: number;
  /**
   * To be called before work of more than some 20 µs (decoding a block or page, waiting for another thread): another
   * reader may then take the next requests meanwhile. `ahead`: nobody waits for this work. Costs next to nothing when called
   * again.
   */
  busy(ahead?: boolean): void;
  /** Wakes a thread that sleeps, to `help`. False when none does, or other requests wait. */
  call(): boolean;
}

/** A change that the kernel may have cached: the listing of a folder, or one name in it. */
export interface Invalidation {
  slot: number;
  ino: number;
  /** The entry that changed; null when the whole listing of the folder is meant. */
  name: Uint8Array | null;
}

/**
 * The main thread's side of what is served. A reader that met a `Miss` hands the raw request to the main thread, which
 * runs the handler over `vfs`, awaits `resolve` for each Miss, and writes the late reply.
 */
export interface VfsHost {
  /** The same handler for the main thread, over the same shared slots. */
  readonly vfs: Vfs;
  /** The module whose `createVfs(init, {worker})` a reader worker calls. */
  readonly module: URL;
  /** How far the kernel shall read ahead of a program that goes on in order, where it lets itself be told, KiB. */
  readonly readAhead: number;
  /** What that call receives, to be cloned into the worker by its first message, and the ports in it that must be transferred. */
  workerInit(worker: number): { init: unknown; transfer: import('node:worker_threads').TransferListItem[] };
  /** Makes what the miss names available to every thread. Rejects with FsError (already logged) when it cannot. */
  resolve(miss: unknown): Promise<void>;
  /** Called after the listeners' tables changed; the listener must only write notifications asynchronously. */
  onInvalidate(listener: (change: Invalidation) => void): void;
  /** Shows an error in `.rozen/status` and the log, each message once a minute at most. */
  report(message: string): void;
  close(): Promise<void>;
}
