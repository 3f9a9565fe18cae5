import type { Repository } from '../../repository/repository.ts';

export interface CompactOptions {
  /** Opened by an owner, on a machine that is a writer. */
  repository: Repository;
  /** Folder of Rozen's state for this repository. */
  stateDir: string;
  /** Sealed bytes that an archive is to have; what has less than half of it is small. */
  archiveSize?: number;
  /** How long a merged archive stays after the record that leads elsewhere, ms. */
  graceMs: number;
  dryRun?: boolean;
  signal?: AbortSignal;
  /** The time, ms since 1970. */
  now?: () => number;
}

/** Archives that become one. */
interface PlannedMerge {
  archives: number;
  /** Sealed bytes of them together. */
  bytes: number;
}

export interface Amount {
  archives: number;
  bytes: number;
}

export interface CompactReport {
  dryRun: boolean;
  startedAt: number;
  finishedAt: number;
  /** Small archives that were found; of those that no merge is worth, `kept`. */
  small: Amount;
  kept: Amount;
  /** What is, or in a dry run would be, merged. */
  planned: PlannedMerge[];
  /** What was made, by archive id. */
  merged: { id: string; archives: number; bytes: number; size: number }[];
  /** What was made by a run that was killed before it put the hot index: now it is there. */
  completed: Amount;
  /** Archives that were merged before and are, or in a dry run would be, removed. */
  removed: Amount;
  /** Those whose time has not come, and when it comes for the last of them, ms since 1970. */
  waiting: Amount & { until: number | null };
  /** Those that the store locks, and until when. */
  locked: Amount & { until: number | null };
  /** What could not be merged or removed. */
  problems: { object: string; message: string }[];
}

interface CompactProgress {
  phase: string;
  bytesDone: number;
  bytesTotal: number;
}

export interface CompactListener {
  progress?(progress: Readonly<CompactProgress>): void;
  problem?(object: string, message: string): void;
}
