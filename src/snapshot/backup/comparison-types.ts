/** What a comparison takes and tells. */
import type { PageSource } from '../../archive/tree/read.ts';
import type { TreeRoots } from '../../archive/tree/schema.ts';
import type { Stat } from '../../posix/stat.ts';
import type { EntryClass } from './backup-types.ts';
import type { InodeSet } from './inode-set.ts';
import type { Plan } from './plan.ts';
import type { Folder } from './walk.ts';

interface ComparisonBase {
  source: PageSource;
  roots: TreeRoots;
  /** Epoch milliseconds when the walk began that last saw all this. */
  walkedAt: number;
}

export interface ComparisonEvents {
  problem(kind: 'unreadable' | 'vanished', path: Buffer, error: Error): void;
  skipped(path: Buffer, reason: string): void;
  /** What an entry is, as far as that is known without reading it; files in `plan.reading` are told later. */
  classified(folder: Folder, name: string, what: { class: EntryClass; mode: number; size: number }): void;
}

export interface ComparisonOptions {
  base: ComparisonBase | null;
  plan: Plan;
  /** First inode number that was never used in this lineage. */
  nextInode: number;
  /** What new contents get as their version: the sequence of the snapshot to be. */
  version: number;
  /**
   * Write every row and read every file, whether it changed or not: the trees begin empty, the base lends its numbers only.
   * What cannot be read is not kept.
   */
  fromNothing: boolean;
  /** For a WORM set; null for one of snapshots. */
  worm?: WormRules | null;
  /** WORM: only single entries are looked at; what is not looked at is where it was. */
  partial?: boolean;
  events: ComparisonEvents;
}

/** What a WORM set adds to the comparison. */
export interface WormRules {
  /** False: what is new is told and left out. */
  acceptNew: boolean;
  /** What is known to have diverged need not be looked at again. */
  trustSeen: boolean;
  /** Files whose content is to be read again although nothing says that it changed. */
  due: InodeSet | null;
  refused(path: Buffer, mode: number, size: number): void;
  /** A known file that diverged before and is as it was then. */
  stillDiverged(inode: number, path: Buffer): void;
  /** Something of another kind stands where a file or folder was, which is nowhere. Answers whether that one stays current. */
  replaced(it: Displaced): boolean;
  /** True when what is gone shall be written back: then it stays. */
  restores(it: { inode: number; folder: Folder; name: string; mode: number }): boolean;
}

/** A known file or folder whose name belongs to something new of another kind. */
export interface Displaced {
  inode: number;
  folder: Folder;
  name: string;
  /** Of what stands there. */
  stat: Stat;
}
