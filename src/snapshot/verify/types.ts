/** What `verify` takes, tells on the way and returns. Damage is a result here, never an exception. */

/**
 * missing       something that others refer to is not there
 * damaged       bytes that fail a check, or that are cut off
 * inconsistent  every byte is as it was written, but parts contradict each other
 * untrusted     intact, but signed by nobody who may, swapped, or rolled back
 * unreadable    the operating system or the network would not give the bytes
 */
export type FindingKind = 'missing' | 'damaged' | 'inconsistent' | 'untrusted' | 'unreadable';

/** A path in a snapshot that the finding concerns. */
interface ConcernedFile {
  /** Snapshot id, 32 hexadecimal digits. */
  snapshot: string;
  path: Buffer;
}

export interface Finding {
  kind: FindingKind;
  /** Object name in the store. */
  object: string;
  /** Archive id, 32 hexadecimal digits; null for other objects. */
  archive: string | null;
  /** The frame that is concerned, if it is one: type and sequence number. */
  frame: { type: string; sequence: number } | null;
  /** Number of the block in the stream of a data archive. */
  block: number | null;
  /** Where in the object, bytes. */
  offset: number | null;
  length: number | null;
  /** One clause. */
  message: string;
  /** Ids of the snapshots that are concerned. */
  snapshots: string[];
  /** True when those snapshots cannot be opened at all: everything in them is concerned. */
  whole: boolean;
  /** The first MAX_FILES files that are concerned, in path order within a snapshot. */
  files: ConcernedFile[];
  fileCount: number;
}

export interface VerifyReport {
  mode: 'structure' | 'data' | 'scrub';
  /** Percentage of the blocks that were read; 100 for all, 0 for none. */
  sampled: number;
  snapshots: number;
  archives: number;
  /** Objects of the store that were looked at. */
  objects: number;
  pages: number;
  files: number;
  /** Blocks and chunks that were decoded and held against their hashes. */
  blocks: number;
  chunks: number;
  /** Bytes of objects that were read. */
  bytesRead: number;
  /** Data archives whose content could not be looked at, as it lies in cold storage. */
  frozen: number;
  /** Key objects that can be read, by what opens them. */
  passphrases: number;
  ageKeys: number;
  startedAt: number;
  finishedAt: number;
  findings: Finding[];
  /** What is no error: unreferenced objects, temporary files. */
  notes: string[];
}

interface VerifyProgress {
  phase: string;
  bytesDone: number;
  /** 0 while it is not known. */
  bytesTotal: number;
  findings: number;
}

export interface VerifyListener {
  progress?(progress: Readonly<VerifyProgress>): void;
  /** Each finding once, as soon as it is known; the files that it concerns may be added until the report. */
  finding?(finding: Readonly<Finding>): void;
}

/** Files that a finding names; the rest is counted. */
export const MAX_FILES = 1000;
