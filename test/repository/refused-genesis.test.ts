import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { decodeCbor, encodeCbor } from '../../src/archive/cbor.ts';
import { blake3 } from '../../src/archive/crypto/blake3.ts';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { encodeConfig } from '../../src/repository/config.ts';
import { MAX_GENESIS } from '../../src/repository/format.ts';
import { encodeGenesis } from '../../src/repository/genesis.ts';
import { configName, GENESIS_NAME, snapshotName } from '../../src/repository/names.ts';
import { initRepository, openRepository } from '../../src/repository/repository.ts';
import { decodeSigned, encodeSigned } from '../../src/repository/signed.ts';
import { LocalStore } from '../../src/store/local.ts';
import { expectCode, names } from '../contract/store.ts';
import { commitSnapshot } from './draft.ts';
import { copyStore, onMachine, quickRepository, replaceObject } from './place.ts';
import { firstRoot, refusals, refused } from './refusal.ts';

const { fresh, here, openToRead, openToWrite } = refusals();

/** An object whose outer format says something else, hash and all. */
function withFormat(bytes: Buffer, format: number): Buffer {
  const map = decodeCbor(bytes.subarray(0, -34), { what: 'object' }) as Record<string, unknown>;
  const inner = encodeCbor({ ...map, format });
  return Buffer.concat([inner, Buffer.from([0x58, 32]), blake3(inner)]);
}

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
