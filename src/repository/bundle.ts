import { asMap, type CborMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { unwrapKey, wrapKey } from '../archive/crypto/age.ts';
import { corrupt, RozenError } from '../errors.ts';
import { HASH_SIZE, ID_SIZE, KEY_SIZE, TYPE } from './format.ts';
import type { Genesis } from './genesis.ts';
import {
  decodePassphraseSealed,
  encodePassphraseSealed,
  openWithPassphrase,
  type PassphraseSealed,
  sealWithPassphrase,
} from './passphrase.ts';
import { type Secrets, secretsFromMap, secretsToMap } from './secrets.ts';
import { decodeSigned, encodeSigned, isSignedBy, named } from './signed.ts';

/** What a key object protects. Who has an owner's bundle has everything. */
export interface Bundle {
  /** Hash of the genesis this bundle was made for: the pin of those who come with nothing but a passphrase. */
  genesisHash: Buffer;
  /** Ed25519 seed of the root key; null in a reader's bundle. */
  rootSecret: Buffer | null;
  secrets: Secrets;
  /** age identities of the repository itself; empty when it was born for recipients only. */
  identities: string[];
}

/** `keys/<id>.cbor`. Only random and sealed bytes are in the clear, no name and no label. */
export interface KeyObject {
  id: Buffer;
  kind: 'passphrase' | 'age';
  /** Seconds since 1970. */
  created: number;
  sealedLabel: Buffer;
  box: PassphraseSealed | { envelope: Buffer };
}

export interface KeyObjectDraft {
  id: Buffer;
  repositoryId: Buffer;
  created: number;
  sealedLabel: Buffer;
  /** Signs the object: nobody but an owner can make others use secrets of his choice. */
  rootSecret: Buffer;
}

export async function encodePassphraseKey(draft: KeyObjectDraft, bundle: Bundle, passphrase: string): Promise<Buffer> {
  const plain = encodeBundle(bundle);
  const box = await sealWithPassphrase(passphrase, plain, boundTo(draft.repositoryId, draft.id));
  plain.fill(0);
  return encodeKeyObject(draft, { kind: 'passphrase', ...encodePassphraseSealed(box) });
}

export async function encodeAgeKey(draft: KeyObjectDraft, bundle: Bundle, recipients: string[]): Promise<Buffer> {
  const plain = encodeBundle(bundle);
  const envelope = await wrapKey(recipients, plain);
  plain.fill(0);
  return encodeKeyObject(draft, { kind: 'age', envelope });
}

export function encodeKeyObject(draft: KeyObjectDraft, members: CborMap): Buffer {
  const { id, repositoryId, created, sealedLabel, rootSecret } = draft;
  const body = encodeCbor({ repository: repositoryId, id, created, label: sealedLabel, ...members });
  return encodeSigned({ type: TYPE.key, repositoryId, body, secret: rootSecret });
}

/** Decodes a key object after its signature by the root key was checked ('untrusted' otherwise). */
export function decodeKeyObject(bytes: Buffer, expected: { genesis: Genesis; id: Buffer; what: string }): KeyObject {
  const { genesis, id, what } = expected;
  const { repositoryId, rootKey } = genesis;
  const { body, signature } = decodeSigned(bytes, TYPE.key, what);
  if (!isSignedBy(rootKey, TYPE.key, { repositoryId, body, signature })) {
    throw new RozenError('untrusted', `${what} is not signed by this repository's root key`, {
      hint: 'somebody has planted or exchanged a key; restore the object from a copy of the repository, or remove it',
    });
  }
  return named(what, () => {
    const map = asMap(decodeCbor(body, { what: 'body', maxDepth: 4 }), 'body');
    if (!field.bytes(map, 'repository', ID_SIZE).equals(repositoryId)) throw corrupt('belongs to another repository');
    if (!field.bytes(map, 'id', ID_SIZE).equals(id)) throw corrupt('lies under the name of another key object');
    const kind = field.text(map, 'kind', 32);
    if (kind !== 'passphrase' && kind !== 'age') {
      throw new RozenError(
        'unsupported',
        `${what}: key kind ${JSON.stringify(kind)} is unknown to this version of Rozen`,
        {
          hint: 'update Rozen',
        },
      );
    }
    return {
      id,
      kind,
      created: field.uint(map, 'created'),
      sealedLabel: field.bytes(map, 'label', undefined, 1024),
      box: kind === 'passphrase' ? decodePassphraseSealed(map) : { envelope: field.bytes(map, 'envelope') },
    };
  });
}

/** The bundle behind a passphrase; null when it is not this object's. */
export async function openPassphraseKey(
  key: KeyObject,
  passphrase: string,
  expected: { repositoryId: Buffer; genesisHash: Buffer },
): Promise<Bundle | null> {
  if (!('kdf' in key.box)) return null;
  const plain = await openWithPassphrase(passphrase, key.box, boundTo(expected.repositoryId, key.id));
  return plain === null ? null : decodeBundle(plain, expected.genesisHash);
}

/** The bundle behind an age identity; null when none of these opens it. */
export async function openAgeKey(
  key: KeyObject,
  identities: string[],
  expected: { genesisHash: Buffer },
): Promise<Bundle | null> {
  if (!('envelope' in key.box)) return null;
  try {
    return decodeBundle(await unwrapKey(identities, key.box.envelope), expected.genesisHash);
  } catch (error) {
    if (error instanceof RozenError && error.code === 'no-key') return null;
    throw error;
  }
}

function boundTo(repositoryId: Buffer, id: Buffer): Buffer {
  return Buffer.concat([Buffer.from('rozen 1 key\0'), repositoryId, id]);
}

export function encodeBundle(bundle: Bundle): Buffer {
  return encodeCbor({
    genesis: bundle.genesisHash,
    root: bundle.rootSecret,
    secrets: secretsToMap(bundle.secrets),
    identities: bundle.identities,
  });
}

/** Decodes (and wipes) the plaintext. A bundle made for another genesis is the sign of a swapped one. */
export function decodeBundle(plain: Buffer, genesisHash: Buffer): Bundle {
  try {
    const map = asMap(decodeCbor(plain, { what: 'key bundle', maxDepth: 4 }), 'key bundle');
    if (!field.bytes(map, 'genesis', HASH_SIZE).equals(genesisHash))
      throw swappedGenesis('the key opens, but was made for another genesis');
    return {
      genesisHash,
      rootSecret: map.root === null ? null : field.bytes(map, 'root', KEY_SIZE),
      secrets: secretsFromMap(field.map(map, 'secrets')),
      identities: field.texts(map, 'identities', 64),
    };
  } finally {
    plain.fill(0);
  }
}

export function swappedGenesis(why: string, hint?: string): RozenError {
  return new RozenError('untrusted', `this is not the repository it was: ${why} (rozen.cbor was swapped)`, {
    hint: hint ?? 'compare the fingerprint with the one that `rozen init` printed, and restore rozen.cbor from a copy',
  });
}
