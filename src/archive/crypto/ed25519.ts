import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as nodeSign,
  verify as nodeVerify,
} from 'node:crypto';
import { RozenError } from '../../errors.ts';
import { KEY_SIZE, SIGNATURE_SIZE } from '../format.ts';

/** DER around a raw key (RFC 8410): PKCS #8 for the 32-byte seed, SubjectPublicKeyInfo for the 32-byte point. */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

/** A new Ed25519 pair: the 32-byte seed and the 32-byte public key. */
export function generateSigningKey(): { secret: Buffer; public: Buffer } {
  const pair = generateKeyPairSync('ed25519');
  const pkcs8 = pair.privateKey.export({ format: 'der', type: 'pkcs8' });
  const spki = pair.publicKey.export({ format: 'der', type: 'spki' });
  const secret = Buffer.from(pkcs8.subarray(PKCS8_PREFIX.length));
  pkcs8.fill(0);
  return { secret, public: Buffer.from(spki.subarray(SPKI_PREFIX.length)) };
}

/** The public key of a 32-byte seed. */
export function publicKeyOf(secret: Uint8Array): Buffer {
  const spki = createPublicKey(privateKey(secret)).export({ format: 'der', type: 'spki' });
  return Buffer.from(spki.subarray(SPKI_PREFIX.length));
}

/** Ed25519 over `domain`, a zero byte and `message`: 64 bytes. `domain` names the kind of message and holds no zero byte. */
export function sign(secret: Uint8Array, domain: string, message: Uint8Array): Buffer {
  return nodeSign(null, withDomain(domain, message), privateKey(secret));
}

/** True if `signature` is the one that `sign` makes. A malformed key or signature is false, never a throw. */
export function verify(publicKey: Uint8Array, domain: string, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== KEY_SIZE || signature.length !== SIGNATURE_SIZE) return false;
  try {
    return nodeVerify(null, withDomain(domain, message), publicKeyObject(publicKey), signature);
  } catch {
    return false;
  }
}

/** The last key that was asked for: most signatures in a row are by one writer, and making the object takes as long as verifying. */
let lastKey: { bytes: Buffer; object: KeyObject } | null = null;

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  if (lastKey?.bytes.equals(publicKey)) return lastKey.object;
  const object = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: 'der', type: 'spki' });
  lastKey = { bytes: Buffer.from(publicKey), object };
  return object;
}

function privateKey(secret: Uint8Array) {
  if (secret.length !== KEY_SIZE)
    throw new RozenError('internal', `an Ed25519 seed has 32 bytes, not ${secret.length}`);
  const der = Buffer.concat([PKCS8_PREFIX, secret]);
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } finally {
    der.fill(0);
  }
}

function withDomain(domain: string, message: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${domain}\0`, 'utf8'), message]);
}
