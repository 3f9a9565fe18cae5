/**
 * age (age-encryption.org/v1) around one short secret. X25519 goes by node:crypto (age-x25519.ts); the package takes 100 ms to
 * load (post-quantum tables), so it is loaded at the first use that needs it: hybrid recipients, and whatever is unusual.
 */
import { RozenError } from '../../errors.ts';
import { newX25519Identity, unwrapX25519, wrapX25519, x25519RecipientOf } from './age-x25519.ts';

/** Not only archive keys are wrapped: a sealed bundle of repository secrets holds more. */
const MAX_AGE_FILE = 1024 * 1024;

export type RecipientKind = 'x25519' | 'hybrid';

function load(): Promise<typeof import('age-encryption')> {
  return import('age-encryption');
}

/** A new age identity: AGE-SECRET-KEY-1… (X25519) or AGE-SECRET-KEY-PQ-1… (X25519 with ML-KEM-768). */
export async function generateIdentity(kind: RecipientKind): Promise<string> {
  return kind === 'hybrid' ? (await load()).generateHybridIdentity() : newX25519Identity();
}

/** The recipient (public key) of an identity. */
export async function recipientOf(identity: string): Promise<string> {
  const simple = x25519RecipientOf(identity);
  if (simple !== null) return simple;
  const age = await load();
  try {
    return await age.identityToRecipient(identity);
  } catch {
    // The package's own error is dropped: it may repeat the secret.
    throw new RozenError('usage', 'this is not an age identity', { hint: 'an identity begins with AGE-SECRET-KEY-' });
  }
}

/** What kind of recipient this is, by its prefix. */
export function recipientKind(recipient: string): RecipientKind {
  if (/^age1pq1[02-9ac-hj-np-z]+$/.test(recipient)) return 'hybrid';
  if (/^age1[02-9ac-hj-np-z]+$/.test(recipient) && !recipient.startsWith('age1tag')) return 'x25519';
  throw new RozenError('usage', `not an age recipient: ${JSON.stringify(recipient.slice(0, 80))}`, {
    hint: 'a recipient begins with age1 or age1pq1',
  });
}

/** Wraps `secret` for every recipient: a binary age file. X25519 and hybrid recipients are not mixed: the weaker would decide. */
export async function wrapKey(recipients: string[], secret: Uint8Array): Promise<Buffer> {
  if (recipients.length === 0) throw new RozenError('usage', 'no recipient to wrap a key for');
  const kinds = new Set(recipients.map(recipientKind));
  if (kinds.size > 1) {
    throw new RozenError('usage', 'X25519 and post-quantum recipients cannot be mixed', {
      hint: 'use only age1pq1… or only age1… recipients',
    });
  }
  const simple = kinds.has('x25519') ? wrapX25519(recipients, secret) : null;
  if (simple !== null) return simple;
  const age = await load();
  const encrypter = new age.Encrypter();
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient);
    } catch (cause) {
      throw new RozenError('usage', `not a valid age recipient: ${recipient.slice(0, 80)}`, { cause });
    }
  }
  return Buffer.from(await encrypter.encrypt(secret));
}

/** Opens an envelope with the first identity that fits. 'no-key' if none does or the envelope is damaged. */
export async function unwrapKey(identities: string[], envelope: Uint8Array): Promise<Buffer> {
  if (identities.length === 0) throw new RozenError('no-key', 'no identity is at hand to open this');
  if (envelope.length > MAX_AGE_FILE) throw new RozenError('corrupt', `key envelope of ${envelope.length} bytes`);
  const simple = unwrapX25519(identities, envelope);
  if (simple === 'refused') throw noKey();
  if (simple !== 'unknown') return simple.secret;
  const age = await load();
  const decrypter = new age.Decrypter();
  for (const identity of identities) {
    try {
      decrypter.addIdentity(identity);
    } catch {
      throw new RozenError('usage', 'this is not an age identity', { hint: 'an identity begins with AGE-SECRET-KEY-' });
    }
  }
  let opened: Uint8Array;
  try {
    opened = await decrypter.decrypt(envelope);
  } catch {
    throw noKey();
  }
  const secret = Buffer.from(opened);
  opened.fill(0);
  return secret;
}

function noKey(): RozenError {
  return new RozenError('no-key', 'none of the identities at hand opens this key envelope');
}
