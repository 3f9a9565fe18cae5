import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { generateIdentity, recipientOf } from '../../src/archive/crypto/age.ts';
import { enroll, importWriter } from '../../src/repository/enroll.ts';
import { keyAdd, keyExport, keyList, keyRemove } from '../../src/repository/keys.ts';
import { initRepository, openRepository } from '../../src/repository/repository.ts';
import { decodeWriterFile, encodeWriterFile, generateWriter } from '../../src/repository/writer.ts';
import { LocalStore } from '../../src/store/local.ts';
import { expectCode } from '../contract/store.ts';
import { commitSnapshot } from './draft.ts';
import { onMachine, place, quickRepository } from './place.ts';

const here = place();
const open = (need: 'read' | 'owner', phrase: string) =>
  openRepository({ store: here.store, need, credentials: { passphrase: async () => phrase } });

test('several passphrases: added, listed, used, removed; the last one stays', async () => {
  const made = await initRepository({ store: here.store, passphrase: 'first', label: 'mine' });
  const record = await commitSnapshot(made, 'photos');
  const added = await keyAdd(made, { passphrase: 'zweite Größe', label: 'hers' });
  expect(added.past).toBe(true);
  // NFD, as macOS may type it.
  const hers = await open('owner', 'zweite Größe'.normalize('NFD'));
  expect((await hers.openBody(record)).set).toBe('photos');
  const { keys, errors } = await keyList(hers);
  expect(errors).toEqual([]);
  expect(keys.map((key) => [key.kind, key.label])).toEqual([
    ['passphrase', 'mine'],
    ['passphrase', 'hers'],
  ]);
  const [mine] = keys;
  await expectCode(keyRemove(hers, 'ffff'), 'not-found');
  await expectCode(keyRemove(hers, mine!.id.slice(0, 3)), 'not-found');
  expect((await keyRemove(hers, mine!.id.slice(0, 12))).label).toBe('mine');
  await expectCode(open('read', 'first'), 'no-key');
  await expectCode(keyRemove(hers, added.id), 'usage');
  await open('read', 'zweite Größe');
});

test('the last owner does not lock itself out, though readers stay', async () => {
  const made = await initRepository({ store: here.store, passphrase: 'p' });
  const identity = await generateIdentity('x25519');
  await keyAdd(made, { recipient: await recipientOf(identity), label: 'reader' });
  const owner = await open('owner', 'p');
  const { keys } = await keyList(owner);
  await expectCode(keyRemove(owner, keys.find(({ kind }) => kind === 'passphrase')!.id), 'usage');
  const other = await generateIdentity('x25519');
  await keyAdd(made, { recipient: await recipientOf(other), label: 'other owner', owner: true });
  const credentials = { identities: [other] };
  const second = await openRepository({ store: here.store, need: 'owner', credentials });
  await keyRemove(second, keys.find(({ kind }) => kind === 'passphrase')!.id);
  await expectCode(keyRemove(second, second.openedBy!.toString('hex')), 'usage');
});

test('a recipient who comes later opens many snapshots at the same time', async () => {
  const made = await initRepository({ store: here.store, passphrase: 'p' });
  const records = [await commitSnapshot(made, 'photos'), await commitSnapshot(made, 'papers')];
  const identity = await generateIdentity('x25519');
  await keyAdd(made, { recipient: await recipientOf(identity), label: 'daughter' });
  const credentials = { identities: [identity] };
  const reader = await openRepository({ store: here.store, need: 'read', credentials });
  const [bodies, secrets] = await Promise.all([
    Promise.all(records.map((record) => reader.openBody(record))),
    reader.loadSecrets(),
  ]);
  expect(bodies.map(({ set }) => set)).toEqual(['photos', 'papers']);
  expect(secrets).toEqual(made.secrets);
});

test('only an owner changes keys', async () => {
  const { repository } = await quickRepository(here);
  await expectCode(keyAdd(repository, { passphrase: 'p', label: 'x' }), 'no-key');
  await expectCode(keyRemove(repository, '0000'), 'no-key');
  await expectCode(enroll(repository, { name: 'x' }), 'no-key');
  const { keys, recipients, writers } = await keyList(repository);
  expect(keys.map((key) => key.label)).toEqual(['first recipients']);
  expect(recipients).toHaveLength(1);
  expect(writers[0]!.isThisMachine).toBe(true);
});

test('a recipient who comes later reads what was written before, and owns nothing', async () => {
  const made = await initRepository({ store: here.store, passphrase: 'p' });
  const record = await commitSnapshot(made, 'photos');
  const identity = await generateIdentity('x25519');
  const { past } = await keyAdd(made, { recipient: await recipientOf(identity), label: 'daughter' });
  expect(past).toBe(true);
  const identityFile = join(here.folder, 'daughter.txt');
  writeFileSync(identityFile, `${identity}\n`);
  await onMachine(join(here.folder, 'her machine'), async () => {
    const credentials = { identityFile };
    const reader = await openRepository({ store: here.store, need: 'read', credentials });
    expect((await reader.openBody(record)).set).toBe('photos');
    expect(await reader.loadSecrets()).toEqual(made.secrets);
    await expectCode(openRepository({ store: here.store, need: 'owner', credentials }), 'no-key');
    await expectCode(openRepository({ store: here.store, need: 'write', credentials }), 'no-key');
  });
});

test('in a repository for recipients only, a later one reads what comes from now on', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const before = await commitSnapshot(repository, 'photos');
  const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
  const identity = await generateIdentity('x25519');
  const { past } = await keyAdd(owner, { recipient: await recipientOf(identity), label: 'later', owner: true });
  expect(past).toBe(false);
  const after = await commitSnapshot(await openRepository({ store: here.store, need: 'write' }), 'photos');
  const credentials = { identities: [identity] };
  const later = await openRepository({ store: here.store, need: 'owner', credentials });
  expect((await later.openBody(after)).set).toBe('photos');
  await expectCode(later.openBody(before), 'no-key');
  expect((await owner.openBody(after)).set).toBe('photos');
});

test('the exported identity opens without a passphrase, pins, and is a plain age file', async () => {
  const made = await initRepository({ store: here.store, passphrase: 'p' });
  const record = await commitSnapshot(made, 'photos');
  const identityFile = join(here.folder, 'exported.txt');
  writeFileSync(identityFile, await keyExport(made));
  await onMachine(join(here.folder, 'elsewhere'), async () => {
    const reader = await openRepository({ store: here.store, need: 'read', credentials: { identityFile } });
    expect((await reader.openBody(record)).set).toBe('photos');
    await expectCode(openRepository({ store: here.store, need: 'owner', credentials: { identityFile } }), 'no-key');
  });
  const other = new LocalStore(join(here.folder, 'other'));
  await initRepository({ store: other, recipients: made.config.recipients });
  await expectCode(openRepository({ store: other, need: 'read', credentials: { identityFile } }), 'untrusted');

  writeFileSync(identityFile, await keyExport(made, { owner: true }));
  await onMachine(join(here.folder, 'after the fire'), async () => {
    const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
    await keyAdd(owner, { passphrase: 'new', label: 'new' });
    expect((await owner.openBody(record)).set).toBe('photos');
  });
  await open('owner', 'new');
});

test('the envelope of an archive is an age file that age itself opens', async (context) => {
  const made = await initRepository({ store: here.store, passphrase: 'p' });
  const { key, envelope } = await made.newArchiveKey();
  const identityFile = join(here.folder, 'exported.txt');
  const envelopeFile = join(here.folder, 'envelope.age');
  writeFileSync(identityFile, await keyExport(made, { owner: true }));
  writeFileSync(envelopeFile, envelope);
  try {
    execFileSync('age', ['--version'], { stdio: 'ignore' });
  } catch {
    return context.skip();
  }
  expect(execFileSync('age', ['-d', '-i', identityFile, envelopeFile])).toEqual(key);
});

test('a writer file carries the right to add, and nothing else', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
  const bytes = await enroll(owner, { name: 'the laptop' });
  await onMachine(join(here.folder, 'laptop'), async () => {
    const laptop = await importWriter({ store: here.store, bytes });
    const record = await commitSnapshot(laptop, 'photos');
    await expectCode(laptop.openBody(record), 'no-key');
    await expectCode(
      laptop.loadSecrets().then(() => laptop.unwrap(record.tree.envelope)),
      'no-key',
    );
    expect(laptop.secrets).toEqual(repository.secrets);
    expect(laptop.writerName(laptop.writer!.id)).toBe('the laptop');
    await commitSnapshot(await openRepository({ store: here.store, need: 'write' }), 'photos');
  });
  expect(await owner.heads()).toHaveLength(1);
});

test('a writer file for another genesis, another repository, or never enrolled is refused', async () => {
  const { identityFile, repository } = await quickRepository(here);
  const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
  const bytes = await enroll(owner, { name: 'the laptop' });
  const other = new LocalStore(join(here.folder, 'other'));
  await initRepository({ store: other, recipients: repository.config.recipients });
  await onMachine(join(here.folder, 'laptop'), async () => {
    expect((await expectCode(importWriter({ store: other, bytes }), 'untrusted')).message).toMatch(
      /the writer file says/,
    );
    const file = decodeWriterFile(bytes, 'file');
    await expectCode(
      importWriter({ store: here.store, bytes: encodeWriterFile({ ...file, writer: generateWriter('x') }) }),
      'untrusted',
    );
    const stolen = encodeWriterFile({ ...file, writer: { ...generateWriter('x'), id: file.writer.id } });
    await expectCode(importWriter({ store: here.store, bytes: stolen }), 'untrusted');
    await expectCode(openRepository({ store: here.store, need: 'write' }), 'no-key');
    await importWriter({ store: here.store, bytes });
  });
});
