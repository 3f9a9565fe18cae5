/**
 * The common case of age (C2SP age.md, version 1) by node:crypto alone: X25519 recipients and a payload of one STREAM chunk.
 * Loading the age package takes 100 ms and opening an envelope with it 5 ms; here it is 0 and 0.4 ms, which decides how fast a
 * mount comes up. Everything else is left to the package, and tests hold each against the other.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';

const PKCS8_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const SPKI_PREFIX = Buffer.from('302a300506032b656e032100', 'hex');
const VERSION_LINE = 'age-encryption.org/v1';
const LABEL = 'age-encryption.org/v1/X25519';
const FILE_KEY_SIZE = 16;
const TAG_SIZE = 16;
const CHUNK_SIZE = 64 * 1024;
const PAYLOAD_NONCE_SIZE = 16;
const BODY_LINE = 64;
/** STREAM nonce of a first chunk that is also the last: eleven zero bytes and the flag. */
const ONLY_CHUNK_NONCE = Buffer.from('000000000000000000000001', 'hex');
const ZERO_NONCE = Buffer.alloc(12);

/* ---- Bech32 (BIP 173) ------------------------------------------------------------------------------------------- */

const CHARSET = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];

function polymod(values: number[]): number {
  let checksum = 1;
  for (const value of values) {
    const top = checksum >>> 25;
    checksum = ((checksum & 0x1ffffff) << 5) ^ value;
    for (let i = 0; i < 5; i++) if ((top >>> i) & 1) checksum ^= GENERATOR[i]!;
  }
  return checksum;
}

function expandPrefix(prefix: string): number[] {
  const codes = [...prefix].map((letter) => letter.charCodeAt(0));
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)];
}

/** The 32 bytes behind a lower-case Bech32 string with this prefix, or null. */
function decodeKey(text: string, prefix: string): Buffer | null {
  if (!text.startsWith(`${prefix}1`)) return null;
  const values = [...text.slice(prefix.length + 1)].map((letter) => CHARSET.indexOf(letter));
  if (values.includes(-1) || polymod([...expandPrefix(prefix), ...values]) !== 1) return null;
  const bytes: number[] = [];
  let buffer = 0;
  let bits = 0;
  for (const value of values.slice(0, -6)) {
    buffer = ((buffer << 5) | value) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((buffer >> bits) & 0xff);
    }
  }
  if (bytes.length !== 32 || bits >= 5 || (buffer & ((1 << bits) - 1)) !== 0) return null;
  return Buffer.from(bytes);
}

function encodeKey(bytes: Uint8Array, prefix: string): string {
  const values: number[] = [];
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = ((buffer << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      values.push((buffer >> bits) & 31);
    }
  }
  if (bits > 0) values.push((buffer << (5 - bits)) & 31);
  const checksum = polymod([...expandPrefix(prefix), ...values, 0, 0, 0, 0, 0, 0]) ^ 1;
  for (let i = 0; i < 6; i++) values.push((checksum >>> (5 * (5 - i))) & 31);
  return `${prefix}1${values.map((value) => CHARSET[value]).join('')}`;
}

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

function privateKeyOf(identity: string): KeyObject | null {
  if (!identity.startsWith('AGE-SECRET-KEY-1') || identity !== identity.toUpperCase()) return null;
  const secret = decodeKey(identity.toLowerCase(), 'age-secret-key-');
  if (secret === null) return null;
  const der = Buffer.concat([PKCS8_PREFIX, secret]);
  secret.fill(0);
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } finally {
    der.fill(0);
  }
}

function publicKeyOf(raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, raw]), format: 'der', type: 'spki' });
}

function rawPublic(key: KeyObject): Buffer {
  const spki = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'der', type: 'spki' });
  return Buffer.from(spki.subarray(SPKI_PREFIX.length));
}

function hkdf(secret: Uint8Array, salt: Uint8Array, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, salt, info, 32));
}

/** A new AGE-SECRET-KEY-1… identity. */
export function newX25519Identity(): string {
  const pkcs8 = generateKeyPairSync('x25519').privateKey.export({ format: 'der', type: 'pkcs8' });
  const identity = encodeKey(pkcs8.subarray(PKCS8_PREFIX.length), 'age-secret-key-').toUpperCase();
  pkcs8.fill(0);
  return identity;
}

/** The age1… recipient of an AGE-SECRET-KEY-1… identity; null if it is something else. */
export function x25519RecipientOf(identity: string): string | null {
  const key = privateKeyOf(identity);
  return key === null ? null : encodeKey(rawPublic(key), 'age');
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

function encrypt(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array): Buffer {
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_SIZE });
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** The plaintext, or null if the tag does not fit. */
function decrypt(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array): Buffer | null {
  const decipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_SIZE });
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_SIZE));
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_SIZE));
  try {
    decipher.final();
    return plain;
  } catch {
    return null;
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replace(/=+$/, '');
}

/** Strict: only what `base64` would have written, of exactly `length` bytes. */
function fromBase64(text: string, length: number): Buffer | null {
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === length && base64(bytes) === text ? bytes : null;
}

/** An age file around `secret` (at most 64 KiB); null if a recipient is not a valid X25519 one. */
export function wrapX25519(recipients: string[], secret: Uint8Array): Buffer | null {
  if (secret.length > CHUNK_SIZE) return null;
  const fileKey = randomBytes(FILE_KEY_SIZE);
  let header = `${VERSION_LINE}\n`;
  for (const recipient of recipients) {
    const raw = decodeKey(recipient, 'age');
    if (raw === null) return null;
    const ephemeral = generateKeyPairSync('x25519');
    const share = rawPublic(ephemeral.publicKey);
    const shared = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: publicKeyOf(raw) });
    const key = hkdf(shared, Buffer.concat([share, raw]), LABEL);
    header += `-> X25519 ${base64(share)}\n${base64(encrypt(key, ZERO_NONCE, fileKey))}\n`;
    shared.fill(0);
    key.fill(0);
  }
  header += '---';
  const mac = headerMac(fileKey, header);
  const nonce = randomBytes(PAYLOAD_NONCE_SIZE);
  const payloadKey = hkdf(fileKey, nonce, 'payload');
  const payload = encrypt(payloadKey, ONLY_CHUNK_NONCE, secret);
  fileKey.fill(0);
  payloadKey.fill(0);
  return Buffer.concat([Buffer.from(`${header} ${base64(mac)}\n`, 'latin1'), nonce, payload]);
}

function headerMac(fileKey: Uint8Array, header: string): Buffer {
  return createHmac('sha256', hkdf(fileKey, Buffer.alloc(0), 'header'))
    .update(header, 'latin1')
    .digest();
}

export type Unwrapped =
  /** The payload, authenticated. */
  | { secret: Buffer }
  /** The file is well-formed, and none of the identities is a recipient or the file was changed. */
  | 'refused'
  /** Not the simple case: the package shall judge. */
  | 'unknown';

/** Opens an age file with X25519 identities. */
export function unwrapX25519(identities: string[], envelope: Uint8Array): Unwrapped {
  const keys: KeyObject[] = [];
  for (const identity of identities) {
    const key = privateKeyOf(identity);
    if (key === null) return 'unknown';
    keys.push(key);
  }
  const file = parseFile(envelope);
  if (file === null) return 'unknown';
  for (const key of keys) {
    const own = rawPublic(key);
    for (const stanza of file.stanzas) {
      const fileKey = unwrapFileKey(key, own, stanza);
      if (fileKey !== null) return openFile(fileKey, file);
    }
  }
  return 'refused';
}

interface Stanza {
  share: Buffer;
  body: Buffer;
}

interface AgeFile {
  stanzas: Stanza[];
  /** Header bytes under the MAC. */
  header: string;
  mac: Buffer;
  nonce: Buffer;
  chunk: Buffer;
}

function parseFile(envelope: Uint8Array): AgeFile | null {
  const bytes = Buffer.from(envelope.buffer, envelope.byteOffset, envelope.byteLength);
  const macAt = bytes.indexOf('\n--- ');
  const headerEnd = macAt < 0 ? -1 : bytes.indexOf('\n', macAt + 1);
  if (headerEnd < 0) return null;
  const lines = bytes.toString('latin1', 0, macAt).split('\n');
  if (lines.shift() !== VERSION_LINE) return null;
  const stanzas: Stanza[] = [];
  while (lines.length > 0) {
    const [arrow, type, share, ...more] = lines.shift()!.split(' ');
    const body = lines.shift();
    // Bodies of 48 bytes or more (other recipient types) have several lines.
    if (arrow !== '->' || type !== 'X25519' || share === undefined || more.length > 0) return null;
    if (body === undefined || body.length >= BODY_LINE) return null;
    const shareBytes = fromBase64(share, 32);
    const bodyBytes = fromBase64(body, FILE_KEY_SIZE + TAG_SIZE);
    if (shareBytes === null || bodyBytes === null) return null;
    stanzas.push({ share: shareBytes, body: bodyBytes });
  }
  const mac = fromBase64(bytes.toString('latin1', macAt + 5, headerEnd), 32);
  const nonce = bytes.subarray(headerEnd + 1, headerEnd + 1 + PAYLOAD_NONCE_SIZE);
  const chunk = bytes.subarray(headerEnd + 1 + PAYLOAD_NONCE_SIZE);
  if (mac === null || chunk.length < TAG_SIZE + 1 || chunk.length > CHUNK_SIZE + TAG_SIZE) return null;
  return { stanzas, header: bytes.toString('latin1', 0, macAt + 4), mac, nonce, chunk };
}

function unwrapFileKey(key: KeyObject, own: Buffer, stanza: Stanza): Buffer | null {
  let shared: Buffer;
  try {
    shared = diffieHellman({ privateKey: key, publicKey: publicKeyOf(stanza.share) });
  } catch {
    // A share of low order gives no secret.
    return null;
  }
  const wrapKey = hkdf(shared, Buffer.concat([stanza.share, own]), LABEL);
  const fileKey = decrypt(wrapKey, ZERO_NONCE, stanza.body);
  shared.fill(0);
  wrapKey.fill(0);
  return fileKey;
}

function openFile(fileKey: Buffer, file: AgeFile): Unwrapped {
  const mac = headerMac(fileKey, file.header);
  const payloadKey = hkdf(fileKey, file.nonce, 'payload');
  fileKey.fill(0);
  const secret = timingSafeEqual(mac, file.mac) ? decrypt(payloadKey, ONLY_CHUNK_NONCE, file.chunk) : null;
  payloadKey.fill(0);
  return secret === null ? 'refused' : { secret };
}
