import { mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import type { CompactOptions, CompactReport } from '../../src/snapshot/compact/compact.ts';
import { CountingStore } from '../../src/store/counting.ts';
import { noise } from '../e2e/odd-tree.ts';
import { RemoteStore } from '../store/remote.ts';
import { contentOfVersion, Place, settle } from './machine.ts';

vi.setConfig({ testTimeout: 120_000 });

/* Tests must not mix what was built with what it was built from. */
const built = (path: string) => import(new URL(`../../dist/${path}`, import.meta.url).href);
const { compact } = (await built(
  'snapshot/compact/compact.js',
)) as typeof import('../../src/snapshot/compact/compact.ts');
const { verify } = (await built('snapshot/verify/verify.js')) as typeof import('../../src/snapshot/verify/verify.ts');

const DAY = 86_400_000;
const KIB = 1024;

async function compacted(place: Place, options: Partial<CompactOptions> = {}): Promise<CompactReport> {
  const repository = await place.open('owner');
  try {
    return await compact({ repository, stateDir: repository.stateDir, graceMs: 0, ...options });
  } finally {
    repository.close();
  }
}

async function verified(place: Place, readData = 100) {
  const repository = await place.open('read');
  try {
    return await verify({ repository, readData, threads: 0 });
  } finally {
    repository.close();
  }
}

/** Backs up one more file of its own archive each time. Answers what is in them. */
async function backups(place: Place, count: number, options: Parameters<Place['backup']>[0] = {}, first = 0) {
  const contents = new Map<string, Buffer>();
  for (let i = first; i < first + count; i++) {
    const name = `file ${i}`;
    // Some blocks, the last of them short by so much that filling it up takes every road.
    const length = [300 * KIB, 270 * KIB, 256 * KIB - 200, 10, 520 * KIB + i][i % 5]!;
    contents.set(`/${name}`, noise(length, i + 1));
    writeFileSync(join(place.source, name), contents.get(`/${name}`)!);
    await settle();
    await place.backup(options);
  }
  return contents;
}

async function expectContents(place: Place, contents: ReadonlyMap<string, Buffer>): Promise<void> {
  const snapshot = await place.read();
  for (const [path, bytes] of contents) expect((await snapshot.content(path)).equals(bytes), path).toBe(true);
}

const idsIn = (names: readonly string[]) => names.map((name) => /([0-9a-f]{32})\./.exec(name)![1]!).sort();

test('many small archives become one, at once or after a while, and nothing looks different', async () => {
  const place = await Place.make();
  const contents = await backups(place, 12);
  const before = idsIn(await place.objects('data/'));
  expect(before).toHaveLength(12);
  const states = await place.records();

  const plan = await compacted(place, { dryRun: true });
  expect(plan.planned).toHaveLength(1);
  expect(plan.planned[0]).toMatchObject({ archives: 12 });
  expect(await place.objects('forward/')).toEqual([]);

  const kept = await compacted(place, { graceMs: 7 * DAY });
  expect(kept.merged).toMatchObject([{ archives: 12 }]);
  expect(kept).toMatchObject({ removed: { archives: 0 }, waiting: { archives: 12 }, problems: [] });
  expect(await place.objects('forward/')).toEqual(['forward/00000001.cbor']);
  expect(idsIn(await place.objects('data/'))).toEqual([...before, kept.merged[0]!.id].sort());
  await expectContents(place, contents);
  expect((await verified(place)).findings).toEqual([]);

  const early = await compacted(place, { graceMs: 7 * DAY, now: () => Date.now() + 6.9 * DAY });
  expect(early).toMatchObject({ merged: [], removed: { archives: 0 }, waiting: { archives: 12 } });
  const late = await compacted(place, { graceMs: 7 * DAY, now: () => Date.now() + 7.1 * DAY });
  expect(late).toMatchObject({ merged: [], removed: { archives: 12 }, waiting: { archives: 0 } });
  expect(idsIn(await place.objects('data/'))).toEqual([kept.merged[0]!.id]);
  expect(idsIn(await place.objects('index/'))).toEqual([kept.merged[0]!.id]);
  await expectContents(place, contents);
  const report = await verified(place);
  expect(report).toMatchObject({ findings: [], notes: [] });
  expect(report.chunks).toBeGreaterThanOrEqual(contents.size);
  expect((await place.records()).map(({ id }) => id)).toEqual(states.map(({ id }) => id));
  // Every snapshot, not only the newest.
  for (const { id, sequence } of states) {
    const snapshot = await place.read(id.toString('hex'));
    const path = `/file ${sequence - 1}`;
    expect((await snapshot.content(path)).equals(contents.get(path)!)).toBe(true);
  }
});

test('a backup afterwards stores nothing again, with and without local state, and calls nothing changed', async () => {
  const place = await Place.make();
  const contents = await backups(place, 6);
  await compacted(place);
  const archives = await place.objects('data/');
  expect(archives).toHaveLength(1);

  // Read again for its time, and found the same.
  const path = join(place.source, 'file 2');
  utimesSync(path, new Date(1e12), new Date(1e12));
  await settle();
  const touched = await place.backup();
  expect(touched.classes).toMatchObject({ metadata: { files: 1 } });
  expect(touched.classes.changed?.files ?? 0).toBe(0);
  expect(touched.bytesNew).toBe(0);

  // The deduplication index is built anew, and then all local state.
  rmSync(join(place.stateHome(), 'repositories', await repositoryId(place), 'dedup'), { recursive: true });
  writeFileSync(join(place.source, 'copy'), contents.get('/file 4')!);
  await settle();
  expect((await place.backup()).bytesNew).toBe(0);
  rmSync(join(place.stateHome(), 'repositories', await repositoryId(place), 'sets'), { recursive: true });
  for (const identity of [true, false]) {
    utimesSync(path, new Date(), new Date());
    await settle();
    const report = await place.backup({ identity });
    expect(report.bytesNew, `identity ${identity}`).toBe(0);
    rmSync(join(place.stateHome(), 'repositories', await repositoryId(place), 'sets'), { recursive: true });
  }
  expect(await place.objects('data/')).toEqual(archives);
  contents.set('/copy', contents.get('/file 4')!);
  await expectContents(place, contents);
  expect((await verified(place)).findings).toEqual([]);
});

async function repositoryId(place: Place): Promise<string> {
  const repository = await place.open('read');
  repository.close();
  return repository.id.toString('hex');
}

test('a WORM set keeps its state, its versions and its judgement', async () => {
  const place = await Place.make();
  const contents = await backups(place, 5, { mode: 'worm' });
  const path = join(place.source, 'file 4');
  const old = contents.get('/file 4')!;
  const edited = Buffer.concat([old.subarray(0, 300_000), noise(400_000, 99)]);
  writeFileSync(path, edited);
  await settle();
  const accepted = await place.backup({ mode: 'worm', policy: { onChange: 'accept' } });
  await compacted(place);
  expect(await place.objects('data/')).toHaveLength(1);

  // Unchanged, then diverged: where it differs is told by the chunk table of what was merged.
  expect((await place.backup({ mode: 'worm' })).unchanged).toBe(true);
  const rotten = Buffer.from(edited);
  rotten[650_000]! ^= 1;
  const { mtime } = statSync(path);
  writeFileSync(path, rotten);
  utimesSync(path, mtime, mtime);
  await settle();
  const report = await place.backup({ mode: 'worm', rehash: 100, readArchive: true });
  expect(report.worm?.diverged).toMatchObject([{ differsAt: 650_000, exact: true }]);
  expect(report.bytesNew).toBe(0);
  const back = await place.backup({ mode: 'worm', rehash: 100, policy: { onChange: 'restore' } });
  expect(back.worm?.diverged).toMatchObject([{ action: 'restored' }]);
  expect(readFileSync(path).equals(edited)).toBe(true);
  const snapshot = await place.read();
  const { inode } = snapshot.entries.get('/file 4')!;
  expect((await contentOfVersion(snapshot.reader, { inode, version: 5, size: old.length })).equals(old)).toBe(true);
  expect(accepted.sequence).toBe(6);
  expect(await place.objects('data/')).toHaveLength(1);
  expect((await verified(place)).findings).toEqual([]);
});

test('what was merged is merged again, once it is worth it', async () => {
  const place = await Place.make();
  const contents = await backups(place, 5);
  await compacted(place);
  const [first] = idsIn(await place.objects('data/'));
  // One small archive beside a large one stays.
  for (const [path, bytes] of await backups(place, 1, {}, 6)) contents.set(path, bytes);
  const lone = await compacted(place);
  expect(lone).toMatchObject({ merged: [], small: { archives: 2 }, kept: { archives: 2 } });
  for (const [path, bytes] of await backups(place, 10, {}, 10)) contents.set(path, bytes);
  await compacted(place);
  const left = idsIn(await place.objects('data/'));
  expect(left).toHaveLength(1);
  expect(left).not.toContain(first);
  expect(await place.objects('forward/')).toHaveLength(2);
  await expectContents(place, contents);
  expect(await verified(place)).toMatchObject({ findings: [], notes: [] });
  expect((await place.backup()).unchanged).toBe(true);
});

test('archives end at their goal, and those that have it are left alone', async () => {
  const place = await Place.make();
  const contents = await backups(place, 15);
  const report = await compacted(place, { archiveSize: 1024 * KIB });
  expect(report.merged.length).toBeGreaterThan(1);
  for (const { size, archives } of report.merged.slice(0, -1)) {
    expect(archives).toBeGreaterThan(1);
    expect(size).toBeGreaterThanOrEqual(1000 * KIB);
    expect(size).toBeLessThan(1600 * KIB);
  }
  const again = await compacted(place, { archiveSize: 1024 * KIB });
  expect(again.merged).toEqual([]);
  await expectContents(place, contents);
  expect((await verified(place)).findings).toEqual([]);
});

test('a damaged archive is left where it is, and told', async () => {
  const place = await Place.make();
  const contents = await backups(place, 6);
  // One of them holds 10 bytes, and ends before that place.
  const archives = (await place.objects('data/')).filter((it) => readFileSync(place.store.localPath(it)).length > 4000);
  const name = archives[2]!;
  const path = place.store.localPath(name);
  const bytes = readFileSync(path);
  bytes[2000]! ^= 1;
  rmSync(path);
  writeFileSync(path, bytes);
  const report = await compacted(place);
  expect(report.problems).toMatchObject([{ object: name }]);
  expect(report.merged).toMatchObject([{ archives: 5 }]);
  expect(await place.objects('data/')).toContain(name);
  const { findings } = await verified(place);
  expect(findings).toMatchObject([{ object: name, kind: 'damaged', fileCount: expect.any(Number) }]);
  const lost = new Set(findings[0]!.files.map((file) => file.path.toString()));
  expect(lost.size).toBe(1);
  for (const one of lost) contents.delete(one);
  await expectContents(place, contents);
});

test('damage of what was made names the files of all that went into it, and nothing goes that it would cost', async () => {
  const place = await Place.make();
  const contents = await backups(place, 6);
  const report = await compacted(place, { graceMs: DAY });
  const id = report.merged[0]!.id;
  const path = place.store.localPath(`data/${id.slice(0, 2)}/${id}.roz`);
  const whole = readFileSync(path);
  rmSync(path);
  writeFileSync(path, whole.subarray(0, whole.length - 100_000));
  const kept = await compacted(place);
  expect(kept).toMatchObject({ removed: { archives: 0 }, problems: [{ message: expect.stringMatching(/bytes/) }] });
  await expectContents(place, contents);
  writeFileSync(path, whole);
  await compacted(place);
  const damaged = Buffer.from(whole);
  damaged[2000]! ^= 1;
  writeFileSync(path, damaged);
  const { findings } = await verified(place);
  expect(findings).toHaveLength(1);
  expect(findings[0]).toMatchObject({ archive: id, block: 0 });
  expect(findings[0]!.files.map((file) => file.path.toString())).toContain('/file 0');
  expect(findings[0]!.files.length).toBe(6);
});

test('a missing index of what was made is cut out of it anew, never out of what the record does not name', async () => {
  const place = await Place.make();
  const contents = await backups(place, 6);
  const report = await compacted(place, { graceMs: DAY });
  const id = report.merged[0]!.id;
  const [object, index] = [`data/${id.slice(0, 2)}/${id}.roz`, `index/${id.slice(0, 2)}/${id}.rix`];
  const [path, indexPath] = [place.store.localPath(object), place.store.localPath(index)];
  const [whole, hotIndex] = [readFileSync(path), readFileSync(indexPath)];
  rmSync(path);
  rmSync(indexPath);
  // What it was merged from is there, so that nothing is lost; that it is gone is told all the same.
  expect((await verified(place)).findings).toMatchObject([{ kind: 'missing', object, fileCount: 0 }]);
  const other = (await place.objects('data/')).map((name) => readFileSync(place.store.localPath(name)))[0]!;
  for (const wrong of [Buffer.concat([whole.subarray(0, -40), noise(40, 1)]), other]) {
    writeFileSync(path, wrong);
    const { completed, removed } = await compacted(place);
    expect(completed.archives).toBe(0);
    expect(removed.archives).toBe(0);
    expect(await place.objects('index/')).toHaveLength(6);
    rmSync(path);
  }
  writeFileSync(path, whole);
  expect(await verified(place)).toMatchObject({
    findings: [],
    notes: expect.arrayContaining([expect.stringMatching(/no hot index/)]),
  });
  expect(await compacted(place)).toMatchObject({ completed: { archives: 1 }, removed: { archives: 6 }, problems: [] });
  expect(readFileSync(indexPath).equals(hotIndex)).toBe(true);
  await expectContents(place, contents);
  expect(await verified(place)).toMatchObject({ findings: [], notes: [] });
});

test('what does not read back is not sent', async () => {
  const place = await Place.make();
  await backups(place, 4);
  const { proveMerged } = (await built(
    'snapshot/compact/prove.js',
  )) as typeof import('../../src/snapshot/compact/prove.ts');
  const { mergeArchives } = (await built(
    'snapshot/compact/merge.js',
  )) as typeof import('../../src/snapshot/compact/merge.ts');
  const { namedArchives } = (await built(
    'snapshot/compact/survey.js',
  )) as typeof import('../../src/snapshot/compact/survey.ts');
  const repository = await place.open('owner');
  const sources = [...(await namedArchives(repository, () => {})).values()];
  const folder = join(place.folder, 'spool');
  mkdirSync(folder);
  const merged = await mergeArchives({ repository, folder, sources, signal: undefined, advance: () => {} });
  await proveMerged(repository, merged, undefined);
  const readBack = merged.spool.readBack.bind(merged.spool);
  for (const at of [5_000, 300_000]) {
    merged.spool.readBack = (offset, length) => {
      const bytes = readBack(offset, length);
      if (offset <= at && at < offset + length) bytes[at - offset]! ^= 1;
      return bytes;
    };
    await expect(proveMerged(repository, merged, undefined)).rejects.toMatchObject({ code: 'io' });
  }
  merged.spool.readBack = readBack;
  await expect(proveMerged(repository, { ...merged, chunks: merged.chunks + 1 }, undefined)).rejects.toThrow(/chunks/);
  const envelope = (await repository.newArchiveKey()).envelope;
  const other = { ...merged.merge, target: { ...merged.merge.target, envelope } };
  await expect(proveMerged(repository, { ...merged, merge: other }, undefined)).rejects.toMatchObject({ code: 'io' });
  repository.close();
});

test('a reader that has the old archives open goes on', async () => {
  const place = await Place.make();
  const contents = await backups(place, 8);
  const snapshot = await place.read();
  for (const path of ['/file 0', '/file 5']) await snapshot.content(path);
  await compacted(place);
  expect(await place.objects('data/')).toHaveLength(1);
  for (const [path, bytes] of contents) expect((await snapshot.content(path)).equals(bytes), path).toBe(true);
});

test('a backup that runs meanwhile commits what it found in archives that are gone by then', async () => {
  const place = await Place.make();
  const contents = await backups(place, 6);
  // The whole set once more under another name: all of it is known. Before its record is written, all that it refers to is gone.
  let merged: CompactReport | null = null;
  class Held extends CountingStore {
    override async put(name: string, bytes: Uint8Array): Promise<void> {
      if (name.startsWith('snapshots/')) merged ??= await compacted(place);
      await super.put(name, bytes);
    }
  }
  const report = await place.backup({ set: 'other', through: new Held(place.store) });
  expect(merged).toMatchObject({ merged: [{ archives: 6 }], removed: { archives: 6 } });
  expect(report).toMatchObject({ bytesNew: 0, sequence: 1 });
  await compacted(place);
  expect(await place.objects('data/')).toHaveLength(1);
  for (const { id } of await place.records()) {
    const snapshot = await place.read(id.toString('hex'));
    for (const path of snapshot.entries.keys()) {
      const bytes = contents.get(path);
      if (bytes !== undefined) expect((await snapshot.content(path)).equals(bytes), path).toBe(true);
    }
  }
  expect((await verified(place)).findings).toEqual([]);
});

test('a row that leads elsewhere than the record says is refused', async () => {
  const place = await Place.make();
  await backups(place, 4);
  const repository = await place.open('owner');
  const { encodeForward } = (await built(
    'repository/forward-record.js',
  )) as typeof import('../../src/repository/forward-record.ts');
  await compacted(place);
  await repository.forwards.refresh();
  const record = repository.forwards.records[0]!;
  const sources = record.sources.map((source) => ({ ...source, headerHash: Buffer.alloc(32) }));
  const bytes = encodeForward({ ...record, sources }, repository.genesis, repository.bundle!.rootSecret!);
  await place.store.delete('forward/00000001.cbor');
  await place.store.put('forward/00000001.cbor', bytes);
  // On a machine that has not seen the true one.
  rmSync(join(place.stateHome(), 'repositories', repository.id.toString('hex'), 'pin.cbor'));
  const snapshot = await place.read();
  await expect(snapshot.content('/file 0')).rejects.toMatchObject({ code: 'untrusted' });
  const { findings } = await verified(place);
  expect(findings.some(({ kind, message }) => kind === 'untrusted' && /differently/.test(message))).toBe(true);
});

test('a bucket is verified by few large requests, and read once', async () => {
  const place = await Place.make();
  mkdirSync(join(place.source, 'many'));
  const MIB = 1024 * KIB;
  for (let i = 0; i < 20; i++) writeFileSync(join(place.source, 'many', `file ${i}`), noise(2 * MIB, i));
  await settle();
  await place.backup();
  const data = await place.objects('data/');
  expect(data).toHaveLength(1);
  const { size } = statSync(place.store.localPath(data[0]!));
  const blocks = Math.ceil((40 * MIB) / (256 * KIB));
  for (const [readData, threads] of [[0], [100, 0], [100, 2], [5, 0]] as [number, number?][]) {
    const remote = new RemoteStore(join(place.folder, 'store'));
    const repository = await place.open('read', { through: remote });
    remote.reset();
    const report = await verify({ repository, readData, ...(threads === undefined ? {} : { threads }) });
    repository.close();
    expect(report.findings).toEqual([]);
    const calls = remote.calls.filter(({ name }) => name === data[0]);
    const bytes = calls.reduce((sum, call) => sum + call.bytes, 0);
    const what = `read ${readData} % with ${threads} threads: ${calls.length} requests`;
    // A size, an end, a head; then 40 MiB in pieces of 8 MiB, or some of the blocks.
    const few = readData === 0 ? 0 : readData === 5 ? blocks / 4 : Math.ceil(size / (8 * MIB));
    expect(calls.length, what).toBeLessThanOrEqual(few + 6);
    expect(bytes, what).toBeLessThan((size * readData) / 100 + (readData === 0 ? MIB : 12 * MIB));
    if (readData > 0) expect(remote.mostOpen, what).toBeGreaterThanOrEqual(readData === 5 ? 2 : 4);
  }
  // Of small archives all at once, and several beside each other.
  const many = await Place.make();
  await backups(many, 8);
  for (const readData of [0, 100]) {
    const remote = new RemoteStore(join(many.folder, 'store'), 5);
    const repository = await many.open('read', { through: remote });
    remote.reset();
    expect((await verify({ repository, readData, threads: 0 })).findings).toEqual([]);
    repository.close();
    const calls = remote.calls.filter(({ name }) => name.startsWith('data/'));
    // Its size, its end, its beginning, and all of it; what is very small comes in one piece.
    expect(calls.length).toBeLessThanOrEqual(8 * 4);
    expect(remote.mostOpen).toBeGreaterThanOrEqual(4);
  }
});

test('damage in a bucket: of header and tables each time, of a block when it is read', async () => {
  const place = await Place.make();
  for (let i = 0; i < 4; i++) writeFileSync(join(place.source, `file ${i}`), noise(1024 * KIB, i));
  await settle();
  await place.backup();
  const [object] = await place.objects('data/');
  const path = place.store.localPath(object!);
  const whole = readFileSync(path);
  rmSync(path);
  const block = { object, kind: 'damaged', block: expect.any(Number) };
  const found = async (at: number, readData: number) => {
    const damaged = Buffer.from(whole);
    damaged[at]! ^= 1;
    writeFileSync(path, damaged);
    const repository = await place.open('read', { through: new RemoteStore(join(place.folder, 'store')) });
    const { findings } = await verify({ repository, readData, threads: 0 });
    repository.close();
    return findings;
  };
  expect(await found(2_000_000, 0)).toEqual([]);
  for (const at of [2_000_000, 40, whole.length - 40, whole.length - 300]) {
    for (const readData of at === 2_000_000 ? [100] : [0, 100]) {
      const findings = await found(at, readData);
      const what = `byte ${at}, ${readData} %`;
      expect(findings, what).toMatchObject([at === 2_000_000 ? block : { object, kind: 'damaged' }]);
      if (at === 2_000_000) expect(findings[0]!.files.length, what).toBeGreaterThan(0);
    }
  }
});
