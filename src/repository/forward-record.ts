import { asMap, type CborMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { blake3 } from '../archive/crypto/blake3.ts';
import { BLOCK_SIZE, MAX_ARCHIVE_SIZE, MAX_ENVELOPE, MAX_STREAM } from '../archive/format.ts';
import { corrupt, RozenError } from '../errors.ts';
import { HASH_SIZE, ID_SIZE, MAX_FORWARDED, TYPE } from './format.ts';
import { type Genesis, unknownFeature } from './genesis.ts';
import { MAX_CONFIG_NUMBER } from './names.ts';
import { decodeSigned, encodeSigned, isSignedBy, named } from './signed.ts';

/** A data archive as its `archives` row describes it, but for its key. */
interface ForwardedArchive {
  id: Buffer;
  /** Bytes. */
  size: number;
  /** BLAKE3 of its AHDR frame. */
  headerHash: Buffer;
  merkleRoot: Buffer;
}

/** An archive whose stream went into another one: all of its blocks, in order. */
export interface ForwardSource extends ForwardedArchive {
  /** Number of its first block in the stream of the other archive. */
  block: number;
  /** How many blocks it has. */
  blocks: number;
}

export interface ForwardTarget extends ForwardedArchive {
  envelope: Buffer;
}

/** `forward/<number>.cbor`, root-signed: archives that were merged, and where their blocks lie now. */
export interface ForwardRecord {
  number: number;
  /** Hash of the record before it; null for number 1. */
  previous: Buffer | null;
  /** Seconds since 1970. */
  created: number;
  target: ForwardTarget;
  /** By ascending blocks. */
  sources: ForwardSource[];
  /** BLAKE3 of the object's exact bytes. */
  hash: Buffer;
}

export type ForwardDraft = Omit<ForwardRecord, 'hash'>;

/** What was merged into what. */
export type Merge = Pick<ForwardRecord, 'target' | 'sources'>;

/**
 * The exact bytes of the object. Signed by the root and not by a writer: who may only add must not be able to put other content in
 * the place of what is there.
 */
export function encodeForward(draft: ForwardDraft, genesis: Genesis, rootSecret: Buffer): Buffer {
  const body = encodeCbor({
    repository: genesis.repositoryId,
    number: draft.number,
    previous: draft.previous,
    created: draft.created,
    ...mergeMap(draft),
    incompatible: 0,
  });
  return encodeSigned({ type: TYPE.forward, repositoryId: genesis.repositoryId, body, secret: rootSecret });
}

/** The members of a record that say what was merged; `decodeMerge` reads them. */
export function mergeMap({ target, sources }: Merge): CborMap {
  return {
    target: { ...archiveMap(target), envelope: target.envelope },
    sources: sources.map((source) => ({ ...archiveMap(source), block: source.block, blocks: source.blocks })),
  };
}

export function decodeMerge(map: CborMap): Merge {
  const target = field.map(map, 'target');
  const sources = field.list(map, 'sources', MAX_FORWARDED).map((item) => decodeSource(asMap(item, 'source')));
  checkPlaces(sources);
  return {
    target: { ...decodeArchive(target), envelope: field.bytes(target, 'envelope', undefined, MAX_ENVELOPE) },
    sources,
  };
}

function archiveMap({ id, size, headerHash, merkleRoot }: ForwardedArchive): CborMap {
  return { id, size, headerHash, merkleRoot };
}

/** Decodes a record after its signature by the genesis' root key was checked ('untrusted' otherwise). `number` is that of its name. */
export function decodeForward(
  bytes: Buffer,
  { genesis, number, what }: { genesis: Genesis; number: number; what: string },
): ForwardRecord {
  const { body, signature } = decodeSigned(bytes, TYPE.forward, what);
  const { repositoryId, rootKey } = genesis;
  if (!isSignedBy(rootKey, TYPE.forward, { repositoryId, body, signature })) {
    throw new RozenError('untrusted', `${what} is forged: it is not signed by this repository's root key`, {
      hint: 'it may lead to content that is not yours: restore the object from a copy of the repository, or find out who changed the store',
    });
  }
  return named(what, () => {
    const map = asMap(decodeCbor(body, { what: 'body', maxDepth: 4 }), 'body');
    if (!field.bytes(map, 'repository', ID_SIZE).equals(repositoryId)) throw corrupt('belongs to another repository');
    const incompatible = field.uint(map, 'incompatible', 0xffff_ffff);
    if (incompatible !== 0) throw unknownFeature(what, `feature bits ${incompatible.toString(2)}`);
    const found = field.uint(map, 'number', MAX_CONFIG_NUMBER, 1);
    if (found !== number) {
      throw new RozenError('untrusted', `${what} holds forward record ${found}: another one was put in its place`, {
        hint: 'restore the object from a copy of the repository',
      });
    }
    return {
      number,
      previous: number === 1 ? null : field.bytes(map, 'previous', HASH_SIZE),
      created: field.uint(map, 'created'),
      ...decodeMerge(map),
      hash: blake3(bytes),
    };
  });
}

function decodeSource(map: CborMap): ForwardSource {
  const most = MAX_STREAM / BLOCK_SIZE;
  return {
    ...decodeArchive(map),
    block: field.uint(map, 'block', most),
    blocks: field.uint(map, 'blocks', most),
  };
}

function decodeArchive(map: CborMap): ForwardedArchive {
  return {
    id: field.bytes(map, 'id', ID_SIZE),
    size: field.uint(map, 'size', MAX_ARCHIVE_SIZE),
    headerHash: field.bytes(map, 'headerHash', HASH_SIZE),
    merkleRoot: field.bytes(map, 'merkleRoot', HASH_SIZE),
  };
}

function checkPlaces(sources: readonly ForwardSource[]): void {
  let end = 0;
  for (const { block, blocks } of sources) {
    if (block < end) throw corrupt(`two archives were merged into block ${block}`);
    end = block + blocks;
  }
}
