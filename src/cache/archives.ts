/** Opening archives: keys unwrapped, headers checked, block tables read; once per archive however many snapshots share it. */
import {
  type ArchiveKind,
  FRAME_OVERHEAD,
  KIND_DATA,
  KIND_TREE,
  MAX_CBOR_HEADER,
  OUTER_OFFSETS,
} from '../archive/format.ts';
import { parseOuterHeader } from '../archive/frame.ts';
import { type ArchiveHeader, parseHeader } from '../archive/header.ts';
import { deriveArchiveKeys } from '../archive/keys.ts';
import { type OpenedArchive, openArchive, type RangeSource } from '../archive/reader.ts';
import { Cursor, type PageSource } from '../archive/tree/read.ts';
import type { SnapshotRoot, TreeArchiveFacts } from '../archive/tree/root.ts';
import { ARCHIVE, TREES } from '../archive/tree/schema.ts';
import { corrupt, RozenError } from '../errors.ts';
import { isRemote, type ObjectStore } from '../store/object-store.ts';
import { Fetcher } from './fetcher.ts';
import { type ArchiveAccess, closeArchives } from './frames.ts';
import { Miss, missArchive } from './miss.ts';
import { type PageCache, snapshotPages } from './pages.ts';

/** What opens archive keys; a Repository does. */
export interface KeyOpener {
  unwrap(envelope: Uint8Array): Promise<Buffer>;
  /** Left out by who never reads content. */
  readonly forwards?: ForwardLookup;
}

/** An archive as a signed place describes it. */
export interface ArchiveFacts extends Omit<TreeArchiveFacts, 'row'> {
  kind: ArchiveKind;
}

/** Where the content of an archive lies since it was merged into another one. */
interface Forwarding {
  /** The archive that was merged, as the signed record of that describes it. */
  source: Pick<ArchiveFacts, 'size' | 'headerHash' | 'merkleRoot'>;
  target: ArchiveFacts;
  /** Its stream in that of the target, in bytes. */
  start: number;
  end: number;
  /** Seconds since 1970. */
  created: number;
}

/** Answers where archives were merged into; a Repository's `forwards` does. Null: nowhere. */
interface ForwardLookup {
  /** As far as is known without asking the store. */
  known(id: Uint8Array): Forwarding | null;
  /** For an archive that is not there. */
  find(id: Uint8Array): Promise<Forwarding | null>;
}

/** An archive without the row that somebody asked for it by. */
type OpenArchive = Omit<ArchiveAccess, 'scope' | 'row'>;

/** The blocks of an open archive are gone: what it was opened for lies in another one now, and must be opened anew. */
export class ArchiveMoved extends RozenError {
  readonly handle: number;

  constructor(archive: OpenArchive) {
    super('io', `${archive.object}: its content was merged into another archive meanwhile`, {
      hint: 'run the same command again',
      retryable: true,
    });
    this.handle = archive.handle;
  }
}

/** An archive that was merged longer ago is probably gone: its content is looked for in the other one first. */
const MERGED_LONG_AGO = 7 * 24 * 3600 * 1000;

/** Most AHDR frames end within this many bytes: a few recipients. */
const HEADER_READ = 8 * 1024;

let lastHandle = 0;

/** Object names, as docs/FORMAT-REPOSITORY.md gives them. */
function objectName(folder: 'data' | 'index' | 'tree', id: Uint8Array): string {
  const hex = Buffer.from(id).toString('hex');
  return `${folder}/${hex.slice(0, 2)}/${hex}.${folder === 'index' ? 'rix' : 'roz'}`;
}

/** A tail to open an archive by: the archive's own, or that of its hot index. */
interface Tail {
  id: Uint8Array;
  object: string;
  hotIndex: boolean;
}

/** The open archives of one repository in this process, by id. Lives on the main thread. */
export class OpenArchives {
  readonly store: ObjectStore;
  readonly #keys: KeyOpener;
  /** With the header hash that it was first asked for by. */
  readonly #byId = new Map<string, { opening: Promise<OpenArchive>; headerHash: Buffer }>();
  readonly #moved = new Set<number>();
  readonly #byHandle = new Map<number, OpenArchive>();
  /** Null when the archives are read in place. */
  readonly fetcher: Fetcher | null;
  readonly #ownFetcher: boolean;

  /** `fetcher`: for a remote store, when it has a cache or is shared; closed by whoever made it. */
  constructor(options: { store: ObjectStore; keys: KeyOpener; fetcher?: Fetcher | null | undefined }) {
    this.store = options.store;
    this.#keys = options.keys;
    this.#ownFetcher = !options.fetcher && isRemote(options.store);
    this.fetcher = this.#ownFetcher
      ? new Fetcher({ store: options.store, cache: null, deadlineMs: null })
      : (options.fetcher ?? null);
  }

  /** Opens an archive, or waits for whoever is opening it. A failure is not remembered. */
  open(facts: ArchiveFacts): Promise<OpenArchive> {
    return this.#once(facts, () => (facts.kind === KIND_TREE ? this.#openTree(facts) : this.#openData(facts)));
  }

  /** Opens the tree archive of a snapshot by one suffix read, and gives its ROOT. */
  async openSnapshotTree(facts: TreeArchiveFacts): Promise<{ archive: OpenArchive; root: Buffer }> {
    const object = objectName('tree', facts.id);
    const opened = await this.#openTail({ id: facts.id, object, hotIndex: false }, (source) =>
      openArchive(source, { unwrap: (envelope) => this.#keys.unwrap(envelope), expect: facts, name: object }),
    );
    if (opened.root === null) throw corrupt(`${object}: not a tree archive`);
    const archive = await this.#once({ ...facts, kind: KIND_TREE }, async () => this.#add(opened, facts, object));
    // The upper pages lie in what was read: no need to ask for them again.
    this.fetcher?.keep(archive, pagesIn(opened));
    return { archive, root: opened.root };
  }

  /** Fetches a frame of an open archive for `readFrame` of this thread; `until`: see `Miss`. */
  fetch(handle: number, offset: number, length: number, until?: number): Promise<void> {
    const archive = this.#byHandle.get(handle);
    if (archive === undefined) throw new RozenError('internal', `no open archive has handle ${handle}`);
    return this.#fetch(archive, { offset, length, until });
  }

  async #fetch(
    archive: OpenArchive,
    { offset, length, until }: { offset: number; length: number; until: number | undefined },
  ): Promise<void> {
    try {
      if (this.fetcher !== null) return await this.fetcher.fetch(archive, offset, length, until);
      // Read in place, and gone.
      await this.store.getRange(archive.object, offset, length);
    } catch (error) {
      if (!isGone(error) || !(await this.#hasMoved(archive))) throw error;
      throw new ArchiveMoved(archive);
    }
  }

  /** Whether an archive that was open is to be opened anew, since its content lies elsewhere. */
  hasMoved(handle: number): boolean {
    return this.#moved.has(handle);
  }

  async #hasMoved(archive: OpenArchive): Promise<boolean> {
    if (archive.kind !== KIND_DATA || !(await this.#keys.forwards?.find(archive.id))) return false;
    this.#moved.add(archive.handle);
    for (const [id, { opening }] of this.#byId) {
      if ((await opening.catch(() => null))?.handle === archive.handle) this.#byId.delete(id);
    }
    return true;
  }

  /** A reader in another thread is at this block, and goes on in order: what follows is fetched ahead of it. */
  visited(handle: number, block: number): void {
    const archive = this.#byHandle.get(handle);
    const offset = archive?.blockOffsets?.[block];
    if (offset !== undefined) this.fetcher?.visited(archive!, offset, archive!.blockLengths![block]!);
  }

  /** Wipes all keys and closes the files of this thread. Nothing of it may be in use any more. */
  close(): void {
    if (this.#ownFetcher) this.fetcher?.close();
    for (const archive of this.#byHandle.values()) archive.blockKey.fill(0);
    closeArchives(this.#byHandle.keys());
    this.#byHandle.clear();
    this.#byId.clear();
  }

  #once(facts: ArchiveFacts, work: () => Promise<OpenArchive>): Promise<OpenArchive> {
    const id = facts.id.toString('hex');
    const known = this.#byId.get(id);
    if (known === undefined) {
      const opening = work();
      this.#byId.set(id, { opening, headerHash: Buffer.from(facts.headerHash) });
      opening.catch(() => this.#byId.delete(id));
      return opening;
    }
    return known.opening.then((archive) => {
      // One id, one archive: whoever says something else of it is mistaken or lies.
      if (archive.kind !== facts.kind || !facts.headerHash.equals(known.headerHash))
        throw contradiction(objectName(facts.kind === KIND_TREE ? 'tree' : 'data', facts.id));
      return archive;
    });
  }

  #openTail<T>(tail: Tail, open: (source: RangeSource) => Promise<T>): Promise<T> {
    const { store } = this;
    const { object } = tail;
    if (this.fetcher !== null) return this.fetcher.openTail(tail, open);
    return open({
      read: (offset, length) => store.getRange(object, offset, length),
      suffix: (length) => store.getSuffix(object, length),
    });
  }

  /** An older tree archive: its pages are named by pointers, so only its key is needed, and the header that commits to it. */
  async #openTree(facts: ArchiveFacts): Promise<OpenArchive> {
    const object = objectName('tree', facts.id);
    const header = await this.#readHeader(object, facts);
    if (!header.headerHash.equals(facts.headerHash) || header.kind !== KIND_TREE) throw contradiction(object);
    const key = await this.#keys.unwrap(facts.envelope);
    const keys = deriveArchiveKeys(key, header.commitment);
    key.fill(0);
    keys.record.fill(0);
    return this.#add(
      { id: header.id, kind: KIND_TREE, headerHash: header.headerHash, blockKey: keys.block },
      facts,
      object,
    );
  }

  async #readHeader(object: string, facts: ArchiveFacts): Promise<ArchiveHeader> {
    const read = (length: number): Promise<Buffer> => {
      const wanted = Math.min(length, facts.size);
      return this.fetcher?.read(object, 0, wanted) ?? this.store.getRange(object, 0, wanted);
    };
    const get = async (): Promise<Buffer> => {
      let bytes = await read(HEADER_READ);
      if (bytes.length >= FRAME_OVERHEAD && headerLength(bytes) > bytes.length) {
        bytes = await read(FRAME_OVERHEAD + MAX_CBOR_HEADER);
      }
      const { frameLength } = parseOuterHeader(bytes, { archiveId: facts.id });
      return bytes.subarray(0, frameLength);
    };
    try {
      return parseHeader(this.fetcher === null ? await get() : await this.fetcher.header(facts.id, get));
    } catch (error) {
      if (!(error instanceof RozenError) || error.message.includes(object)) throw error;
      throw new RozenError(error.code, `${object}: ${error.message}`, { hint: error.hint, cause: error });
    }
  }

  /** A data archive, or what it was merged into. */
  async #openData(facts: ArchiveFacts): Promise<OpenArchive> {
    const known = this.#keys.forwards?.known(facts.id) ?? null;
    if (known !== null && Date.now() - known.created * 1000 > MERGED_LONG_AGO) {
      try {
        return await this.#openMerged(facts, known);
      } catch (error) {
        if (!isGone(error)) throw error;
      }
    }
    try {
      return await this.#openDataItself(facts);
    } catch (error) {
      if (!isGone(error) && !isCorrupt(error)) throw error;
      const found = await this.#keys.forwards?.find(facts.id).catch((failure) => {
        // What is damaged is told as it is; that it might be found elsewhere is no help then.
        if (isGone(error)) throw failure;
        return null;
      });
      if (!found) throw error;
      return this.#openMerged(facts, found);
    }
  }

  async #openMerged(facts: ArchiveFacts, { source, target, start, end }: Forwarding): Promise<OpenArchive> {
    const same =
      source.size === facts.size &&
      source.headerHash.equals(facts.headerHash) &&
      source.merkleRoot.equals(facts.merkleRoot);
    if (!same) throw contradiction(objectName('data', facts.id));
    const archive = await this.#once(target, () => this.#openDataItself(target));
    return { ...archive, streamStart: start, streamEnd: end };
  }

  /** Its hot index has all; the archive itself answers too when that is lost. */
  async #openDataItself(facts: ArchiveFacts): Promise<OpenArchive> {
    const object = objectName('data', facts.id);
    const index = objectName('index', facts.id);
    const options = { unwrap: (envelope: Buffer) => this.#keys.unwrap(envelope), expect: facts };
    let opened: OpenedArchive;
    try {
      opened = await this.#openTail({ id: facts.id, object: index, hotIndex: true }, (source) =>
        openArchive(source, { ...options, name: index, hotIndex: true }),
      );
    } catch (error) {
      if (!isGone(error) && !isCorrupt(error)) throw error;
      opened = await this.#openTail({ id: facts.id, object, hotIndex: false }, (source) =>
        openArchive(source, { ...options, name: object }),
      ).catch(() => {
        throw error;
      });
    }
    if (opened.kind !== KIND_DATA) throw contradiction(object);
    opened.recordKey.fill(0);
    return this.#add(opened, facts, object);
  }

  #add(
    opened: Pick<OpenedArchive, 'id' | 'kind' | 'headerHash' | 'blockKey'> & Partial<Pick<OpenedArchive, 'blocks'>>,
    facts: Pick<ArchiveFacts, 'size'>,
    object: string,
  ): OpenArchive {
    const table = opened.kind === KIND_DATA ? opened.blocks : undefined;
    const archive: OpenArchive = {
      handle: ++lastHandle,
      // Memory of its own: what is posted to a thread takes along all of what it is cut from, 8 KiB of the pool or a whole page.
      id: Uint8Array.from(opened.id),
      kind: opened.kind,
      object,
      path: this.store.localPath(object),
      size: facts.size,
      headerHash: Uint8Array.from(opened.headerHash),
      blockKey: opened.blockKey,
      blockOffsets: table?.offsets ?? null,
      blockLengths: table?.lengths ?? null,
      streamStart: 0,
      streamEnd: Number.POSITIVE_INFINITY,
    };
    this.#byHandle.set(archive.handle, archive);
    return archive;
  }
}

/** The pages of a tree archive that lie in what was read of its end. */
function pagesIn({ blocks, suffix }: OpenedArchive): { offset: number; bytes: Buffer }[] {
  const pages: { offset: number; bytes: Buffer }[] = [];
  for (let i = blocks.count - 1; i >= 0 && blocks.offset(i) >= suffix.offset; i--) {
    const at = blocks.offset(i) - suffix.offset;
    pages.push({ offset: blocks.offset(i), bytes: suffix.bytes.subarray(at, at + blocks.length(i)) });
  }
  return pages;
}

function isGone(error: unknown): boolean {
  return error instanceof RozenError && error.code === 'not-found';
}

function isCorrupt(error: unknown): boolean {
  return error instanceof RozenError && error.code === 'corrupt';
}

/** Bytes of the AHDR frame that begins here, as far as its fixed part says. */
function headerLength(bytes: Buffer): number {
  return FRAME_OVERHEAD + bytes.readUInt32LE(OUTER_OFFSETS.cborLength);
}

function contradiction(object: string): RozenError {
  return new RozenError('untrusted', `${object}: it is not the archive that the signed record names`, {
    hint: 'the object was swapped or belongs to another repository: do not trust this store',
  });
}

/** The archives of one snapshot, by row. */
export class ArchiveSet {
  readonly scope: string;
  /** The trees of the snapshot. Throws Miss for a tree archive that is not open and for what is not fetched. */
  readonly source: PageSource;
  readonly #shared: OpenArchives;
  readonly #root: SnapshotRoot;
  readonly #named: ReadonlyMap<number, TreeArchiveFacts>;
  readonly #open = new Map<number, ArchiveAccess>();

  constructor(options: {
    scope: string;
    shared: OpenArchives;
    pages: PageCache;
    root: SnapshotRoot;
    /** The archive that ROOT came from. */
    own: OpenArchive;
  }) {
    this.scope = options.scope;
    this.#shared = options.shared;
    this.#root = options.root;
    this.#named = new Map(options.root.archives.map((facts) => [facts.row, facts]));
    this.#open.set(options.root.row, { ...options.own, scope: this.scope, row: options.root.row });
    this.source = snapshotPages(options.pages, (row) => this.#treeAccess(row));
  }

  /** What fetches for all snapshots of this process; null when archives are read in place. */
  get fetcher(): Fetcher | null {
    return this.#shared.fetcher;
  }

  /** The archive of a row if it is open. */
  get(row: number): ArchiveAccess | undefined {
    const access = this.#open.get(row);
    return access !== undefined && this.#shared.hasMoved(access.handle) ? undefined : access;
  }

  /** The open archive of a row: a tree archive that ROOT names, or whatever the `archives` tree names. */
  async open(row: number): Promise<ArchiveAccess> {
    const known = this.get(row);
    if (known !== undefined) return known;
    const archive = await this.#shared.open(await this.facts(row));
    const access: ArchiveAccess = { ...archive, scope: this.scope, row };
    this.#open.set(row, access);
    return access;
  }

  /** What the snapshot says of the archive in a row. 'corrupt' when it names none. */
  async facts(row: number): Promise<ArchiveFacts> {
    const named = this.#named.get(row);
    if (named !== undefined) return { ...named, kind: KIND_TREE };
    const cursor = new Cursor(this.source, TREES.archives, this.#root.roots.archives);
    const found = await this.retry(() => cursor.find(row));
    if (!found) throw corrupt(`snapshot ${this.scope}: no archive has row ${row}`);
    const page = cursor.page!;
    const i = cursor.index;
    const kind = page.num(ARCHIVE.kind, i);
    if (kind !== KIND_DATA && kind !== KIND_TREE)
      throw corrupt(`snapshot ${this.scope}: archive ${row} is of kind ${kind}`);
    return {
      kind,
      id: page.slice(ARCHIVE.id, i),
      size: page.num(ARCHIVE.size, i),
      headerHash: page.slice(ARCHIVE.headerHash, i),
      merkleRoot: page.slice(ARCHIVE.merkleRoot, i),
      envelope: page.slice(ARCHIVE.envelope, i),
    };
  }

  /** Makes what a Miss names available on this thread. Throws ArchiveMoved when the archive of the row must be asked for again. */
  async resolve(miss: Miss): Promise<void> {
    const { target } = miss;
    if (target.kind === 'frame') return this.#shared.fetch(target.handle, target.offset, target.length, target.until);
    if (target.scope !== this.scope)
      throw new RozenError('internal', `a miss of snapshot ${target.scope} at ${this.scope}`);
    await this.open(target.row);
  }

  /** Runs `work` until nothing is missing any more. `work` begins anew each time. */
  async retry<T>(work: () => T): Promise<T> {
    let last = '';
    let moved: ArchiveMoved | null = null;
    for (;;) {
      try {
        return work();
      } catch (error) {
        if (!(error instanceof Miss)) throw error;
        const { target } = error;
        const now = target.kind === 'archive' ? `archive ${target.row}` : `frame ${target.handle}:${target.offset}`;
        // The same thing missing again right after it came would go on for ever.
        if (now === last) throw moved ?? new RozenError('internal', `${now} is missing although it was fetched`);
        last = now;
        moved = null;
        await this.resolve(error).catch((failure) => {
          if (!(failure instanceof ArchiveMoved)) throw failure;
          // Work that asks for the archive of its row anew gets another one.
          moved = failure;
        });
      }
    }
  }

  /** Pages lie in archives that ROOT names. Anything else is damage, and following it could go round in circles. */
  #treeAccess(row: number): ArchiveAccess {
    const access = this.#open.get(row);
    if (access !== undefined) return access;
    if (!this.#named.has(row))
      throw corrupt(`snapshot ${this.scope}: a page in archive ${row}, which ROOT does not name`);
    throw missArchive(this.scope, row);
  }
}
