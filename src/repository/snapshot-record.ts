import { asMap, type CborMap, decodeCbor, encodeCbor, field } from '../archive/cbor.ts';
import { openAead, randomNonce, sealAead } from '../archive/crypto/aead.ts';
import { blake3 } from '../archive/crypto/blake3.ts';
import { deriveArchiveKeys } from '../archive/keys.ts';
import { corrupt, RozenError } from '../errors.ts';
import { HASH_SIZE, ID_SIZE, MAX_SEEN, MAX_SNAPSHOT_RECORD, MAX_UNCHANGED_RECORD, NONCE_SIZE, TYPE } from './format.ts';
import { MAX_CONFIG_NUMBER, type SnapshotNameParts, snapshotName } from './names.ts';
import type { RecordReference } from './pin.ts';
import { decodeRecordName, encodeRecordName } from './record-name.ts';
import { decodeSigned, encodeSigned, named } from './signed.ts';

/** The tree archive of a snapshot: everything that `archives` rows say about others. */
export interface SnapshotTree {
  id: Buffer;
  size: number;
  /** Its row in this lineage. */
  row: number;
  /** BLAKE3 of its AHDR frame. */
  headerHash: Buffer;
  merkleRoot: Buffer;
  /** Its key, as an age file. */
  envelope: Buffer;
}

interface RecordCommon {
  /** Object name in the store. */
  name: string;
  id: Buffer;
  writerId: Buffer;
  /** Lineage tag, 32 hex characters. */
  tag: string;
  /** 1, 2, … within the lineage, "unchanged" records included. */
  sequence: number;
  timeSec: number;
  timeNs: number;
  /** The record before it in the lineage; null for sequence 1. */
  previous: RecordReference | null;
  /** Number of the config that the writer worked under. */
  configNumber: number;
  /** Newest records of other lineages that the writer saw: a store that hides one later gives itself away. */
  seen: SnapshotNameParts[];
  /** BLAKE3 of the object's exact bytes. */
  hash: Buffer;
}

export interface SnapshotRecord extends RecordCommon {
  kind: 'snapshot';
  tree: SnapshotTree;
  /** Nonce and sealed SnapshotBody. */
  sealedBody: Buffer;
  /** Of a WORM set: said in the clear, so that a machine that can only write and lost its state keeps the mode. */
  worm?: boolean;
  /** Set by `heads()`: when a later run last found nothing changed; null if none did. */
  confirmed: { timeSec: number; timeNs: number } | null;
}

/** A run that found nothing changed. */
export interface UnchangedRecord extends RecordCommon {
  kind: 'unchanged';
  /** The snapshot that still holds. */
  base: RecordReference;
}

export type AnyRecord = SnapshotRecord | UnchangedRecord;

/** What a WORM set does about changes; kept with the set, in every snapshot of it. */
export interface WormPolicy {
  /** A file whose content changed: only tell, store the new content as a new version, or write the archived one back. */
  onChange: 'warn' | 'accept' | 'restore';
  /** A file that is gone: record it, or write it back. */
  onDelete: 'record' | 'restore';
  /** False: a frozen set, which takes no new files. */
  acceptNew: boolean;
}

export const DEFAULT_POLICY: Readonly<WormPolicy> = { onChange: 'warn', onDelete: 'record', acceptNew: true };

/** What only readers may know. */
export interface SnapshotBody {
  set: string;
  mode: 'worm' | 'snapshot';
  /** WORM sets only. */
  policy?: WormPolicy;
  host: string;
  user: string;
  /** The backed-up folders, absolute, as bytes. */
  paths: Buffer[];
  tags: string[];
  /** Counts and sizes, whatever the backup reports. */
  stats: Record<string, number>;
}

/** Everything of a record but what follows from it. */
export type RecordDraft =
  | (Omit<SnapshotRecord, 'name' | 'hash' | 'confirmed'> & { kind: 'snapshot' })
  | Omit<UnchangedRecord, 'name' | 'hash'>;

export interface RecordContext {
  repositoryId: Buffer;
  signingSecret: Buffer;
}

/** Name and exact bytes of the object. */
export function encodeRecord(draft: RecordDraft, context: RecordContext): { name: string; bytes: Buffer } {
  const body: CborMap = {
    kind: draft.kind,
    id: draft.id,
    tag: Buffer.from(draft.tag, 'hex'),
    sequence: draft.sequence,
    sec: draft.timeSec,
    ns: draft.timeNs,
    previous: draft.previous,
    config: draft.configNumber,
    seen: draft.seen.map(encodeRecordName),
  };
  if (draft.kind === 'snapshot') {
    body.tree = draft.tree;
    body.sealed = draft.sealedBody;
    if (draft.worm === true) body.worm = true;
  } else body.base = draft.base;
  const bytes = encodeSigned({
    type: TYPE.snapshot,
    repositoryId: context.repositoryId,
    body: encodeCbor(body),
    secret: context.signingSecret,
    signer: draft.writerId,
  });
  if (bytes.length > MAX_SNAPSHOT_RECORD) {
    throw new RozenError('usage', `the snapshot record has ${bytes.length} bytes`, {
      hint: 'use fewer or shorter paths and tags',
    });
  }
  if (draft.kind === 'unchanged' && bytes.length >= MAX_UNCHANGED_RECORD) {
    throw new RozenError('internal', `an "unchanged" record has ${bytes.length} bytes`);
  }
  return { name: snapshotName(draft.tag, draft.sequence, draft.id), bytes };
}

export interface UnverifiedRecord {
  writerId: Buffer;
  body: Buffer;
  signature: Buffer;
}

/** The outer part: who claims to have signed. Nothing of the body is looked at yet. */
export function decodeRecordOuter(bytes: Buffer, what: string): UnverifiedRecord {
  const { signer, body, signature } = decodeSigned(bytes, TYPE.snapshot, what);
  if (signer === null) throw corrupt(`${what}: names no writer`);
  return { writerId: signer, body, signature };
}

/** The body, after its signature was checked; the name it lies under must be its own. */
export function decodeRecordBody(
  outer: UnverifiedRecord,
  object: { name: string; bytes: Buffer; what: string },
): AnyRecord {
  const { name, bytes, what } = object;
  return named(what, () => {
    const map = asMap(decodeCbor(outer.body, { what: 'body', maxDepth: 6 }), 'body');
    const kind = field.text(map, 'kind', 32);
    if (kind !== 'snapshot' && kind !== 'unchanged') {
      throw new RozenError(
        'unsupported',
        `${what}: records of kind ${JSON.stringify(kind)} are unknown to this version of Rozen`,
        { hint: 'update Rozen' },
      );
    }
    const sequence = field.uint(map, 'sequence', undefined, 1);
    const common: RecordCommon = {
      name,
      id: field.bytes(map, 'id', ID_SIZE),
      writerId: outer.writerId,
      tag: field.bytes(map, 'tag', ID_SIZE).toString('hex'),
      sequence,
      timeSec: field.int(map, 'sec'),
      timeNs: field.uint(map, 'ns', 999_999_999),
      previous: sequence === 1 ? null : decodeReference(field.map(map, 'previous'), sequence),
      configNumber: field.uint(map, 'config', MAX_CONFIG_NUMBER, 1),
      seen: field.list(map, 'seen', MAX_SEEN).map(decodeRecordName),
      hash: blake3(bytes),
    };
    if (snapshotName(common.tag, sequence, common.id) !== name) throw misplaced(what);
    if (kind === 'unchanged') return { ...common, kind, base: decodeReference(field.map(map, 'base'), sequence) };
    return {
      ...common,
      kind,
      tree: decodeTree(field.map(map, 'tree')),
      sealedBody: field.bytes(map, 'sealed'),
      ...(map.worm === true ? { worm: true } : {}),
      confirmed: null,
    };
  });
}

function misplaced(what: string): RozenError {
  return new RozenError('untrusted', `${what}: a record of another place or time was put under this name`, {
    hint: 'restore the object from a copy of the repository',
  });
}

/** A reference into the past of the same lineage. */
function decodeReference(map: CborMap, sequence: number): RecordReference {
  return {
    sequence: field.uint(map, 'sequence', sequence - 1, 1),
    id: field.bytes(map, 'id', ID_SIZE),
    hash: field.bytes(map, 'hash', HASH_SIZE),
  };
}

function decodeTree(map: CborMap): SnapshotTree {
  return {
    id: field.bytes(map, 'id', ID_SIZE),
    size: field.uint(map, 'size'),
    row: field.uint(map, 'row', 0xffff_ffff, 1),
    headerHash: field.bytes(map, 'headerHash', HASH_SIZE),
    merkleRoot: field.bytes(map, 'merkleRoot', HASH_SIZE),
    envelope: field.bytes(map, 'envelope'),
  };
}

/* ---- The sealed body --------------------------------------------------------------------------------------- */

/** Sealed under the record key of the tree archive: who can open the archive can read it. */
export function sealBody(
  body: SnapshotBody,
  options: { archiveKey: Buffer; repositoryId: Buffer; id: Buffer },
): Buffer {
  const { record } = deriveArchiveKeys(options.archiveKey);
  const nonce = randomNonce();
  try {
    return Buffer.concat([nonce, sealAead(record, nonce, bodyBinding(options), [encodeCbor(body)])]);
  } finally {
    record.fill(0);
  }
}

export function openBody(
  sealed: Buffer,
  options: { archiveKey: Buffer; repositoryId: Buffer; id: Buffer; what: string },
): SnapshotBody {
  return named(options.what, () => {
    if (sealed.length < NONCE_SIZE) throw corrupt('sealed part is too short');
    const { record } = deriveArchiveKeys(options.archiveKey);
    let plain: Buffer;
    try {
      plain = openAead(record, sealed.subarray(0, NONCE_SIZE), bodyBinding(options), sealed.subarray(NONCE_SIZE));
    } finally {
      record.fill(0);
    }
    return decodeBody(asMap(decodeCbor(plain, { what: 'sealed part', maxDepth: 4 }), 'sealed part'));
  });
}

function bodyBinding({ repositoryId, id }: { repositoryId: Buffer; id: Buffer }): Buffer {
  return Buffer.concat([Buffer.from('rozen 1 snapshot body\0'), repositoryId, id]);
}

function decodeBody(map: CborMap): SnapshotBody {
  const mode = field.text(map, 'mode', 32);
  if (mode !== 'worm' && mode !== 'snapshot') throw corrupt(`unknown mode ${JSON.stringify(mode)}`);
  const stats: Record<string, number> = {};
  for (const [name, value] of Object.entries(field.map(map, 'stats')))
    if (typeof value === 'number') stats[name] = value;
  return {
    set: field.text(map, 'set', 255),
    mode,
    ...(mode === 'worm' ? { policy: decodePolicy(map.policy) } : {}),
    host: field.text(map, 'host', 1024),
    user: field.text(map, 'user', 1024),
    paths: field.list(map, 'paths', 65_536).map((path) => {
      if (!(path instanceof Uint8Array)) throw corrupt('a path is a byte string');
      return Buffer.from(path);
    }),
    tags: field.texts(map, 'tags', 65_536),
    stats,
  };
}

/** Of a body or a `history` row. What is missing or unknown to this version is the careful choice. */
export function decodePolicy(value: unknown): WormPolicy {
  const { onChange, onDelete, acceptNew } = (typeof value === 'object' && value !== null ? value : {}) as CborMap;
  return {
    onChange: onChange === 'accept' || onChange === 'restore' ? onChange : DEFAULT_POLICY.onChange,
    onDelete: onDelete === 'restore' ? onDelete : DEFAULT_POLICY.onDelete,
    acceptNew: acceptNew !== false,
  };
}
