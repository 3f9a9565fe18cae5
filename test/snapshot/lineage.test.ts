import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { MAX_TREE_ARCHIVES } from '../../src/archive/format.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { noise } from '../e2e/odd-tree.ts';
import { openSnapshot, Place, settle } from './machine.ts';

/** A few files, backed up once. */
async function started(): Promise<{ place: Place; inodes: Map<string, number> }> {
  const place = await Place.make();
  mkdirSync(join(place.source, 'folder'));
  for (const name of ['one', 'two', 'folder/three'])
    writeFileSync(join(place.source, name), noise(50_000, name.length));
  await settle();
  await place.backup();
  return { place, inodes: await inodesOf(place) };
}

async function inodesOf(place: Place): Promise<Map<string, number>> {
  return new Map([...(await place.read()).entries].map(([path, { inode }]) => [path, inode]));
}

function setFolder(place: Place, machine = 'first'): string {
  const repositories = join(place.stateHome(machine), 'repositories');
  const sets = join(repositories, readdirSync(repositories)[0]!, 'sets');
  return join(sets, readdirSync(sets)[0]!);
}

/** A store of which one call fails. */
function failing(place: Place, fails: (call: string, name: string) => 'before' | 'after' | null): ObjectStore {
  return new Proxy(place.store as ObjectStore, {
    get(target, key) {
      const value = target[key as keyof ObjectStore] as unknown;
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        const when = fails(String(key), String(args[0]));
        const call = () => (value as (...all: unknown[]) => unknown).apply(target, args);
        if (when === null) return call();
        return (async () => {
          if (when === 'after') await call();
          throw new Error('the network is down');
        })();
      };
    },
  });
}

test.each(['before', 'after'] as const)('a run that dies %s its tree archive is stored costs no data', async (when) => {
  const { place, inodes } = await started();
  writeFileSync(join(place.source, 'new'), noise(300_000, 77));
  const through = failing(place, (call, name) => (call === 'putFile' && name.startsWith('tree/') ? when : null));
  await expect(place.backup({ through })).rejects.toThrow('the network is down');
  const data = await place.objects('data/');
  const next = await place.backup();
  expect(next).toMatchObject({ sequence: 2, bytesNew: 0, stateNotice: null });
  expect(await place.objects('data/')).toEqual(data);
  const after = await inodesOf(place);
  expect(after.get('/new')).toBe(Math.max(...inodes.values()) + 1);
  expect((await place.backup()).unchanged).toBe(true);
});

test('a run that dies before its commit leaves nothing behind', async () => {
  const { place } = await started();
  writeFileSync(join(place.source, 'new'), noise(300_000, 77));
  const through = failing(place, (call, name) => (call === 'put' && name.startsWith('snapshots/') ? 'before' : null));
  await expect(place.backup({ through })).rejects.toThrow('the network is down');
  unlinkSync(join(place.source, 'new'));
  const next = await place.backup();
  expect(next.stateNotice).toBeNull();
  expect([...(await inodesOf(place)).keys()]).not.toContain('/new');
});

test.each([true, false])('a run that dies right after its commit is taken up (identity: %s)', async (identity) => {
  const { place } = await started();
  writeFileSync(join(place.source, 'new'), noise(300_000, 77));
  await settle();
  const through = failing(place, (call, name) => (call === 'put' && name.startsWith('snapshots/') ? 'after' : null));
  await expect(place.backup({ through })).rejects.toThrow('the network is down');
  const next = await place.backup({ identity });
  expect(next).toMatchObject({ unchanged: true, stateNotice: null });
  expect((await place.records()).map(({ sequence }) => sequence)).toEqual([1, 2]);
  expect((await inodesOf(place)).has('/new')).toBe(true);
});

test('lost state is read back with an identity: nothing is stored again, and numbers go on', async () => {
  const { place, inodes } = await started();
  unlinkSync(join(place.source, 'two'));
  writeFileSync(join(place.source, 'last'), 'last');
  await settle();
  await place.backup();
  const highest = (await inodesOf(place)).get('/last')!;
  unlinkSync(join(place.source, 'last'));
  await settle();
  await place.backup();
  rmSync(setFolder(place), { recursive: true });
  const next = await place.backup();
  expect(next.unchanged).toBe(true);
  expect(next.stateNotice).toMatch(/lost.*read back/);
  writeFileSync(join(place.source, 'later'), 'later');
  const later = await place.backup();
  expect(later).toMatchObject({ stateNotice: null, classes: { new: { files: 1 }, unchanged: { files: 2 } } });
  const after = await inodesOf(place);
  expect(after.get('/later')).toBe(highest + 1);
  expect(after.get('/one')).toBe(inodes.get('/one'));
});

test('lost state without an identity begins anew: all metadata, no data', async () => {
  const { place, inodes } = await started();
  const data = await place.objects('data/');
  rmSync(setFolder(place), { recursive: true });
  const next = await place.backup({ identity: false });
  expect(next).toMatchObject({ unchanged: false, bytesNew: 0, classes: { new: { files: 3 } } });
  expect(next.stateNotice).toMatch(/lost.*all metadata/);
  expect(await place.objects('data/')).toEqual(data);
  expect(await inodesOf(place)).toEqual(inodes);
  expect(await place.backup({ identity: false })).toMatchObject({ unchanged: true, stateNotice: null });
  // Both snapshots stay readable, and a third beginning finds its own place.
  rmSync(setFolder(place), { recursive: true });
  expect(await place.backup({ identity: false })).toMatchObject({ sequence: 1, bytesNew: 0 });
  const records = await place.records();
  expect(new Set(records.map(({ tag }) => tag)).size).toBe(3);
  for (const record of records) expect((await place.read(record.id.toString('hex'))).entries.size).toBe(5);
  // With an identity, the newest of them is what goes on.
  rmSync(setFolder(place), { recursive: true });
  expect((await place.backup()).unchanged).toBe(true);
});

test.each([true, false])('cloned state gives way to what the store says (identity: %s)', async (identity) => {
  const { place, inodes } = await started();
  cpSync(place.stateHome('first'), place.stateHome('clone'), { recursive: true });
  writeFileSync(join(place.source, 'by the first'), noise(60_000, 4));
  await settle();
  await place.backup({ identity });
  const clone = await place.backup({ machine: 'clone', identity });
  expect(clone.stateNotice).toMatch(/newest snapshot/);
  expect(clone.bytesNew).toBe(0);
  expect(clone.unchanged).toBe(identity);
  writeFileSync(join(place.source, 'by the clone'), noise(60_000, 5));
  await settle();
  expect(await place.backup({ machine: 'clone', identity })).toMatchObject({ stateNotice: null, unchanged: false });
  const first = await place.backup({ identity });
  expect(first.bytesNew).toBe(0);
  if (identity) {
    expect(first.stateNotice).toMatch(/newest snapshot/);
    expect(first.unchanged).toBe(true);
  } else {
    // Each goes on in a lineage of its own.
    expect(first).toMatchObject({ stateNotice: null, unchanged: false });
  }
  expect((await inodesOf(place)).get('/one')).toBe(inodes.get('/one'));
});

test('state that is newer than the store is not believed', async () => {
  const { place } = await started();
  writeFileSync(join(place.source, 'new'), noise(60_000, 4));
  await settle();
  const second = await place.backup();
  const newest = (await place.objects('snapshots/'))[0]!;
  expect(newest).toContain(second.snapshotId);
  await place.store.delete(newest);
  // As long as this machine remembers what it has seen, a store that was rolled back is refused.
  await expect(place.backup()).rejects.toMatchObject({ code: 'untrusted' });
  const pin = join(setFolder(place), '../../pin.cbor');
  expect(existsSync(pin)).toBe(true);
  unlinkSync(pin);
  const third = await place.backup();
  expect(third.stateNotice).toMatch(/newest snapshot/);
  expect(third).toMatchObject({ sequence: 2, bytesNew: 0, classes: { new: { files: 1 }, unchanged: { files: 3 } } });
  expect((await place.backup()).unchanged).toBe(true);
});

test.each([
  ['cut', (file: string) => truncateSync(file, 10_000)],
  ['emptied', (file: string) => truncateSync(file, 0)],
  ['overwritten', (file: string) => writeFileSync(file, noise(200_000, 1))],
])('state that is %s is rebuilt from the store', async (_, damage) => {
  const { place, inodes } = await started();
  damage(join(setFolder(place), 'state', 'data.mdb'));
  damage(join(setFolder(place), '../../dedup', 'data.mdb'));
  const next = await place.backup();
  expect(next.unchanged).toBe(true);
  expect(await inodesOf(place)).toEqual(inodes);
  writeFileSync(join(place.source, 'copy of one'), noise(50_000, 'one'.length));
  expect(await place.backup()).toMatchObject({ bytesRead: 50_000, bytesNew: 0 });
});

test('one run per set at a time; the other waits when told to', async () => {
  const { place } = await started();
  writeFileSync(join(place.source, 'large'), noise(30_000_000, 3));
  let other: Promise<unknown> | null = null;
  let waiting: Promise<{ unchanged: boolean }> | null = null;
  const first = await place.backup(
    {},
    {
      progress: ({ phase }) => {
        if (phase !== 'store') return;
        other ??= place.backup().catch((error) => error);
        waiting ??= place.backup({ waitForLock: true });
      },
    },
  );
  expect(first.sequence).toBe(2);
  expect(await other).toMatchObject({ code: 'locked' });
  expect((await waiting!).unchanged).toBe(true);
});

test('two sets at once do not disturb each other, and share their data', async () => {
  const place = await Place.make();
  for (let i = 0; i < 20; i++) writeFileSync(join(place.source, String(i)), noise(300_000, i + 1));
  await Promise.all([place.backup({ set: 'a' }), place.backup({ set: 'b' })]);
  for (const record of await place.records()) {
    const snapshot = await place.read(record.id.toString('hex'));
    for (let i = 0; i < 20; i++) expect((await snapshot.content(`/${i}`)).equals(noise(300_000, i + 1))).toBe(true);
  }
  expect(await place.backup({ set: 'c' })).toMatchObject({ bytesNew: 0 });
});

test('an interrupted run goes on where it stopped', async () => {
  const place = await Place.make();
  // So much that progress is told several times while data is stored, on a fast machine too.
  for (let i = 0; i < 40; i++) writeFileSync(join(place.source, String(i)), noise(5_000_000, i + 1));
  const abort = new AbortController();
  const run = place.backup(
    { signal: abort.signal },
    {
      progress: ({ filesDone }) => {
        if (filesDone > 0) abort.abort();
      },
    },
  );
  await expect(run).rejects.toMatchObject({ code: 'interrupted' });
  expect(await place.objects('snapshots/')).toEqual([]);
  const next = await place.backup();
  expect(next).toMatchObject({ sequence: 1, archives: 1 });
  expect((await place.objects('data/')).length).toBe(1);
  expect(next.bytesStored).toBeLessThan(205_000_000);
  const snapshot = await place.read();
  for (let i = 0; i < 40; i++) expect((await snapshot.content(`/${i}`)).equals(noise(5_000_000, i + 1))).toBe(true);
});

test('a lineage never lies in more tree archives than a reader will open', async () => {
  const place = await Place.make();
  // Long names that do not compress: about a page per folder, and each run touches another one.
  const name = (folder: number, i: number) => `${i}-${noise(120, 1 + folder * 1000 + i).toString('hex')}`;
  const folders = MAX_TREE_ARCHIVES + 8;
  for (let folder = 0; folder < folders; folder++) {
    mkdirSync(join(place.source, String(1000 + folder)));
    for (let i = 0; i < 256; i++) writeFileSync(join(place.source, String(1000 + folder), name(folder, i)), '');
  }
  await place.backup();
  const used: number[] = [];
  for (let run = 0; run < folders; run++) {
    writeFileSync(join(place.source, String(1000 + run), name(run, 999)), '');
    expect((await place.backup()).classes.new.files).toBe(1);
    const records = await place.records();
    const repository = await place.open('read');
    const reader = await openSnapshot({ store: place.store, repository, record: records.at(-1)! });
    used.push(reader.root.archives.length + 1);
  }
  expect(Math.max(...used)).toBe(MAX_TREE_ARCHIVES);
  expect(used.at(-1)).toBeLessThan(MAX_TREE_ARCHIVES / 2);
  expect((await place.read()).entries.size).toBe(1 + folders * 258);
}, 240_000);
