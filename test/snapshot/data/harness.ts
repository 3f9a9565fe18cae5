/** Repositories, files and their way back, for the tests of the data side. What starts workers comes from dist. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type * as Age from '../../../src/archive/crypto/age.ts';
import { BLOCK_SIZE } from '../../../src/archive/format.ts';
import type * as Frame from '../../../src/archive/frame.ts';
import type * as Reader from '../../../src/archive/reader.ts';
import type * as Stat from '../../../src/posix/stat.ts';
import type * as Names from '../../../src/repository/names.ts';
import type * as Repositories from '../../../src/repository/repository.ts';
import type * as Writers from '../../../src/snapshot/data/data-writer.ts';
import type * as Indexes from '../../../src/snapshot/data/index.ts';
import type { DataWriterOptions, FileToStore, StoredFile } from '../../../src/snapshot/data/types.ts';
import type * as Local from '../../../src/store/local.ts';

const DIST = new URL('../../../dist/', import.meta.url);
export const DIST_PATH = fileURLToPath(DIST);

function load<T>(path: string): Promise<T> {
  return import(new URL(path, DIST).href) as Promise<T>;
}

export const age = await load<typeof Age>('archive/crypto/age.js');
const reader = await load<typeof Reader>('archive/reader.js');
const frame = await load<typeof Frame>('archive/frame.js');
const stat = await load<typeof Stat>('posix/stat.js');
export const names = await load<typeof Names>('repository/names.js');
const repositories = await load<typeof Repositories>('repository/repository.js');
const { DataWriter } = await load<typeof Writers>('snapshot/data/data-writer.js');
const { DedupIndex } = await load<typeof Indexes>('snapshot/data/index.js');
const { LocalStore } = await load<typeof Local>('store/local.js');

export type Writer = Writers.DataWriter;
export type Index = Indexes.DedupIndex;
export type Repo = Repositories.Repository;

/** One folder with a repository, this machine's state, and sources; gone with `remove`. */
export class Place {
  readonly root = mkdtempSync(join(tmpdir(), 'rozen-data-'));
  readonly source = join(this.root, 'source');
  readonly spool = join(this.root, 'spool');
  readonly storePath = join(this.root, 'repo');
  identity = '';
  repository!: Repo;

  /** A repository that this machine can write, not read. */
  static async make(): Promise<Place> {
    const place = new Place();
    process.env.ROZEN_STATE_DIR = join(place.root, 'state');
    mkdirSync(place.source);
    place.identity = await age.generateIdentity('x25519');
    const recipients = [await age.recipientOf(place.identity)];
    const store = new LocalStore(place.storePath);
    place.repository = await repositories.initRepository({ store, recipients });
    return place;
  }

  /** The same machine, later. */
  async reopen(): Promise<Repo> {
    process.env.ROZEN_STATE_DIR = join(this.root, 'state');
    return repositories.openRepository({ store: new LocalStore(this.storePath), need: 'write' });
  }

  openIndex(name = 'dedup', repository = this.repository): Promise<Index> {
    return DedupIndex.open({ repository, path: join(this.root, name) });
  }

  openWriter(index: Index, more: Partial<DataWriterOptions & Writers.DataWriterTesting> = {}): Promise<Writer> {
    return DataWriter.open({ repository: this.repository, index, spoolDir: this.spool, workers: 2, ...more });
  }

  put(path: string, content: Uint8Array | string): string {
    const full = join(this.source, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, content);
    return full;
  }

  /** Opens an index, stores the files, finishes; what most tests do. */
  async store(paths: readonly string[], more: Parameters<Place['openWriter']>[1] = {}) {
    const index = await this.openIndex();
    await index.sync();
    const writer = await this.openWriter(index, more);
    const stored = paths.map((path) => writer.add(describeFile(path)));
    const { archives } = await writer.finish();
    const files = await Promise.all(stored);
    const contents = await this.readBack(index, files);
    const { stats } = writer;
    await index.close();
    return { archives, files, contents, stats };
  }

  /** The bytes of stored files, through archive numbers, block tables and sealed blocks. */
  async readBack(index: Index, files: readonly StoredFile[]): Promise<Buffer[]> {
    const archives = new Map<number, Promise<(offset: number, length: number) => Buffer>>();
    const contents: Buffer[] = [];
    for (const file of files) {
      const content = Buffer.alloc(file.size);
      let end = 0;
      for (const { offset, length, archive, streamOffset } of file.extents) {
        if (offset !== end) throw new Error(`a gap at ${end}, next extent at ${offset}`);
        end += length;
        if (archive < 0) continue;
        if (!archives.has(archive)) archives.set(archive, this.#openStream(index, archive));
        content.set((await archives.get(archive)!)(streamOffset, length), offset);
      }
      if (end !== file.size) throw new Error(`extents end at ${end} of ${file.size}`);
      contents.push(content);
    }
    return contents;
  }

  async #openStream(index: Index, number: number): Promise<(offset: number, length: number) => Buffer> {
    const { id, size, headerHash, merkleRoot } = index.archive(number)!;
    const bytes = readFileSync(join(this.storePath, names.dataName(id)));
    const opened = await reader.openArchive(reader.memorySource(bytes), {
      unwrap: (envelope) => age.unwrapKey([this.identity], envelope),
      expect: { id, size, headerHash, merkleRoot },
    });
    const blocks: Buffer[] = [];
    for (let i = 0; i < opened.blocks.count; i++) {
      const at = opened.blocks.offset(i);
      const sealed = bytes.subarray(at, at + opened.blocks.length(i));
      blocks.push(frame.openFrame(opened.context, sealed, { type: 'DATA', sequence: i + 1 }));
    }
    return (offset, length) => {
      const first = Math.floor(offset / BLOCK_SIZE);
      const last = Math.ceil((offset + length) / BLOCK_SIZE);
      const joined = Buffer.concat(blocks.slice(first, last));
      return joined.subarray(offset - first * BLOCK_SIZE, offset - first * BLOCK_SIZE + length);
    };
  }

  objects(prefix: string): string[] {
    const found: string[] = [];
    const walk = (folder: string): void => {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        const path = join(folder, entry.name);
        if (entry.isDirectory()) walk(path);
        else found.push(path.slice(this.storePath.length + 1));
      }
    };
    try {
      walk(join(this.storePath, prefix));
    } catch {
      return [];
    }
    return found.sort();
  }

  remove(): void {
    this.repository.close();
    rmSync(this.root, { recursive: true, force: true });
  }
}

export function describeFile(path: string, more: Partial<FileToStore> = {}): FileToStore {
  const bytes = Buffer.from(path);
  const { size, dev, ino, mtimeSec, mtimeNs, blocks } = stat.lstat(bytes);
  const folder = Buffer.from(dirname(path));
  const name = Buffer.from(basename(path));
  return {
    path: bytes,
    trusted: folder.length,
    folder,
    name,
    size,
    dev,
    ino,
    mtimeSec,
    mtimeNs,
    sparse: blocks * 512 < size,
    ...more,
  };
}

/** Reproducible bytes that do not compress and never repeat. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return bytes;
}
