/**
 * XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): the HChaCha20 subkey by @noble/ciphers (0.4 µs), the bulk by
 * node:crypto's ChaCha20-Poly1305 (2-3 GB/s against 0.18 GB/s in JavaScript; about 5 µs a call).
 */
import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import { hchacha } from '@noble/ciphers/chacha.js';
import { corrupt, RozenError } from '../../errors.ts';
import { KEY_SIZE, NONCE_SIZE, TAG_SIZE } from '../format.ts';

const ALGORITHM = 'chacha20-poly1305';
const OPTIONS = { authTagLength: TAG_SIZE } as const;
/** "expand 32-byte k", little-endian. */
const SIGMA = new Uint32Array([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);

const keyWords = new Uint32Array(8);
const nonceWords = new Uint32Array(4);
const subkeyWords = new Uint32Array(8);
const subkey = Buffer.alloc(KEY_SIZE);
const shortNonce = Buffer.alloc(12);

/** Fills `subkey` and `shortNonce`. One thread, synchronous use: they are taken before anything else can run. */
function deriveSubkey(key: Uint8Array, nonce: Uint8Array): void {
  if (key.length !== KEY_SIZE || nonce.length !== NONCE_SIZE) {
    throw new RozenError(
      'internal',
      `XChaCha20 wants a key of 32 and a nonce of 24 bytes, not ${key.length} and ${nonce.length}`,
    );
  }
  for (let i = 0; i < 8; i++) keyWords[i] = word(key, i * 4);
  for (let i = 0; i < 4; i++) nonceWords[i] = word(nonce, i * 4);
  hchacha(SIGMA, keyWords, nonceWords, subkeyWords);
  for (let i = 0; i < 8; i++) subkey.writeUInt32LE(subkeyWords[i]!, i * 4);
  shortNonce.set(nonce.subarray(16), 4);
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function wipe(): void {
  subkey.fill(0);
  keyWords.fill(0);
  subkeyWords.fill(0);
}

const noncePool = Buffer.alloc(NONCE_SIZE * 64);
let nonceNext = noncePool.length;

/** A fresh random nonce of 24 bytes, its own copy. */
export function randomNonce(): Buffer {
  if (nonceNext === noncePool.length) {
    randomFillSync(noncePool);
    nonceNext = 0;
  }
  const nonce = Buffer.from(noncePool.subarray(nonceNext, nonceNext + NONCE_SIZE));
  nonceNext += NONCE_SIZE;
  return nonce;
}

/** Seals the parts, joined, under a 32-byte key and a 24-byte nonce: ciphertext and its 16-byte tag. */
export function sealAead(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, parts: Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const sealed = Buffer.allocUnsafe(length + TAG_SIZE);
  let at = 0;
  deriveSubkey(key, nonce);
  const cipher = createCipheriv(ALGORITHM, subkey, shortNonce, OPTIONS);
  wipe();
  cipher.setAAD(aad, { plaintextLength: length });
  for (const part of parts) {
    if (part.length > 0) at += cipher.update(part).copy(sealed, at);
  }
  cipher.final();
  sealed.set(cipher.getAuthTag(), at);
  return sealed;
}

/** As `sealAead` for one part, written to `target` (which must hold its length and 16 bytes more). */
export function sealAeadInto(options: {
  key: Uint8Array;
  nonce: Uint8Array;
  aad: Uint8Array;
  plain: Uint8Array;
  target: Uint8Array;
}): void {
  const { plain, target } = options;
  deriveSubkey(options.key, options.nonce);
  const cipher = createCipheriv(ALGORITHM, subkey, shortNonce, OPTIONS);
  wipe();
  cipher.setAAD(options.aad, { plaintextLength: plain.length });
  target.set(cipher.update(plain), 0);
  cipher.final();
  target.set(cipher.getAuthTag(), plain.length);
}

/** Opens what `sealAead` made. Fails with 'corrupt' if key, nonce, aad or any byte is not the one that was sealed. */
export function openAead(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Buffer {
  const length = sealed.length - TAG_SIZE;
  if (length < 0) throw corrupt(`sealed bytes shorter than their tag (${sealed.length})`);
  deriveSubkey(key, nonce);
  const decipher = createDecipheriv(ALGORITHM, subkey, shortNonce, OPTIONS);
  wipe();
  decipher.setAAD(aad, { plaintextLength: length });
  decipher.setAuthTag(sealed.subarray(length));
  const plain = decipher.update(sealed.subarray(0, length));
  try {
    decipher.final();
  } catch {
    throw corrupt('authentication failed');
  }
  return plain;
}
