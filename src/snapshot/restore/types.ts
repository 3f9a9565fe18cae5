/** What `restore` takes, tells on the way and returns. Nothing here imports anything heavy. */
import type { OpenPlace } from '../view/place.ts';

export interface RestoreOptions {
  /** What to restore: a folder's entries go right into the target, anything else goes there under its own name. */
  place: OpenPlace;
  /** Made if missing. A symlink here is followed, as the caller named it; none below is. */
  target: Buffer;
  /** Reads what was written and compares it; also compares what is kept because size and time are right. */
  verify?: boolean;
  /** Looks only: nothing is made or changed. */
  dryRun?: boolean;
  /** Worker threads; default: the number of cores. */
  threads?: number;
  /** Abort leaves a target from which the next run goes on; `restore` then throws RozenError 'interrupted'. */
  signal?: AbortSignal;
}

/**
 * corrupt   its content or its rows in the repository are damaged or gone, or (verify) what was written reads back differently
 * occupied  something stands in its place that is not removed: a folder, or no folder where one is to be
 * failed    the operating system refused, or the repository could not be read
 */
export interface RestoreProblem {
  kind: 'corrupt' | 'occupied' | 'failed';
  /** Below the target. */
  path: Buffer;
  /** One clause. */
  message: string;
}

/** Something that this user or file system cannot keep; told once, with the number of entries. */
export interface RestoreNotice {
  kind: 'owner' | 'attribute';
  count: number;
  message: string;
}

/**
 * new       nothing stood there
 * replaced  something else stood there: another content, time or type
 * kept      it stood there already; its attributes were set right
 */
export type RestoreClass = 'new' | 'replaced' | 'kept';

export interface RestoreCounts {
  files: number;
  folders: number;
  /** Symlinks, fifos, device nodes, and further names of hard links. */
  others: number;
}

export interface RestoreReport {
  snapshotId: string;
  set: string;
  target: Buffer;
  dryRun: boolean;
  verified: boolean;
  /** Epoch milliseconds. */
  startedAt: number;
  finishedAt: number;
  classes: Record<RestoreClass, RestoreCounts>;
  /** Apparent sizes of regular files: written (in a dry run: to write), and kept. */
  bytesRestored: number;
  bytesKept: number;
  notices: RestoreNotice[];
  problems: RestoreProblem[];
}

export interface RestoreProgress {
  /** Files found so far in the snapshot and their bytes; final when `totalsKnown`. */
  filesTotal: number;
  bytesTotal: number;
  totalsKnown: boolean;
  filesDone: number;
  bytesDone: number;
  problems: number;
  current: Buffer | null;
}

export interface RestoreListener {
  /** At most ten times a second. */
  progress?(progress: Readonly<RestoreProgress>): void;
  problem?(problem: RestoreProblem): void;
  /** Dry run: every entry. */
  entry?(path: Buffer, what: RestoreClass): void;
}
