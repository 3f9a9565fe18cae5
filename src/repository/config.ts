import { asMap, type CborMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { recipientKind } from '../archive/crypto/age.ts';
import { blake3 } from '../archive/crypto/blake3.ts';
import { corrupt, RozenError } from '../errors.ts';
import type { Keeping, ObjectStore } from '../store/object-store.ts';
import {
  HASH_SIZE,
  ID_SIZE,
  KEY_SIZE,
  MAX_CONFIG,
  MAX_LOCK_DAYS,
  MAX_LOST,
  MAX_RECIPIENTS,
  MAX_WRITERS,
  TYPE,
} from './format.ts';
import { type Genesis, unknownFeature } from './genesis.ts';
import { CONFIG_PREFIX, configName, MAX_CONFIG_NUMBER, parseConfigName, type SnapshotNameParts } from './names.ts';
import { decodeRecordName, encodeRecordName } from './record-name.ts';
import { decodeSigned, encodeSigned, isSignedBy, named } from './signed.ts';

export interface EnrolledWriter {
  id: Buffer;
  publicKey: Buffer;
  /** 'writer' may add snapshots. Roles of later versions are kept but give no right here. */
  role: string;
  /** The machine's name, sealed under the label key: the store must not read it. */
  sealedName: Buffer;
  /** Seconds since 1970. */
  enrolled: number;
}

/** One state of `config/<number>.cbor`, root-signed; the highest number counts. */
export interface Config {
  number: number;
  /** Hash of the config before; null for number 1. */
  previous: Buffer | null;
  created: number;
  /** age recipients that every new archive key is wrapped for; all X25519 or all hybrid. */
  recipients: string[];
  writers: EnrolledWriter[];
  /** The repository secrets as an age file for the recipients: a reader with an identity alone can derive ids and tags. */
  sealedSecrets: Buffer;
  /** How every writer's store is to keep objects; absent in a repository that asks for nothing. */
  keeping?: Keeping;
  /** Snapshot records that are gone or damaged for good, as an owner says; absent when none are. */
  lost?: SnapshotNameParts[];
  hash: Buffer;
  bytes: Buffer;
}

export type ConfigDraft = Omit<Config, 'hash' | 'bytes'>;

export function encodeConfig(draft: ConfigDraft, genesis: Genesis, rootSecret: Buffer): Buffer {
  checkRecipients(draft.recipients);
  const body = encodeCbor({
    repository: genesis.repositoryId,
    number: draft.number,
    previous: draft.previous,
    created: draft.created,
    recipients: draft.recipients,
    writers: draft.writers.map(({ id, publicKey, role, sealedName, enrolled }) => ({
      id,
      publicKey,
      role,
      name: sealedName,
      enrolled,
    })),
    secrets: draft.sealedSecrets,
    ...encodeKeeping(draft.keeping),
    ...encodeLost(draft.lost),
    incompatible: 0,
  });
  return encodeSigned({ type: TYPE.config, repositoryId: genesis.repositoryId, body, secret: rootSecret });
}

/** Decodes a config after its signature by the genesis' root key was checked ('untrusted' otherwise). */
export function decodeConfig(bytes: Buffer, genesis: Genesis, what: string): Config {
  const { body, signature } = decodeSigned(bytes, TYPE.config, what);
  const { repositoryId, rootKey } = genesis;
  if (!isSignedBy(rootKey, TYPE.config, { repositoryId, body, signature })) {
    throw new RozenError(
      'untrusted',
      `${what} is not signed by this repository's root key: its recipients or writers may have been swapped`,
      {
        hint: 'nothing was written; restore the object from a copy of the repository, or find out who changed the store',
      },
    );
  }
  return named(what, () => {
    const map = asMap(decodeCbor(body, { what: 'body', maxDepth: 6 }), 'body');
    if (!field.bytes(map, 'repository', ID_SIZE).equals(repositoryId)) throw corrupt('belongs to another repository');
    const incompatible = field.uint(map, 'incompatible', 0xffff_ffff);
    if (incompatible !== 0) throw unknownFeature(what, `feature bits ${incompatible.toString(2)}`);
    const number = field.uint(map, 'number', MAX_CONFIG_NUMBER, 1);
    const config: Config = {
      number,
      previous: number === 1 ? null : field.bytes(map, 'previous', HASH_SIZE),
      created: field.uint(map, 'created'),
      recipients: field.texts(map, 'recipients', MAX_RECIPIENTS),
      writers: field.list(map, 'writers', MAX_WRITERS).map((item) => decodeWriter(asMap(item, 'writer'))),
      sealedSecrets: field.bytes(map, 'secrets'),
      ...decodeKeeping(map),
      ...decodeLost(map),
      hash: blake3(bytes),
      bytes,
    };
    checkRecipients(config.recipients);
    return config;
  });
}

function encodeKeeping({ storageClass, lockDays }: Keeping = {}): CborMap {
  return {
    ...(storageClass === undefined ? {} : { storageClass }),
    ...(lockDays === undefined ? {} : { lockDays }),
  };
}

function decodeKeeping(map: CborMap): { keeping?: Keeping } {
  const storageClass = field.has(map, 'storageClass') ? field.text(map, 'storageClass', 64) : undefined;
  const lockDays = field.has(map, 'lockDays') ? field.uint(map, 'lockDays', MAX_LOCK_DAYS, 1) : undefined;
  return storageClass === undefined && lockDays === undefined ? {} : { keeping: { storageClass, lockDays } };
}

function encodeLost(lost: SnapshotNameParts[] = []): CborMap {
  return lost.length === 0 ? {} : { lost: lost.map(encodeRecordName) };
}

function decodeLost(map: CborMap): { lost?: SnapshotNameParts[] } {
  return field.has(map, 'lost') ? { lost: field.list(map, 'lost', MAX_LOST).map(decodeRecordName) } : {};
}

function decodeWriter(map: CborMap): EnrolledWriter {
  return {
    id: field.bytes(map, 'id', ID_SIZE),
    publicKey: field.bytes(map, 'publicKey', KEY_SIZE),
    role: field.text(map, 'role', 64),
    sealedName: field.bytes(map, 'name', undefined, 1024),
    enrolled: field.uint(map, 'enrolled'),
  };
}

/** At least one, and all of one kind: an X25519 recipient beside a hybrid one would undo the post-quantum protection. */
export function checkRecipients(recipients: string[]): void {
  if (recipients.length === 0) throw new RozenError('usage', 'a repository needs at least one recipient');
  if (recipients.length > MAX_RECIPIENTS)
    throw new RozenError('usage', `at most ${MAX_RECIPIENTS} recipients are possible`);
  if (new Set(recipients.map(recipientKind)).size > 1) {
    throw new RozenError('usage', 'X25519 and post-quantum recipients cannot be mixed', {
      hint: 'use only age1pq1… or only age1… recipients',
    });
  }
}

/**
 * The config with the highest number. A caller that has seen `known` before gets that or a later one: a store whose
 * newest is older, or that shows another object under the known number, is refused as rolled back.
 */
export async function readNewestConfig(
  store: ObjectStore,
  genesis: Genesis,
  known: { number: number; hash: Buffer } | null,
): Promise<Config> {
  let newest = 0;
  const after = known === null || known.number < 2 ? {} : { after: configName(known.number - 1) };
  for await (const { name } of store.list(CONFIG_PREFIX, after)) newest = Math.max(newest, parseConfigName(name) ?? 0);
  if (known !== null && newest < known.number)
    throw rolledBackConfig(store, `config ${known.number}, which this machine has seen, is gone`);
  if (newest === 0) {
    throw corrupt(`${store.location} holds no config`, {
      hint: 'restore the folder config/ from a copy of the repository',
    });
  }
  const config = await readConfig(store, genesis, newest);
  if (known !== null) await checkDescent(store, genesis, { config, known });
  return config;
}

async function readConfig(store: ObjectStore, genesis: Genesis, number: number): Promise<Config> {
  const name = configName(number);
  const what = `${store.location}/${name}`;
  const config = decodeConfig(await store.get(name, MAX_CONFIG), genesis, what);
  if (config.number !== number) {
    throw new RozenError('untrusted', `${what} holds config ${config.number}: an older config was put in its place`, {
      hint: 'restore the object from a copy of the repository',
    });
  }
  return config;
}

/** Follows `previous` down to the known config. */
async function checkDescent(
  store: ObjectStore,
  genesis: Genesis,
  chain: { config: Config; known: { number: number; hash: Buffer } },
): Promise<void> {
  const { known } = chain;
  let { config } = chain;
  while (config.number > known.number) {
    const before = await readConfig(store, genesis, config.number - 1);
    if (config.previous === null || !before.hash.equals(config.previous)) {
      throw rolledBackConfig(store, `config ${before.number} is not the one that config ${config.number} follows`);
    }
    config = before;
  }
  if (!config.hash.equals(known.hash))
    throw rolledBackConfig(store, `config ${known.number} is not the one that this machine has seen`);
}

function rolledBackConfig(store: ObjectStore, why: string): RozenError {
  return new RozenError('untrusted', `${store.location} was rolled back: ${why}`, {
    hint: 'somebody restored an old copy of the repository or removed objects; bring the missing ones back',
  });
}
