import { randomBytes } from 'node:crypto';
import { asMap, type CborMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { openAead, randomNonce, sealAead } from '../archive/crypto/aead.ts';
import { deriveKey, keyedBlake3 } from '../archive/crypto/blake3.ts';
import { corrupt, RozenError } from '../errors.ts';
import { CONTEXT, KEY_SIZE, MAX_LABEL, NONCE_SIZE } from './format.ts';

/** Keys that every enrolled writer holds, 32 bytes each. They find and name content; they open none of it. */
export interface Secrets {
  /** Content ids are BLAKE3 keyed with it. */
  contentIdKey: Buffer;
  /** Seeds the gear table of the chunker. */
  chunkerKey: Buffer;
  /** Chunk tables are sealed under keys derived from it. */
  indexKey: Buffer;
  /** Lineage tags are BLAKE3 keyed with it; labels are sealed under a key derived from it. */
  setTagKey: Buffer;
}

export function generateSecrets(): Secrets {
  return {
    contentIdKey: randomBytes(KEY_SIZE),
    chunkerKey: randomBytes(KEY_SIZE),
    indexKey: randomBytes(KEY_SIZE),
    setTagKey: randomBytes(KEY_SIZE),
  };
}

export function secretsToMap(secrets: Secrets): CborMap {
  return {
    contentId: secrets.contentIdKey,
    chunker: secrets.chunkerKey,
    index: secrets.indexKey,
    setTag: secrets.setTagKey,
  };
}

export function secretsFromMap(map: CborMap): Secrets {
  return {
    contentIdKey: field.bytes(map, 'contentId', KEY_SIZE),
    chunkerKey: field.bytes(map, 'chunker', KEY_SIZE),
    indexKey: field.bytes(map, 'index', KEY_SIZE),
    setTagKey: field.bytes(map, 'setTag', KEY_SIZE),
  };
}

export function encodeSecrets(secrets: Secrets): Buffer {
  return encodeCbor(secretsToMap(secrets));
}

export function decodeSecrets(bytes: Uint8Array): Secrets {
  return secretsFromMap(asMap(decodeCbor(bytes, { what: 'repository secrets', maxDepth: 2 }), 'repository secrets'));
}

export function wipeSecrets(secrets: Secrets): void {
  for (const key of Object.values(secrets) as Buffer[]) key.fill(0);
}

/**
 * The tag of a lineage (set, writer), 32 hex characters: the first half of keyed BLAKE3 over name NUL writer id, and NUL
 * generation (decimal) when that is not 0. A writer that lost its state and cannot read the old rows begins the next generation.
 */
export function lineageTag(
  secrets: Secrets,
  lineage: { set: string; writerId: Uint8Array; generation?: number },
): string {
  const { set, writerId, generation = 0 } = lineage;
  const name = Buffer.from(set, 'utf8');
  if (name.length === 0 || name.length > 255 || name.includes(0)) {
    throw new RozenError('usage', `${JSON.stringify(set.slice(0, 80))} is no name for a set`, {
      hint: 'use 1 to 255 bytes without NUL',
    });
  }
  const parts = [name, Buffer.of(0), writerId];
  if (generation > 0) parts.push(Buffer.from(`\0${generation}`));
  return keyedBlake3(secrets.setTagKey, Buffer.concat(parts)).toString('hex', 0, 16);
}

/** Labels and machine names tell about people: sealed, bound to the id that they belong to. Nonce and ciphertext. */
export function sealLabel(secrets: Secrets, id: Uint8Array, label: string): Buffer {
  const plain = Buffer.from(label, 'utf8');
  if (plain.length > MAX_LABEL) throw new RozenError('usage', `a label has at most ${MAX_LABEL} bytes`);
  const nonce = randomNonce();
  return Buffer.concat([nonce, sealAead(deriveKey(CONTEXT.label, secrets.setTagKey), nonce, id, [plain])]);
}

export function openLabel(secrets: Secrets, id: Uint8Array, sealed: Buffer): string {
  if (sealed.length < NONCE_SIZE) throw corrupt('sealed label is too short');
  const key = deriveKey(CONTEXT.label, secrets.setTagKey);
  return openAead(key, sealed.subarray(0, NONCE_SIZE), id, sealed.subarray(NONCE_SIZE)).toString('utf8');
}

/** How often a machine may have lost its state before its lineages are not known any more. */
const GENERATIONS_TRIED = 4096;

/** Whether a record's tag is that of its own writer, for this set: nobody else can be given the lineage. */
export function isLineageOf(secrets: Secrets, record: { tag: string; writerId: Uint8Array }, set: string): boolean {
  const { tag, writerId } = record;
  for (let generation = 0; generation < GENERATIONS_TRIED; generation++)
    if (lineageTag(secrets, { set, writerId, generation }) === tag) return true;
  return false;
}
