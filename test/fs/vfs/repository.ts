/** A real repository in a folder, written by the archive, tree and repository code alone: no backup in between. */
import { closeSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { encodeCbor } from '../../../src/archive/cbor.ts';
import type { CodecSpec } from '../../../src/archive/codec/index.ts';
import { generateIdentity, recipientOf } from '../../../src/archive/crypto/age.ts';
import { BLOCK_SIZE, KIND_DATA, KIND_TREE } from '../../../src/archive/format.ts';
import { chunkIndexKey } from '../../../src/archive/keys.ts';
import { decodePage, type Page } from '../../../src/archive/tree/page.ts';
import { emptyRoots, type TreeRoots } from '../../../src/archive/tree/schema.ts';
import { TreeArchiveWriter } from '../../../src/archive/tree/tree-archive.ts';
import type { Mutation } from '../../../src/archive/tree/update.ts';
import { type ArchiveSink, ArchiveWriter, type SealedArchive } from '../../../src/archive/writer.ts';
import { dataName, indexName, treeName } from '../../../src/repository/names.ts';
import {
  initRepository,
  openRepository,
  type Repository,
  type SnapshotRecord,
} from '../../../src/repository/repository.ts';
import { LocalStore } from '../../../src/store/local.ts';
import { MODEL_TREES, type ModelEntry, ModelLineage } from './model.ts';

/** An archive that is being written, as a file. */
class FileSink implements ArchiveSink {
  readonly path: string;
  readonly #fd: number;
  #size = 0;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, 'w+');
  }

  append(bytes: Uint8Array): void {
    writeSync(this.#fd, bytes, 0, bytes.length, this.#size);
    this.#size += bytes.length;
  }

  readBack(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(this.#fd, bytes, 0, length, offset);
    return bytes;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

interface Lineage {
  model: ModelLineage;
  roots: TreeRoots;
  nextRow: number;
  pages: Map<string, Page>;
  last: { row: number; archive: SealedArchive } | null;
}

export interface Committed {
  record: SnapshotRecord;
  id: string;
  /** Object name of the data archive written for it; null when all content was known. */
  data: string | null;
  tree: string;
}

export class TestRepository {
  readonly folder: string;
  readonly store: LocalStore;
  readonly repository: Repository;
  readonly identityFile: string;
  readonly #lineages = new Map<string, Lineage>();
  #files = 0;

  private constructor(folder: string, store: LocalStore, repository: Repository, identityFile: string) {
    this.folder = folder;
    this.store = store;
    this.repository = repository;
    this.identityFile = identityFile;
  }

  /** In `folder`: `store`, `state` (ROZEN_STATE_DIR is set to it) and `identity.txt`. */
  static async create(folder: string): Promise<TestRepository> {
    process.env.ROZEN_STATE_DIR = join(folder, 'state');
    mkdirSync(folder, { recursive: true });
    const identity = await generateIdentity('x25519');
    const identityFile = join(folder, 'identity.txt');
    writeFileSync(identityFile, `${identity}\n`);
    const store = new LocalStore(join(folder, 'store'));
    const repository = await initRepository({ store, recipients: [await recipientOf(identity)] });
    return new TestRepository(folder, store, repository, identityFile);
  }

  /** As a mount opens it. */
  reader(): Promise<Repository> {
    return openRepository({ store: this.store, credentials: { identityFile: this.identityFile }, need: 'read' });
  }

  /** Loses the state of a set's lineage: the next snapshot begins anew, with rows and inode numbers from 1. */
  forget(set: string): void {
    this.#lineages.delete(set);
  }

  async commit(
    set: string,
    entries: ModelEntry[],
    options: { timeSec?: number; codec?: CodecSpec } = {},
  ): Promise<Committed> {
    let lineage = this.#lineages.get(set);
    if (lineage === undefined) {
      lineage = { model: new ModelLineage(), roots: emptyRoots(), nextRow: 1, pages: new Map(), last: null };
      this.#lineages.set(set, lineage);
    }
    const archives: Mutation[] = [];
    if (lineage.last !== null) archives.push(archiveRow(lineage.last.row, lineage.last.archive));
    const pieces: Buffer[] = [];
    let streamOffset = 0;
    const dataRow = lineage.nextRow;
    const mutations = lineage.model.snapshot(entries, (bytes) => {
      pieces.push(bytes);
      const at = streamOffset;
      streamOffset += bytes.length;
      return { row: dataRow, streamOffset: at };
    });
    let data: string | null = null;
    if (streamOffset > 0) {
      lineage.nextRow++;
      const archive = await this.#data(pieces, options.codec);
      archives.push(archiveRow(dataRow, archive));
      data = dataName(archive.id);
    }
    return { ...(await this.#trees(set, lineage, { ...mutations, archives }, options.timeSec ?? 1_800_000_000)), data };
  }

  async #data(pieces: Buffer[], codec?: CodecSpec): Promise<SealedArchive> {
    const { writer, sink } = await this.#begin(KIND_DATA, codec);
    let rest: Buffer = Buffer.alloc(0);
    for (const piece of pieces) {
      let at = 0;
      if (rest.length > 0) {
        at = Math.min(piece.length, BLOCK_SIZE - rest.length);
        rest = Buffer.concat([rest, piece.subarray(0, at)]);
        if (rest.length < BLOCK_SIZE) continue;
        writer.appendPlain('DATA', rest);
      }
      for (; at + BLOCK_SIZE <= piece.length; at += BLOCK_SIZE) {
        writer.appendPlain('DATA', piece.subarray(at, at + BLOCK_SIZE));
      }
      rest = piece.subarray(at);
    }
    if (rest.length > 0) writer.appendPlain('DATA', rest);
    const key = chunkIndexKey(this.repository.secrets!.indexKey, writer.id);
    const archive = await writer.finish({ ...this.#sign(), chunks: { key, list: [] } });
    sink.close();
    await this.store.putFile(dataName(archive.id), sink.path);
    await this.store.put(indexName(archive.id), archive.hotIndex!);
    return archive;
  }

  async #trees(
    set: string,
    lineage: Lineage,
    mutations: { [N in (typeof MODEL_TREES)[number] | 'archives']: Mutation[] },
    timeSec: number,
  ): Promise<Omit<Committed, 'data'>> {
    const { writer, sink, key } = await this.#begin(KIND_TREE);
    const row = lineage.nextRow++;
    const last = lineage.last;
    const trees = new TreeArchiveWriter({
      writer,
      row,
      roots: lineage.roots,
      source: { page: (pageRow, offset) => lineage.pages.get(`${pageRow}:${offset}`)! },
      known: last === null ? [] : [{ ...last.archive, row: last.row }],
      onPage: ({ row: pageRow, offset }, plain) => lineage.pages.set(`${pageRow}:${offset}`, decodePage(plain)),
    });
    for (const tree of [...MODEL_TREES, 'archives'] as const) trees.update(tree, mutations[tree]);
    const slot = await this.repository.nextSlot(set);
    const body = { set, mode: 'snapshot' as const, host: 'h', user: 'u', paths: [], tags: [], stats: {} };
    trees.update('history', [{ key: [slot.sequence], value: [slot.id, row, timeSec, 500, encodeCbor(body)] }]);
    await trees.ready();
    const { archive, roots } = await trees.finish(this.#sign());
    sink.close();
    await this.store.putFile(treeName(archive.id), sink.path);
    const record = await this.repository.commit({
      kind: 'snapshot',
      slot,
      timeSec,
      timeNs: 500,
      tree: { ...archive, row },
      key,
      body,
    });
    lineage.roots = roots;
    lineage.last = { row, archive };
    return { record, id: slot.id.toString('hex'), tree: treeName(archive.id) };
  }

  async #begin(kind: typeof KIND_DATA | typeof KIND_TREE, codec?: CodecSpec) {
    const { key, envelope } = await this.repository.newArchiveKey();
    const sink = new FileSink(join(this.folder, `archive-${this.#files++}.tmp`));
    const repositoryId = this.repository.id;
    const writer = ArchiveWriter.create({ sink, kind, repositoryId, key, envelope, ...(codec ? { codec } : {}) });
    writer.begin();
    return { writer, sink, key };
  }

  #sign() {
    const { id, signingSecret } = this.repository.writer!;
    return { writerId: id, signWith: signingSecret };
  }
}

function archiveRow(row: number, archive: SealedArchive): Mutation {
  const { id, kind, size, headerHash, merkleRoot, envelope } = archive;
  return { key: [row], value: [id, kind, size, headerHash, merkleRoot, envelope] };
}
