/**
 * The server of a mount: starts the readers, mounts, shakes hands with the kernel, answers what the readers could not
 * (miss and retry), passes notifications on, and knows the one road out.
 *
 * `process.exit()` hangs while a reader blocks in read(2), so every end goes the same way: the mount is taken away, the
 * readers see ENODEV and end, `closed` resolves. Whoever leaves the process otherwise goes through `abort` (hooked to
 * the process's 'exit').
 */
import { closeSync, readFileSync, readSync, write, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { Miss } from '../../cache/miss.ts';
import { RozenError } from '../../errors.ts';
import { EINTR, EIO, libc } from '../../posix/libc.ts';
import { stopThread, threadLoads } from '../../posix/thread.ts';
import { get64, IN, IN_HEADER, KERNEL_MINOR_MIN, OPCODE } from '../protocol/abi.ts';
import { describeProblem, dispatch, fail } from '../protocol/dispatch.ts';
import { answerInit } from '../protocol/init.ts';
import { invalidateEntry, invalidateInode } from '../protocol/notify.ts';
import { Reply } from '../protocol/reply.ts';
import { Request } from '../protocol/request.ts';
import { describeRequest } from '../protocol/trace.ts';
import type { MountOrder, MountServer } from '../serving.ts';
import type { Invalidation, VfsHost } from '../vfs.ts';
import { CONTROL, type ReaderData, type ReaderMessage, STATE, send } from './channel.ts';
import { detachByFusermount, findFusermount } from './fusermount.ts';
import { describeHolders, findHolders } from './holders.ts';
import { createLateMemory, LateRequests } from './late.ts';
import { callReader, releaseLead } from './lead.ts';
import { mount, prepareMountpoint } from './mount.ts';
import { mountedAt } from './mount-table.ts';
import { prepareReader } from './prepare.ts';
import { isRoot, unmountAsRoot, unmountOnce } from './umount.ts';

export interface ServeOptions extends MountOrder {
  /** Number of reader threads; default one per core, 8 at most. */
  readers?: number;
  /** Reader threads that were started ahead by `prepareReader` with the host's module; they are used up. */
  ahead?: Worker[];
}

/** How often one request may meet a miss before it is given up: each attempt needs one more page or block at most. */
const MAX_ATTEMPTS = 4096;
/** A read of 1 MiB wants five blocks, each of which may be missing. */
const MAX_HANDED = 8;
const HANDED_KEPT = 256;
/** Readers that die (out of memory) are replaced, this many within a minute at most: beyond that nothing would be answered. */
const MAX_RESTARTS = 8;
const RESTARTS_MS = 60_000;
/** How long readers may take to end after the mount was taken away, in ms. */
const GRACE = 2000;
const MAX_READERS = 8;

/** A request that waits for a miss. */
interface Waiting {
  answered: boolean;
}

class Server implements MountServer {
  readonly mountpoint: string;
  /** Resolves when the mount is gone and all readers have ended. */
  readonly closed: Promise<void>;
  private readonly options: ServeOptions;
  private readonly host: VfsHost;
  private readonly control = new Int32Array(new SharedArrayBuffer((CONTROL.UNIQUE + 2 * MAX_READERS) * 4));
  private readonly lateMemory = createLateMemory();
  private readonly late = new LateRequests(this.lateMemory);
  /** How often requests were handed back to the readers; of those that met another miss. */
  private readonly handed = new Map<number, number>();
  private readonly readers = new Set<Worker>();
  private readonly waiting = new Map<number, Waiting>();
  /** INTERRUPTs may overtake the request they mean, as two readers post them. */
  private readonly interrupted = new Set<number>();
  private readonly request = new Request();
  private readonly reply: Reply;
  private fd = -1;
  /** The file that aborts the connection: the mounting user may write it, where fusectl is mounted. */
  private connection: string | null = null;
  private readonly notifications: Buffer[] = [];
  private notifying = false;
  /** Called when the last notification has been written, at the end. */
  private notified: (() => void) | null = null;
  /** When readers were replaced, in ms; the last ones. */
  private restarts: number[] = [];
  private ending = false;
  private hostClosed = false;
  private resolveClosed!: () => void;

  /** Use `serve`. */
  constructor(mountpoint: string, options: ServeOptions) {
    this.mountpoint = mountpoint;
    this.options = options;
    this.host = options.host;
    this.reply = new Reply(options.map);
    this.closed = new Promise((resolve) => {
      this.resolveClosed = resolve;
    });
  }

  /**
   * Starts a reader, mounts, and starts the others. Does not wait for them, which take 60 ms to start: the kernel keeps what
   * is asked until the first is there. One that cannot start is replaced like one that dies, and at last the mount ends.
   */
  async start(): Promise<void> {
    this.startReader(0);
    try {
      this.fd = mount({
        mountpoint: this.mountpoint,
        source: this.options.source,
        allowOther: this.options.allowOther ?? false,
        enforcePermissions: this.options.enforcePermissions ?? true,
      });
      process.on('exit', this.abort);
      this.shakeHands();
      this.openConnection();
    } catch (error) {
      await this.undoStart();
      throw error;
    }
    this.release(STATE.GO);
    if (this.readers.size === 0) this.readerGone(0);
    const count = Math.min(MAX_READERS, Math.max(1, this.options.readers ?? availableParallelism()));
    for (let worker = 1; worker < count; worker++) this.startReader(worker);
    this.host.onInvalidate((change) => this.invalidate(change));
  }

  private async undoStart(): Promise<void> {
    this.ending = true;
    this.release(STATE.STOP);
    if (this.fd >= 0) {
      this.abort();
      closeSync(this.fd);
    }
    process.off('exit', this.abort);
    await Promise.all([...this.readers].map(stopThread));
  }

  private release(state: number): void {
    Atomics.store(this.control, CONTROL.FD, this.fd);
    Atomics.store(this.control, CONTROL.STATE, state);
    Atomics.notify(this.control, CONTROL.STATE);
  }

  private startReader(worker: number): void {
    const { init, transfer } = this.host.workerInit(worker);
    const data: ReaderData = {
      control: this.control,
      late: this.lateMemory,
      worker,
      init,
      map: this.options.map ?? {},
      trace: this.options.trace ?? false,
    };
    const ahead = this.options.ahead?.shift();
    // -1: it has ended already.
    const reader = ahead === undefined || ahead.threadId < 0 ? prepareReader(this.host.module) : ahead;
    threadLoads(reader);
    reader.postMessage(data, transfer);
    this.readers.add(reader);
    reader.on('message', (message: ReaderMessage) => {
      if (message instanceof Uint8Array) void this.answerLate(message);
      else if (message.kind === 'problem') this.host.report(message.text);
      else this.interrupt(message.raw);
    });
    reader.on('error', (error) => {
      this.host.report(`a reader thread failed: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
    });
    reader.on('exit', () => {
      this.readers.delete(reader);
      this.readerGone(worker);
    });
  }

  /** A reader ended: because the mount did, or by an error of its own (out of memory); then another takes its place. */
  private readerGone(worker: number): void {
    const state = Atomics.load(this.control, CONTROL.STATE);
    if (state === STATE.WAIT || this.fd < 0) return;
    this.answerForTheDead(worker);
    releaseLead(this.control, worker);
    this.restarts = this.restarts.filter((time) => performance.now() - time < RESTARTS_MS);
    if (state === STATE.GO && this.restarts.length < MAX_RESTARTS) {
      this.restarts.push(performance.now());
      this.startReader(worker);
    } else if (this.readers.size === 0) {
      if (state === STATE.GO) this.abort();
      void this.finish();
    }
  }

  /** Nobody may wait for ever for a reader that died over a request. */
  private answerForTheDead(worker: number): void {
    const at = CONTROL.UNIQUE + worker * 2;
    const [low, high] = [this.control[at]!, this.control[at + 1]!];
    if (low === 0 && high === 0) return;
    this.control.fill(0, at, at + 2);
    this.reply.begin(low, high);
    this.reply.error(EIO);
    send(this.fd, this.reply);
  }

  /** The kernel's first request; it lies there as soon as mount(2) is back. */
  private shakeHands(): void {
    for (;;) {
      this.request.length = readSync(this.fd, this.request.bytes, 0, this.request.bytes.length, null);
      const session = answerInit(this.request, this.reply, {
        // An ACL speaks of the owners and permissions that were backed up, not of those that are shown instead.
        enforceAcls: (this.options.enforcePermissions ?? true) && Object.keys(this.options.map ?? {}).length === 0,
      });
      send(this.fd, this.reply);
      if (session === null) continue;
      if (session.minor >= KERNEL_MINOR_MIN) return;
      throw new RozenError(
        'unsupported',
        `this kernel speaks FUSE 7.${session.minor}, 7.${KERNEL_MINOR_MIN} is needed`,
        {
          hint: 'Linux 5.2 or newer has it; rozen restore needs no mount',
        },
      );
    }
  }

  /** Finds the connection's place in /sys, and raises the kernel's read-ahead where we may. */
  private openConnection(): void {
    const mounted = mountedAt(this.mountpoint);
    if (mounted === undefined) return;
    this.connection = `/sys/fs/fuse/connections/${mounted.device.split(':')[1]}/abort`;
    const file = `/sys/class/bdi/${mounted.device}/read_ahead_kb`;
    try {
      if (Number(readFileSync(file, 'utf8')) < this.host.readAhead) writeFileSync(file, String(this.host.readAhead));
    } catch {
      // Only root may: unprivileged mounts are read 128 KiB at a time, and decoding ahead makes up for it.
    }
  }

  /** Miss and retry: runs the same handler until everything it needs is here, then writes the late reply. */
  private async answerLate(raw: Uint8Array): Promise<void> {
    const { host, request, reply } = this;
    request.load(raw);
    const unique = request.unique;
    const waiting: Waiting = { answered: false };
    this.waiting.set(unique, waiting);
    if (this.interrupted.delete(unique)) this.answerInterrupted(waiting, raw);
    try {
      for (let attempt = 0; !waiting.answered; attempt++) {
        try {
          // Another request may have used both in the meantime.
          request.load(raw);
          host.vfs.pump();
          dispatch(request, host.vfs, reply);
          if (reply.problem !== undefined) this.reportProblem(reply.problem);
          this.sendLate(waiting);
        } catch (error) {
          if (error instanceof Miss && attempt < MAX_ATTEMPTS) {
            await host.resolve(error);
            if (!waiting.answered && this.handBack(unique, raw)) return;
          } else throw error instanceof Miss ? new RozenError('internal', 'fetching makes no progress') : error;
        }
      }
    } catch (error) {
      if (waiting.answered) return;
      request.load(raw);
      reply.begin(request.words[IN_HEADER.UNIQUE]!, request.words[IN_HEADER.UNIQUE + 1]!);
      fail(reply, error);
      if (reply.problem !== undefined) this.reportProblem(reply.problem);
      this.sendLate(waiting);
    } finally {
      this.waiting.delete(unique);
    }
  }

  /**
   * What a read lacked is here now: a reader that sleeps answers it, as deciphering and decoding in this thread would keep it from
   * fetching (a bucket's content read in order: 230 MB/s instead of 170). False when none sleeps, or this has happened too often.
   */
  private handBack(unique: number, raw: Uint8Array): boolean {
    const times = this.handed.get(unique) ?? 0;
    this.handed.delete(unique);
    if (times >= MAX_HANDED || Atomics.load(this.control, CONTROL.IDLE) === 0) return false;
    this.request.load(raw);
    const place = this.request.opcode === OPCODE.READ ? this.late.push(raw) : 0;
    if (place === 0) return false;
    // A reader that counted as idle may have got the lead meanwhile. Either it finds the request before it waits for the kernel, or it does not count
    // any more here (lead.ts).
    if (Atomics.load(this.control, CONTROL.IDLE) === 0 && this.late.takeBack(place)) return false;
    this.handed.set(unique, times + 1);
    if (this.handed.size > HANDED_KEPT) this.handed.delete(this.handed.keys().next().value!);
    callReader(this.control);
    return true;
  }

  private sendLate(waiting: Waiting): void {
    waiting.answered = true;
    if (this.reply.length > 0 && this.fd >= 0) send(this.fd, this.reply);
    else this.reply.release();
  }

  private reportProblem(problem: unknown): void {
    this.host.report(`${describeRequest(this.request)}: ${describeProblem(problem)}`);
  }

  /** INTERRUPT names another request: one that waits for a miss is given up at once, for any other it is too late. */
  private interrupt(raw: Uint8Array): void {
    this.request.load(raw);
    if (!this.request.valid || this.request.length < IN.INTERRUPT.SIZE) return;
    const target = get64(this.request.words, IN.INTERRUPT.UNIQUE);
    const waiting = this.waiting.get(target);
    if (waiting === undefined) {
      this.interrupted.add(target);
      if (this.interrupted.size > 256) this.interrupted.delete(this.interrupted.values().next().value!);
    } else if (!waiting.answered) {
      this.request.words.copyWithin(IN_HEADER.UNIQUE, IN.INTERRUPT.UNIQUE, IN.INTERRUPT.UNIQUE + 2);
      this.answerInterrupted(waiting, this.request.bytes);
    }
  }

  private answerInterrupted(waiting: Waiting, raw: Uint8Array): void {
    const header = new Uint32Array(raw.buffer, raw.byteOffset, IN_HEADER.WORDS);
    this.reply.begin(header[IN_HEADER.UNIQUE]!, header[IN_HEADER.UNIQUE + 1]!);
    this.reply.error(EINTR);
    this.sendLate(waiting);
  }

  /**
   * Notifications wait for locks of the kernel that a request of ours may hold: written by the thread pool, never by a
   * thread that answers, and one at a time, as the fetching of what that request lacks needs the thread pool too.
   */
  private invalidate({ slot, ino, name }: Invalidation): void {
    this.notifications.push(invalidateInode(slot, ino, 0));
    if (name !== null) this.notifications.push(invalidateEntry(slot, ino, name));
    if (!this.notifying) this.notifyNext();
  }

  private notifyNext(): void {
    const message = this.fd < 0 ? undefined : this.notifications.shift();
    this.notifying = message !== undefined;
    // What the kernel does not know (ENOENT) needs no forgetting.
    if (message !== undefined) write(this.fd, message, () => this.notifyNext());
    else this.notified?.();
  }

  /**
   * Takes the mount away and waits for the readers. A busy mount is detached all the same and its requests are aborted:
   * the answer says who held it.
   */
  async stop(): Promise<string | null> {
    if (this.ending) {
      await this.closed;
      return null;
    }
    this.ending = true;
    let holders: string | null = null;
    // Somebody may have detached it before: then only its last user, or an abort, ends the connection.
    const detached = mountedAt(this.mountpoint) === undefined;
    if (detached || !(await unmountOnce(this.mountpoint, 'normal').catch(() => false))) {
      holders = describeHolders(findHolders(this.mountpoint)) || 'a process of another user';
      if (!detached) await unmountOnce(this.mountpoint, 'force').catch((error) => this.host.report(String(error)));
    }
    const deadline = setTimeout(() => void this.endByForce(), holders === null ? GRACE : GRACE / 8);
    await this.closed;
    clearTimeout(deadline);
    return holders;
  }

  /** The readers still block: whatever must be put away is put away now, as `abort` may be the end of the process. */
  private async endByForce(): Promise<void> {
    await Promise.race([this.closeHost(), new Promise((resolve) => setTimeout(resolve, GRACE))]);
    this.abort();
  }

  private async closeHost(): Promise<void> {
    if (this.hostClosed) return;
    this.hostClosed = true;
    await this.host.close().catch((error) => this.host.report(String(error)));
  }

  /**
   * Ends the connection at once, synchronously: for `process.exit`, which would wait for ever for a reader that blocks.
   * Where nothing helps the process ends itself by _exit(2): the kernel then aborts the connection.
   */
  private readonly abort = (): void => {
    if (this.fd < 0) return;
    let aborted = false;
    try {
      const program = isRoot() ? null : findFusermount();
      if (isRoot()) aborted = mountedAt(this.mountpoint) !== undefined && unmountAsRoot(this.mountpoint, 'force');
      else if (program !== null) detachByFusermount(program, this.mountpoint);
      if (!aborted && this.connection !== null) {
        writeFileSync(this.connection, '1');
        aborted = true;
      }
    } catch {
      // Then by the last way.
    }
    if (!aborted) libc()._exit(typeof process.exitCode === 'number' ? process.exitCode : 0);
  };

  private async finish(): Promise<void> {
    this.ending = true;
    process.off('exit', this.abort);
    const fd = this.fd;
    this.fd = -1;
    // A notification in the thread pool would be written to whatever file gets this number next. The connection is gone: nothing holds it up.
    if (this.notifying) {
      await new Promise<void>((resolve) => {
        this.notified = resolve;
      });
    }
    closeSync(fd);
    await this.closeHost();
    this.resolveClosed();
  }
}

/** Mounts and serves. The answer comes when the mount stands; its readers may still be starting. */
export async function serve(options: ServeOptions): Promise<MountServer> {
  const mountpoint = await prepareMountpoint(options.mountpoint, options.keepClearOf);
  const server = new Server(mountpoint, options);
  await server.start();
  return server;
}
