import * as nodeCrypto from 'node:crypto';
import { type CborMap, field } from '../archive/cbor.ts';
import { openAead, randomNonce, sealAead } from '../archive/crypto/aead.ts';
import { deriveKey } from '../archive/crypto/blake3.ts';
import { RozenError } from '../errors.ts';
import { ARGON2, ARGON2_BOUNDS, CONTEXT, HASH_SIZE, KEY_SIZE, NONCE_SIZE } from './format.ts';

export interface KdfParameters {
  memoryKiB: number;
  passes: number;
  lanes: number;
  salt: Buffer;
}

/** What a passphrase protects: everything that opening needs, but the passphrase. */
export interface PassphraseSealed {
  kdf: KdfParameters;
  /** XChaCha20-Poly1305 does not commit to its key; this does, and it tells a wrong passphrase from a damaged object. */
  commitment: Buffer;
  nonce: Buffer;
  sealed: Buffer;
}

/** Seals `plain` under a passphrase; `aad` binds the clear members of the object around it. */
export async function sealWithPassphrase(
  passphrase: string,
  plain: Buffer,
  aad: Uint8Array,
): Promise<PassphraseSealed> {
  if (passphrase === '') throw new RozenError('usage', 'the passphrase is empty');
  const kdf = { ...ARGON2, salt: nodeCrypto.randomBytes(32) };
  const { seal, commitment } = await stretch(passphrase, kdf);
  const nonce = randomNonce();
  const sealed = sealAead(seal, nonce, aad, [plain]);
  seal.fill(0);
  return { kdf, commitment, nonce, sealed };
}

/** The plaintext; null when the passphrase is another one. 'corrupt' when it is the right one and the bytes are damaged. */
export async function openWithPassphrase(
  passphrase: string,
  box: PassphraseSealed,
  aad: Uint8Array,
): Promise<Buffer | null> {
  checkKdf(box.kdf);
  const { seal, commitment } = await stretch(passphrase, box.kdf);
  try {
    if (!nodeCrypto.timingSafeEqual(commitment, box.commitment)) return null;
    return openAead(seal, box.nonce, aad, box.sealed);
  } finally {
    seal.fill(0);
  }
}

export function encodePassphraseSealed(box: PassphraseSealed): CborMap {
  const { memoryKiB, passes, lanes, salt } = box.kdf;
  return {
    kdf: { name: 'argon2id', memoryKiB, passes, lanes, salt },
    commitment: box.commitment,
    nonce: box.nonce,
    sealed: box.sealed,
  };
}

export function decodePassphraseSealed(map: CborMap): PassphraseSealed {
  const kdf = field.map(map, 'kdf');
  const name = field.text(kdf, 'name', 64);
  if (name !== 'argon2id') {
    throw new RozenError('unsupported', `passphrase hash ${JSON.stringify(name)} is unknown to this version of Rozen`, {
      hint: 'update Rozen',
    });
  }
  const parameters: KdfParameters = {
    memoryKiB: field.uint(kdf, 'memoryKiB', 0xffff_ffff),
    passes: field.uint(kdf, 'passes', 0xffff_ffff),
    lanes: field.uint(kdf, 'lanes', 0xffff_ffff),
    salt: field.bytes(kdf, 'salt', undefined, ARGON2_BOUNDS.salt.max),
  };
  checkKdf(parameters);
  return {
    kdf: parameters,
    commitment: field.bytes(map, 'commitment', HASH_SIZE),
    nonce: field.bytes(map, 'nonce', NONCE_SIZE),
    sealed: field.bytes(map, 'sealed'),
  };
}

/** Throws 'untrusted' outside the bounds: nothing that the store says may weaken the hash or exhaust this machine. */
function checkKdf({ memoryKiB, passes, lanes, salt }: KdfParameters): void {
  const bounds = ARGON2_BOUNDS;
  const isInside = (value: number, { min, max }: { min: number; max: number }) => value >= min && value <= max;
  if (
    !isInside(memoryKiB, bounds.memoryKiB) ||
    !isInside(passes, bounds.passes) ||
    !isInside(lanes, bounds.lanes) ||
    !isInside(salt.length, bounds.salt) ||
    memoryKiB * passes > bounds.maxWork ||
    memoryKiB < 8 * lanes
  ) {
    throw new RozenError(
      'untrusted',
      `argon2id with ${memoryKiB} KiB, ${passes} passes and ${lanes} lanes is outside the allowed bounds`,
      {
        hint: 'the key object was tampered with or damaged; restore it from a copy of the repository',
      },
    );
  }
}

async function stretch(passphrase: string, kdf: KdfParameters): Promise<{ seal: Buffer; commitment: Buffer }> {
  // NFC: the same passphrase typed on another system must give the same bytes.
  const secret = Buffer.from(passphrase.normalize('NFC'), 'utf8');
  const stretched = await argon2id(secret, kdf);
  secret.fill(0);
  const seal = deriveKey(CONTEXT.passphraseSeal, stretched);
  const commitment = deriveKey(CONTEXT.passphraseCommitment, stretched);
  stretched.fill(0);
  return { seal, commitment };
}

type Argon2Sync = (algorithm: 'argon2id', parameters: Record<string, unknown>) => Buffer;

/** argon2id, version 0x13, 32 bytes: by Node where it has it (24.7 and later), else by @noble/hashes. */
export async function argon2id(secret: Uint8Array, kdf: KdfParameters): Promise<Buffer> {
  const native = (nodeCrypto as unknown as { argon2Sync?: Argon2Sync }).argon2Sync;
  if (native !== undefined) {
    const { memoryKiB, passes, lanes, salt } = kdf;
    return native('argon2id', {
      message: secret,
      nonce: salt,
      memory: memoryKiB,
      passes,
      parallelism: lanes,
      tagLength: KEY_SIZE,
    });
  }
  return nobleArgon2id(secret, kdf);
}

/** Synchronous inside: the asynchronous variant takes 10 % longer and nothing else waits for this thread. */
export async function nobleArgon2id(secret: Uint8Array, kdf: KdfParameters): Promise<Buffer> {
  const noble = await import('@noble/hashes/argon2.js');
  const { memoryKiB, passes, lanes, salt } = kdf;
  return Buffer.from(
    noble.argon2id(secret, salt, {
      m: memoryKiB,
      t: passes,
      p: lanes,
      dkLen: KEY_SIZE,
      version: 0x13,
      maxmem: 2 ** 32 - 1,
    }),
  );
}
