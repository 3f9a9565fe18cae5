/** A snapshot whose folders lie in themselves, as none is made: verify tells, and nothing goes through it for ever. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import type { Mutation } from '../../src/archive/tree/update.ts';
import type { RestoreReport } from '../../src/snapshot/restore/types.ts';
import { Place } from './machine.ts';

const built = (path: string) => import(new URL(`../../dist/${path}`, import.meta.url).href);
const { Mutations } = (await built(
  'snapshot/backup/mutations.js',
)) as typeof import('../../src/snapshot/backup/mutations.ts');
const { verify } = (await built('snapshot/verify/verify.js')) as typeof import('../../src/snapshot/verify/verify.ts');
const { against } = (await built(
  'snapshot/verify/against.js',
)) as typeof import('../../src/snapshot/verify/against.ts');
const { restore } = (await built(
  'snapshot/restore/restore.js',
)) as typeof import('../../src/snapshot/restore/restore.ts');
const { openPlace, SnapshotOpener } = (await built(
  'snapshot/view/place.js',
)) as typeof import('../../src/snapshot/view/place.ts');
const { describe: describeRecord } = (await built(
  'snapshot/view/listing.js',
)) as typeof import('../../src/snapshot/view/listing.ts');
const { EntryWalk, entryPath, forEachStep } = (await built(
  'snapshot/view/entry-walk.js',
)) as typeof import('../../src/snapshot/view/entry-walk.ts');
const { diffByPaths } = (await built(
  'snapshot/diff/diff-paths.js',
)) as typeof import('../../src/snapshot/diff/diff-paths.ts');

const D_TYPE_FOLDER = 4;

/** A snapshot of `a` (inode 2) with `b` (3) and `a/b/file` in it, the names as `change` leaves them. */
async function stored(change: (names: Mutation[]) => Mutation[]): Promise<Place> {
  const place = await Place.make();
  mkdirSync(join(place.source, 'a/b'), { recursive: true });
  writeFileSync(join(place.source, 'a/b/file'), 'x');
  const whole = Mutations.prototype.names;
  vi.spyOn(Mutations.prototype, 'names').mockImplementation(function* (this: typeof Mutations.prototype) {
    yield* change([...whole.call(this)]);
  });
  await place.backup();
  vi.restoreAllMocks();
  return place;
}

const findings = async (place: Place): Promise<string[]> => {
  const repository = await place.open('read');
  const found = (await verify({ repository, readData: 0, threads: 0 })).findings;
  repository.close();
  return found.map(({ kind, message }) => `${kind}: ${message}`);
};

test('a folder with a second name below itself', async () => {
  const up: Mutation = { key: [3, Buffer.from('up')], value: [2, D_TYPE_FOLDER] };
  const place = await stored((names) => [...names, up]);
  expect(await findings(place)).toEqual(['inconsistent: folder 2 has more than one name: in folder 1 and in folder 3']);
  const repository = await place.open('read');
  const opener = new SnapshotOpener(repository);
  const snapshot = await describeRecord(repository, (await place.records())[0]!);
  const at = await openPlace(opener, snapshot, null);
  const walk = new EntryWalk(at.reader, 1, { recursive: true });
  const seen: string[] = [];
  const all = forEachStep(
    at.reader,
    () => walk.next(),
    (entry) => {
      seen.push(entryPath(entry).toString());
    },
  );
  const loop = { code: 'corrupt', message: `snapshot ${snapshot.id.slice(0, 8)}: folder a/b/up lies in itself` };
  await expect(all).rejects.toMatchObject(loop);
  expect(seen).toEqual(['a', 'a/b', 'a/b/file', 'a/b/up']);
  const twice = { code: 'corrupt', message: 'folder 2 has more than one name' };
  await expect(diffByPaths(at, at)).rejects.toMatchObject(twice);
  const empty = join(place.folder, 'empty');
  mkdirSync(empty);
  await expect(against({ place: at, folder: Buffer.from(empty), repository })).rejects.toMatchObject(twice);
  for (const dryRun of [true, false]) {
    const target = Buffer.from(join(place.folder, 'target'));
    const report: RestoreReport = await restore({ place: at, target, dryRun, threads: 1 });
    expect(report.problems.map(({ path, message }) => [path.toString(), message])).toEqual([['a/b/up', twice.message]]);
  }
  opener.close();
  repository.close();
});

test('folders that only lead to each other, or to none', async () => {
  const circle = await stored((names) => [
    ...names.filter(({ key }) => key[0] !== 1),
    { key: [3, Buffer.from('up')], value: [2, D_TYPE_FOLDER] },
  ]);
  expect(await findings(circle)).toEqual(['inconsistent: folder 3 lies in itself']);
  const lost = await stored((names) => names.filter(({ key }) => key[0] !== 1));
  expect(await findings(lost)).toEqual(['inconsistent: folder 2 has no name']);
});
