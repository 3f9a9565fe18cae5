import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { decodeCbor, encodeCbor } from '../../src/archive/cbor.ts';
import { generateIdentity, recipientOf } from '../../src/archive/crypto/age.ts';
import { generateSigningKey } from '../../src/archive/crypto/ed25519.ts';
import { RozenError } from '../../src/errors.ts';
import { encodeAgeKey, encodeKeyObject } from '../../src/repository/bundle.ts';
import { keyAdd } from '../../src/repository/keys.ts';
import { configName, GENESIS_NAME, keyName, lineagePrefix, SNAPSHOTS_PREFIX } from '../../src/repository/names.ts';
import { initRepository, openRepository } from '../../src/repository/repository.ts';
import { generateSecrets, sealLabel } from '../../src/repository/secrets.ts';
import { decodeSigned, encodeSigned } from '../../src/repository/signed.ts';
import { LocalStore } from '../../src/store/local.ts';
import { expectCode, names } from '../contract/store.ts';
import { commitSnapshot } from './draft.ts';
import { onMachine, quickRepository, replaceObject } from './place.ts';
import { firstRoot, refusals, refused } from './refusal.ts';

const { fresh, here, openToRead, openToWrite } = refusals();

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
