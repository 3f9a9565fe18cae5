import { randomBytes } from 'node:crypto';
import { wrapKey } from '../archive/crypto/age.ts';
import { RozenError } from '../errors.ts';
import { type Bundle, encodeAgeKey, encodePassphraseKey } from './bundle.ts';
import { checkRecipients } from './config.ts';
import { ID_SIZE } from './format.ts';
import { formatIdentityFile } from './identity-file.ts';
import { readKeyObjects } from './key-ring.ts';
import { keyName } from './names.ts';
import { noIdentity, notOwner, type Repository } from './repository.ts';
import { encodeSecrets, openLabel, sealLabel } from './secrets.ts';

export interface KeyInfo {
  /** 32 hex characters. */
  id: string;
  kind: 'passphrase' | 'age';
  /** Null when the secrets are not at hand. */
  label: string | null;
  /** Seconds since 1970. */
  created: number;
}

export interface KeyListing {
  keys: KeyInfo[];
  /** Key objects that cannot be read. */
  errors: RozenError[];
  /** age recipients that every new archive is readable for. */
  recipients: string[];
  writers: { id: string; name: string | null; enrolled: number; isThisMachine: boolean }[];
}

/** Everything that opens or adds to the repository. Needs no key; labels and names show when the secrets are at hand. */
export async function keyList(repository: Repository): Promise<KeyListing> {
  const { store, genesis, secrets, config } = repository;
  const { keys, errors } = await readKeyObjects({ store, genesis });
  return {
    keys: keys
      .map(({ id, kind, created, sealedLabel }) => ({
        id: id.toString('hex'),
        kind,
        created,
        label: secrets === null ? null : openLabel(secrets, id, sealedLabel),
      }))
      .sort((a, b) => a.created - b.created),
    errors,
    recipients: config.recipients,
    writers: config.writers.map((writer) => ({
      id: writer.id.toString('hex'),
      name: repository.writerName(writer.id),
      enrolled: writer.enrolled,
      isThisMachine: repository.writer?.id.equals(writer.id) ?? false,
    })),
  };
}

export interface KeyAddOptions {
  label: string;
  /** Another passphrase for everything. */
  passphrase?: string | undefined;
  /** An age recipient who may read everything, old and new; with `owner`, change keys too. */
  recipient?: string | undefined;
  owner?: boolean | undefined;
}

/**
 * Adds a key object (needs an owner). A recipient gets the repository's own identity, sealed to it: that opens every archive,
 * also those made before, and costs one small object. A repository born for recipients only has no such identity: there the
 * new one is added to the config and can read what is written from now on (`past` is false).
 */
export async function keyAdd(repository: Repository, options: KeyAddOptions): Promise<KeyInfo & { past: boolean }> {
  const { passphrase, recipient, label, owner = false } = options;
  if ((passphrase === undefined) === (recipient === undefined)) {
    throw new RozenError('usage', 'a key is either a passphrase or a recipient');
  }
  const bundle = ownerOf(repository);
  const id = randomBytes(ID_SIZE);
  const created = Math.floor(Date.now() / 1000);
  const draft = {
    id,
    repositoryId: repository.id,
    created,
    sealedLabel: sealLabel(bundle.secrets, id, label),
    rootSecret: bundle.rootSecret,
  };
  let bytes: Buffer;
  if (passphrase !== undefined) bytes = await encodePassphraseKey(draft, bundle, passphrase);
  else {
    if (!owner && repository.config.recipients.includes(recipient!)) {
      throw new RozenError('exists', `${recipient} is a recipient already`, {
        hint: 'it reads every new archive; --owner lets it change keys too',
      });
    }
    checkRecipients([...repository.config.recipients, recipient!]);
    bytes = await encodeAgeKey(draft, owner ? bundle : { ...bundle, rootSecret: null }, [recipient!]);
    if (bundle.identities.length === 0) await addToConfig(repository, bundle, recipient!);
  }
  await repository.store.put(keyName(id), bytes);
  return {
    id: id.toString('hex'),
    kind: passphrase === undefined ? 'age' : 'passphrase',
    label,
    created,
    past: passphrase !== undefined || bundle.identities.length > 0,
  };
}

/** New archive keys, and the repository secrets, are wrapped for this recipient too. */
async function addToConfig(repository: Repository, bundle: Bundle, recipient: string): Promise<void> {
  const plain = encodeSecrets(bundle.secrets);
  const recipients = [...new Set([...repository.config.recipients, recipient])];
  const sealedSecrets = await wrapKey(recipients, plain);
  plain.fill(0);
  await repository.updateConfig(() => ({ recipients, sealedSecrets }));
}

/**
 * Removes a key object by id or a prefix of it. The last one stays, and the last one that surely owns the repository. Who copied the object (or the store) before can still
 * use the old passphrase on the copy: removal is no new key.
 */
export async function keyRemove(repository: Repository, id: string): Promise<KeyInfo> {
  ownerOf(repository);
  const { keys } = await keyList(repository);
  const matching = keys.filter((key) => id.length >= 4 && key.id.startsWith(id.toLowerCase()));
  if (matching.length === 0) {
    throw new RozenError('not-found', `no key ${id}`, {
      hint: '`rozen key list` shows the ids; give at least four characters',
    });
  }
  if (matching.length > 1)
    throw new RozenError('usage', `${id} names ${matching.length} keys`, { hint: 'give more characters of the id' });
  if (keys.length === 1) {
    throw new RozenError('usage', 'this is the only key: without it nobody could read the repository', {
      hint: 'add another key first',
    });
  }
  const key = matching[0]!;
  const passphraseStays = keys.some(({ kind, id: other }) => kind === 'passphrase' && other !== key.id);
  // Whether an age key owns is sealed in it: only a passphrase, and the key that opened, are known to.
  if (repository.openedBy?.toString('hex') === key.id && !passphraseStays) {
    throw new RozenError('usage', 'this may be the last key that can change keys and enroll machines', {
      hint: 'add a passphrase or an --owner recipient first, and use that to remove this one',
    });
  }
  await repository.store.delete(keyName(Buffer.from(key.id, 'hex')));
  if (repository.lastKey?.toString('hex') === key.id) repository.forgetLastKey();
  return key;
}

/**
 * The repository's identity as an age identity file, with the fingerprint: for mounts without a passphrase, and as the copy that
 * lies in a safe. With `owner` also the root key and the secrets.
 */
export async function keyExport(repository: Repository, { owner = false }: { owner?: boolean } = {}): Promise<string> {
  const bundle = owner ? ownerOf(repository) : null;
  if (!(await repository.unlock())) throw noIdentity(repository.store.location);
  const { genesis, store, identities } = repository;
  if (identities!.length === 0 && bundle === null) throw noOwnIdentity();
  return formatIdentityFile({ genesis, location: store.location, identities: identities!, owner: bundle });
}

function ownerOf(repository: Repository): Bundle & { rootSecret: Buffer } {
  const { bundle } = repository;
  if (bundle === null || bundle.rootSecret === null) throw notOwner(repository.store.location);
  return { ...bundle, rootSecret: bundle.rootSecret };
}

function noOwnIdentity(): RozenError {
  return new RozenError(
    'unsupported',
    'this repository was made for recipients only and has no identity of its own to hand on',
    {
      hint: 'share the identity file of one of its recipients, or add an owner with --owner',
    },
  );
}
