import { createRequire } from 'node:module';
import { HASH_SIZE, KEY_SIZE } from '../format.ts';

// A CommonJS package whose ESM named exports Node cannot detect.
const native = createRequire(import.meta.url)('@napi-rs/blake-hash') as typeof import('@napi-rs/blake-hash');

/**
 * What was hashed, in memory of its own. The package's own Buffers are given back by the event loop, to which a reader of a mount never
 * returns: each would stay for ever (300 bytes; a mount grew by 1.2 KB with each look-up whose pages were not in memory).
 */
function digestOf(hasher: InstanceType<typeof native.Blake3Hasher>): Buffer {
  const hash = Buffer.allocUnsafeSlow(HASH_SIZE);
  hash.write(hasher.digest('hex'), 'hex');
  return hash;
}

// Making a native hasher costs 10 µs, resetting one 1 µs.
const plainHasher = new native.Blake3Hasher();

/** BLAKE3-256 of `data`: 32 bytes. */
export function blake3(data: Uint8Array): Buffer {
  plainHasher.reset();
  return digestOf(plainHasher.update(data));
}

// The last keyed hasher is kept (one key is used for a whole run).
let keyedHasher: InstanceType<typeof native.Blake3Hasher> | null = null;
const keyedBy = Buffer.alloc(KEY_SIZE);

/** BLAKE3-256 in keyed mode; `key` is 32 bytes. */
export function keyedBlake3(key: Uint8Array, data: Uint8Array): Buffer {
  if (keyedHasher === null || Buffer.compare(keyedBy, key) !== 0) {
    keyedHasher = native.Blake3Hasher.newKeyed(asBuffer(key));
    keyedBy.set(key);
  } else {
    keyedHasher.reset();
  }
  return digestOf(keyedHasher.update(data));
}

/** BLAKE3 in derive_key mode: 32 bytes out of `material`, bound to the fixed string `context`. */
export function deriveKey(context: string, material: Uint8Array): Buffer {
  return native.Blake3Hasher.deriveKey(context, material);
}

/** BLAKE3-256 of bytes that come in pieces, plain or keyed. */
export class Blake3Stream {
  readonly #hasher: InstanceType<typeof native.Blake3Hasher>;

  constructor(hasher = new native.Blake3Hasher()) {
    this.#hasher = hasher;
  }

  static keyed(key: Uint8Array): Blake3Stream {
    return new Blake3Stream(native.Blake3Hasher.newKeyed(asBuffer(key)));
  }

  update(bytes: Uint8Array): this {
    this.#hasher.update(bytes);
    return this;
  }

  /** Back to the first state, with the same key: cheaper than a new stream. */
  reset(): this {
    this.#hasher.reset();
    return this;
  }

  digest(): Buffer {
    return digestOf(this.#hasher);
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
