/** AEND: the last 304 bytes of every sealed archive. Not sealed, so that anyone can scrub; signed by the writer. */
import { corrupt } from '../errors.ts';
import { readUint53, writeUint53 } from './columns.ts';
import { sign, verify } from './crypto/ed25519.ts';
import {
  AEND_BODY_SIZE,
  AEND_FRAME_SIZE,
  ARCHIVE_ID_SIZE,
  AEND_OFFSETS as AT,
  DOMAIN_ARCHIVE,
  FRAME_OVERHEAD,
  HASH_SIZE,
  MAX_ARCHIVE_SIZE,
  SIGNATURE_SIZE,
} from './format.ts';
import { checkBlockHash, parseOuterHeader, plainBodyOf, plainFrame } from './frame.ts';

export interface Place {
  offset: number;
  length: number;
}

export interface Trailer {
  archiveId: Buffer;
  /** Bytes of the whole archive: where this trailer ends. */
  size: number;
  /** Places of the index frames in the whole archive; null if there is none. */
  cidx: Place | null;
  root: Place | null;
  bidx: Place;
  /** Frames before AEND; also its sequence. */
  frames: number;
  merkleRoot: Buffer;
  writerId: Buffer;
  /** Block hash of CIDX; zeros if there is none. */
  cidxHash: Buffer;
  signature: Buffer;
  /** The bytes that the signature covers. */
  signedBody: Buffer;
}

/** What the writer signs besides the body: it ties the trailer to one repository and one header. */
export interface TrailerBinding {
  repositoryId: Uint8Array;
  headerHash: Uint8Array;
}

export type Signer = Uint8Array | ((domain: string, message: Uint8Array) => Uint8Array);

export function encodeTrailer(
  fields: Omit<Trailer, 'size' | 'signature' | 'signedBody'>,
  binding: TrailerBinding,
  signWith: Signer,
): Buffer {
  const body = Buffer.alloc(AEND_BODY_SIZE);
  writeUint53(body, fields.cidx?.offset ?? 0, AT.cidxOffset);
  writeUint53(body, fields.root?.offset ?? 0, AT.rootOffset);
  writeUint53(body, fields.bidx.offset, AT.bidxOffset);
  body.writeUInt32LE(fields.cidx?.length ?? 0, AT.cidxLength);
  body.writeUInt32LE(fields.root?.length ?? 0, AT.rootLength);
  body.writeUInt32LE(fields.bidx.length, AT.bidxLength);
  body.writeUInt32LE(fields.frames, AT.frames);
  body.set(fields.merkleRoot, AT.merkleRoot);
  body.set(fields.writerId, AT.writerId);
  body.set(fields.cidxHash, AT.cidxHash);
  const message = signedMessage(binding, body.subarray(0, AT.signature));
  const signature =
    typeof signWith === 'function' ? signWith(DOMAIN_ARCHIVE, message) : sign(signWith, DOMAIN_ARCHIVE, message);
  body.set(signature, AT.signature);
  return plainFrame({ type: 'AEND', archiveId: fields.archiveId, sequence: fields.frames, body });
}

/**
 * Reads AEND from the last bytes of an archive or hot index. Order and bounds of the index frames are checked; that the
 * archive really has `size` bytes is for the caller to compare, and the signature for `verifyTrailer`.
 */
export function decodeTrailer(frame: Uint8Array): Trailer {
  if (frame.length !== AEND_FRAME_SIZE) throw corrupt(`AEND: ${frame.length} bytes instead of ${AEND_FRAME_SIZE}`);
  const outer = parseOuterHeader(frame);
  if (outer.type !== 'AEND' || outer.frameLength !== frame.length || outer.bodyLength !== AEND_BODY_SIZE) {
    throw corrupt(`the archive does not end with AEND but with ${outer.type}`);
  }
  if (!checkBlockHash(frame)) throw corrupt('AEND: its block hash does not match');
  if (outer.nonce.some((byte) => byte !== 0)) throw corrupt('AEND: a nonce although nothing is sealed');
  const body = Buffer.from(plainBodyOf(frame, outer));
  const place = (offsetAt: number, lengthAt: number): Place | null => {
    const offset = readUint53(body, offsetAt);
    const length = body.readUInt32LE(lengthAt);
    if (offset === 0 && length === 0) return null;
    if (!(offset >= FRAME_OVERHEAD && length >= FRAME_OVERHEAD && offset + length <= MAX_ARCHIVE_SIZE)) {
      throw corrupt(`AEND: an index frame at ${offset} of ${length} bytes`);
    }
    return { offset, length };
  };
  const cidx = place(AT.cidxOffset, AT.cidxLength);
  const root = place(AT.rootOffset, AT.rootLength);
  const bidx = place(AT.bidxOffset, AT.bidxLength);
  if (bidx === null) throw corrupt('AEND: it names no block table');
  for (const other of [cidx, root]) {
    if (other !== null && other.offset + other.length > bidx.offset) throw corrupt('AEND: index frames overlap');
  }
  const frames = body.readUInt32LE(AT.frames);
  if (frames !== outer.sequence || frames < 2) throw corrupt(`AEND: sequence ${outer.sequence} after ${frames} frames`);
  return {
    archiveId: Buffer.from(outer.archiveId),
    size: bidx.offset + bidx.length + AEND_FRAME_SIZE,
    cidx,
    root,
    bidx,
    frames,
    merkleRoot: body.subarray(AT.merkleRoot, AT.merkleRoot + HASH_SIZE),
    writerId: body.subarray(AT.writerId, AT.writerId + ARCHIVE_ID_SIZE),
    cidxHash: body.subarray(AT.cidxHash, AT.cidxHash + HASH_SIZE),
    signature: body.subarray(AT.signature, AT.signature + SIGNATURE_SIZE),
    signedBody: body.subarray(0, AT.signature),
  };
}

/** True if the writer with this public key signed the trailer for this repository and header. */
export function verifyTrailer(trailer: Trailer, binding: TrailerBinding, publicKey: Uint8Array): boolean {
  return verify(publicKey, DOMAIN_ARCHIVE, signedMessage(binding, trailer.signedBody), trailer.signature);
}

function signedMessage(binding: TrailerBinding, body: Uint8Array): Buffer {
  return Buffer.concat([binding.repositoryId, binding.headerHash, body]);
}
