/** What the main thread and its data workers say to each other. Bulk data lies in slabs and slots. */
import type { CodecSpec } from '../../archive/codec/index.ts';
import type { SealContext } from '../../archive/frame.ts';

export interface WorkerSetup {
  slabs: SharedArrayBuffer[];
  slots: SharedArrayBuffer[];
  contentIdKey: Uint8Array;
  chunkerKey: Uint8Array;
  codec: CodecSpec;
  /** Content ids are cut to this many bytes and filled with zeros: 32, but for tests of collisions. */
  idBytes: number;
}

export type Job =
  /** Read, chunk and hash `count` files of a slab. */
  | { kind: 'scan'; job: number; slab: number; count: number }
  /** Open the file described by row 0 of a slab and give its first piece. */
  | { kind: 'open'; job: number; slab: number }
  /** The next piece of the file that this worker has open. */
  | { kind: 'piece'; job: number; slab: number }
  /** Seal the first `length` bytes of a slot's plaintext; answers with the length of the frame. */
  | {
      kind: 'seal';
      job: number;
      slot: number;
      archive: number;
      sequence: number;
      length: number;
      firstRecord: number;
      /** Content of a large file: parts of it will be read. */
      parts: boolean;
    }
  /** Introduces an archive; no answer. */
  | { kind: 'archive'; archive: number; context: SealContext }
  /** Forgets an archive and its key; no answer. */
  | { kind: 'forget'; archive: number }
  /** Closes the file that this worker has open; no answer. */
  | { kind: 'close' };

export type Answer = { job: number; value: number; error?: never } | { job: number; error: string; value?: never };
