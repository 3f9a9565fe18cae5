/**
 * ChaCha20-Poly1305 (RFC 8439) from memory to memory. node:crypto gives each result in memory of its own, which costs as much as the
 * deciphering itself: a block of 256 KiB takes 145 µs with it, 78 µs with the same library called directly. Node's program shows
 * the symbols of its OpenSSL to add-ons; where one does not, node:crypto does the work.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { createRequire } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import { hchacha } from '@noble/ciphers/chacha.js';
import { RozenError } from '../../errors.ts';
import { KEY_SIZE, TAG_SIZE } from '../format.ts';

/** A key of 32 bytes and a nonce of 12, used for one message. */
export interface MessageKey {
  key: Uint8Array;
  nonce: Uint8Array;
}

export interface Cipher {
  /** Writes the ciphertext of the parts, joined, and the tag to `target`, which holds them. */
  seal(key: MessageKey, aad: Uint8Array, parts: readonly Uint8Array[], target: Uint8Array): void;
  /**
   * Deciphers `sealed` (ciphertext and tag): its first bytes fill `head`, the rest goes to the front of what `rest` answers
   * to them. False when the tag does not fit: what was written is worth nothing then, and what `rest` saw was not yet proved.
   */
  open(key: MessageKey, aad: Uint8Array, sealed: Uint8Array, head: Uint8Array, rest: () => Uint8Array): boolean;
  /** HChaCha20 (draft-irtf-cfrg-xchacha-03 §2.2) of a key and 16 bytes, to the 32 bytes of `target`. */
  subkey(key: Uint8Array, input: Uint8Array, target: Uint8Array): void;
}

const ALGORITHM = 'chacha20-poly1305';
const OPTIONS = { authTagLength: TAG_SIZE } as const;

/** "expand 32-byte k", little-endian: what every state of ChaCha20 begins with. */
const SIGMA = new Uint32Array([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);

const words = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** By node:crypto, and HChaCha20 by @noble/ciphers. */
export const nodeCipher: Cipher = {
  seal({ key, nonce }, aad, parts, target) {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    const cipher = createCipheriv(ALGORITHM, key, nonce, OPTIONS);
    cipher.setAAD(aad, { plaintextLength: length });
    let at = 0;
    for (const part of parts) {
      if (part.length > 0) target.set(cipher.update(part), at);
      at += part.length;
    }
    cipher.final();
    target.set(cipher.getAuthTag(), at);
  },
  open({ key, nonce }, aad, sealed, head, rest) {
    const length = sealed.length - TAG_SIZE;
    const decipher = createDecipheriv(ALGORITHM, key, nonce, OPTIONS);
    decipher.setAAD(aad, { plaintextLength: length });
    decipher.setAuthTag(sealed.subarray(length));
    const plain = decipher.update(sealed.subarray(0, length));
    head.set(plain.subarray(0, head.length));
    room(rest(), length - head.length).set(plain.subarray(head.length));
    try {
      decipher.final();
      return true;
    } catch {
      return false;
    }
  },
  subkey(key, input, target) {
    const read = (bytes: Uint8Array, count: number): Uint32Array =>
      Uint32Array.from({ length: count }, (_, i) => words(bytes).getUint32(i * 4, true));
    const [from, made] = [read(key, 8), new Uint32Array(8)];
    hchacha(SIGMA, from, read(input, 4), made);
    const out = words(target);
    for (let i = 0; i < 8; i++) out.setUint32(i * 4, made[i]!, true);
    from.fill(0);
    made.fill(0);
  },
};

type Call = (...args: unknown[]) => number;

/** openssl/evp.h: EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG. */
const GET_TAG = 0x10;
const SET_TAG = 0x11;

/** By the OpenSSL in this process; null when it cannot be called. One context for each direction and thread. */
export function opensslCipher(): Cipher | null {
  let calls: Record<'encrypt' | 'decrypt', Record<'init' | 'update' | 'final', Call>>;
  let control: Call;
  let contexts: { encrypt: unknown; decrypt: unknown; subkey: unknown };
  try {
    const library = createRequire(import.meta.url)('koffi').load(null);
    const direction = (name: string): (typeof calls)['encrypt'] => ({
      init: library.func(`int EVP_${name}Init_ex(void *, void *, void *, const uint8_t *, const uint8_t *)`),
      update: library.func(`int EVP_${name}Update(void *, uint8_t *, int *, const uint8_t *, int)`),
      final: library.func(`int EVP_${name}Final_ex(void *, uint8_t *, int *)`),
    });
    calls = { encrypt: direction('Encrypt'), decrypt: direction('Decrypt') };
    control = library.func('int EVP_CIPHER_CTX_ctrl(void *, int, int, uint8_t *)');
    const create = library.func('void *EVP_CIPHER_CTX_new()');
    const algorithm = library.func('void *EVP_chacha20_poly1305()')();
    contexts = { encrypt: create(), decrypt: create(), subkey: create() };
    const stream = library.func('void *EVP_chacha20()')();
    if (calls.encrypt.init(contexts.subkey, stream, null, null, null) !== 1) return null;
    for (const name of ['encrypt', 'decrypt'] as const)
      if (calls[name].init(contexts[name], algorithm, null, null, null) !== 1) return null;
  } catch {
    return null;
  }
  const { encrypt, decrypt } = calls;
  const written = new Int32Array(1);
  const nothing = Buffer.alloc(TAG_SIZE);
  const zeros = Buffer.alloc(2 * KEY_SIZE);
  const keystream = Buffer.alloc(2 * KEY_SIZE);
  const keystreamWords = words(keystream);
  const tag = Buffer.alloc(TAG_SIZE);
  const done = (result: number): void => {
    if (result !== 1) throw new RozenError('internal', 'OpenSSL refuses ChaCha20-Poly1305');
  };
  /** `target`: null for what is authenticated only. */
  const update = (call: Call, context: unknown, from: Uint8Array, target: Uint8Array | null): void => {
    if (from.length > 0) done(call(context, target, written, from, from.length));
  };
  return {
    seal({ key, nonce }, aad, parts, target) {
      const context = contexts.encrypt;
      const length = parts.reduce((sum, part) => sum + part.length, 0);
      room(target, length + TAG_SIZE);
      done(encrypt.init(context, null, null, key, nonce));
      update(encrypt.update, context, aad, null);
      let at = 0;
      for (const part of parts) {
        update(encrypt.update, context, part, target.subarray(at));
        at += part.length;
      }
      done(encrypt.final(context, nothing, written));
      done(control(context, GET_TAG, TAG_SIZE, tag));
      target.set(tag, length);
    },
    open({ key, nonce }, aad, sealed, head, rest) {
      const context = contexts.decrypt;
      const length = sealed.length - TAG_SIZE;
      tag.set(sealed.subarray(length));
      done(decrypt.init(context, null, null, key, nonce));
      done(control(context, SET_TAG, TAG_SIZE, tag));
      update(decrypt.update, context, aad, null);
      update(decrypt.update, context, sealed.subarray(0, head.length), head);
      const target = room(rest(), length - head.length);
      update(decrypt.update, context, sealed.subarray(head.length, length), target);
      return decrypt.final(context, nothing, written) === 1;
    },
    /**
     * A block of ChaCha20 is the state after its rounds plus the state before them; HChaCha20 is the first and the last row after
     * the rounds. OpenSSL takes the last row of the state (counter and nonce) as its 16 bytes of IV. So no JavaScript has to be
     * compiled for it in each thread (25 ms of the processor for the first gigabyte of a mount).
     */
    subkey(key, input, target) {
      room(target, KEY_SIZE);
      done(encrypt.init(contexts.subkey, null, null, key, input));
      update(encrypt.update, contexts.subkey, zeros, keystream);
      const [row, out] = [words(input), words(target)];
      for (let i = 0; i < 4; i++) {
        out.setUint32(i * 4, keystreamWords.getUint32(i * 4, true) - SIGMA[i]!, true);
        out.setUint32(16 + i * 4, keystreamWords.getUint32(48 + i * 4, true) - row.getUint32(i * 4, true), true);
      }
      keystream.fill(0);
    },
  };
}

/** C does not look how much fits. */
function room(target: Uint8Array, length: number): Uint8Array {
  if (target.length < length)
    throw new RozenError('internal', `a target of ${target.length} bytes for ${length} from a cipher`);
  return target;
}

let chosen: Cipher | null = null;

export function cipher(): Cipher {
  chosen ??= opensslCipher() ?? nodeCipher;
  return chosen;
}

// A thread must not be ended while it loads native code (posix/thread.ts): what it may need it loads with its modules.
if (!isMainThread) cipher();
