/** What the server and its readers share: memory, messages, and sending a reply. */
import { EBADF, ECONNABORTED, EINTR, EIO, ENODEV, ENOENT } from '../../posix/errno.ts';
import { libc, PosixError } from '../../posix/libc.ts';
import { OUT_HEADER, type OwnerMap } from '../protocol/abi.ts';
import { MAX_PIECES, type Reply } from '../protocol/reply.ts';
import type { ReaderThread, Vfs } from '../vfs.ts';

/** Words of the memory that the server and its readers share. */
export const CONTROL = {
  STATE: 0,
  FD: 1,
  /** See lead.ts. */
  LEAD: 2,
  /** Readers that sleep until they get the lead, or look for what else there is to do: a bit for each. */
  IDLE: 3,
  /** See tiering.ts. */
  STREAMING: 4,
  /** From here two words per reader: the `unique` of the request it works on, 0 when none. For readers that die. */
  UNIQUE: 5,
} as const;
/** Values of CONTROL.STATE: the readers are started before the mount, so that both go on at once. */
export const STATE = { WAIT: 0, GO: 1, STOP: 2 } as const;

export interface ReaderData {
  control: Int32Array;
  /** See late.ts. */
  late: SharedArrayBuffer;
  worker: number;
  init: unknown;
  map: OwnerMap;
  trace: boolean;
}

/** What a reader tells the main thread; the bytes alone are a request that met a miss. */
export type ReaderMessage = Uint8Array | { kind: 'problem'; text: string } | { kind: 'interrupt'; raw: Uint8Array };

export interface VfsModule {
  /** Loads what a Vfs needs whose content is fetched: ahead of `createVfs`, while the thread waits for its data. */
  loadForFetching?(): Promise<unknown>;
  createVfs(init: unknown, thread: ReaderThread): Vfs | Promise<Vfs>;
}

/** Of struct iovec (sys/uio.h), one for each piece and the header: address, length. */
const vector = new BigUint64Array(2 * (MAX_PIECES + 1));
const vectorBytes = new Uint8Array(vector.buffer);

/**
 * Sends a reply. False when the connection is gone. One that nobody waits for any more (ENOENT) is dropped; one that the
 * kernel refuses (no memory) becomes EIO.
 */
export function send(fd: number, reply: Reply): boolean {
  try {
    if (write(fd, reply) >= 0) return true;
    const errno = libc().errno();
    if (errno === ENOENT || errno === EINTR) return true;
    if (errno === ENODEV || errno === ECONNABORTED || errno === EBADF) return false;
    if (reply.words[OUT_HEADER.ERROR] !== 0) throw new PosixError(errno, 'write');
    reply.error(EIO);
    return send(fd, reply);
  } finally {
    reply.release();
  }
}

/** By the calls of the C library: Node's own take 2-6 µs more of each reply. */
function write(fd: number, { bytes, length, pieces }: Reply): number {
  const { address, write, writev } = libc();
  if (pieces.length === 0) return write(fd, bytes, length);
  for (let i = 0; i < pieces.length; i++) {
    vector[2 * i] = address(pieces[i]!);
    vector[2 * i + 1] = BigInt(pieces[i]!.length);
  }
  return writev(fd, vectorBytes, pieces.length);
}
