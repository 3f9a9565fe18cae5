import type { Attributes } from '../view/attributes.ts';

/** What a comparison of a snapshot with local files finds. */

/**
 * missing   in the snapshot, not on this machine
 * extra     on this machine, not in the snapshot
 * moved     the same file under another path
 * type      a file here, a folder there, and the like
 * content   other bytes, or another target of a symlink
 * metadata  same content, other mode, owner, times or attributes
 * unreadable  could not be compared
 */
export type DivergenceKind = 'missing' | 'extra' | 'moved' | 'type' | 'content' | 'metadata' | 'unreadable';

export interface Divergence {
  kind: DivergenceKind;
  /** Below the folder that is compared; of something moved: where it is now on this machine. */
  path: Buffer;
  /** Of something moved: its path in the snapshot. */
  from?: Buffer;
  /** Of content of a regular file: what the snapshot says of it. */
  file?: Attributes;
  /** Of content: size and modification time are those of the snapshot, so that nobody meant to change it. */
  decayed?: boolean;
  /** Of content: the first range that differs. Of metadata: the fields that do. */
  message: string;
}

export interface AgainstReport {
  snapshotId: string;
  set: string;
  folder: Buffer;
  divergences: Divergence[];
  /** Entries that are equal in every way. */
  equal: number;
  files: number;
  /** Bytes of local files that were read and held against content ids. */
  bytes: number;
  startedAt: number;
  finishedAt: number;
}

export interface AgainstListener {
  progress?(progress: { files: number; bytes: number; current: Buffer }): void;
  divergence?(divergence: Divergence): void;
}
