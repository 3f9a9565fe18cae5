import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { generateIdentity, recipientOf } from '../../src/archive/crypto/age.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { encodeConfig } from '../../src/repository/config.ts';
import { configName, snapshotName } from '../../src/repository/names.ts';
import { openRepository, type Repository } from '../../src/repository/repository.ts';
import { decodeSigned, encodeOuter, encodeSigned } from '../../src/repository/signed.ts';
import { encodeRecord, type SnapshotRecord } from '../../src/repository/snapshot-record.ts';
import { generateWriter, saveWriterFile } from '../../src/repository/writer.ts';
import { LocalStore } from '../../src/store/local.ts';
import { commitSnapshot, commitUnchanged } from './draft.ts';
import { copyStore, onMachine, quickRepository, replaceObject } from './place.ts';
import { firstRoot, refusals, refused } from './refusal.ts';

const { fresh, here, openToRead, openToWrite } = refusals();

describe('swapped recipients', () => {
  test('a config signed by somebody else is refused, as first and as next', async () => {
    const { repository } = await quickRepository(here);
    const attacker = generateSigningKey();
    const stranger = await recipientOf(await generateIdentity('x25519'));
    const swapped = { ...repository.config, recipients: [stranger] };
    await replaceObject(here.store, configName(1), encodeConfig(swapped, repository.genesis, attacker.secret));
    await refused(openToWrite(), 'untrusted', /not signed by this repository's root key.*recipients/);
    // A machine that has never been here knows the root key from the genesis.
    await onMachine(fresh(), () =>
      refused(openRepository({ store: here.store, need: 'none' }), 'untrusted', /root key/),
    );

    await replaceObject(here.store, configName(1), repository.config.bytes);
    const next = { ...swapped, number: 2, previous: repository.config.hash };
    await here.store.put(configName(2), encodeConfig(next, repository.genesis, attacker.secret));
    await refused(openToWrite(), 'untrusted', /00000002.*root key/);
  });

  test('a root-signed config of another repository is refused', async () => {
    const { repository } = await quickRepository(here);
    const other = await quickRepository({ folder: here.folder, store: new LocalStore(join(here.folder, 'other')) });
    // The same person owns both: the signature alone would fit only if repositories were not bound into it.
    await replaceObject(here.store, configName(1), await other.repository.store.get(configName(1)));
    await onMachine(fresh(), () =>
      refused(openRepository({ store: here.store, need: 'none' }), 'untrusted', /root key/),
    );
    expect(repository.id.equals(other.repository.id)).toBe(false);
  });

  test('an older config under a higher number is refused', async () => {
    const { repository } = await quickRepository(here);
    await here.store.put(configName(2), repository.config.bytes);
    await refused(openToWrite(), 'untrusted', /holds config 1: an older config/);
  });
});

describe('forged snapshots', () => {
  test('signed by another key in the name of an enrolled writer', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    await putForged(repository, genuine, { signingSecret: generateSigningKey().secret, writerId: genuine.writerId });
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /is forged/);
    await onMachine(fresh(), async () => refused((await openToRead(identityFile)).heads(), 'untrusted', /is forged/));
    await refused((await openToRead(identityFile)).records(), 'untrusted', /is forged/);
    await refused(repository.nextSlot('photos'), 'untrusted', /is forged/);
  });

  test('well signed by a writer who is not enrolled', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    const stranger = generateWriter('stranger');
    await putForged(repository, genuine, { signingSecret: stranger.signingSecret, writerId: stranger.id });
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /not enrolled/);
  });

  test('well signed by a writer whose role is not to write', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    const stranger = generateWriter('stranger');
    const line = { ...repository.config.writers[0]!, id: stranger.id, publicKey: stranger.publicKey, role: 'auditor' };
    const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
    await owner.updateConfig((config) => ({ writers: [...config.writers, line] }));
    await putForged(repository, genuine, { signingSecret: stranger.signingSecret, writerId: stranger.id });
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /not enrolled/);
  });

  test('a machine that is not enrolled is told before it works for hours', async () => {
    const { repository } = await quickRepository(here);
    const { id: repositoryId, stateDir, genesis, secrets, writer } = repository;
    const save = (stranger: typeof writer) =>
      saveWriterFile(stateDir, { repositoryId, genesisHash: genesis.hash, writer: stranger!, secrets: secrets! });
    save(generateWriter('stranger'));
    await refused(openToWrite(), 'untrusted', /not enrolled/);
    save({ ...generateWriter('stranger'), id: writer!.id });
    await refused(openToWrite(), 'untrusted', /enrolled with another key/);
  });

  test('a genuine record of another repository of the same writer key', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    const { bytes, name } = forge(randomBytes(16), genuine, {
      signingSecret: repository.writer!.signingSecret,
      writerId: genuine.writerId,
    });
    await here.store.put(name, bytes);
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /is forged/);
  });

  test('a genuine record under another name', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    const bytes = await here.store.get(genuine.name);
    await here.store.put(snapshotName(genuine.tag, 2, genuine.id), bytes);
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /under this name/);
  });

  test('a signature by the right writer over something that is no snapshot', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    const { body } = decodeSigned(await here.store.get(genuine.name), 'snapshot', 'record');
    const options = {
      repositoryId: repository.id,
      body,
      secret: repository.writer!.signingSecret,
      signer: genuine.writerId,
    };
    const { signature } = decodeSigned(encodeSigned({ ...options, type: 'config' }), 'config', 'record');
    await replaceObject(
      here.store,
      genuine.name,
      encodeOuter('snapshot', { signer: genuine.writerId, body, signature }),
    );
    await onMachine(fresh(), async () => refused((await openToRead(identityFile)).heads(), 'untrusted', /is forged/));
  });
});

interface Forger {
  signingSecret: Buffer;
  writerId: Buffer;
}

/** The next record of the lineage, perfect but for who signs it. */
function forge(repositoryId: Buffer, genuine: SnapshotRecord, { signingSecret, writerId }: Forger) {
  const { sequence, id, hash } = genuine;
  const draft = { ...genuine, writerId, id: randomBytes(16), sequence: sequence + 1, previous: { sequence, id, hash } };
  return encodeRecord(draft, { repositoryId, signingSecret });
}

async function putForged(repository: Repository, genuine: SnapshotRecord, forger: Forger): Promise<void> {
  const { name, bytes } = forge(repository.id, genuine, forger);
  await repository.store.put(name, bytes);
}

describe('a store that was rolled back', () => {
  test('to an older snapshot: refused by whoever saw the newer one', async () => {
    const { repository, identityFile } = await quickRepository(here);
    await commitSnapshot(repository, 'photos');
    const rollBack = copyStore(here.store, join(here.folder, 'old'));
    const newer = await commitSnapshot(repository, 'photos');
    await onMachine(fresh(), async () =>
      expect((await (await openToRead(identityFile)).heads())[0]!.id).toEqual(newer.id),
    );
    rollBack();
    await refused(repository.nextSlot('photos'), 'untrusted', /rolled back/);
    await refused((await openToWrite()).nextSlot('photos'), 'untrusted', /rolled back/);
    await onMachine(fresh(), async () => refused((await openToRead(identityFile)).heads(), 'untrusted', /rolled back/));
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).records(), 'untrusted', /rolled back/),
    );
  });

  test('to no snapshot at all', async () => {
    const { repository, identityFile } = await quickRepository(here);
    await commitSnapshot(repository, 'photos');
    rmSync(join(here.store.location, 'snapshots'), { recursive: true });
    await refused((await openToRead(identityFile)).heads(), 'untrusted', /rolled back/);
  });

  test('to an older config', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
    await owner.updateConfig(() => ({}));
    await openToWrite();
    await here.store.delete(configName(2));
    await refused(openToWrite(), 'untrusted', /rolled back: config 2/);
    await refused(owner.refresh(), 'untrusted', /rolled back: config 2/);
    expect(repository.config.number).toBe(1);
  });

  test('to another config of the same number, signed by the root', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const root = await firstRoot(repository, identityFile);
    await replaceObject(
      here.store,
      configName(1),
      encodeConfig({ ...repository.config, created: 1 }, repository.genesis, root),
    );
    await refused(openToWrite(), 'untrusted', /rolled back: config 1 is not the one/);
  });

  test('to another history of configs', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const root = await firstRoot(repository, identityFile);
    const { config, genesis } = repository;
    const other = encodeConfig({ ...config, created: 1 }, genesis, root);
    await replaceObject(here.store, configName(1), other);
    await here.store.put(configName(2), encodeConfig({ ...config, number: 2, previous: blake3(other) }, genesis, root));
    await refused(openToWrite(), 'untrusted', /rolled back: config 1 is not the one/);
    await replaceObject(here.store, configName(1), config.bytes);
    await refused(openToWrite(), 'untrusted', /rolled back: config 1 is not the one that config 2 follows/);
  });

  test('behind a snapshot that was made under a later config, even for a newcomer', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
    await owner.updateConfig(() => ({}));
    await commitSnapshot(await openToWrite(), 'photos');
    await here.store.delete(configName(2));
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).heads(), 'untrusted', /made under config 2/),
    );
    expect(repository.config.number).toBe(1);
  });

  test('for one lineage, which the head of another has seen, even for a newcomer', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const first = await commitSnapshot(repository, 'photos');
    const hidden = await commitSnapshot(repository, 'photos');
    await commitSnapshot(repository, 'papers');
    await here.store.delete(hidden.name);
    const look = async () => (await openToRead(identityFile)).heads();
    await onMachine(fresh(), () => refused(look(), 'untrusted', /rolled back: .* has seen, is gone/));
    await here.store.delete(first.name);
    await onMachine(fresh(), () => refused(look(), 'untrusted', /rolled back: .* has seen, is gone/));
  });

  test('in the middle: a record that the next one follows is gone', async () => {
    const { repository, identityFile } = await quickRepository(here);
    await commitSnapshot(repository, 'photos');
    const middle = await commitSnapshot(repository, 'photos');
    await commitSnapshot(repository, 'photos');
    await here.store.delete(middle.name);
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).records(), 'untrusted', /follows, is gone/),
    );
  });

  test('in the middle: a record is not the one that the next one follows', async () => {
    const { repository, identityFile } = await quickRepository(here);
    await commitSnapshot(repository, 'photos');
    const middle = await commitSnapshot(repository, 'photos');
    await commitSnapshot(repository, 'photos');
    const { signingSecret } = repository.writer!;
    const rewritten = encodeRecord({ ...middle, timeSec: 5 }, { repositoryId: repository.id, signingSecret });
    await replaceObject(here.store, middle.name, rewritten.bytes);
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).records(), 'untrusted', /not the record/),
    );
  });

  test('between what a reader saw and the head', async () => {
    const { repository, identityFile } = await quickRepository(here);
    await commitSnapshot(repository, 'photos');
    await onMachine(fresh(), async () => (await openToRead(identityFile)).heads());
    const middle = await commitSnapshot(repository, 'photos');
    await commitSnapshot(repository, 'photos');
    await here.store.delete(middle.name);
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).heads(), 'untrusted', /follows, is gone/),
    );
  });

  test('by its own writer: another record of the same place is not what others saw', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    await onMachine(fresh(), async () => (await openToRead(identityFile)).heads());
    const { signingSecret } = repository.writer!;
    const rewritten = encodeRecord({ ...genuine, timeSec: 5 }, { repositoryId: repository.id, signingSecret });
    await replaceObject(here.store, rewritten.name, rewritten.bytes);
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).heads(), 'untrusted', /not the record/),
    );
    // The same behind a newer head, and as the base of an "unchanged" record.
    await replaceObject(here.store, genuine.name, rewritten.bytes);
    rmSync(repository.stateDir, { recursive: true });
    saveWriterFile(repository.stateDir, {
      repositoryId: repository.id,
      genesisHash: repository.genesis.hash,
      writer: repository.writer!,
      secrets: repository.secrets!,
    });
    await commitUnchanged(await openToWrite(), 'photos');
    await onMachine(fresh(), async () =>
      refused((await openToRead(identityFile)).heads(), 'untrusted', /not the record/),
    );
  });

  test('the base of an "unchanged" record was exchanged', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const genuine = await commitSnapshot(repository, 'photos');
    await commitUnchanged(repository, 'photos');
    const { signingSecret } = repository.writer!;
    await replaceObject(
      here.store,
      genuine.name,
      encodeRecord({ ...genuine, timeSec: 5 }, { repositoryId: repository.id, signingSecret }).bytes,
    );
    const newcomer = join(here.folder, 'newcomer');
    await onMachine(newcomer, async () =>
      refused((await openToRead(identityFile)).heads(), 'untrusted', /not the record/),
    );
    await here.store.delete(genuine.name);
    await onMachine(newcomer, async () => refused((await openToRead(identityFile)).heads(), 'untrusted', /is gone/));
    await onMachine(newcomer, async () => refused((await openToRead(identityFile)).records(), 'untrusted', /is gone/));
  });
});
