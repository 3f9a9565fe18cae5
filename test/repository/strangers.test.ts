/** An enrolled machine that adds to the lineage of another one: passed over, told, and in nobody's way. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { enroll, importWriter } from '../../src/repository/enroll.ts';
import { openRepository, type Repository, type SnapshotRecord } from '../../src/repository/repository.ts';
import { encodeRecord, type RecordDraft } from '../../src/repository/snapshot-record.ts';
import { commitSnapshot, commitUnchanged } from './draft.ts';
import { onMachine, quickRepository } from './place.ts';
import { refusals } from './refusal.ts';

const { fresh, here, openToRead, openToWrite } = refusals();

let repository: Repository;
let identityFile: string;
/** The machine that adds where it has no business. */
let nas: Repository;
let first: SnapshotRecord;
let genuine: SnapshotRecord;
let own: SnapshotRecord;

beforeEach(async () => {
  ({ repository, identityFile } = await quickRepository(here));
  const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
  const bytes = await enroll(owner, { name: 'nas' });
  nas = await onMachine(join(here.folder, 'nas'), () => importWriter({ store: here.store, bytes }));
  first = await commitSnapshot(repository, 'photos');
  genuine = await commitSnapshot(repository, 'photos');
  own = await onMachine(join(here.folder, 'nas'), () => commitSnapshot(nas, 'backups'));
});

const referenceTo = ({ sequence, id, hash }: SnapshotRecord) => ({ sequence, id, hash });

/** Signs as the nas, whatever it says, and stores it. */
async function plant(draft: Partial<RecordDraft>): Promise<string> {
  const whole = { ...own, tag: genuine.tag, previous: referenceTo(genuine), ...draft } as RecordDraft;
  const { name, bytes } = encodeRecord(whole, { repositoryId: nas.id, signingSecret: nas.writer!.signingSecret });
  await here.store.put(name, bytes);
  return name;
}

const attacks: { what: string; draft: () => Partial<RecordDraft> }[] = [
  { what: 'a snapshot after the newest', draft: () => ({ sequence: 3 }) },
  { what: 'the last number there is', draft: () => ({ sequence: Number.MAX_SAFE_INTEGER }) },
  {
    what: 'another snapshot of the same number',
    draft: () => ({ sequence: 2, id: Buffer.alloc(16), previous: referenceTo(first) }),
  },
  {
    what: 'one that is as good as the newest',
    draft: () => ({ ...genuine, writerId: own.writerId, sequence: 3, previous: referenceTo(genuine) }),
  },
  {
    what: 'word that nothing has changed',
    draft: () => ({ kind: 'unchanged', base: referenceTo(first), sequence: 3, id: randomBytes(16) }),
  },
];

describe.each(attacks)('$what, in the lineage of another machine', ({ draft }) => {
  let planted: string;
  beforeEach(async () => {
    planted = await plant(draft());
  });

  test('is passed over by readers, and told', async () => {
    const look = async () => {
      const reader = await openToRead(identityFile);
      const told = new Map<string, string>();
      const heads = await reader.heads((error, name) => told.set(name, error.message));
      expect(heads.map(({ name }) => name).sort()).toEqual([genuine.name, own.name].sort());
      expect([...told.keys()]).toEqual([planted]);
      expect(told.get(planted)).toMatch(/lineage of another machine|authentication failed/);
      const records = await reader.records(() => {});
      expect(records.map(({ name }) => name).sort()).toEqual([first.name, genuine.name, own.name].sort());
    };
    await look();
    await onMachine(fresh(), look);
  });

  test('does not keep the machine from going on, with its own', async () => {
    const slot = await (await openToWrite()).nextSlot('photos');
    expect(slot).toMatchObject({ sequence: 3, base: { name: genuine.name } });
    const next = await commitSnapshot(await openToWrite(), 'photos');
    expect(next.previous?.id).toEqual(genuine.id);
    await commitUnchanged(await openToWrite(), 'photos');
    const heads = await (await openToRead(identityFile)).heads(() => {});
    expect(heads.map(({ name }) => name).sort()).toEqual([next.name, own.name].sort());
    // That it was seen for a while leaves this machine as watchful as it was.
    await here.store.delete(next.name);
    await expect((await openToRead(identityFile)).heads(() => {})).rejects.toMatchObject({ code: 'untrusted' });
  });
});

test('a name that nobody can read uses up no numbers', async () => {
  const name = genuine.name.replace(/[0-9a-f]{16}-/, 'ffe0000000000000-');
  await here.store.put(name, Buffer.from('no record'));
  expect((await (await openToWrite()).nextSlot('photos')).sequence).toBe(3);
  // A damaged newest record does: its number is not given again.
  await here.store.put(genuine.name.replace(/[0-9a-f]{16}-/, 'fffffffffffffffc-'), Buffer.from('no record'));
  await here.store.delete(name);
  expect((await (await openToWrite()).nextSlot('photos')).sequence).toBe(4);
});
