import { asMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { blake3 } from '../archive/crypto/blake3.ts';
import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { FINGERPRINT_SIZE, ID_SIZE, KEY_SIZE, MAX_GENESIS, TYPE } from './format.ts';
import { GENESIS_NAME } from './names.ts';
import { decodeSigned, encodeSigned, isSignedBy, named } from './signed.ts';

/** `rozen.cbor`: the birth certificate, written once. Everything else is trusted because its root key says so. */
export interface Genesis {
  repositoryId: Buffer;
  /** Ed25519 public key that signs configs. */
  rootKey: Buffer;
  /** Seconds since 1970. */
  created: number;
  /** BLAKE3 of the object's exact bytes: what clients pin. */
  hash: Buffer;
  bytes: Buffer;
}

/** Stated so that a later format can change them one by one; this version knows exactly these. */
const ALGORITHMS = { hash: 'blake3', signature: 'ed25519', aead: 'xchacha20-poly1305', envelope: 'age' };

export function encodeGenesis(options: {
  repositoryId: Buffer;
  rootSecret: Buffer;
  rootKey: Buffer;
  created: number;
}): Buffer {
  const { repositoryId, rootSecret, rootKey, created } = options;
  const body = encodeCbor({ repository: repositoryId, rootKey, created, algorithms: ALGORITHMS, incompatible: 0 });
  return encodeSigned({ type: TYPE.genesis, repositoryId, body, secret: rootSecret });
}

export function decodeGenesis(bytes: Buffer, what: string): Genesis {
  const { body, signature } = decodeSigned(bytes, TYPE.genesis, what);
  return named(what, () => {
    const map = asMap(decodeCbor(body, { what: 'body', maxDepth: 4 }), 'body');
    const repositoryId = field.bytes(map, 'repository', ID_SIZE);
    const rootKey = field.bytes(map, 'rootKey', KEY_SIZE);
    const created = field.uint(map, 'created');
    // Self-signed: proves nothing about who made it (pins do), but no accident gets past it.
    if (!isSignedBy(rootKey, TYPE.genesis, { repositoryId, body, signature })) {
      throw new RozenError('corrupt', `${what}: its signature does not fit`, {
        hint: 'the object is damaged; every machine that used this repository has a copy in its state folder (genesis.cbor)',
      });
    }
    const incompatible = field.uint(map, 'incompatible', 0xffff_ffff);
    if (incompatible !== 0) throw unknownFeature(what, `feature bits ${incompatible.toString(2)}`);
    const algorithms = field.map(map, 'algorithms');
    for (const [role, name] of Object.entries(ALGORITHMS)) {
      const found = field.text(algorithms, role, 64);
      if (found !== name) throw unknownFeature(what, `${role} algorithm ${JSON.stringify(found)}`);
    }
    return { repositoryId, rootKey, created, hash: blake3(bytes), bytes };
  });
}

/** Reads and checks the genesis. 'not-repository' when there is none or the object is something else. */
export async function readGenesis(store: ObjectStore): Promise<Genesis> {
  const what = `${store.location}/${GENESIS_NAME}`;
  let bytes: Buffer;
  try {
    bytes = await store.get(GENESIS_NAME, MAX_GENESIS);
  } catch (error) {
    if (error instanceof RozenError && error.code === 'not-found') throw notRepository(store.location, error);
    throw error;
  }
  // Somebody's own file of that name: every genesis begins with the map key "rozen".
  if (!bytes.subarray(0, 16).includes('rozen')) throw notRepository(store.location, undefined);
  return decodeGenesis(bytes, what);
}

function notRepository(location: string, cause: unknown): RozenError {
  // The place itself may be missing: a folder, a bucket.
  const placeMissing = cause instanceof RozenError && !cause.message.includes(GENESIS_NAME);
  return new RozenError('not-repository', placeMissing ? cause.message : `${location} holds no Rozen repository`, {
    cause,
    hint:
      (placeMissing ? cause.hint : undefined) ??
      'check the path (is the disk mounted?), or make a new repository with `rozen init`',
  });
}

export function unknownFeature(what: string, feature: string): RozenError {
  return new RozenError('unsupported', `${what} needs ${feature}, which this version of Rozen does not know`, {
    hint: 'update Rozen',
  });
}

/** What people compare: the first half of the genesis hash, `xxxx-xxxx-…` (eight groups of four). */
export function fingerprintOf(genesisHash: Uint8Array): string {
  const hex = Buffer.from(genesisHash.subarray(0, FINGERPRINT_SIZE)).toString('hex');
  return hex.match(/.{4}/g)!.join('-');
}

/** Same fingerprint, whatever the case and the separators. */
export function isSameFingerprint(a: string, b: string): boolean {
  const plain = (text: string) => text.toLowerCase().replace(/[^0-9a-f]/g, '');
  return plain(a).length === FINGERPRINT_SIZE * 2 && plain(a) === plain(b);
}
