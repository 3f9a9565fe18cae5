import { corrupt } from '../../errors.ts';

/** Copies stored bytes to `target`; their length must be the plaintext's. */
export function decompressNone(bytes: Uint8Array, target: Uint8Array): void {
  if (bytes.length !== target.length)
    throw corrupt(`stored as is, but ${bytes.length} bytes instead of ${target.length}`);
  target.set(bytes);
}
