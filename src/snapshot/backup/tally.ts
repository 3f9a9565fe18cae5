/** Counts what a run finds and tells its listener, no more often than a terminal needs. */
import { RozenError } from '../../errors.ts';
import { joinName } from '../../posix/folder.ts';
import { reasonOf } from '../../posix/reason.ts';
import type {
  BackupListener,
  BackupPhase,
  BackupProblem,
  BackupProgress,
  BackupReport,
  ClassCounts,
  EntryClass,
  SnapshotClass,
} from './backup-types.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from './walk.ts';

const INTERVAL_MS = 100;
/** A report names at most so many skipped entries and problems; all are counted and told to the listener. */
const MAX_LISTED = 10_000;

export interface Classified {
  class: EntryClass;
  mode: number;
  size: number;
}

export class Tally {
  readonly progress: BackupProgress = {
    phase: 'prepare',
    totalsKnown: false,
    entriesSeen: 0,
    filesTotal: 0,
    filesDone: 0,
    bytesTotal: 0,
    bytesDone: 0,
    problems: 0,
    current: null,
  };
  readonly classes: Record<EntryClass, ClassCounts> = {
    new: noCounts(),
    changed: noCounts(),
    metadata: noCounts(),
    moved: noCounts(),
    unchanged: noCounts(),
    deleted: noCounts(),
    copied: noCounts(),
    returned: noCounts(),
    diverged: noCounts(),
    restored: noCounts(),
    refused: noCounts(),
  };
  readonly problems: BackupProblem[] = [];
  readonly skipped: BackupReport['skipped'] = [];
  readonly #listener: BackupListener;
  readonly #told = new Set<string>();
  #toldAt = 0;

  constructor(listener: BackupListener) {
    this.#listener = listener;
  }

  phase(phase: BackupPhase): void {
    this.progress.phase = phase;
    this.#toldAt = performance.now();
    this.#listener.progress?.(this.progress);
  }

  /** To be called often. */
  tick(): void {
    if (this.#listener.progress === undefined) return;
    const now = performance.now();
    if (now - this.#toldAt < INTERVAL_MS) return;
    this.#toldAt = now;
    this.#listener.progress(this.progress);
  }

  /** The same of the same path once: a folder that is closed shows it by its attributes and by its names. */
  problem(problem: BackupProblem): void {
    const key = `${problem.path.toString('latin1')}\0${problem.message}`;
    if (this.#told.has(key)) return;
    if (this.#told.size < MAX_LISTED) this.#told.add(key);
    this.progress.problems++;
    if (this.problems.length < MAX_LISTED) this.problems.push(problem);
    this.#listener.problem?.(problem);
  }

  skip(path: Buffer, reason: string): void {
    if (this.skipped.length < MAX_LISTED) this.skipped.push({ path, reason });
    this.#listener.skipped?.(path, reason);
  }

  classified(folder: Buffer, name: string, what: Classified): void {
    const counts = this.classes[what.class];
    const kind = what.mode & S_IFMT;
    if (kind === S_IFREG) counts.files++;
    else if (kind === S_IFDIR) counts.folders++;
    else counts.others++;
    if (what.class === 'unchanged' || this.#listener.entry === undefined) return;
    this.#listener.entry(name === '' ? folder : joinName(folder, name), what.class, what.size);
  }
}

/** The classes that a set of snapshots knows. */
export function snapshotClasses(all: Record<EntryClass, ClassCounts>): Record<SnapshotClass, ClassCounts> {
  const { new: fresh, changed, metadata, moved, unchanged, deleted } = all;
  return { new: fresh, changed, metadata, moved, unchanged, deleted };
}

function noCounts(): ClassCounts {
  return { files: 0, folders: 0, others: 0 };
}

/** One clause for people: words, or the name of the errno where there are none. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof RozenError || (error as NodeJS.ErrnoException).code === undefined) return error.message;
  return reasonOf(error);
}
