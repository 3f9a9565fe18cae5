import { blake3 } from '../../archive/crypto/blake3.ts';
import type { KeyOpener } from '../../cache/archives.ts';

/** Archive keys, each unwrapped once: verify opens an archive through its hot index, through itself and for its pages. */
export class KeptKeys implements KeyOpener {
  readonly #keys: KeyOpener;
  readonly #kept = new Map<string, Promise<Buffer>>();

  constructor(keys: KeyOpener) {
    this.#keys = keys;
  }

  /** A copy, which the caller wipes. */
  async unwrap(envelope: Uint8Array): Promise<Buffer> {
    const id = blake3(envelope).toString('hex');
    let key = this.#kept.get(id);
    if (key === undefined) {
      key = this.#keys.unwrap(envelope);
      this.#kept.set(id, key);
      key.catch(() => this.#kept.delete(id));
    }
    return Buffer.from(await key);
  }

  close(): void {
    for (const key of this.#kept.values()) {
      key.then(
        (bytes) => bytes.fill(0),
        () => {},
      );
    }
    this.#kept.clear();
  }
}
