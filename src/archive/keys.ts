import { timingSafeEqual } from 'node:crypto';
import { corrupt, RozenError } from '../errors.ts';
import { deriveKey } from './crypto/blake3.ts';
import { CONTEXT, KEY_SIZE } from './format.ts';

export interface ArchiveKeys {
  /** Seals DATA, PAGE, ROOT and BIDX frames. */
  block: Buffer;
  /** Seals the body of the snapshot record that names this (tree) archive. */
  record: Buffer;
}

/** The commitment that stands in AHDR: nobody can find a second key that gives it. */
export function keyCommitment(key: Uint8Array): Buffer {
  return deriveKey(CONTEXT.commitment, key);
}

/** The working keys of an archive, from its 32-byte key. With `commitment`, a key that does not give it is refused as 'corrupt'. */
export function deriveArchiveKeys(key: Uint8Array, commitment?: Uint8Array): ArchiveKeys {
  if (key.length !== KEY_SIZE) throw corrupt(`an archive key has ${KEY_SIZE} bytes, not ${key.length}`);
  if (commitment !== undefined) {
    const own = keyCommitment(key);
    if (commitment.length !== own.length || !timingSafeEqual(own, commitment)) {
      throw corrupt('the key in the envelope is not the one the archive header commits to');
    }
  }
  return { block: deriveKey(CONTEXT.blockKey, key), record: deriveKey(CONTEXT.recordKey, key) };
}

/** The key that seals the chunk table (CIDX) of one archive, from the repository's 32-byte index key. */
export function chunkIndexKey(indexKey: Uint8Array, archiveId: Uint8Array): Buffer {
  if (indexKey.length !== KEY_SIZE) throw new RozenError('internal', 'an index key has 32 bytes');
  return deriveKey(CONTEXT.chunkIndexKey, Buffer.concat([indexKey, archiveId]));
}
