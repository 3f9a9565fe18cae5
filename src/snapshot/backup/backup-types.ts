/** What `backup` takes, tells on the way and returns. The command line builds on these; nothing here imports anything heavy. */

import type { CodecSpec } from '../../archive/codec/index.ts';
import type { Repository } from '../../repository/repository.ts';
import type { WormPolicy } from '../../repository/snapshot-record.ts';
import type { NameConflict } from '../worm/other-machines.ts';
import type { DivergedKind } from '../worm/seen.ts';

/** What a person has decided about a file that diverged. */
export interface Decision {
  action: 'accept' | 'restore';
  /** On this machine. */
  path: Buffer;
}

/** Contents whose archived copies are damaged, to be stored once more from sound local ones. */
interface Repairs {
  /** Id of the snapshot that has them: it must be the newest one of this machine. */
  base: Buffer;
  contents: readonly ContentRepair[];
}

export interface ContentRepair {
  inode: number;
  version: number;
  contentId: Buffer;
  /** A local file with this content. */
  path: Buffer;
}

export interface BackupOptions {
  /** Opened with need 'write' (or more; with an identity, lost local state is read back from the store). */
  repository: Repository;
  /** This repository's folder for local state (lineages, spool, deduplication index); made with mode 700 if missing. */
  stateDir: string;
  /** Name of the set, 1 to 255 bytes of UTF-8 without NUL or slash. */
  set: string;
  /** Default: that of the set; 'snapshot' for a new one. A set keeps its mode: another one is refused. */
  mode?: 'snapshot' | 'worm';
  /** WORM: what holds for this run; what is not said is the set's own. A new set keeps it. */
  policy?: Partial<WormPolicy>;
  /** WORM: percent of the set's bytes that are read again though nothing says that they changed, oldest proof first. */
  rehash?: number;
  /** WORM, on restore: false does not keep the diverged file beside the restored one. */
  keepDiverged?: boolean;
  /** WORM: look at these files alone, by inode number, and do this about them; nothing else is walked. */
  decisions?: ReadonlyMap<number, Decision>;
  /** WORM: store these contents once more under the versions that they have; nothing is walked. */
  repairs?: Repairs;
  /** WORM: may open archives to tell exactly where a file differs (asks for no passphrase on its own). */
  readArchive?: boolean;
  /** What to back up, as bytes; relative ones count from the working directory. At least one. */
  paths: readonly Buffer[];
  /** Patterns as of `--exclude`, in order; a later `!pattern` takes a file in again. */
  exclude?: readonly string[];
  /** Files with one pattern a line (`--exclude-file`); they come after `exclude`. */
  excludeFiles?: readonly string[];
  /** Leave out what lies in folders with a valid CACHEDIR.TAG (the folder and the tag stay). */
  excludeCaches?: boolean;
  /** Do not enter other file systems; the mount points themselves stay as empty folders. */
  oneFileSystem?: boolean;
  /** Walk and compare only: nothing is read, stored or committed. */
  dryRun?: boolean;
  /** Write a snapshot even when nothing has changed. */
  force?: boolean;
  /** All data and all tree pages in archives of this snapshot; refers to no other snapshot's. */
  selfContained?: boolean;
  tags?: readonly string[];
  codec?: CodecSpec;
  /** Goal of a data archive, bytes. */
  archiveSize?: number;
  /** How far a data archive may run over its goal, bytes. */
  archiveOverrun?: number;
  host?: string;
  user?: string;
  /** Worker threads of the data side; default: the number of cores. */
  threads?: number;
  /** Wait for another backup of the same set instead of failing with 'locked'. */
  waitForLock?: boolean;
  /** Abort leaves a state from which the next run goes on; `backup` then throws RozenError 'interrupted'. */
  signal?: AbortSignal;
}

/**
 * What a file, folder or other entry turned out to be.
 *
 * new        was not there in the snapshot before
 * changed    other content
 * metadata   same content, other attributes, xattrs or number of links
 * moved      known under another name or in another folder; content not read again
 * unchanged
 * deleted    was there before, is gone
 */
export type SnapshotClass = 'new' | 'changed' | 'metadata' | 'moved' | 'unchanged' | 'deleted';

/**
 * In a WORM set 'changed' is a new content that was accepted, and there are besides:
 *
 * copied     new, with the content of a file that is there too
 * returned   was deleted, is there again
 * diverged   other content than the archived one, which stays current
 * restored   diverged or deleted, and was written back
 * refused    new, and the set takes no new files
 */
type WormClass = 'copied' | 'returned' | 'diverged' | 'restored' | 'refused';

export type EntryClass = SnapshotClass | WormClass;

export interface ClassCounts {
  files: number;
  folders: number;
  /** Symlinks, fifos, device nodes. */
  others: number;
}

/**
 * unreadable  permission or I/O error; the entry stands in the snapshot as the snapshot before had it, or not at all
 * vanished    seen by the walk, gone when it was to be read
 * changed     changed each time it was read; the last reading is stored and marked incomplete
 */
export interface BackupProblem {
  kind: 'unreadable' | 'vanished' | 'changed';
  path: Buffer;
  /** One clause, in words. */
  message: string;
}

/** A file whose content is not the archived one, or a file or folder that something of another kind has replaced. */
export interface DivergedFile {
  path: Buffer;
  inode: number;
  kind: DivergedKind;
  action: 'kept' | 'accepted' | 'restored';
  archived: ContentFacts;
  local: ContentFacts;
  /** First byte that differs; null for kind 'replaced'. */
  differsAt: number | null;
  /** False when only the chunk is known in which that byte lies: the archive could not be read. */
  exact: boolean;
  /** Sequence of the snapshot that saw it first; null when that is this run. */
  since: number | null;
  /** Where the diverged file was kept, when it was restored. */
  keptAs: Buffer | null;
}

export interface ContentFacts {
  size: number;
  mtimeSec: number;
  mtimeNs: number;
}

export interface WormReport {
  policy: WormPolicy;
  /** 10,000 at most; `divergedCount` and `openCount` are of all: seen in this run, and left as they are. */
  diverged: DivergedFile[];
  divergedCount: number;
  openCount: number;
  /** What moved and where from, the top of each move; 10,000 at most. */
  moves: { from: Buffer | null; to: Buffer; mode: number }[];
  /** New files whose path another machine has in the set too, with another content; 10,000 at most. Both are kept. */
  conflicts: NameConflict[];
  /** Machines that feed the set too, whose names this one could not look at, as it can only write. */
  uncompared: string[];
  /** New entries that a frozen set did not take; 10,000 at most. */
  refused: Buffer[];
  refusedCount: number;
  /** Files whose content was read and proven to be the archived one. */
  proven: { files: number; bytes: number };
  /** Contents that were stored once more, as their archived copies are damaged. */
  repaired: number;
  /** Epoch seconds of the oldest proof of all files; null for an empty set. */
  oldestProof: number | null;
}

export interface BackupReport {
  set: string;
  mode: 'snapshot' | 'worm';
  /** Hexadecimal id; null when nothing changed, or in a dry run. */
  snapshotId: string | null;
  /** Sequence of the snapshot in its lineage; null like snapshotId. */
  sequence: number | null;
  /** The snapshot that stood before this run; null for the first. */
  parentId: string | null;
  /** True when nothing changed and only an "unchanged" record was written. */
  unchanged: boolean;
  dryRun: boolean;
  /** Epoch milliseconds. */
  startedAt: number;
  finishedAt: number;
  classes: Record<SnapshotClass, ClassCounts> & Partial<Record<WormClass, ClassCounts>>;
  /** Null for a set of snapshots. */
  worm: WormReport | null;
  /** Regular files and their bytes (apparent size) in the snapshot. */
  totalFiles: number;
  totalBytes: number;
  /** Bytes of files that had to be read (in a dry run: would have to be). */
  bytesRead: number;
  /** Plaintext bytes that were new to the repository. */
  bytesNew: number;
  /** Sealed bytes that went to the store: data archives and their indexes, tree archive. */
  bytesStored: number;
  /** Data archives that this run sealed. */
  archives: number;
  /** Objects of the repository that are gone, cut or damaged, as far as a run looks; what older snapshots had there may be lost. */
  lostArchives: string[];
  /** Why local state could not be used: null when it agreed with the store or this was the first run. */
  stateNotice: string | null;
  /** Sockets and other things that no backup can hold. */
  skipped: { path: Buffer; reason: string }[];
  /** Not empty: exit code 3. */
  problems: BackupProblem[];
}

export type BackupPhase = 'prepare' | 'walk' | 'store' | 'trees' | 'commit' | 'done';

/** One object, changed in place; read it in the callback. */
export interface BackupProgress {
  phase: BackupPhase;
  /** True once the walk is over: the totals do not grow any more. */
  totalsKnown: boolean;
  /** Entries of all kinds seen by the walk. */
  entriesSeen: number;
  /** Files that must be read, and their bytes. */
  filesTotal: number;
  filesDone: number;
  bytesTotal: number;
  bytesDone: number;
  problems: number;
  /** What is being walked or read, for a status line; may be null. */
  current: Buffer | null;
}

export interface BackupListener {
  /** At most ten times a second, and at every change of phase. */
  progress?(progress: Readonly<BackupProgress>): void;
  /** At once, for every problem and skipped entry. */
  problem?(problem: BackupProblem): void;
  skipped?(path: Buffer, reason: string): void;
  /** For `--verbose` and `--dry-run`: every entry that is not unchanged. Costs a Buffer each; leave it out if unused. */
  entry?(path: Buffer, what: EntryClass, size: number): void;
}
