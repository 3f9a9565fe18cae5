/** What the server and its readers share: memory, messages, and sending a reply. */
import { writeSync, writevSync } from 'node:fs';
import { EIO } from '../../posix/errno.ts';
import { OUT_HEADER, type OwnerMap } from '../protocol/abi.ts';
import type { Reply } from '../protocol/reply.ts';
import type { ReaderThread, Vfs } from '../vfs.ts';

/** Words of the memory that the server and its readers share. */
export const CONTROL = {
  STATE: 0,
  FD: 1,
  /** See lead.ts. */
  LEAD: 2,
  /** Readers that sleep until they get the lead. */
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

/**
 * Sends a reply. False when the connection is gone. One that nobody waits for any more (ENOENT) is dropped; one that the
 * kernel refuses (no memory) becomes EIO.
 */
export function send(fd: number, reply: Reply): boolean {
  try {
    if (reply.pieces.length > 0) writevSync(fd, reply.pieces);
    else writeSync(fd, reply.bytes, 0, reply.length);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'EINTR') return true;
    if (code === 'ENODEV' || code === 'ECONNABORTED' || code === 'EBADF') return false;
    if (reply.words[OUT_HEADER.ERROR] !== 0) throw error;
    reply.error(EIO);
    return send(fd, reply);
  } finally {
    reply.release();
  }
}
