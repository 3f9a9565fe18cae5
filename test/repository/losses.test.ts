/** Snapshot records that are gone for good: refused, until an owner has declared them lost, and then by nobody. */
import { describe, expect, test } from 'vitest';
import { declareLost, findLost } from '../../src/repository/declare-lost.ts';
import { snapshotName } from '../../src/repository/names.ts';
import { openRepository, type Repository, type SnapshotRecord } from '../../src/repository/repository.ts';
import { commitSnapshot, commitUnchanged } from './draft.ts';
import { onMachine, quickRepository, replaceObject } from './place.ts';
import { refusals, refused } from './refusal.ts';

const { fresh, here, openToRead, openToWrite } = refusals();

const ids = (records: readonly SnapshotRecord[]): string[] => records.map(({ id }) => id.toString('hex')).sort();
const openAsOwner = (identityFile: string) =>
  openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });

/** What every machine must be able to do again: one that has seen all, a writer with state, a newcomer. */
async function expectUsable(identityFile: string, heads: readonly SnapshotRecord[], all: number): Promise<void> {
  const look = async () => {
    const repository = await openToRead(identityFile);
    expect(ids(await repository.heads())).toEqual(ids(heads));
    expect(await repository.records()).toHaveLength(all);
    // Pins that were taken hold.
    const again = await openToRead(identityFile);
    expect(ids(await again.heads())).toEqual(ids(heads));
    expect(ids(await again.rememberedHeads())).toEqual(ids(heads));
  };
  await look();
  await onMachine(fresh(), look);
}

describe('a record that is lost', () => {
  let repository: Repository;
  let identityFile: string;
  let photos: SnapshotRecord[];
  let papers: SnapshotRecord;

  async function prepare(): Promise<void> {
    ({ repository, identityFile } = await quickRepository(here));
    photos = [];
    for (let i = 0; i < 3; i++) photos.push(await commitSnapshot(repository, 'photos', 1_000_000_000 + i));
    papers = await commitSnapshot(repository, 'papers');
    await onMachine(fresh(), async () => (await openToRead(identityFile)).heads());
  }

  test.each([
    { what: 'the newest', at: 2, damaged: false },
    { what: 'one in the middle', at: 1, damaged: false },
    { what: 'the first', at: 0, damaged: false },
    { what: 'the newest, damaged', at: 2, damaged: true },
    { what: 'one in the middle, damaged', at: 1, damaged: true },
  ])('$what', async ({ at, damaged }) => {
    await prepare();
    const { name } = photos[at]!;
    await here.store.delete(name);
    if (damaged) await here.store.put(name, Buffer.from('no record'));
    const records = async () => (await openToRead(identityFile)).records();
    if (damaged) await expect(records()).rejects.toMatchObject({ code: 'corrupt' });
    else await refused(records(), 'untrusted', /rolled back/);
    const owner = await openAsOwner(identityFile);
    expect(await findLost(owner)).toEqual([name]);
    await declareLost(owner, [name]);
    expect(await findLost(owner)).toEqual([]);
    await expectUsable(identityFile, [at === 2 ? photos[1]! : photos[2]!, papers], 3);

    // The writer goes on, behind the place of what was lost, and everybody follows.
    const next = await commitSnapshot(await openToWrite(), 'photos', 1_000_000_010);
    expect(next.sequence).toBe(4);
    await expectUsable(identityFile, [next, papers], 4);
  });

  test('with all others of its lineage', async () => {
    await prepare();
    for (const { name } of photos) await here.store.delete(name);
    const owner = await openAsOwner(identityFile);
    // Nothing leads to the older ones any more.
    expect(await findLost(owner)).toEqual([photos[2]!.name]);
    await declareLost(owner, [photos[2]!.name]);
    await expectUsable(identityFile, [papers], 1);
    const next = await commitSnapshot(await openToWrite(), 'photos', 1_000_000_010);
    await expectUsable(identityFile, [next, papers], 2);
  });

  test('that an "unchanged" record stands for', async () => {
    await prepare();
    const confirmed = await commitUnchanged(repository, 'photos');
    await here.store.delete(photos[2]!.name);
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /is gone/);
    await declareLost(await openAsOwner(identityFile), [photos[2]!.name]);
    await expectUsable(identityFile, [photos[1]!, papers], 4);
    await here.store.delete(confirmed.name);
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /is gone/);
  });

  test('and comes back is used again', async () => {
    await prepare();
    const { name } = photos[2]!;
    const bytes = await here.store.get(name);
    await here.store.delete(name);
    await declareLost(await openAsOwner(identityFile), [name]);
    expect(ids(await (await openToRead(identityFile)).heads())).toEqual(ids([photos[1]!, papers]));
    await here.store.put(name, bytes);
    expect(ids(await (await openToRead(identityFile)).heads())).toEqual(ids([photos[2]!, papers]));
    await here.store.delete(name);
    const next = await commitSnapshot(await openToWrite(), 'photos', 1_000_000_010);
    await here.store.put(name, bytes);
    await expectUsable(identityFile, [next, papers], 5);
  });

  test('excuses no other one', async () => {
    await prepare();
    await here.store.delete(photos[2]!.name);
    await declareLost(await openAsOwner(identityFile), [photos[2]!.name]);
    await (await openToRead(identityFile)).heads();
    await here.store.delete(photos[1]!.name);
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /rolled back/);
    await here.store.delete(papers.name);
    await onMachine(fresh(), async () => refused((await openToRead(identityFile)).heads(), 'untrusted', /rolled back/));
  });

  test('is heard of by a repository that has been open for long', async () => {
    await prepare();
    const open = await openToRead(identityFile);
    await open.heads();
    await here.store.delete(photos[2]!.name);
    await refused(open.heads(), 'untrusted', /rolled back/);
    await declareLost(await openAsOwner(identityFile), [photos[2]!.name]);
    expect(ids(await open.heads())).toEqual(ids([photos[1]!, papers]));
  });

  test('is declared by an owner alone, and only what is lost', async () => {
    await prepare();
    const owner = await openAsOwner(identityFile);
    await refused(declareLost(owner, [`snapshots/${'0'.repeat(32)}/x`]), 'usage', /not the name/);
    await expect(declareLost(owner, [papers.name])).rejects.toThrow(/is there and whole/);
    await refused(
      declareLost(await openToRead(identityFile), [snapshotName('0'.repeat(32), 1, papers.id)]),
      'no-key',
      /owner/,
    );
    expect((await openToRead(identityFile)).config.lost).toBeUndefined();
    // Twice is once.
    await here.store.delete(photos[0]!.name);
    await declareLost(owner, [photos[0]!.name, photos[0]!.name]);
    await declareLost(await openAsOwner(identityFile), [photos[0]!.name]);
    expect((await openToRead(identityFile)).config.lost).toHaveLength(1);
    // What later configs say of other things leaves it.
    await (await openAsOwner(identityFile)).updateConfig(() => ({ keeping: { lockDays: 3 } }));
    expect((await openToRead(identityFile)).config.lost).toHaveLength(1);
  });

  test('a record that was exchanged cannot be declared lost while it lies there', async () => {
    await prepare();
    await replaceObject(here.store, photos[1]!.name, await here.store.get(photos[0]!.name));
    const owner = await openAsOwner(identityFile);
    await expect(declareLost(owner, [photos[1]!.name])).rejects.toMatchObject({ code: 'untrusted' });
  });
});
