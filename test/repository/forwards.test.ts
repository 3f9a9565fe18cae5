import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { decodeForward, encodeForward, type ForwardRecord, type Merge } from '../../src/repository/forward-record.ts';
import { ForwardMap } from '../../src/repository/forwards.ts';
import { forwardName } from '../../src/repository/names.ts';
import { openRepository, type Repository } from '../../src/repository/repository.ts';
import { CountingStore } from '../../src/store/counting.ts';
import { objectExists } from '../../src/store/object-store.ts';
import { expectCode } from '../contract/store.ts';
import { copyStore, onMachine, place, quickRepository, replaceObject } from './place.ts';

const here = place();
const BLOCK = 256 * 1024;

const archive = (id: Buffer = randomBytes(16)) => ({
  id,
  size: 1000,
  headerHash: randomBytes(32),
  merkleRoot: randomBytes(32),
});
const target = (id?: Buffer) => ({ ...archive(id), envelope: Buffer.from('an envelope') });
const merge = (ids: Buffer[], into?: Buffer, blocks = 3): Merge => ({
  target: target(into),
  sources: ids.map((id, i) => ({ ...archive(id), block: i * blocks, blocks })),
});

async function owner(): Promise<{ repository: Repository; identityFile: string; root: Buffer }> {
  const { identityFile } = await quickRepository(here);
  const repository = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
  return { repository, identityFile, root: repository.bundle!.rootSecret! };
}

test('records lead on, also from what was merged twice, and every machine reads them', async () => {
  const { repository, identityFile, root } = await owner();
  const [a, b, c, first, second] = Array.from({ length: 5 }, () => randomBytes(16)) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ];
  expect(await repository.forwards.find(a)).toBeNull();
  expect((await repository.forwards.append(root, () => merge([a, b], first)))?.number).toBe(1);
  expect((await repository.forwards.append(root, () => merge([c, first], second, 6)))?.number).toBe(2);
  expect(await repository.forwards.append(root, () => null)).toBeNull();

  const counted = new CountingStore(here.store);
  const reader = await openRepository({ store: counted, need: 'read', credentials: { identityFile } });
  counted.reset();
  expect(reader.forwards.known(b)).toBeNull();
  const found = (await reader.forwards.find(b))!;
  expect(counted.count('list')).toBe(1);
  expect(counted.reads).toBe(2);
  expect(found.target.id).toEqual(second);
  expect(found).toMatchObject({ start: (6 + 3) * BLOCK, end: (6 + 6) * BLOCK });
  expect(reader.forwards.known(first)).toMatchObject({ start: 6 * BLOCK, end: 12 * BLOCK });
  expect(reader.forwards.known(second)).toBeNull();
  expect(reader.forwards.places(b).map(({ target }) => target.id)).toEqual([first, second]);
  expect(reader.forwards.places(second)).toEqual([]);
  // What is known costs nothing; what is not, one listing.
  counted.reset();
  await reader.forwards.find(a);
  expect(counted.calls).toHaveLength(0);
  expect(await reader.forwards.find(randomBytes(16))).toBeNull();
  expect(counted.calls.map(({ operation }) => operation)).toEqual(['list']);
});

test('of two owners who merge the same archive at once, the second sees it', async () => {
  const { repository, identityFile, root } = await owner();
  const other = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
  const id = randomBytes(16);
  const draft = (it: Repository) => () => (it.forwards.known(id) === null ? merge([id]) : null);
  await other.forwards.refresh();
  const put = other.store.put.bind(other.store);
  let asked = 0;
  // The other one writes just before.
  other.store.put = async (name, bytes) => {
    if (asked++ === 0) await repository.forwards.append(root, draft(repository));
    return put(name, bytes);
  };
  expect(await other.forwards.append(other.bundle!.rootSecret!, draft(other))).toBeNull();
  other.store.put = put;
  expect(other.forwards.records).toHaveLength(1);
});

test('a store that has a record and does not list it ends the writing', async () => {
  const { repository, root } = await owner();
  repository.store.put = async (name) => {
    throw objectExists(here.store.location, name);
  };
  await expectCode(
    repository.forwards.append(root, () => merge([randomBytes(16)])),
    'exists',
  );
});

test('a forged record, also one by an enrolled writer, is refused by name', async () => {
  const { repository, identityFile } = await owner();
  const draft = { number: 1, previous: null, created: 1, ...merge([randomBytes(16)]) };
  const secrets = [generateSigningKey().secret, repository.writer!.signingSecret];
  for (const [i, secret] of secrets.entries()) {
    await replaceObject(here.store, forwardName(1), encodeForward(draft, repository.genesis, secret));
    const reader = await openRepository({ store: here.store, need: 'read', credentials: { identityFile } });
    const error = await expectCode(reader.forwards.find(draft.sources[0]!.id), 'untrusted');
    expect(error.message, `secret ${i}`).toMatch(/forward\/00000001\.cbor is forged/);
  }
});

test('a store that was rolled back is refused by name', async () => {
  const { repository, identityFile, root } = await owner();
  const id = randomBytes(16);
  await repository.forwards.append(root, () => merge([randomBytes(16)]));
  const restore = copyStore(here.store, join(here.folder, 'copy'));
  await repository.forwards.append(root, () => merge([id]));
  restore();
  const open = () => openRepository({ store: here.store, need: 'read', credentials: { identityFile } });
  expect((await expectCode((await open()).forwards.find(id), 'untrusted')).message).toMatch(
    /rolled back: forward\/00000002\.cbor, which this machine has seen, is gone/,
  );
  // Somebody who has never been there cannot know.
  await onMachine(join(here.folder, 'other'), async () => {
    expect(await (await open()).forwards.find(id)).toBeNull();
  });
  await here.store.put(forwardName(2), readFileSync(join(here.store.location, forwardName(1))));
  expect((await expectCode((await open()).forwards.find(id), 'untrusted')).message).toMatch(
    /forward\/00000002\.cbor holds forward record 1/,
  );
});

test('one that was replaced, and a gap, are refused; a damaged one leads nowhere', async () => {
  const { repository, identityFile, root } = await owner();
  const ids = [randomBytes(16), randomBytes(16), randomBytes(16)];
  for (const id of ids) await repository.forwards.append(root, () => merge([id]));
  const open = () => openRepository({ store: here.store, need: 'read', credentials: { identityFile } });
  const away = <T>(work: () => Promise<T>) => onMachine(join(here.folder, 'other'), work);

  const third = repository.forwards.records[2]!;
  const bytes = await here.store.get(forwardName(3));
  const other = encodeForward({ ...third, ...merge([ids[2]!]) }, repository.genesis, root);
  await replaceObject(here.store, forwardName(3), other);
  const replaced = await expectCode((await open()).forwards.refresh(), 'untrusted');
  expect(replaced.message).toMatch(/forward\/00000003\.cbor is not the record that this machine has seen/);
  const astray = encodeForward({ ...third, previous: randomBytes(32) }, repository.genesis, root);
  await replaceObject(here.store, forwardName(3), astray);
  await away(async () => {
    expect((await expectCode((await open()).forwards.refresh(), 'untrusted')).message).toMatch(/does not follow/);
  });
  await replaceObject(here.store, forwardName(3), bytes);

  const path = join(here.store.location, forwardName(2));
  const second = readFileSync(path);
  await here.store.delete(forwardName(2));
  expect((await expectCode((await open()).forwards.refresh(), 'untrusted')).message).toMatch(/00000002\.cbor is gone/);
  const damaged = Buffer.from(second);
  damaged[100]! ^= 1;
  writeFileSync(path, damaged);
  const reader = await open();
  expect((await reader.forwards.find(ids[2]!))?.source.id).toEqual(ids[2]);
  expect((await expectCode(reader.forwards.find(ids[1]!), 'corrupt')).message).toMatch(/forward\/00000002/);
});

test('a record says nothing that cannot be', () => {
  const { secret, public: rootKey } = generateSigningKey();
  const genesis = { repositoryId: randomBytes(16), rootKey } as Repository['genesis'];
  const encode = (more: Partial<ForwardRecord>) =>
    encodeForward(
      { number: 1, previous: null, created: 1, ...merge([randomBytes(16), randomBytes(16)]), ...more },
      genesis,
      secret,
    );
  const decode = (bytes: Buffer) => decodeForward(bytes, { genesis, number: 1, what: 'it' });
  expect(decode(encode({})).sources).toHaveLength(2);
  const overlapping = merge([randomBytes(16), randomBytes(16)]).sources.map((source) => ({ ...source, block: 0 }));
  expect(() => decode(encode({ sources: overlapping }))).toThrow(/two archives were merged into block 0/);
  expect(() =>
    decodeForward(encode({}), { genesis: { ...genesis, repositoryId: randomBytes(16) }, number: 1, what: 'it' }),
  ).toThrow(/forged/);
});

test('records that go round in circles end', () => {
  const [a, b] = [randomBytes(16), randomBytes(16)];
  const map = new ForwardMap();
  const record = (number: number, it: Merge) => ({ number, previous: null, created: 1, hash: randomBytes(32), ...it });
  map.add(record(1, merge([a], b)));
  map.add(record(2, merge([b], a)));
  map.add(record(3, merge([a], randomBytes(16))));
  expect(map.get(a)?.target.id).toEqual(a);
  expect(map.get(b)?.target.id).toEqual(a);
});
