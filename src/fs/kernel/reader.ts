/**
 * A reader: one worker thread that blocks in read(2) on /dev/fuse, answers what can be answered at once, and hands the
 * raw request to the main thread when something is not on this machine. All readers are alike; see lead.ts for their turns.
 * A blocking read beats Node's event loop by far: 7 µs for a lookup against 89 µs (measured).
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Miss } from '../../cache/miss.ts';
import { EAGAIN, EINTR, ENOENT } from '../../posix/errno.ts';
import { libc } from '../../posix/libc.ts';
import { threadLoaded } from '../../posix/thread.ts';
import { logLine } from '../log-line.ts';
import { IN, IN_HEADER, OPCODE } from '../protocol/abi.ts';
import { describeProblem, dispatch } from '../protocol/dispatch.ts';
import { Reply } from '../protocol/reply.ts';
import { Request } from '../protocol/request.ts';
import { describeReply, describeRequest } from '../protocol/trace.ts';
import type { Vfs } from '../vfs.ts';
import { CONTROL, type ReaderData, type ReaderMessage, STATE, send, type VfsModule } from './channel.ts';
import { LateRequests } from './late.ts';
import { Lead, TURN } from './lead.ts';
import type { ReaderStart } from './prepare.ts';
import { Tiering } from './tiering.ts';

/** What reading the device may give without an end of the mount: the request was interrupted before we got it. */
const GO_ON = new Set([ENOENT, EINTR, EAGAIN]);

/** Copies a request into memory of its own, to be given away. */
function detach(request: Request): Uint8Array<ArrayBuffer> {
  return new Uint8Array(request.bytes.subarray(0, request.length));
}

/**
 * A read of more than this is written in more time than it takes to wake another reader. One of 128 KiB, all that the kernel asks of an
 * unprivileged mount, often is not: 1 GiB of programs in 1.25 s instead of 1.30 s when only a decoding passes the lead on.
 */
const LARGE_READ = 192 << 10;
/** A program that reads in order at least so much at a time. */
const STREAMING_READ = 128 << 10;

function serve(data: ReaderData, fd: number, vfs: Vfs, lead: Lead): void {
  const post = (message: ReaderMessage): void => parentPort!.postMessage(message);
  const { control, trace } = data;
  const { read, errno } = libc();
  const at = CONTROL.UNIQUE + data.worker * 2;
  const request = new Request();
  const reply = new Reply(data.map);
  const tiering = new Tiering(control);
  let streaming = false;
  for (;;) {
    const turn = lead.take(request);
    if (turn === TURN.END) return;
    if (turn === TURN.LEAD) {
      // The core is wanted by whoever decodes ahead, and by the program: noise 4 % faster.
      if (!streaming) lead.spin();
      const length = read(fd, request.bytes, request.bytes.length);
      if (length < 0 && GO_ON.has(errno())) continue;
      // An error, or the end of the file: the connection is gone.
      if (length <= 0) return lead.end();
      request.length = length;
    }
    control[at] = request.words[IN_HEADER.UNIQUE]!;
    control[at + 1] = request.words[IN_HEADER.UNIQUE + 1]!;
    const large = request.opcode === OPCODE.READ && request.words[IN.READ.LENGTH]! > LARGE_READ;
    if (large) lead.work();
    else if (turn === TURN.LEAD && lead.more()) lead.pass();
    try {
      vfs.pump();
      dispatch(request, vfs, reply);
      lead.done();
      if (trace) logLine(`${describeRequest(request)} ${describeReply(reply)}`);
      if (reply.problem !== undefined) {
        post({ kind: 'problem', text: `${describeRequest(request)}: ${describeProblem(reply.problem)}` });
      }
      if (reply.length > 0) {
        if (!send(fd, reply)) return lead.end();
      } else if (request.opcode === OPCODE.INTERRUPT) post({ kind: 'interrupt', raw: detach(request) });
      control[at] = 0;
      control[at + 1] = 0;
      const inOrder = vfs.idle();
      streaming = inOrder && request.opcode === OPCODE.READ && request.words[IN.READ.LENGTH]! >= STREAMING_READ;
      tiering.note(streaming);
    } catch (error) {
      if (!(error instanceof Miss)) throw error;
      if (trace) logLine(`${describeRequest(request)} = (miss)`);
      const raw = detach(request);
      post(raw);
      control[at] = 0;
      control[at + 1] = 0;
    }
  }
}

if (parentPort !== null && workerData !== null && 'module' in workerData) {
  const port = parentPort;
  const received = new Promise<ReaderData>((resolve) => port.once('message', resolve));
  const start = workerData as ReaderStart;
  const module = (await import(start.module)) as VfsModule;
  libc();
  if (start.fetches) await module.loadForFetching?.();
  threadLoaded();
  const data = await received;
  let lead: Lead | null = null;
  const busy = (ahead?: boolean): void => (ahead ? lead?.pass() : lead?.work());
  const call = (): boolean => lead?.call() ?? false;
  const vfs = await module.createVfs(data.init, { worker: data.worker, busy, call });
  threadLoaded();
  Atomics.wait(data.control, CONTROL.STATE, STATE.WAIT);
  if (Atomics.load(data.control, CONTROL.STATE) === STATE.GO) {
    const fd = Atomics.load(data.control, CONTROL.FD);
    lead = new Lead(data.control, new LateRequests(data.late), () => vfs.help(), { worker: data.worker, fd });
    serve(data, fd, vfs, lead);
  }
  // Ends this thread only, whatever the vfs has left open.
  process.exit(0);
}
