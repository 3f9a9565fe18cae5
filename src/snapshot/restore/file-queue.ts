/** Regular files on their way to the workers: gathered, brought into the order of the archives' streams, cut into batches. */
import type { ArchiveSet } from '../../cache/archives.ts';
import { blocksOf } from '../../cache/blocks.ts';
import { type ArchiveAccess, placeInStream } from '../../cache/frames.ts';
import type { Extent } from '../view/content.ts';
import type { TargetFolder, TargetFolders } from './folders.ts';
import { type Batch, type BatchResult, encodeBatch, type FileItem, type Piece } from './messages.ts';
import type { RestorePool } from './pool.ts';
import { describe } from './report.ts';
import type { Wanted } from './settle.ts';
import type { RestoreProblem } from './types.ts';

/** Files gathered before they are sorted; the first time fewer, so that the workers begin early. */
const WINDOW = 4096;
const FIRST_WINDOW = 256;
/** A batch ends at whichever comes first. Of content: neighbouring batches share a block, which both decode. */
const BATCH_FILES = 512;
const BATCH_BYTES = 4 * 1024 * 1024;
const BATCH_FOLDERS = 64;

export interface QueuedFile extends Wanted {
  folder: TargetFolder;
  inode: number;
  name: Buffer;
  size: number;
  extents: readonly Extent[];
}

export interface FileQueueOptions {
  folders: TargetFolders;
  pool: RestorePool;
  archives: ArchiveSet;
  failed(file: QueuedFile, kind: RestoreProblem['kind'], message: string): void;
  ended(result: BatchResult): void;
}

export class FileQueue {
  readonly #options: FileQueueOptions;
  #window: QueuedFile[] = [];
  #size = FIRST_WINDOW;
  /** Archives by row (null: a hole), or why one cannot be opened. */
  readonly #archives = new Map<number, ArchiveAccess | null | Error>([[0, null]]);
  /** Those that the workers know. */
  readonly #introduced = new Set<number>();

  constructor(options: FileQueueOptions) {
    this.#options = options;
  }

  get full(): boolean {
    return this.#window.length >= this.#size;
  }

  /** The file is already counted as pending in its folder. */
  add(file: QueuedFile): void {
    this.#window.push(file);
  }

  /** Hands over what is gathered, then waits until more is wanted. */
  async drain(): Promise<void> {
    await this.#submit();
    this.#size = Math.min(this.#size * 2, WINDOW);
    await this.#options.pool.ready();
  }

  /** Hands over the rest and waits until all is done. */
  async finish(): Promise<void> {
    await this.#submit();
    await this.#options.pool.until(0);
  }

  async #submit(): Promise<void> {
    const files = this.#window;
    this.#window = [];
    for (const { extents } of files) {
      for (const { row } of extents) if (!this.#archives.has(row)) await this.#open(row);
    }
    files.sort((a, b) => {
      const x = a.extents[0];
      const y = b.extents[0];
      // Files without content stay where they are, in front.
      if (x === undefined || y === undefined) return (x === undefined ? 0 : 1) - (y === undefined ? 0 : 1);
      return this.#order(x) - this.#order(y) || this.#place(x) - this.#place(y);
    });
    let batch: QueuedFile[] = [];
    let bytes = 0;
    const folders = new Set<TargetFolder>();
    const cut = (): void => {
      if (batch.length > 0) this.#send(batch);
      batch = [];
      bytes = 0;
      folders.clear();
    };
    for (const file of files) {
      if (!this.#readable(file)) continue;
      if (bytes > 0 && bytes + file.size > BATCH_BYTES) cut();
      batch.push(file);
      bytes += file.size;
      folders.add(file.folder);
      if (batch.length >= BATCH_FILES || folders.size >= BATCH_FOLDERS) cut();
    }
    cut();
  }

  async #open(row: number): Promise<void> {
    try {
      const access = await this.#options.archives.open(row);
      if (!this.#introduced.has(access.handle)) this.#options.pool.addArchive(access);
      this.#introduced.add(access.handle);
      this.#archives.set(row, access);
    } catch (error) {
      this.#archives.set(row, error as Error);
    }
  }

  /** False, and told, when an archive that it needs cannot be opened. */
  #readable(file: QueuedFile): boolean {
    try {
      for (const { row, streamOffset, length } of file.extents) {
        const access = this.#archives.get(row);
        if (access instanceof Error) throw access;
        if (access) placeInStream(access, streamOffset, length);
      }
      return true;
    } catch (error) {
      this.#fail(file, error);
      return false;
    }
  }

  #fail(file: QueuedFile, error: unknown): void {
    const { kind, message } = describe(error);
    this.#options.failed(file, kind, message);
    this.#options.folders.done(file.folder);
  }

  #send(batch: QueuedFile[]): void {
    const { folders, pool, failed, ended } = this.#options;
    this.#fetchAhead(batch);
    let files = batch;
    const pinned: TargetFolder[] = [];
    pool.submit({
      begin: () => {
        const places = new Map<TargetFolder, number | Error>();
        files = batch.filter((file) => {
          let place = places.get(file.folder);
          if (place === undefined) {
            try {
              folders.pin(file.folder);
              place = pinned.push(file.folder) - 1;
            } catch (error) {
              place = error as Error;
            }
            places.set(file.folder, place);
          }
          if (typeof place === 'number') return true;
          this.#fail(file, place);
          return false;
        });
        return files.length === 0 ? null : this.#encode(files, pinned, places);
      },
      end: (result) => {
        for (const { file, kind, message } of result.problems) failed(files[file]!, kind, message);
        for (const folder of pinned) folders.unpin(folder);
        for (const { folder } of files) folders.done(folder);
        ended(result);
      },
    });
  }

  /** Of a remote store: the blocks of a batch are on their way before a worker asks. A large file is read ahead as it goes. */
  #fetchAhead(batch: QueuedFile[]): void {
    const { fetcher } = this.#options.archives;
    if (fetcher === null) return;
    const ranges = new Map<number, { archive: ArchiveAccess; list: { from: number; to: number }[] }>();
    for (const { size, extents } of batch) {
      if (size > BATCH_BYTES) continue;
      for (const { row, streamOffset, length } of extents) {
        const archive = this.#archives.get(row);
        if (!archive || archive instanceof Error || length === 0) continue;
        const { blockOffsets, blockLengths } = archive;
        const known = ranges.get(archive.handle) ?? { archive, list: [] };
        ranges.set(archive.handle, known);
        for (const block of blocksOf(archive, streamOffset, length)) {
          const from = blockOffsets?.[block];
          if (from === undefined) break;
          const { list } = known;
          if (list.at(-1)?.from !== from) list.push({ from, to: from + blockLengths![block]! });
        }
      }
    }
    for (const { archive, list } of ranges.values()) fetcher.plan(archive, list);
  }

  #encode(files: QueuedFile[], pinned: TargetFolder[], places: Map<TargetFolder, number | Error>): Batch {
    const items = files.map((file) => ({ item: this.#item(file), folder: places.get(file.folder) as number }));
    return {
      folders: Int32Array.from(pinned, (folder) => folder.fd),
      groups: Uint32Array.from(pinned, (folder) => folder.group),
      count: files.length,
      ...encodeBatch(items),
    };
  }

  #item(file: QueuedFile): FileItem {
    const pieces: Piece[] = file.extents.map((extent) => ({
      offset: extent.offset,
      length: extent.length,
      archive: this.#access(extent)?.handle ?? 0,
      streamOffset: this.#place(extent),
    }));
    return { ...file, pieces };
  }

  /** Null for a hole, and for what cannot be opened. */
  #access({ row }: Extent): ArchiveAccess | null {
    const access = this.#archives.get(row);
    return access === undefined || access instanceof Error ? null : access;
  }

  /** Rows in their order; of those that were merged into one archive, the first. */
  #order(extent: Extent): number {
    return this.#access(extent)?.handle ?? 0;
  }

  /** Where an extent lies in the stream of its archive. */
  #place(extent: Extent): number {
    return (this.#access(extent)?.streamStart ?? 0) + extent.streamOffset;
  }
}
