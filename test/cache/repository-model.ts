/** A repository in miniature: archives under made-up envelopes in a local store, and lineages of snapshots without signatures. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { BLOCK_SIZE, KIND_DATA, KIND_TREE } from '../../src/archive/format.ts';
import type { TreeArchiveFacts } from '../../src/archive/tree/root.ts';
import { emptyRoots, type TreeName, type TreeRoots } from '../../src/archive/tree/schema.ts';
import { type TreeArchiveOptions, TreeArchiveWriter, type WrittenTrees } from '../../src/archive/tree/tree-archive.ts';
import type { Mutation } from '../../src/archive/tree/update.ts';
import { type ArchiveSink, ArchiveWriter, type SealedArchive } from '../../src/archive/writer.ts';
import type { KeyOpener } from '../../src/cache/archives.ts';
import { PageCache, storedPages } from '../../src/cache/pages.ts';
import type { SnapshotFacts } from '../../src/cache/snapshot-reader.ts';
import { corrupt, RozenError } from '../../src/errors.ts';
import { dataName, indexName, treeName } from '../../src/repository/names.ts';
import { CountingStore } from '../../src/store/counting.ts';
import { LocalStore } from '../../src/store/local.ts';

class MemorySink implements ArchiveSink {
  readonly #parts: Buffer[] = [];

  append(bytes: Uint8Array): void {
    this.#parts.push(Buffer.from(bytes));
  }

  readBack(offset: number, length: number): Buffer {
    return this.bytes().subarray(offset, offset + length);
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export type Changes = Partial<Record<TreeName, Mutation[]>>;

export class RepositoryModel implements KeyOpener {
  readonly folder = mkdtempSync(join(tmpdir(), 'rozen-cache-'));
  readonly store: CountingStore;
  /** A store that says nothing lies on this machine. */
  readonly remote: CountingStore;
  readonly repositoryId = randomBytes(16);
  unwraps = 0;
  readonly #keys = new Map<string, Buffer>();
  readonly #signing = generateSigningKey();
  readonly #writerId = randomBytes(16);

  constructor() {
    this.store = new CountingStore(new LocalStore(this.folder));
    this.remote = new CountingStore(new LocalStore(this.folder));
    this.remote.localPath = () => null;
  }

  async unwrap(envelope: Uint8Array): Promise<Buffer> {
    this.unwraps++;
    const key = this.#keys.get(Buffer.from(envelope).toString('hex'));
    if (key === undefined) throw new RozenError('no-key', 'no key for this envelope');
    return Buffer.from(key);
  }

  async data(stream: Buffer): Promise<SealedArchive> {
    const { writer, sink } = this.#begin(KIND_DATA);
    for (let at = 0; at < stream.length; at += BLOCK_SIZE)
      writer.appendPlain('DATA', stream.subarray(at, at + BLOCK_SIZE));
    const archive = await writer.finish({ ...this.sign(), chunks: { key: randomBytes(32), list: [] } });
    await this.store.put(dataName(archive.id), sink.bytes());
    await this.store.put(indexName(archive.id), archive.hotIndex!);
    return archive;
  }

  async trees(options: Omit<TreeArchiveOptions, 'writer'>, changes: Changes): Promise<WrittenTrees> {
    const { writer, sink } = this.#begin(KIND_TREE);
    const trees = new TreeArchiveWriter({ ...options, writer });
    for (const [name, mutations] of Object.entries(changes)) trees.update(name as TreeName, mutations);
    await trees.ready();
    const written = await trees.finish(this.sign());
    await this.store.put(treeName(written.archive.id), sink.bytes());
    return written;
  }

  sign() {
    return { writerId: this.#writerId, signWith: this.#signing.secret };
  }

  #begin(kind: typeof KIND_DATA | typeof KIND_TREE): { writer: ArchiveWriter; sink: MemorySink } {
    const key = randomBytes(32);
    const envelope = randomBytes(200);
    this.#keys.set(envelope.toString('hex'), key);
    const sink = new MemorySink();
    const writer = ArchiveWriter.create({ sink, kind, repositoryId: this.repositoryId, key, envelope });
    writer.begin();
    return { writer, sink };
  }

  dispose(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Snapshots of one lineage after another. */
export class LineageModel {
  readonly repository: RepositoryModel;
  readonly tag = randomBytes(16).toString('hex');
  roots: TreeRoots = emptyRoots();
  sequence = 0;
  nextRow = 1;
  last: TreeArchiveFacts | null = null;
  /** Of the last snapshot. */
  written: WrittenTrees | null = null;
  /** Plaintext pages of the last snapshot. */
  readonly pages = new Map<string, Buffer>();

  constructor(repository: RepositoryModel) {
    this.repository = repository;
  }

  /** The row of the tree archive to come is `nextRow` at the time of the call. */
  async snapshot(changes: Changes, rewrite: TreeArchiveOptions['rewrite'] = false): Promise<SnapshotFacts> {
    const row = this.nextRow++;
    const source = storedPages(new PageCache(2 ** 26), (row, offset) => this.pages.get(`${row}:${offset}`)!);
    const archives = [...(changes.archives ?? [])];
    if (this.last !== null) {
      const { id, size, headerHash, merkleRoot, envelope } = this.last;
      archives.push({ key: [this.last.row], value: [id, KIND_TREE, size, headerHash, merkleRoot, envelope] });
    }
    archives.sort((a, b) => (a.key[0] as number) - (b.key[0] as number));
    const written = await this.repository.trees(
      {
        row,
        roots: this.roots,
        source,
        rewrite,
        known: this.last === null ? [] : [this.last],
        onPage: (pointer, bytes) => {
          const key = `${pointer.row}:${pointer.offset}`;
          if (this.pages.has(key)) throw corrupt('a page was written over');
          this.pages.set(key, bytes);
        },
      },
      { ...changes, archives },
    );
    for (const { row, offset } of written.replaced) {
      if (!this.pages.delete(`${row}:${offset}`)) throw corrupt('a page that was not there is replaced');
    }
    const { id, size, headerHash, merkleRoot, envelope } = written.archive;
    this.written = written;
    this.roots = written.roots;
    this.last = { row, id, size, headerHash, merkleRoot, envelope };
    return { id: randomBytes(16), tag: this.tag, sequence: ++this.sequence, tree: this.last };
  }
}
