import type { CodecSpec } from '../../archive/codec/index.ts';
import type { SealedArchive } from '../../archive/writer.ts';
import type { Repository } from '../../repository/repository.ts';
import type { DedupIndex } from './index.ts';

/** What the walk knows about a regular file whose content may be new. Paths are bytes, as the kernel gave them. */
export interface FileToStore {
  /** Absolute path. */
  path: Buffer;
  /**
   * So many bytes of it may lead through symlinks. What takes the file's place later is read all the same, but not through a
   * symlink further on: that is nothing of what was walked.
   */
  trusted: number;
  /** Folder and name as they shall stand in the archive's records, for salvage. Not NUL-terminated. */
  folder: Buffer;
  name: Buffer;
  /** st_size, st_dev, st_ino, st_mtim of the walk. Size 0 is answered without opening the file. */
  size: number;
  dev: number;
  ino: number;
  mtimeSec: number;
  mtimeNs: number;
  /** True when st_blocks says that the file has holes: they are looked for, and kept. */
  sparse: boolean;
}

/** A piece of a file. `archive` is a number of the deduplication index, or `HOLE`. */
export interface StoredExtent {
  offset: number;
  length: number;
  archive: number;
  streamOffset: number;
}

/** `StoredExtent.archive` of a hole: `length` zeros that are stored nowhere. */
export const HOLE = -1;

/**
 * stored      content and times below belong together
 * changed     it changed during each of three reads: the last read is stored (its size is `size`), but may be torn
 * vanished    it was gone, or another file stood at its path, when it was opened
 * unreadable  the operating system refused (`error` says why); nothing is stored
 */
type StoredStatus = 'stored' | 'changed' | 'vanished' | 'unreadable';

export interface StoredFile {
  status: StoredStatus;
  error?: string;
  /** The very inode that was read. */
  dev: number;
  ino: number;
  /** Bytes stored, and the times of the very inode that was read: they may be newer than what the walk saw. */
  size: number;
  mtimeSec: number;
  mtimeNs: number;
  /** True when size, mtime or inode differ from `FileToStore`: the caller should stat the file again before it writes the inode row. */
  restat: boolean;
  /** Keyed BLAKE3-256 of the whole content (holes count as zeros). Empty when nothing was stored. */
  contentId: Buffer;
  /** Cover 0..size without gaps, ascending; neighbours in one archive are merged. */
  extents: StoredExtent[];
  /** Bytes of this file that were not in the repository before. */
  newBytes: number;
  /** Reads beyond the first. */
  retries: number;
}

export interface DataWriterOptions {
  repository: Repository;
  /** Synced (`index.sync()`) before the first file is added. */
  index: DedupIndex;
  /** Exclusive to this writer: the caller holds the lock of its set. Made (mode 700) if absent; recovered if it holds a crashed run's spools. */
  spoolDir: string;
  codec?: CodecSpec;
  /** Goal of a pack, bytes of stream. Default 1 GiB. */
  archiveSize?: number;
  /** How far a pack may run over its goal. Default 100 MiB. */
  overrun?: number;
  /** Deduplicate only against archives of this run, so that the snapshot refers to no older archive. */
  selfContained?: boolean;
  /** Heads of media files go to archives of their own, which stay hot. Default: when data archives go to a class that must be thawed. */
  separateHeads?: boolean;
  /** Worker threads; default one per core (at least 1, at most 16). */
  workers?: number;
  /** Aborting makes every pending and later call throw `interrupted`; the spools stay for the next run. */
  signal?: AbortSignal;
}

/** Live counters, for progress. */
export interface DataStats {
  /** Files answered, and their bytes. */
  files: number;
  bytes: number;
  /** Bytes that were new, before and after sealing. */
  newBytes: number;
  sealedBytes: number;
  /** Taken over from a crashed run's spools: sealed bytes, chunks. */
  recoveredBytes: number;
  recoveredChunks: number;
}

export interface StoredArchive {
  /** Number in the deduplication index: what `StoredExtent.archive` says. */
  number: number;
  archive: SealedArchive;
}

/** What `DataWriter` offers; the class stands in data-writer.ts. */
export interface DataStore {
  readonly stats: DataStats;
  /** True when `ready()` would wait: check it to spare a promise per file. */
  readonly full: boolean;
  /** Back-pressure: resolves when another file may be added. */
  ready(): Promise<void>;
  /** Resolves when all of the file is laid into the stream of an archive; order of answers = order of calls. Rejects only on a fatal error. */
  add(file: FileToStore): Promise<StoredFile>;
  /** Starts reading what was added so far, even if the batch is not full. `finish` implies it. */
  flush(): void;
  /** Seals and stores everything; every archive of the answer is acknowledged by the store and in the index. */
  finish(): Promise<{ archives: StoredArchive[] }>;
  /** Stops at once; spools stay on disk for the next run. Safe to call twice, and after `finish`. */
  abort(): Promise<void>;
}
