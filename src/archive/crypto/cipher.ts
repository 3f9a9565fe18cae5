/**
 * ChaCha20-Poly1305 (RFC 8439) from memory to memory. node:crypto gives each result in memory of its own, which costs as much as the
 * deciphering itself: a block of 256 KiB takes 145 µs with it, 78 µs with the same library called directly. Node's program shows
 * the symbols of its OpenSSL to add-ons; where one does not, node:crypto does the work.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { createRequire } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import { RozenError } from '../../errors.ts';
import { TAG_SIZE } from '../format.ts';

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
}

const ALGORITHM = 'chacha20-poly1305';
const OPTIONS = { authTagLength: TAG_SIZE } as const;

/** By node:crypto. */
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
};

type Call = (...args: unknown[]) => number;

/** openssl/evp.h: EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG. */
const GET_TAG = 0x10;
const SET_TAG = 0x11;

/** By the OpenSSL in this process; null when it cannot be called. One context for each direction and thread. */
export function opensslCipher(): Cipher | null {
  let calls: Record<'encrypt' | 'decrypt', Record<'init' | 'update' | 'final', Call>>;
  let control: Call;
  let contexts: { encrypt: unknown; decrypt: unknown };
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
    contexts = { encrypt: create(), decrypt: create() };
    for (const name of ['encrypt', 'decrypt'] as const)
      if (calls[name].init(contexts[name], algorithm, null, null, null) !== 1) return null;
  } catch {
    return null;
  }
  const { encrypt, decrypt } = calls;
  const written = new Int32Array(1);
  const nothing = Buffer.alloc(TAG_SIZE);
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
