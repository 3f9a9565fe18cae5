import { asMap, type CborMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { blake3 } from '../archive/crypto/blake3.ts';
import { sign, verify } from '../archive/crypto/ed25519.ts';
import { corrupt, RozenError } from '../errors.ts';
import { HASH_SIZE, ID_SIZE, type ObjectType, REPOSITORY_FORMAT, SIGNATURE_SIZE } from './format.ts';

/**
 * Every object of a repository is a CBOR sequence of two items: the outer map {rozen: type, format, …} and a byte string, the
 * BLAKE3 of the map's bytes. That check finds accidents, so that a damaged object ('corrupt') is told from a forged one
 * ('untrusted'). What is signed or sealed lies in byte strings of the map and is decoded only after it was verified.
 */
export function encodeOuter(type: ObjectType, members: CborMap): Buffer {
  const map = encodeCbor({ rozen: type, format: REPOSITORY_FORMAT, ...members });
  return Buffer.concat([map, CHECK_PREFIX, blake3(map)]);
}

/** CBOR head of a byte string of 32 bytes. */
const CHECK_PREFIX = Buffer.from([0x58, HASH_SIZE]);
const CHECK_SIZE = CHECK_PREFIX.length + HASH_SIZE;

/** Refuses damage and other types ('corrupt') and newer formats ('unsupported'). `what` names the object. */
export function decodeOuter(bytes: Uint8Array, type: ObjectType, what: string): CborMap {
  return named(what, () => {
    const end = bytes.length - CHECK_SIZE;
    if (end <= 0) throw corrupt(`${bytes.length} bytes are too few`);
    const check = Buffer.concat([CHECK_PREFIX, blake3(bytes.subarray(0, end))]);
    if (!check.equals(bytes.subarray(end))) throw corrupt('its hash does not fit');
    const map = asMap(decodeCbor(bytes.subarray(0, end), { what: 'outer map', maxDepth: 8 }), 'outer map');
    const found = field.text(map, 'rozen', 32);
    if (found !== type) throw corrupt(`a ${type} object is expected, this is ${JSON.stringify(found)}`);
    const format = field.uint(map, 'format', 0xffff_ffff);
    if (format > REPOSITORY_FORMAT) throw newerFormat(what, format);
    if (format !== REPOSITORY_FORMAT) throw corrupt(`format ${format} never existed`);
    return map;
  });
}

/** Domain and message of a signature: no object can be taken for one of another type, format or repository. */
function domain(type: ObjectType): string {
  return `rozen ${REPOSITORY_FORMAT} ${type}`;
}

export interface SignOptions {
  type: ObjectType;
  repositoryId: Uint8Array;
  body: Uint8Array;
  secret: Uint8Array;
  /** Writer id, for objects that somebody other than the root signs. */
  signer?: Uint8Array;
}

/** {rozen, format, signer?, body, signature} over (domain, repository id, exact body bytes). */
export function encodeSigned(options: SignOptions): Buffer {
  const { type, repositoryId, body, secret, signer } = options;
  const signature = sign(secret, domain(type), Buffer.concat([repositoryId, body]));
  return encodeOuter(type, { ...(signer === undefined ? {} : { signer }), body, signature });
}

export interface SignedParts {
  signer: Buffer | null;
  body: Buffer;
  signature: Buffer;
}

export function decodeSigned(bytes: Uint8Array, type: ObjectType, what: string): SignedParts {
  const map = decodeOuter(bytes, type, what);
  return named(what, () => ({
    signer: field.has(map, 'signer') ? field.bytes(map, 'signer', ID_SIZE) : null,
    body: field.bytes(map, 'body'),
    signature: field.bytes(map, 'signature', SIGNATURE_SIZE),
  }));
}

export function isSignedBy(
  publicKey: Uint8Array,
  type: ObjectType,
  signed: { repositoryId: Uint8Array; body: Uint8Array; signature: Uint8Array },
): boolean {
  const message = Buffer.concat([signed.repositoryId, signed.body]);
  return verify(publicKey, domain(type), message, signed.signature);
}

/** Runs a decoder; what it finds wrong is told together with the name of the object. */
export function named<T>(what: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RozenError && error.code === 'corrupt' && !error.message.startsWith(what)) {
      throw corrupt(`${what}: ${error.message}`, {
        cause: error.cause,
        hint: error.hint ?? 'the object is damaged; `rozen verify` shows what it concerns',
      });
    }
    throw error;
  }
}

function newerFormat(what: string, format: number): RozenError {
  return new RozenError(
    'unsupported',
    `${what}: format ${format} is newer than this version of Rozen knows (${REPOSITORY_FORMAT})`,
    {
      hint: 'update Rozen',
    },
  );
}
