/**
 * AHDR, the first frame of every archive: everything stands in its CBOR header, in the clear, so that the header hash covers
 * it and nothing needs a key. `BLAKE3(AHDR)` (the whole frame) is additional data of every sealed frame, and stands in
 * signed places: it binds the key commitment, hence the key.
 */
import { corrupt, RozenError } from '../errors.ts';
import { asMap, decodeCbor, encodeCbor, field } from './cbor.ts';
import { blake3 } from './crypto/blake3.ts';
import {
  ARCHIVE_ID_SIZE,
  type ArchiveKind,
  COMPATIBLE_HEADS,
  FORMAT_VERSION,
  HASH_SIZE,
  INCOMPATIBLE_FEATURES,
  KIND_DATA,
  KIND_TREE,
  KNOWN_INCOMPATIBLE,
  MAX_CBOR_HEADER,
  MAX_ENVELOPE,
} from './format.ts';
import { cborHeaderOf, checkBlockHash, parseOuterHeader, plainFrame } from './frame.ts';
import { keyCommitment } from './keys.ts';

export interface ArchiveFlags {
  /** A reader that does not know one of these bits refuses the archive. */
  incompatible: number;
  /** A reader may go on; a program that would append must not. */
  readCompatible: number;
  /** Nobody needs to care. */
  compatible: number;
}

export interface ArchiveHeader {
  version: number;
  kind: ArchiveKind;
  id: Buffer;
  repositoryId: Buffer;
  flags: ArchiveFlags;
  /** An age file around the archive's 32-byte key. */
  envelope: Buffer;
  commitment: Buffer;
  /** BLAKE3 of the whole AHDR frame. */
  headerHash: Buffer;
  /** The AHDR frame itself. */
  frame: Buffer;
}

export function buildHeader(options: {
  id: Uint8Array;
  kind: ArchiveKind;
  repositoryId: Uint8Array;
  envelope: Uint8Array;
  key: Uint8Array;
  flags?: ArchiveFlags;
}): Buffer {
  const { envelope, flags = { incompatible: 0, readCompatible: 0, compatible: 0 } } = options;
  if (envelope.length > MAX_ENVELOPE) {
    throw new RozenError('usage', `a key envelope of ${envelope.length} bytes: too many recipients`, {
      hint: `an envelope holds at most ${MAX_ENVELOPE} bytes`,
    });
  }
  const cborHeader = encodeCbor({
    version: FORMAT_VERSION,
    kind: options.kind,
    repository: options.repositoryId,
    flags: [flags.incompatible, flags.readCompatible, flags.compatible],
    envelope,
    commitment: keyCommitment(options.key),
  });
  return plainFrame({ type: 'AHDR', archiveId: options.id, sequence: 0, cborHeader });
}

/**
 * Reads an AHDR frame (the whole frame, nothing after it). 'unsupported' for a newer version or an unknown incompatible
 * feature, which is named; 'corrupt' for everything else.
 */
export function parseHeader(frame: Uint8Array): ArchiveHeader {
  const outer = parseOuterHeader(frame);
  if (outer.type !== 'AHDR' || outer.sequence !== 0)
    throw corrupt(`an AHDR frame is expected, not ${outer.type} ${outer.sequence}`);
  if (outer.frameLength !== frame.length) throw corrupt(`AHDR: ${frame.length} bytes instead of ${outer.frameLength}`);
  if (!checkBlockHash(frame)) throw corrupt('AHDR: its block hash does not match');
  if (outer.nonce.some((byte) => byte !== 0)) throw corrupt('AHDR: a nonce although nothing is sealed');
  const what = `archive ${outer.archiveId.toString('hex')}: AHDR`;
  const map = asMap(decodeCbor(cborHeaderOf(frame, outer), { what, maxBytes: MAX_CBOR_HEADER, maxDepth: 4 }), what);
  const version = field.uint(map, 'version', 0xffff_ffff);
  if (version !== FORMAT_VERSION) {
    throw new RozenError('unsupported', `${what}: format version ${version}, this program knows ${FORMAT_VERSION}`, {
      hint: 'use a newer version of rozen',
    });
  }
  const list = field.list(map, 'flags', 16);
  const [incompatible, readCompatible, compatible] = list;
  if (!isFlags(incompatible) || !isFlags(readCompatible) || !isFlags(compatible)) throw corrupt(`${what}: bad flags`);
  refuseUnknown(incompatible, what);
  const kind = field.uint(map, 'kind', 255);
  if (kind !== KIND_DATA && kind !== KIND_TREE) throw corrupt(`${what}: unknown kind ${kind}`);
  const own = Buffer.from(frame);
  return {
    version,
    kind,
    id: Buffer.from(outer.archiveId),
    repositoryId: field.bytes(map, 'repository', ARCHIVE_ID_SIZE),
    flags: { incompatible, readCompatible, compatible },
    envelope: field.bytes(map, 'envelope', undefined, MAX_ENVELOPE),
    commitment: field.bytes(map, 'commitment', HASH_SIZE),
    headerHash: blake3(own),
    frame: own,
  };
}

/** Whether an archive is to be kept where it can be read at once, whatever becomes of others. */
export function holdsHeads({ flags }: Pick<ArchiveHeader, 'flags'>): boolean {
  return (flags.compatible & COMPATIBLE_HEADS) !== 0;
}

function isFlags(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff;
}

function refuseUnknown(incompatible: number, what: string): void {
  const unknown = (incompatible & ~KNOWN_INCOMPATIBLE) >>> 0;
  if (unknown === 0) return;
  const names: string[] = [];
  for (let bit = 0; bit < 32; bit++) {
    if ((unknown >>> bit) & 1) names.push(INCOMPATIBLE_FEATURES[bit] ?? `feature ${bit}`);
  }
  throw new RozenError('unsupported', `${what}: it needs ${names.join(', ')}, which this version does not know`, {
    hint: 'use a newer version of rozen',
  });
}
