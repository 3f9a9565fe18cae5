/** What the main thread posts to the readers. A reader takes it in before its next request. */
import type { MessagePort } from 'node:worker_threads';
import type { TreeRoots } from '../../archive/tree/schema.ts';
import type { ArchiveAccess } from '../../cache/frames.ts';
import { Miss } from '../../cache/miss.ts';
import type { SlotMemory } from '../../cache/slots.ts';
import type { TaskMemory } from '../../cache/tasks.ts';
import type { Catalogue } from './catalogue.ts';
import type { ArchiveState } from './cold-archives.ts';
import type { StatusFacts } from './status.ts';

/** A snapshot whose tree archive is open: all that a thread needs to walk it. */
export interface OpenSnapshot {
  slot: number;
  /** 32 hex characters. */
  id: string;
  generation: number;
  scope: string;
  roots: TreeRoots;
}

export type HostMessage =
  | { kind: 'catalogue'; catalogue: Catalogue }
  | { kind: 'snapshot'; snapshot: OpenSnapshot }
  | { kind: 'archive'; scope: string; row: number; access: ArchiveAccess }
  | { kind: 'status'; facts: StatusFacts }
  | { kind: 'states'; states: ArchiveState[] };

/**
 * What a reader posts to the main thread.
 *
 * problem   damage or the like, for the status
 * in order  it reads this archive in order and is at this block: fetch ahead
 * used      keys of cached values that it read
 * damaged   the key of a cached value that does not hold its checksum
 */
export type FromReader =
  | { kind: 'problem'; message: string }
  | { kind: 'in order'; handle: number; block: number }
  | { kind: 'used'; keys: Uint8Array[] }
  | { kind: 'damaged'; key: Uint8Array };

/** What `createVfs` receives in a reader. */
export interface VfsInit {
  port: MessagePort;
  slots: SlotMemory;
  tasks: TaskMemory;
  board: SharedArrayBuffer;
  /** Bytes of decoded pages that this thread may hold. */
  pageBytes: number;
  catalogue: Catalogue;
  status: StatusFacts;
  snapshots: OpenSnapshot[];
  archives: { scope: string; row: number; access: ArchiveAccess }[];
  /** Folder of the block cache, which readers look into themselves; null when the archives are read in place, or nothing is cached. */
  cache: string | null;
  /** What the main thread has fetched lately; null when the archives are read in place. */
  sealed: SlotMemory | null;
  /** Archives may lie in cold storage. */
  remote: boolean;
}

/** What statfs tells must be counted first. */
export class UsageMiss extends Miss {
  constructor() {
    super({ kind: 'archive', scope: '', row: 0 });
  }
}

/** Whether these data archives can be read must be asked first. */
export class StateMiss extends Miss {
  /** Archive ids, 32 hexadecimal digits. */
  readonly ids: readonly string[];

  constructor(ids: readonly string[]) {
    super({ kind: 'archive', scope: '', row: 0 });
    this.ids = ids;
  }
}

/** Snapshots whose tree archives must be opened first. */
export class SnapshotMiss extends Miss {
  readonly slots: readonly number[];

  constructor(slots: readonly number[]) {
    super({ kind: 'archive', scope: '', row: 0 });
    this.slots = slots;
  }
}
