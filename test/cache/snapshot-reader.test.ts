import { randomBytes } from 'node:crypto';
import { chmodSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_SIZE, KIND_DATA, SUFFIX_READ } from '../../src/archive/format.ts';
import { openFrame } from '../../src/archive/frame.ts';
import { Cursor, rows } from '../../src/archive/tree/read.ts';
import { decodeRoot } from '../../src/archive/tree/root.ts';
import { type Field, INODE, NAME, TREES } from '../../src/archive/tree/schema.ts';
import type { Mutation } from '../../src/archive/tree/update.ts';
import type { SealedArchive } from '../../src/archive/writer.ts';
import { OpenArchives } from '../../src/cache/archives.ts';
import { readFrame } from '../../src/cache/frames.ts';
import { Miss, missArchive, missFrame } from '../../src/cache/miss.ts';
import { PageCache } from '../../src/cache/pages.ts';
import { openSnapshot, retrying, type SnapshotFacts, type SnapshotReader } from '../../src/cache/snapshot-reader.ts';
import { RozenError } from '../../src/errors.ts';
import { treeName } from '../../src/repository/names.ts';
import { LineageModel, RepositoryModel } from './repository-model.ts';

const FILES = 30_000;

function inodeValue(i: number): Field[] {
  return [
    0o100644,
    1000,
    1000,
    1,
    i * 31,
    8,
    1.6e9 + (i % 977),
    (i * 7919) % 1e9,
    1.7e9,
    6,
    1.7e9,
    7,
    0,
    1,
    1,
    0,
    2049,
    9000 + i,
    Buffer.alloc(0),
  ];
}

function load(from: number, to: number): { names: Mutation[]; inodes: Mutation[] } {
  const names: Mutation[] = [];
  const inodes: Mutation[] = [];
  for (let i = from; i < to; i++) {
    names.push({ key: [1, Buffer.from(`file-${String(i).padStart(9, '0')}`)], value: [i + 2, 8] });
    inodes.push({ key: [i + 2], value: inodeValue(i) });
  }
  return { names, inodes };
}

function archiveRow(row: number, { id, size, headerHash, merkleRoot, envelope }: SealedArchive): Mutation {
  return { key: [row], value: [id, KIND_DATA, size, headerHash, merkleRoot, envelope] };
}

async function allNames(reader: SnapshotReader): Promise<number> {
  let count = 0;
  const cursor = new Cursor(reader.source, TREES.names, reader.roots.names);
  for (let on = await retrying(reader, () => cursor.seek(1)); on; ) {
    count++;
    if (cursor.index + 1 < cursor.page!.count) cursor.next();
    else on = await retrying(reader, () => cursor.next());
  }
  return count;
}

describe('a lineage of snapshots', () => {
  const repository = new RepositoryModel();
  const lineage = new LineageModel(repository);
  const stream = randomBytes(3 * BLOCK_SIZE + 777);
  const records: SnapshotFacts[] = [];

  beforeAll(async () => {
    await repository.store.prepare();
    const data = await repository.data(stream);
    const dataRow = lineage.nextRow++;
    records.push(await lineage.snapshot({ ...load(0, FILES), archives: [archiveRow(dataRow, data)] }));
    for (let i = 0; i < 4; i++) {
      const at = i * 5000 + 9000;
      const name = Buffer.from(`file-${String(at).padStart(9, '0')}`);
      records.push(await lineage.snapshot({ names: [{ key: [1, name], value: null }] }));
    }
  });

  afterAll(() => repository.dispose());

  test('opening costs one read of the tree archive, whatever its size', async () => {
    for (const record of records) {
      repository.store.reset();
      repository.unwraps = 0;
      const reader = await openSnapshot({ store: repository.store, repository, record });
      expect(repository.store.calls.map((call) => [call.operation, call.name])).toEqual([
        ['getSuffix', treeName(record.tree.id)],
      ]);
      expect(repository.unwraps).toBe(1);
      expect(reader.roots.inodes.count).toBe(FILES);
    }
  });

  test('opening costs two reads when the tail is longer than a suffix', async () => {
    const long = new LineageModel(repository);
    const value = Array.from({ length: 6 }, () => randomBytes(60_000));
    const record = await long.snapshot({
      history: value.map((info, i) => ({ key: [i + 1], value: [randomBytes(16), 1, 1.7e9, 0, info] })),
    });
    expect(record.tree.size).toBeGreaterThan(SUFFIX_READ);
    repository.store.reset();
    const reader = await openSnapshot({ store: repository.store, repository, record });
    expect(repository.store.reads).toBeLessThanOrEqual(2);
    expect([...rows({ source: reader.source, schema: TREES.history, root: reader.roots.history })].length).toBe(6);
  });

  test('every snapshot shows its own names, and reads what it shares from older archives', async () => {
    for (const [i, record] of records.entries()) {
      const reader = await openSnapshot({ store: repository.store, repository, record });
      expect(await allNames(reader)).toBe(FILES - i);
      expect(reader.root.row).toBe(record.tree.row);
      for (const root of Object.values(reader.roots)) expect([0, record.tree.row]).toContain(root.row);
      expect(reader.root.archives.length).toBe(i);
    }
  });

  test('a store that is not on this machine gives the same, and upper pages are not fetched again', async () => {
    const record = records.at(-1)!;
    const store = repository.remote;
    store.reset();
    const reader = await openSnapshot({ store, repository, record });
    const cursor = new Cursor(reader.source, TREES.names, reader.roots.names);
    // The first leaf came with the tail.
    expect(cursor.seek(1)).toBe(true);
    expect(() => cursor.seek(1, Buffer.from('file-000015000'))).toThrow(Miss);
    expect(store.reads).toBe(1);
    expect(await allNames(reader)).toBe(FILES - 4);
    const inodes = new Cursor(reader.source, TREES.inodes, reader.roots.inodes);
    expect(await retrying(reader, () => inodes.find(4711))).toBe(true);
    expect(inodes.page!.num(INODE.size, inodes.index)).toBe(4709 * 31);
    // Five archives hold the leaves: the header of each older one, and a few reads of many pages.
    expect(store.calls.filter((call) => call.operation === 'getRange').length).toBeLessThan(16);
  });

  test('a shared registry opens an archive once, a shared cache decodes a page once', async () => {
    const archives = new OpenArchives({ store: repository.store, keys: repository });
    const pages = new PageCache(64 * 1024 * 1024);
    repository.unwraps = 0;
    const readers = await Promise.all(
      records.map((record) => openSnapshot({ store: repository.store, repository, record, archives, pages })),
    );
    for (const [i, reader] of readers.entries()) expect(await allNames(reader)).toBe(FILES - i);
    // Each is unwrapped at most twice: as the snapshot's own archive (its record is read anew), and for others that share it.
    expect(repository.unwraps).toBeLessThanOrEqual(2 * records.length);
    const unwrapped = repository.unwraps;
    const decoded = pages.decoded;
    for (const [i, reader] of readers.entries()) expect(await allNames(reader)).toBe(FILES - i);
    expect(repository.unwraps).toBe(unwrapped);
    expect(pages.decoded).toBe(decoded);
    archives.close();
  });

  test('data archives open through their hot index, and through themselves when that is lost', async () => {
    const record = records[1]!;
    for (const lose of [false, true]) {
      const reader = await openSnapshot({ store: repository.store, repository, record });
      if (lose) {
        const { id } = await reader.archives.facts(1);
        const hex = id.toString('hex');
        await repository.store.delete(`index/${hex.slice(0, 2)}/${hex}.rix`);
      }
      repository.store.reset();
      const access = await reader.archives.open(1);
      expect(reader.archives.get(1)).toBe(access);
      expect(repository.store.calls.at(-1)!.name).toMatch(lose ? /^data\// : /^index\//);
      expect(access.blockOffsets!.buffer).toBeInstanceOf(SharedArrayBuffer);
      const context = { archiveId: access.id, key: access.blockKey, headerHash: access.headerHash };
      const blocks: Buffer[] = [];
      for (let n = 0; n < access.blockOffsets!.length; n++) {
        const frame = readFrame(access, access.blockOffsets![n]!, access.blockLengths![n]!);
        blocks.push(openFrame(context, frame, { type: 'DATA', sequence: n + 1 }));
      }
      expect(Buffer.concat(blocks).equals(stream)).toBe(true);
      expect(structuredClone(access).handle).toBe(access.handle);
    }
  });

  test('rows that no archive has are damage', async () => {
    const reader = await openSnapshot({ store: repository.store, repository, record: records[0]! });
    await expect(reader.archives.open(4242)).rejects.toMatchObject({ code: 'corrupt' });
    expect(() => reader.source.page(4242, 100, 100)).toThrow(/ROOT/);
    await expect(reader.resolve(missArchive('another', 1))).rejects.toMatchObject({ code: 'internal' });
    await expect(reader.archives.resolve(missFrame(987_654, 0, 1))).rejects.toMatchObject({ code: 'internal' });
  });

  test('what stays missing after it was fetched is an error, not a loop', async () => {
    const reader = await openSnapshot({ store: repository.remote, repository, record: records[0]! });
    const handle = (await reader.archives.open(reader.root.row)).handle;
    await expect(
      retrying(reader, () => {
        throw missFrame(handle, 0, 100);
      }),
    ).rejects.toMatchObject({ code: 'internal' });
  });
});

describe('damage', () => {
  const repository = new RepositoryModel();
  const lineage = new LineageModel(repository);
  let first: SnapshotFacts;
  let second: SnapshotFacts;

  beforeAll(async () => {
    await repository.store.prepare();
    first = await lineage.snapshot(load(0, FILES));
    second = await lineage.snapshot({ names: [{ key: [1, Buffer.from('file-000000005')], value: null }] });
  });

  afterAll(() => repository.dispose());

  async function withDamage(
    record: SnapshotFacts,
    damage: (path: string) => void,
    check: () => Promise<void>,
  ): Promise<void> {
    const path = repository.store.localPath(treeName(record.tree.id))!;
    const good = readFileSync(path);
    chmodSync(path, 0o600);
    try {
      damage(path);
      await check();
    } finally {
      rmSync(path, { force: true });
      writeFileSync(path, good);
    }
  }

  test('in an old archive is found where it is read, naming object and offset', async () => {
    const flip = (path: string) => {
      const bytes = readFileSync(path);
      bytes[20_000]! ^= 1;
      writeFileSync(path, bytes);
    };
    await withDamage(first, flip, async () => {
      const reader = await openSnapshot({ store: repository.store, repository, record: second });
      const error = await allNames(reader).then(
        () => null,
        (e) => e,
      );
      const inodes = await (async () =>
        [...rows({ source: reader.source, schema: TREES.inodes, root: reader.roots.inodes })].length)().catch((e) => e);
      const found = [error, inodes].filter((e) => e instanceof RozenError);
      expect(found.length).toBe(1);
      expect(found[0]!.code).toBe('corrupt');
      expect(found[0]!.message).toContain(first.tree.id.toString('hex'));
    });
  });

  test('a cut, a vanished and a swapped archive are told apart', async () => {
    await withDamage(
      first,
      (path) => truncateSync(path, first.tree.size >> 3),
      async () => {
        await expect(openSnapshot({ store: repository.store, repository, record: first })).rejects.toMatchObject({
          code: 'corrupt',
        });
        const reader = await openSnapshot({ store: repository.store, repository, record: second });
        await expect(allNames(reader)).rejects.toMatchObject({ code: 'corrupt' });
      },
    );
    await withDamage(
      first,
      (path) => renameSync(path, `${path}.gone`),
      async () => {
        await expect(openSnapshot({ store: repository.store, repository, record: first })).rejects.toMatchObject({
          code: 'not-found',
        });
        const reader = await openSnapshot({ store: repository.store, repository, record: second });
        await expect(allNames(reader)).rejects.toMatchObject({ code: 'not-found' });
        rmSync(`${repository.store.localPath(treeName(first.tree.id))}.gone`);
      },
    );
    const other = { ...second, tree: { ...second.tree, headerHash: randomBytes(32) } };
    await expect(openSnapshot({ store: repository.store, repository, record: other })).rejects.toMatchObject({
      code: 'untrusted',
    });
    const moved = { ...second, tree: { ...second.tree, row: 77 } };
    await expect(openSnapshot({ store: repository.store, repository, record: moved })).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  test('a file that vanishes after it was opened is an i/o error', async () => {
    const reader = await openSnapshot({ store: repository.store, repository, record: second });
    const access = await reader.archives.open(first.tree.row);
    const gone = { ...access, handle: 1e9, path: `${access.path}.no` };
    expect(() => readFrame(gone, 100, 100)).toThrow(RozenError);
    expect(() => readFrame(gone, 100, 100)).toThrow(/ENOENT/);
    expect(() => readFrame(access, access.size - 10, 11)).toThrow(/has/);
    expect(() => readFrame(access, -1, 11)).toThrow(/frame/);
  });

  test('any byte of ROOT that differs gives corrupt or a root within its limits', async () => {
    const reader = await openSnapshot({ store: repository.store, repository, record: second });
    const { encodeRoot } = await import('../../src/archive/tree/root.ts');
    const good = encodeRoot(reader.root);
    expect(decodeRoot(good)).toEqual(reader.root);
    for (let at = 0; at < good.length; at++) {
      for (const change of [1, 0x80, 0xff]) {
        const bytes = Buffer.from(good);
        bytes[at]! ^= change;
        try {
          const root = decodeRoot(bytes);
          expect(root.archives.length).toBeLessThan(4);
        } catch (error) {
          expect((error as RozenError).code).toBe('corrupt');
        }
      }
    }
  });
});

describe('many snapshots', () => {
  test('a lineage is written afresh when its walk touches too many archives', async () => {
    const repository = new RepositoryModel();
    await repository.store.prepare();
    const lineage = new LineageModel(repository);
    const changes = (i: number) => {
      const at = (i * 2000 + 1000) % 20_000;
      return {
        names: [
          { key: [1, Buffer.from(`file-${String(at).padStart(9, '0')}`)], value: [900_000 + i, 8] },
        ] as Mutation[],
      };
    };
    await lineage.snapshot(load(0, 20_000));
    for (let i = 0; i < 6; i++) await lineage.snapshot(changes(i));
    // Two of the changes may meet in one leaf.
    expect(lineage.written!.rows.length).toBeGreaterThan(5);
    const some = await lineage.snapshot(changes(6), new Set([1]));
    expect(lineage.written!.rows).not.toContain(1);
    let reader = await openSnapshot({ store: repository.store, repository, record: some });
    expect(await allNames(reader)).toBe(20_000);
    const record = await lineage.snapshot(changes(7), true);
    expect(lineage.written!.rows).toEqual([record.tree.row]);
    reader = await openSnapshot({ store: repository.store, repository, record });
    expect(reader.root.archives).toEqual([]);
    expect(await allNames(reader)).toBe(20_000);
    const cursor = new Cursor(reader.source, TREES.names, reader.roots.names);
    expect(cursor.find(1, Buffer.from('file-000005000'))).toBe(true);
    expect(cursor.page!.num(NAME.inode, cursor.index)).toBe(900_002);
    repository.dispose();
  });
});
