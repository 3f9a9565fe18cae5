/**
 * The main thread's side of a mount: finds the snapshots, opens what a reader lacks, posts it to all readers, notices new
 * snapshots, and keeps the errors for `.rozen/status`.
 */
import { join } from 'node:path';
import { MessageChannel, type MessagePort, type TransferListItem } from 'node:worker_threads';
import { BLOCK_SIZE } from '../../archive/format.ts';
import { ArchiveMoved, OpenArchives } from '../../cache/archives.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import { type FetchCounters, Fetcher } from '../../cache/fetcher.ts';
import { Miss } from '../../cache/miss.ts';
import { PageCache } from '../../cache/pages.ts';
import { createSealedMemory, SealedSlots } from '../../cache/sealed-slots.ts';
import { BlockSlots, createSlotMemory, type SlotCounters, type SlotMemory } from '../../cache/slots.ts';
import { createTaskMemory } from '../../cache/tasks.ts';
import { entryUrl } from '../../entries.ts';
import { RozenError } from '../../errors.ts';
import { EIO } from '../../posix/errno.ts';
import type { Repository } from '../../repository/repository.ts';
import { isRemote, type ObjectStore } from '../../store/object-store.ts';
import { logLine } from '../log-line.ts';
import { FsError, type Invalidation, type Vfs, type VfsHost } from '../vfs.ts';
import { Board, createBoardMemory } from './board.ts';
import { buildCatalogue, type Catalogue, type SnapshotFacts } from './catalogue.ts';
import { changes } from './catalogue-changes.ts';
import { ColdArchives } from './cold-archives.ts';
import { cacheFacts, FetchMeter } from './fetch-meter.ts';
import {
  type FromReader,
  type HostMessage,
  type OpenSnapshot,
  SnapshotMiss,
  StateMiss,
  UsageMiss,
  type VfsInit,
} from './messages.ts';
import { generationOf } from './nodes.ts';
import { SlotTable } from './slot-table.ts';
import { SnapshotList } from './snapshot-list.ts';
import { SnapshotVfs } from './snapshot-vfs.ts';
import { ErrorLog, type StatusFacts } from './status.ts';

export interface VfsHostOptions {
  store: ObjectStore;
  /** Opened to read. */
  repository: Repository;
  /** Chooses the one snapshot whose root the mount shows; without it the mount shows all. */
  choose?: ((snapshots: readonly SnapshotFacts[]) => SnapshotFacts) | undefined;
  /** Memory for decoded blocks, shared by all threads. */
  blockBytes?: number;
  /** Memory for decoded pages, for each thread. */
  pageBytes?: number;
  /** How often the store is asked for new snapshots, ms; 0 never. */
  pollMs?: number;
  /** Where slots are recorded; by default in the repository's state folder. Null: for this mount only. */
  slotsPath?: string | null;
  /** Of a remote store: what was fetched before. Closed by whoever opened it. */
  cache?: BlockCache | null;
  /** Of a remote store: how long a read waits for it, ms. */
  deadlineMs?: number;
  /** Takes a line that is new, or that was last said a minute ago. */
  log?: (line: string) => void;
}

const BLOCK_BYTES = 64 * 1024 * 1024;
const PAGE_BYTES = 24 * 1024 * 1024;
/**
 * Requests of 1 MiB, two of them at once: 1 GiB of noise in 0.67 s instead of 0.73 s with one (0.63 s with four). But the kernel also reads as
 * much around a page of a mapped file, and what is fetched takes longer and costs money.
 */
const READ_AHEAD_KB = 2048;
const REMOTE_READ_AHEAD_KB = 1024;
const POLL_MS = 5_000;
/** A listing of a remote store costs money. */
const REMOTE_POLL_MS = 60_000;
/** How long a failure to open something is answered from memory: a damaged archive is not read anew for each request. */
const FAILURE_MS = 5_000;
const FAILURES_KEPT = 1000;
/** The readers hear of new errors this often at most. */
const STATUS_MS = 500;

export class MountHost implements VfsHost {
  readonly vfs: Vfs;
  readonly module = entryUrl('vfs');
  readonly readAhead: number;
  readonly #options: VfsHostOptions;
  readonly #archives: OpenArchives;
  /** Null when the archives are read in place. */
  readonly #fetcher: Fetcher | null;
  readonly #cold: ColdArchives;
  readonly #list: SnapshotList;
  readonly #table: SlotTable;
  readonly #slots: SlotMemory;
  readonly #tasks = createTaskMemory(BLOCK_SIZE);
  readonly #sealed: SlotMemory | null;
  readonly #boardMemory = createBoardMemory();
  readonly #board: Board;
  readonly #own: SnapshotVfs;
  readonly #log = new ErrorLog();
  readonly #ports = new Set<MessagePort>();
  readonly #opened = new Map<number, OpenSnapshot>();
  readonly #posted = new Map<string, Extract<HostMessage, { kind: 'archive' }>>();
  readonly #failures = new Map<string, { until: number; error: FsError }>();
  readonly #listeners: ((change: Invalidation) => void)[] = [];
  #catalogue: Catalogue;
  #poll: NodeJS.Timeout | null = null;
  #statusDue: NodeJS.Timeout | null = null;
  #refreshing: Promise<boolean> | null = null;
  readonly #meter: FetchMeter | null;

  /** Use `openVfsHost`. */
  constructor(options: VfsHostOptions) {
    const { store, repository } = options;
    this.#options = options;
    const { cache = null, deadlineMs } = options;
    const remote = isRemote(store);
    this.#sealed = remote ? createSealedMemory() : null;
    const sealed = this.#sealed === null ? undefined : new SealedSlots(this.#sealed);
    this.#fetcher = remote ? new Fetcher({ store, cache, deadlineMs, sealed }) : null;
    this.readAhead = remote ? REMOTE_READ_AHEAD_KB : READ_AHEAD_KB;
    this.#cold = new ColdArchives(store, repository.forwards);
    this.#archives = new OpenArchives({ store, keys: repository, fetcher: this.#fetcher });
    const pages = new PageCache(options.pageBytes ?? PAGE_BYTES);
    const report = (message: string) => this.report(message);
    this.#list = new SnapshotList({ store, repository, archives: this.#archives, pages, report });
    this.#table = this.#openTable();
    this.#slots = createSlotMemory({ bytes: options.blockBytes ?? BLOCK_BYTES, slotSize: BLOCK_SIZE });
    this.#board = new Board(this.#boardMemory, 0);
    this.#meter = this.#fetcher === null ? null : new FetchMeter(this.#fetcher, this.#board);
    const now = Date.now();
    this.#catalogue = {
      since: { sec: Math.floor(now / 1000), ns: (now % 1000) * 1e6 },
      owner: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
      usage: null,
      root: null,
      sets: [],
    };
    this.#own = new SnapshotVfs({
      thread: 0,
      slots: this.#slots,
      tasks: this.#tasks,
      board: this.#boardMemory,
      pageBytes: options.pageBytes ?? PAGE_BYTES,
      catalogue: this.#catalogue,
      status: this.#facts(),
      remote: this.#fetcher !== null,
      // What is posted to the readers was given to this one at once.
      receive: () => {},
      busy: () => {},
      call: () => false,
      inOrder: (handle, block) => this.#archives.visited(handle, block),
      report,
    });
    this.vfs = this.#own;
  }

  /** Lists the snapshots; the newest of each lineage is open afterwards. Throws when the repository cannot be trusted. */
  async start(): Promise<void> {
    await this.#list.refresh();
    const { choose } = this.#options;
    await this.#numberSnapshots();
    if (choose !== undefined) {
      const chosen = choose(this.#list.snapshots);
      this.#catalogue = this.#build(this.#table.slotOf(chosen.id)!);
      await this.#openSnapshot(this.#catalogue.root!);
    } else {
      this.#catalogue = this.#build(null);
    }
    this.#own.apply({ kind: 'catalogue', catalogue: this.#catalogue });
    for (const set of this.#catalogue.sets) {
      await this.#openSnapshot(set.snapshots[set.snapshots.length - 1]!.slot);
    }
    this.#meter?.count();
    this.#postStatus();
    const every = this.#options.pollMs ?? (this.#fetcher === null ? POLL_MS : REMOTE_POLL_MS);
    if (every > 0 && choose === undefined) {
      this.#poll = setInterval(() => void this.refresh().catch((error) => this.report(messageOf(error))), every);
      this.#poll.unref();
    }
  }

  workerInit(_worker: number): { init: VfsInit; transfer: TransferListItem[] } {
    const { port1, port2 } = new MessageChannel();
    this.#ports.add(port1);
    port1.on('message', (message: FromReader) => this.#heard(message));
    port1.on('close', () => this.#ports.delete(port1));
    port1.unref();
    this.#statusDue ??= setTimeout(() => this.#postStatus(), STATUS_MS).unref();
    const init: VfsInit = {
      port: port2,
      slots: this.#slots,
      tasks: this.#tasks,
      board: this.#boardMemory,
      pageBytes: this.#options.pageBytes ?? PAGE_BYTES,
      catalogue: this.#catalogue,
      status: this.#facts(),
      snapshots: [...this.#opened.values()],
      archives: [...this.#posted.values()].map(({ scope, row, access }) => ({ scope, row, access })),
      cache: this.#fetcher?.cache?.folder ?? null,
      sealed: this.#sealed,
      remote: this.#fetcher !== null,
    };
    return { init, transfer: [port2] };
  }

  async resolve(miss: unknown): Promise<void> {
    try {
      await this.#resolve(miss);
    } finally {
      this.#meter?.count();
    }
  }

  async #resolve(miss: unknown): Promise<void> {
    if (!(miss instanceof Miss)) throw new FsError(EIO, messageOf(miss));
    if (miss instanceof SnapshotMiss) {
      await Promise.all(miss.slots.map((slot) => this.#once(`snapshot ${slot}`, () => this.#openSnapshot(slot))));
      return;
    }
    if (miss instanceof UsageMiss) return this.#once('usage', () => this.#countUsage());
    if (miss instanceof StateMiss) {
      await this.#once(`states ${miss.ids[0]}`, () => this.#askStates(miss.ids));
      return;
    }
    const { target } = miss;
    if (target.kind === 'frame') {
      const { handle, offset, length, until } = target;
      this.#cold.check(handle);
      await this.#once(`frame ${handle}:${offset}`, async () => {
        if (this.#archives.hasMoved(handle)) return this.#reopen(handle);
        try {
          await this.#fetch(handle, offset, length, until);
        } catch (error) {
          if (!(error instanceof ArchiveMoved)) throw error;
          await this.#reopen(handle);
        }
      });
    } else {
      await this.#once(`archive ${target.scope} ${target.row}`, () => this.#openArchive(target.scope, target.row));
    }
  }

  onInvalidate(listener: (change: Invalidation) => void): void {
    this.#listeners.push(listener);
  }

  report(message: string): void {
    if (this.#log.add(message)) {
      const write = this.#options.log ?? logLine;
      write(`${new Date().toISOString()} ${message}`);
    }
    this.#statusDue ??= setTimeout(() => this.#postStatus(), STATUS_MS).unref();
  }

  /** Asks the store for new snapshots now. True when there were any. */
  refresh(): Promise<boolean> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  /** Counters of the shared block slots. */
  blocks(): SlotCounters {
    return new BlockSlots(this.#slots).counters();
  }

  /** Pins on block slots by all threads, at this moment. */
  pinned(): number {
    return new BlockSlots(this.#slots).pinned();
  }

  /** What was fetched from a remote store so far; null when the archives are read in place. */
  get fetches(): FetchCounters | null {
    return this.#fetcher?.counters ?? null;
  }

  /** Snapshots that were opened so far. */
  get snapshotsOpen(): number {
    return this.#opened.size;
  }

  /** Pages that this thread has decoded for requests. */
  get pagesDecoded(): number {
    return this.#own.pagesDecoded;
  }

  /** Posts errors that wait to be shown, now. */
  flushStatus(): void {
    if (this.#statusDue === null) return;
    clearTimeout(this.#statusDue);
    this.#postStatus();
  }

  async close(): Promise<void> {
    if (this.#poll !== null) clearInterval(this.#poll);
    if (this.#statusDue !== null) clearTimeout(this.#statusDue);
    await this.#refreshing?.catch(() => {});
    for (const port of this.#ports) port.close();
    this.#archives.close();
    this.#fetcher?.close();
    // What was fetched last would have to be fetched again.
    await this.#fetcher?.cache?.settled();
  }

  #heard(message: FromReader): void {
    if (message.kind === 'problem') this.report(message.message);
    else if (message.kind === 'in order') this.#archives.visited(message.handle, message.block);
    else if (message.kind === 'used') this.#fetcher?.used(message.keys.map((key) => Buffer.from(key)));
    else void this.#fetcher?.cache?.remove(Buffer.from(message.key));
  }

  #openTable(): SlotTable {
    const { slotsPath, repository } = this.#options;
    try {
      return new SlotTable(slotsPath === undefined ? join(repository.stateDir, 'mount', 'slots') : slotsPath);
    } catch (error) {
      this.report(`node numbers are not kept: ${messageOf(error)}`);
      return new SlotTable(null);
    }
  }

  async #refresh(): Promise<boolean> {
    if (!(await this.#list.refresh())) return false;
    const before = this.#catalogue;
    await this.#numberSnapshots();
    this.#catalogue = this.#build(before.root);
    this.#post({ kind: 'catalogue', catalogue: this.#catalogue });
    for (const change of changes(before, this.#catalogue)) {
      for (const listener of this.#listeners) listener(change);
    }
    return true;
  }

  async #numberSnapshots(): Promise<void> {
    const snapshots = [...this.#list.snapshots].sort((a, b) => a.timeSec - b.timeSec || a.timeNs - b.timeNs);
    const wanted = {
      snapshots: snapshots.map((snapshot) => snapshot.id),
      sets: [...new Set(snapshots.map((snapshot) => snapshot.set))],
    };
    try {
      await this.#table.assign(wanted);
    } catch (error) {
      if (error instanceof RozenError && error.code === 'unsupported') throw error;
      this.report(`node numbers are not kept: ${messageOf(error)}`);
      this.#table.assignHere(wanted);
    }
  }

  #build(root: number | null): Catalogue {
    const { since, owner } = this.#catalogue;
    return buildCatalogue({
      since,
      owner,
      usage: null,
      root,
      snapshots: this.#list.snapshots,
      slotOf: (id) => this.#table.slotOf(id),
      setNumber: (name) => this.#table.setNumber(name),
      generationOf,
    });
  }

  async #countUsage(): Promise<void> {
    const usage = await this.#list.usage();
    this.#catalogue = { ...this.#catalogue, usage };
    this.#post({ kind: 'catalogue', catalogue: this.#catalogue });
  }

  async #openSnapshot(slot: number): Promise<void> {
    if (this.#opened.has(slot)) return;
    const id = this.#list.snapshots.find((snapshot) => this.#table.slotOf(snapshot.id) === slot)?.id;
    if (id === undefined) throw new RozenError('not-found', `no snapshot has slot ${slot}`);
    const reader = await this.#list.open(id);
    if (this.#opened.has(slot)) return;
    const { scope, roots, root } = reader;
    const snapshot: OpenSnapshot = { slot, id, generation: generationOf(id), scope, roots };
    this.#opened.set(slot, snapshot);
    this.#postArchive(scope, root.row, await reader.archives.open(root.row));
    this.#post({ kind: 'snapshot', snapshot });
  }

  /** Frozen content is refused at once, and tried again after a moment: all of its archive, so it is not remembered for the frame. */
  async #fetch(handle: number, offset: number, length: number, until?: number): Promise<void> {
    try {
      await this.#archives.fetch(handle, offset, length, until);
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'frozen') throw error;
      this.report(error.message);
      throw this.#cold.refuse(handle, error);
    }
  }

  async #askStates(ids: readonly string[]): Promise<void> {
    this.#post({ kind: 'states', states: await Promise.all(ids.map((id) => this.#cold.state(id))) });
  }

  async #openArchive(scope: string, row: number): Promise<void> {
    if (this.#posted.has(`${scope} ${row}`)) return;
    const reader = await this.#list.opened(scope);
    if (reader === undefined) throw new RozenError('internal', `snapshot ${scope} is not open`);
    this.#postArchive(scope, row, await reader.archives.open(row));
  }

  /** What was opened as an archive that is gone is opened as what it was merged into, for all readers. */
  async #reopen(handle: number): Promise<void> {
    for (const { scope, row, access } of [...this.#posted.values()]) {
      if (access.handle !== handle) continue;
      const reader = await this.#list.opened(scope);
      if (reader !== undefined) this.#postArchive(scope, row, await reader.archives.open(row));
    }
  }

  #postArchive(scope: string, row: number, access: Extract<HostMessage, { kind: 'archive' }>['access']): void {
    const message = { kind: 'archive', scope, row, access } as const;
    this.#posted.set(`${scope} ${row}`, message);
    this.#post(message);
  }

  /** To this thread's own filesystem at once, to the readers through their ports. */
  #post(message: HostMessage): void {
    this.#own.apply(message);
    for (const port of this.#ports) port.postMessage(message);
    this.#board.advance();
  }

  #postStatus(): void {
    this.#statusDue = null;
    this.#post({ kind: 'status', facts: this.#facts() });
  }

  #facts(): StatusFacts {
    const { store, repository } = this.#options;
    return {
      location: store.location,
      fingerprint: repository.fingerprint,
      readers: this.#ports.size,
      archives: new Set([...this.#posted.values()].map((message) => message.access.handle)).size,
      ...cacheFacts(this.#fetcher),
      log: this.#log.lines.map((line) => ({ ...line })),
    };
  }

  /** Runs `work`; a failure is told, becomes EIO, and is given again for a while without trying. */
  async #once(key: string, work: () => Promise<void>): Promise<void> {
    const failed = this.#failures.get(key);
    if (failed !== undefined) {
      if (Date.now() < failed.until) throw failed.error;
      this.#failures.delete(key);
    }
    try {
      await work();
    } catch (error) {
      // Told already, and remembered where it belongs.
      if (error instanceof FsError) throw error;
      this.report(messageOf(error));
      const refusal = new FsError(EIO, messageOf(error));
      if (this.#failures.size >= FAILURES_KEPT) this.#failures.clear();
      this.#failures.set(key, { until: Date.now() + FAILURE_MS, error: refusal });
      throw refusal;
    }
  }
}

/** Finds the snapshots of an open repository and makes them ready to be served. */
export async function openVfsHost(options: VfsHostOptions): Promise<MountHost> {
  const host = new MountHost(options);
  try {
    await host.start();
  } catch (error) {
    await host.close();
    throw error;
  }
  return host;
}

function messageOf(error: unknown): string {
  if (error instanceof RozenError) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
