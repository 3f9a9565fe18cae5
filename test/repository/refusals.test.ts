import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { decodeCbor, encodeCbor } from '../../src/archive/cbor.ts';
import { generateIdentity, recipientOf } from '../../src/archive/crypto/age.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { RozenError } from '../../src/errors.ts';
import { encodeAgeKey, encodeKeyObject } from '../../src/repository/bundle.ts';
import { encodeConfig } from '../../src/repository/config.ts';
import { MAX_GENESIS } from '../../src/repository/format.ts';
import { encodeGenesis } from '../../src/repository/genesis.ts';
import { keyAdd } from '../../src/repository/keys.ts';
import {
  configName,
  GENESIS_NAME,
  keyName,
  lineagePrefix,
  SNAPSHOTS_PREFIX,
  snapshotName,
} from '../../src/repository/names.ts';
import { initRepository, openRepository, type Repository } from '../../src/repository/repository.ts';
import { generateSecrets, sealLabel } from '../../src/repository/secrets.ts';
import { decodeSigned, encodeOuter, encodeSigned } from '../../src/repository/signed.ts';
import { encodeRecord, type SnapshotRecord } from '../../src/repository/snapshot-record.ts';
import { generateWriter, saveWriterFile } from '../../src/repository/writer.ts';
import { LocalStore } from '../../src/store/local.ts';
import { expectCode, names } from '../contract/store.ts';
import { commitSnapshot, commitUnchanged } from './draft.ts';
import { copyStore, onMachine, place, quickRepository, replaceObject } from './place.ts';

/**
 * Every refusal of DESIGN §6. Each attack is well-formed in all respects but the one under test (hashes fit, signatures are
 * valid for whoever made them), so that only the check in question stands in its way.
 */

const here = place();
const fresh = () => join(here.folder, 'another machine');

/** Refused with this code, in words that name the matter, and with a hint. */
async function refused(promise: Promise<unknown>, code: string, words: RegExp): Promise<void> {
  const error = await expectCode(promise, code);
  expect(error.message).toMatch(words);
  expect(error.hint, error.message).toBeTruthy();
  expect(error.message).not.toContain('\n');
}

const openToWrite = () => openRepository({ store: here.store, need: 'write' });
const openToRead = (identityFile: string, store = here.store) =>
  openRepository({ store, need: 'read', credentials: { identityFile } });
const firstRoot = (repository: Repository, identityFile: string) =>
  openRepository({ store: repository.store, need: 'owner', credentials: { identityFile } }).then(
    (owner) => owner.bundle!.rootSecret!,
  );

/** An object whose outer format says something else, hash and all. */
function withFormat(bytes: Buffer, format: number): Buffer {
  const map = decodeCbor(bytes.subarray(0, -34), { what: 'object' }) as Record<string, unknown>;
  const inner = encodeCbor({ ...map, format });
  return Buffer.concat([inner, Buffer.from([0x58, 32]), blake3(inner)]);
}

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

describe('a swapped genesis', () => {
  const identityOf = async (folder: string) =>
    quickRepository({ folder: here.folder, store: new LocalStore(join(here.folder, folder)) });

  test('another repository at a known place', async () => {
    const { repository, identityFile } = await quickRepository(here);
    await identityOf('evil');
    rmSync(here.store.location, { recursive: true });
    copyStore(new LocalStore(join(here.folder, 'evil')), here.store.location);
    await refused(openToWrite(), 'untrusted', /rozen.cbor was swapped/);
    await refused(openToRead(identityFile), 'untrusted', new RegExp(repository.fingerprint));
  });

  test('another root key under the same repository id', async () => {
    const { repository } = await quickRepository(here);
    const root = generateSigningKey();
    const forged = encodeGenesis({
      repositoryId: repository.id,
      rootSecret: root.secret,
      rootKey: root.public,
      created: 1,
    });
    const moved = new LocalStore(join(here.folder, 'moved'));
    await moved.prepare();
    await moved.put(GENESIS_NAME, forged);
    // Another location: only the pin of the repository id knows better.
    await refused(openRepository({ store: moved, need: 'none' }), 'untrusted', /pin.cbor says/);
    rmSync(join(repository.stateDir, 'pin.cbor'));
    await refused(openRepository({ store: moved, need: 'write' }), 'untrusted', /writer.cbor says/);
  });

  test('on a first visit: the passphrase opens a bundle that was made for another genesis', async () => {
    const passphrase = async () => 'a passphrase';
    const genuine = await initRepository({ store: here.store, passphrase: await passphrase() });
    const root = generateSigningKey();
    const bytes = encodeGenesis({
      repositoryId: genuine.id,
      rootSecret: root.secret,
      rootKey: root.public,
      created: 1,
    });
    await replaceObject(here.store, GENESIS_NAME, bytes);
    const genesis = { ...genuine.genesis, rootKey: root.public };
    // The box under the passphrase cannot be opened, but signed anew.
    const [key] = await names(here.store, 'keys/');
    const { body } = decodeSigned(await here.store.get(key!), 'key', 'key');
    await replaceObject(
      here.store,
      key!,
      encodeSigned({ type: 'key', repositoryId: genuine.id, body, secret: root.secret }),
    );
    await replaceObject(here.store, configName(1), encodeConfig(genuine.config, genesis, root.secret));
    await onMachine(fresh(), () =>
      refused(
        openRepository({ store: here.store, need: 'read', credentials: { passphrase } }),
        'untrusted',
        /made for another genesis/,
      ),
    );
  });

  test('on a first visit: fingerprint given by hand or in the identity file', async () => {
    const { identityFile, identity, repository } = await quickRepository(here);
    const other = await identityOf('evil');
    const store = here.store;
    const open = (fingerprint: string) => openRepository({ store, need: 'none', fingerprint });
    await onMachine(fresh(), async () => {
      await refused(open(other.repository.fingerprint), 'untrusted', /fingerprint/);
      await refused(open(''), 'untrusted', /fingerprint/);
      expect((await open(repository.fingerprint.toUpperCase())).id).toEqual(repository.id);
    });
    writeFileSync(identityFile, `# rozen fingerprint: ${other.repository.fingerprint}\n${identity}\n`);
    await onMachine(join(here.folder, 'third'), () => refused(openToRead(identityFile), 'untrusted', /fingerprint/));
    writeFileSync(identityFile, `# rozen fingerprint: ${repository.fingerprint}\n${identity}\n`);
    await onMachine(join(here.folder, 'third'), () => openToRead(identityFile));
  });
});

describe('a newer format', () => {
  test('of every kind of object', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const record = await commitSnapshot(repository, 'photos');
    const [key] = await names(here.store, 'keys/');
    for (const name of [GENESIS_NAME, configName(1), record.name, key!]) {
      const genuine = await here.store.get(name);
      await replaceObject(here.store, name, withFormat(genuine, 2));
      const look = async () => {
        const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
        await owner.heads();
      };
      await onMachine(fresh(), () => refused(look(), 'unsupported', /format 2 is newer/));
      await replaceObject(here.store, name, genuine);
    }
  });

  test('an older format number never existed, and a lowered one does not pass', async () => {
    await quickRepository(here);
    await replaceObject(here.store, GENESIS_NAME, withFormat(await here.store.get(GENESIS_NAME), 0));
    await refused(openRepository({ store: here.store, need: 'none' }), 'corrupt', /format 0/);
  });

  test('incompatible features and unknown algorithms, named', async () => {
    const root = generateSigningKey();
    await here.store.prepare();
    const body = {
      repository: randomBytes(16),
      rootKey: root.public,
      created: 1,
      incompatible: 0,
      algorithms: { hash: 'blake3', signature: 'ed25519', aead: 'xchacha20-poly1305', envelope: 'age' },
    };
    const put = (changed: object) => {
      const whole = { ...body, ...changed };
      return replaceObject(
        here.store,
        GENESIS_NAME,
        encodeSigned({ type: 'genesis', repositoryId: body.repository, body: encodeCbor(whole), secret: root.secret }),
      );
    };
    await put({ incompatible: 4 });
    await refused(openRepository({ store: here.store, need: 'none' }), 'unsupported', /feature bits 100/);
    await put({ algorithms: { ...body.algorithms, hash: 'blake4' } });
    await refused(openRepository({ store: here.store, need: 'none' }), 'unsupported', /hash algorithm "blake4"/);
  });

  test('a genesis whose own signature does not fit is damaged', async () => {
    const { repository } = await quickRepository(here);
    const { body } = decodeSigned(repository.genesis.bytes, 'genesis', 'genesis');
    const secret = generateSigningKey().secret;
    const bytes = encodeSigned({ type: 'genesis', repositoryId: repository.id, body, secret });
    await replaceObject(here.store, GENESIS_NAME, bytes);
    await onMachine(fresh(), () =>
      refused(openRepository({ store: here.store, need: 'none' }), 'corrupt', /its signature does not fit/),
    );
  });

  test('incompatible features of a config', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const root = await firstRoot(repository, identityFile);
    const { body } = decodeSigned(repository.config.bytes, 'config', 'config');
    const map = decodeCbor(body, { what: 'body' }) as object;
    const bytes = encodeSigned({
      type: 'config',
      repositoryId: repository.id,
      body: encodeCbor({ ...map, incompatible: 1 }),
      secret: root,
    });
    await replaceObject(here.store, configName(1), bytes);
    await onMachine(fresh(), () =>
      refused(openRepository({ store: here.store, need: 'none' }), 'unsupported', /feature bits 1/),
    );
  });
});

describe('no repository', () => {
  test('an empty folder, a missing folder, a folder with other things', async () => {
    await refused(openRepository({ store: here.store, need: 'none' }), 'not-repository', /does not exist/);
    await here.store.prepare();
    await refused(openRepository({ store: here.store, need: 'none' }), 'not-repository', /holds no Rozen repository/);
    await here.store.put('readme.txt', Buffer.from('hello'));
    await here.store.put(GENESIS_NAME, Buffer.from('my diary, in Concise Binary Object Representation'));
    await refused(openRepository({ store: here.store, need: 'none' }), 'not-repository', /holds no Rozen repository/);
    await replaceObject(here.store, GENESIS_NAME, Buffer.alloc(0));
    await refused(openRepository({ store: here.store, need: 'none' }), 'not-repository', /holds no Rozen repository/);
    await replaceObject(here.store, GENESIS_NAME, Buffer.alloc(MAX_GENESIS + 1));
    await refused(openRepository({ store: here.store, need: 'none' }), 'corrupt', /expected at most/);
  });

  test('a known place whose genesis is gone says where the copy is', async () => {
    const { repository } = await quickRepository(here);
    const bytes = await here.store.get(GENESIS_NAME);
    await here.store.delete(GENESIS_NAME);
    const error = await expectCode(openToWrite(), 'not-repository');
    const copy = /A copy of rozen.cbor is (.*)$/.exec(error.hint!)![1]!;
    const { readFileSync } = await import('node:fs');
    expect(readFileSync(copy)).toEqual(bytes);
    expect(copy.startsWith(repository.stateDir)).toBe(true);
    // And nobody makes a new one over the remains.
    await commitSnapshotBytes(here.store);
    await refused(
      initRepository({ store: here.store, recipients: repository.config.recipients }),
      'exists',
      /holds snapshots/,
    );
  });

  test('init refuses a place that holds one', async () => {
    const { recipient } = await quickRepository(here);
    await refused(
      initRepository({ store: here.store, recipients: [recipient] }),
      'exists',
      /holds a repository already/,
    );
  });
});

async function commitSnapshotBytes(store: LocalStore): Promise<void> {
  await store.put(snapshotName('0'.repeat(32), 1, Buffer.alloc(16)), Buffer.from('x'));
}

describe('keys that do not fit', () => {
  test('a wrong passphrase', async () => {
    await initRepository({ store: here.store, passphrase: 'right' });
    for (const need of ['read', 'owner'] as const) {
      const credentials = { passphrase: async () => 'wrong' };
      await refused(openRepository({ store: here.store, need, credentials }), 'no-key', /^wrong passphrase/);
    }
  });

  test('no credentials, a missing file, a file without identity, a broken one', async () => {
    await quickRepository(here);
    await refused(openRepository({ store: here.store, need: 'read' }), 'no-key', /no identity is at hand/);
    await refused(openRepository({ store: here.store, need: 'owner' }), 'no-key', /owner's key/);
    await onMachine(fresh(), () =>
      refused(openRepository({ store: here.store, need: 'write' }), 'no-key', /this machine is not enrolled/),
    );
    const path = join(here.folder, 'some file');
    await refused(openToRead(path), 'no-key', /the identity file cannot be read/);
    writeFileSync(path, '# nothing\n\n');
    await refused(openToRead(path), 'no-key', /holds no identity/);
    writeFileSync(path, 'AGE-SECRET-KEY-1SECRETSECRET but broken\n');
    const error = await expectCode(openToRead(path), 'usage');
    expect(JSON.stringify(error) + error.message).not.toContain('SECRETSECRET');
    expect(error.hint).toBeTruthy();
  });

  test('an identity that is no recipient: refused when it has to open something', async () => {
    const { repository } = await quickRepository(here);
    const record = await commitSnapshot(repository, 'photos');
    const path = join(here.folder, 'other identity');
    writeFileSync(path, await generateIdentity('x25519'));
    const reader = await openToRead(path);
    await expectCode(reader.openBody(record), 'no-key');
    await expectCode(
      openRepository({ store: here.store, need: 'owner', credentials: { identityFile: path } }),
      'no-key',
    );
  });

  test('a passphrase for a repository that has none', async () => {
    await quickRepository(here);
    const credentials = { passphrase: async () => 'anything' };
    await refused(openRepository({ store: here.store, need: 'read', credentials }), 'no-key', /has no passphrase/);
  });
});

describe('X25519 and hybrid recipients together', () => {
  test('at init, with and without a passphrase, and when a key is added', async () => {
    const classic = await recipientOf(await generateIdentity('x25519'));
    const hybrid = await recipientOf(await generateIdentity('hybrid'));
    const { store } = here;
    await refused(initRepository({ store, recipients: [classic, hybrid] }), 'usage', /cannot be mixed/);
    await refused(
      initRepository({ store, passphrase: 'p', recipients: [classic], postQuantum: true }),
      'usage',
      /cannot be mixed/,
    );
    await refused(
      initRepository({ store, passphrase: 'p', recipients: [hybrid], postQuantum: false }),
      'usage',
      /cannot be mixed/,
    );
    expect(await names(store, '')).toEqual([]);
    await refused(initRepository({ store, recipients: ['age1nonsense!'] }), 'usage', /not an age recipient/);
    await refused(initRepository({ store }), 'usage', /passphrase or a recipient/);

    const { identityFile } = await quickRepository(here);
    const owner = await openRepository({ store, need: 'owner', credentials: { identityFile } });
    await refused(keyAdd(owner, { recipient: hybrid, label: 'mixed' }), 'usage', /cannot be mixed/);
    expect(await names(store, 'keys/')).toHaveLength(1);
    expect(await names(store, 'config/')).toHaveLength(1);

    // The repository's own X25519 identity, sealed to a hybrid recipient, gains nothing; the other way round loses all.
    const own = new LocalStore(join(here.folder, 'own'));
    const made = await initRepository({ store: own, passphrase: 'p', postQuantum: true });
    await refused(keyAdd(made, { recipient: classic, label: 'mixed' }), 'usage', /cannot be mixed/);
    expect(await names(own, 'keys/')).toHaveLength(1);
  });

  test('in a config, even when the root signed it', async () => {
    const { repository, identityFile } = await quickRepository(here);
    const root = await firstRoot(repository, identityFile);
    const hybrid = await recipientOf(await generateIdentity('hybrid'));
    const { body } = decodeSigned(repository.config.bytes, 'config', 'config');
    const map = decodeCbor(body, { what: 'body' }) as Record<string, unknown>;
    const recipients = [...repository.config.recipients, hybrid];
    const bytes = encodeSigned({
      type: 'config',
      repositoryId: repository.id,
      body: encodeCbor({ ...map, recipients }),
      secret: root,
    });
    await replaceObject(here.store, configName(1), bytes);
    await onMachine(fresh(), () =>
      refused(openRepository({ store: here.store, need: 'none' }), 'usage', /cannot be mixed/),
    );
  });
});

describe('argon2id parameters from the store', () => {
  test.each([
    ['weak memory', { memoryKiB: 1024 }],
    ['huge memory', { memoryKiB: 2 ** 31 }],
    ['no passes', { passes: 0 }],
    ['many passes', { passes: 1000 }],
    ['within each bound, but not together', { memoryKiB: 1_048_576, passes: 5 }],
    ['many lanes', { lanes: 1000 }],
    ['short salt', { salt: Buffer.alloc(8) }],
  ])(
    '%s',
    async (_what, changed) => {
      const { repository, identityFile } = await quickRepository(here);
      const id = randomBytes(16);
      const kdf = { name: 'argon2id', memoryKiB: 65_536, passes: 3, lanes: 4, salt: randomBytes(32), ...changed };
      const members = {
        kind: 'passphrase',
        kdf,
        commitment: randomBytes(32),
        nonce: randomBytes(24),
        sealed: randomBytes(100),
      };
      // Even the root's signature does not help: the bounds protect this machine from whoever it trusts.
      const draft = {
        id,
        repositoryId: repository.id,
        created: 1,
        sealedLabel: randomBytes(40),
        rootSecret: await firstRoot(repository, identityFile),
      };
      await here.store.put(keyName(id), encodeKeyObject(draft, members));
      const open = openRepository({ store: here.store, need: 'read', credentials: { passphrase: async () => 'p' } });
      await refused(open, 'untrusted', /outside the allowed bounds/);
    },
    120_000,
  );
});

describe('a key object that no owner made', () => {
  test('with secrets of the attacker, sealed to the very recipient', async () => {
    const { repository, identityFile, recipient } = await quickRepository(here);
    const attacker = generateSigningKey();
    const id = randomBytes(16);
    const secrets = generateSecrets();
    const draft = {
      id,
      repositoryId: repository.id,
      created: 1,
      sealedLabel: sealLabel(secrets, id, 'x'),
      rootSecret: attacker.secret,
    };
    const bundle = { genesisHash: repository.genesis.hash, rootSecret: attacker.secret, secrets, identities: [] };
    const bytes = await encodeAgeKey(draft, bundle, [recipient]);
    const [genuine] = await names(here.store, 'keys/');
    await here.store.delete(genuine!);
    await here.store.put(keyName(id), bytes);
    expect(await names(here.store, 'config/')).toHaveLength(1);
    // An attacker's secrets would tell him the content of all that this machine backs up from now on.
    await onMachine(fresh(), () =>
      refused(
        openRepository({ store: here.store, need: 'write', credentials: { identityFile } }),
        'untrusted',
        /keys\/[0-9a-f]{32}\.cbor is not signed by this repository's root key/,
      ),
    );
  });

  test('a genuine one under another name', async () => {
    const { identityFile } = await quickRepository(here);
    const [genuine] = await names(here.store, 'keys/');
    const bytes = await here.store.get(genuine!);
    await here.store.delete(genuine!);
    await here.store.put(keyName(randomBytes(16)), bytes);
    await refused(
      openRepository({ store: here.store, need: 'owner', credentials: { identityFile } }),
      'corrupt',
      /another key object/,
    );
  });
});

test('every refusal is one line with a hint, and errors never hold key bytes', async () => {
  const { repository, identity } = await quickRepository(here);
  await commitSnapshot(repository, 'photos');
  const path = join(here.folder, 'state-is-a-file');
  mkdirSync(path);
  const secrets = [
    identity,
    ...Object.values(repository.secrets!).map((key: Buffer) => key.toString('hex')),
    repository.writer!.signingSecret.toString('hex'),
  ];
  const flipped = await here.store.get(GENESIS_NAME);
  flipped[40]! ^= 1;
  await replaceObject(here.store, GENESIS_NAME, flipped);
  const error = await expectCode(openToWrite(), 'corrupt');
  for (const secret of secrets) expect(`${error.stack} ${error.hint}`).not.toContain(secret);
  expect(error).toBeInstanceOf(RozenError);
  expect(lineagePrefix('ab').startsWith(SNAPSHOTS_PREFIX)).toBe(true);
});
