import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { generateIdentity, recipientKind, recipientOf, wrapKey } from '../archive/crypto/age.ts';
import { generateSigningKey } from '../archive/crypto/ed25519.ts';
import { RozenError } from '../errors.ts';
import type { Keeping, ObjectStore } from '../store/object-store.ts';
import { type Bundle, encodeAgeKey, encodePassphraseKey } from './bundle.ts';
import { checkRecipients, decodeConfig, encodeConfig } from './config.ts';
import { ID_SIZE } from './format.ts';
import { decodeGenesis, encodeGenesis, type Genesis } from './genesis.ts';
import { configName, GENESIS_NAME, keyName } from './names.ts';
import { locationPinPath, repositoryStateDir } from './paths.ts';
import { type Pin, writeCopies, writeLocationPin } from './pin.ts';
import { isStored } from './put-proven.ts';
import { Repository } from './repository.ts';
import { encodeSecrets, generateSecrets, sealLabel } from './secrets.ts';
import { enrolment, generateWriter, saveWriterFile } from './writer.ts';

export interface InitOptions {
  store: ObjectStore;
  /** At least one of passphrase and recipients. With recipients alone this machine can back up, but not read. */
  passphrase?: string | undefined;
  recipients?: string[] | undefined;
  /** The repository's own identity is hybrid (X25519 with ML-KEM-768); must fit the recipients. */
  postQuantum?: boolean | undefined;
  /** Name of the first key, for `rozen key list`; sealed. */
  label?: string | undefined;
  /** This machine's name as a writer; sealed. Default: the host name. */
  writerName?: string | undefined;
  /** How every writer's store is to keep objects. 'unsupported' when this store cannot. */
  keeping?: Keeping | undefined;
}

/**
 * Makes a repository in the store and enrolls this machine as its first writer. 'exists' when there is one. The genesis is
 * written last: before it, an interrupted init has left objects that nothing refers to, and can simply be run again.
 */
export async function initRepository(options: InitOptions): Promise<Repository> {
  const { store, passphrase, recipients = [], postQuantum } = options;
  if (passphrase === undefined && recipients.length === 0) {
    throw new RozenError('usage', 'a repository needs a passphrase or a recipient', {
      hint: 'give --recipient age1… or a passphrase',
    });
  }
  const { keeping = {} } = options;
  store.keep(keeping);
  await store.prepare();
  const obstacle = await store.cannotKeep(keeping);
  if (obstacle !== null) throw obstacle;
  await refuseExisting(store);

  const created = Math.floor(Date.now() / 1000);
  const secrets = generateSecrets();
  const root = generateSigningKey();
  const identities = passphrase === undefined ? [] : [await generateIdentity(identityKind(recipients, postQuantum))];
  const all = [...(await Promise.all(identities.map(recipientOf))), ...recipients];
  checkRecipients(all);

  const genesisBytes = encodeGenesis({
    repositoryId: randomBytes(ID_SIZE),
    rootSecret: root.secret,
    rootKey: root.public,
    created,
  });
  const genesis = decodeGenesis(genesisBytes, 'the new genesis');
  const bundle: Bundle = { genesisHash: genesis.hash, rootSecret: root.secret, secrets, identities };
  const writer = generateWriter(options.writerName ?? hostname());
  const plainSecrets = encodeSecrets(secrets);
  const sealedSecrets = await wrapKey(all, plainSecrets);
  plainSecrets.fill(0);
  const writers = [enrolment(writer, secrets, created)];
  const draft = { number: 1, previous: null, created, recipients: all, writers, sealedSecrets, keeping };
  const configBytes = encodeConfig(draft, genesis, root.secret);
  const config = decodeConfig(configBytes, genesis, 'the new config');

  const keyId = await putFirstKey(options, bundle, genesis);
  await putFirstConfig(store, configBytes, keyName(keyId));
  const stateDir = repositoryStateDir(genesis.repositoryId);
  saveWriterFile(stateDir, { repositoryId: genesis.repositoryId, genesisHash: genesis.hash, writer, secrets });
  await putGenesis(store, genesisBytes);
  if (!(await isStored(store, configName(1), configBytes))) throw overtaken(store);

  const pin: Pin = {
    genesisHash: genesis.hash,
    config: { number: 1, hash: config.hash },
    forward: null,
    lineages: new Map(),
    lastKey: keyId,
  };
  writeLocationPin(locationPinPath(store.location), store.location, genesis);
  writeCopies(stateDir, genesis, config);
  const owner = passphrase !== undefined;
  if (!owner) root.secret.fill(0);
  const repository = new Repository({
    store,
    genesis,
    config,
    pin,
    stateDir,
    writer,
    secrets,
    bundle: owner ? bundle : null,
    identities: owner ? identities : null,
    findIdentities: null,
  });
  repository.savePin();
  return repository;
}

function identityKind(recipients: string[], postQuantum: boolean | undefined): 'x25519' | 'hybrid' {
  const kind = recipients[0] === undefined ? undefined : recipientKind(recipients[0]);
  if (postQuantum === undefined) return kind ?? 'x25519';
  return postQuantum ? 'hybrid' : 'x25519';
}

async function refuseExisting(store: ObjectStore): Promise<void> {
  if ((await store.stat(GENESIS_NAME)) !== null) {
    throw new RozenError('exists', `${store.location} holds a repository already`, {
      hint: 'choose another place, or use the one that is there',
    });
  }
  for await (const { name } of store.list('snapshots/')) {
    throw new RozenError('exists', `${store.location} holds snapshots (${name}) but no ${GENESIS_NAME}`, {
      hint: 'restore rozen.cbor: every machine that used the repository has a copy in its state folder (genesis.cbor)',
    });
  }
}

/** The key object: under the passphrase, or else sealed to the recipients. */
async function putFirstKey(options: InitOptions, bundle: Bundle, genesis: Genesis): Promise<Buffer> {
  const id = randomBytes(ID_SIZE);
  const label = options.label ?? (options.passphrase === undefined ? 'first recipients' : 'first passphrase');
  const { repositoryId, created } = genesis;
  const draft = {
    id,
    repositoryId,
    created,
    sealedLabel: sealLabel(bundle.secrets, id, label),
    rootSecret: bundle.rootSecret!,
  };
  const bytes =
    options.passphrase === undefined
      ? await encodeAgeKey(draft, bundle, options.recipients ?? [])
      : await encodePassphraseKey(draft, bundle, options.passphrase);
  await options.store.put(keyName(id), bytes);
  await refuseOverwriting(options, keyName(id), bytes);
  return id;
}

/**
 * Two machines that make the next config at once must not both believe that they have: some servers ignore the condition. It is
 * tried with an object that is there, so that nothing is left of the trial where the server refuses as it should.
 */
async function refuseOverwriting(
  { store, keeping }: Pick<InitOptions, 'store' | 'keeping'>,
  name: string,
  bytes: Buffer,
): Promise<void> {
  try {
    // Other bytes: the same ones would pass for a repeated request.
    await store.put(name, Buffer.concat([bytes, Buffer.of(0)]));
  } catch (error) {
    if (error instanceof RozenError && error.code === 'exists') return;
    throw error;
  }
  // With Object Lock nothing is overwritten: each write is a version. There Ceph 16 ignores the condition, elsewhere it does not.
  if (keeping?.lockDays !== undefined) return store.put(name, bytes);
  // It opens nothing, there is no repository: no matter whether it can be removed.
  await store.delete(name).catch(() => {});
  throw new RozenError('unsupported', `${store.location}: the server overwrites objects although it is told not to`, {
    hint: 'it ignores If-None-Match, so that machines would overwrite each other; update the server, or use another one',
  });
}

/** An init takes no longer from its config to its genesis, by the clock of the store. */
const INIT_MS = 60_000;

/**
 * An init that was interrupted may have left a config of a root key that nobody has: it is nothing without a genesis. One that was
 * just made may be of an init that goes on; `justMade` names an object that tells the store's time.
 */
async function putFirstConfig(store: ObjectStore, bytes: Buffer, justMade: string): Promise<void> {
  const name = configName(1);
  try {
    await store.put(name, bytes);
  } catch (error) {
    if (!(error instanceof RozenError) || error.code !== 'exists') throw error;
    const [remains, now] = await Promise.all([store.stat(name), store.stat(justMade)]);
    if (remains === null || now === null || now.modified - remains.modified < INIT_MS) throw overtaken(store);
    await refuseExisting(store);
    await store.delete(name);
    await store.put(name, bytes);
  }
}

async function putGenesis(store: ObjectStore, bytes: Buffer): Promise<void> {
  try {
    await store.put(GENESIS_NAME, bytes);
  } catch (error) {
    throw error instanceof RozenError && error.code === 'exists' ? overtaken(store) : error;
  }
}

function overtaken(store: ObjectStore): RozenError {
  return new RozenError('exists', `another init makes a repository in ${store.location}, or did so a moment ago`, {
    hint: 'look what is there in a minute; when it is no repository, run init again, or with another place when that is refused',
  });
}
