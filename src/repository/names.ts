import { type ArchiveKind, KIND_DATA, KIND_TREE } from '../archive/format.ts';

/* Object names (docs/FORMAT-REPOSITORY.md §2). Every builder stands beside its parser. */

export const GENESIS_NAME = 'rozen.cbor';
export const CONFIG_PREFIX = 'config/';
export const KEYS_PREFIX = 'keys/';
export const DATA_PREFIX = 'data/';
export const INDEX_PREFIX = 'index/';
const TREE_PREFIX = 'tree/';
export const SNAPSHOTS_PREFIX = 'snapshots/';

export const FORWARD_PREFIX = 'forward/';

const HEX_ID = /^[0-9a-f]{32}$/;

/** Highest number, of a config or a forward record, that fits its eight digits. */
export const MAX_CONFIG_NUMBER = 99_999_999;

export function configName(number: number): string {
  return `${CONFIG_PREFIX}${String(number).padStart(8, '0')}.cbor`;
}

export function parseConfigName(name: string): number | null {
  return parseNumber(/^config\/([0-9]{8})\.cbor$/.exec(name));
}

export function forwardName(number: number): string {
  return `${FORWARD_PREFIX}${String(number).padStart(8, '0')}.cbor`;
}

export function parseForwardName(name: string): number | null {
  return parseNumber(/^forward\/([0-9]{8})\.cbor$/.exec(name));
}

function parseNumber(match: RegExpExecArray | null): number | null {
  const number = Number(match?.[1] ?? 0);
  return number === 0 ? null : number;
}

export function keyName(id: Uint8Array): string {
  return `${KEYS_PREFIX}${hex(id)}.cbor`;
}

export function parseKeyName(name: string): Buffer | null {
  const id = /^keys\/([0-9a-f]{32})\.cbor$/.exec(name)?.[1];
  return id === undefined ? null : Buffer.from(id, 'hex');
}

export function dataName(id: Uint8Array): string {
  return sharded(DATA_PREFIX, id, 'roz');
}

export function indexName(id: Uint8Array): string {
  return sharded(INDEX_PREFIX, id, 'rix');
}

export function treeName(id: Uint8Array): string {
  return sharded(TREE_PREFIX, id, 'roz');
}

/** Where the archive of this kind lies. */
export function archiveName(kind: ArchiveKind, id: Uint8Array): string {
  return kind === KIND_DATA ? dataName(id) : treeName(id);
}

export interface ArchiveNameParts {
  /** 'index' is the hot copy of a data archive's tail. */
  place: 'data' | 'index' | 'tree';
  kind: ArchiveKind;
  id: Buffer;
}

export function parseArchiveName(name: string): ArchiveNameParts | null {
  const match = /^(data|index|tree)\/([0-9a-f]{2})\/([0-9a-f]{32})\.(roz|rix)$/.exec(name);
  if (match === null) return null;
  const [, place, shard, id, ending] = match as unknown as [string, ArchiveNameParts['place'], string, string, string];
  if (!id.startsWith(shard) || (ending === 'rix') !== (place === 'index')) return null;
  return { place, kind: place === 'tree' ? KIND_TREE : KIND_DATA, id: Buffer.from(id, 'hex') };
}

/** Prefix of one lineage's records; `tag` is 32 hex characters. */
export function lineagePrefix(tag: string): string {
  return `${SNAPSHOTS_PREFIX}${tag}/`;
}

/** Where a listing goes on behind all records of a lineage: greater than their names ('g' follows the hex digits), smaller than the next tag's. */
export function afterLineage(tag: string): string {
  return `${lineagePrefix(tag)}g`;
}

/** Sequences are inverted (2^64 - 1 - sequence), so that a listing begins with the newest record. */
export function snapshotName(tag: string, sequence: number, snapshotId: Uint8Array): string {
  return `${lineagePrefix(tag)}${invertSequence(sequence)}-${hex(snapshotId)}.cbor`;
}

function invertSequence(sequence: number): string {
  return (0xffff_ffff_ffff_ffffn - BigInt(sequence)).toString(16).padStart(16, '0');
}

export interface SnapshotNameParts {
  tag: string;
  sequence: number;
  id: Buffer;
}

export function parseSnapshotName(name: string): SnapshotNameParts | null {
  const match = /^snapshots\/([0-9a-f]{32})\/([0-9a-f]{16})-([0-9a-f]{32})\.cbor$/.exec(name);
  if (match === null) return null;
  const [, tag, inverted, id] = match as unknown as [string, string, string, string];
  const sequence = 0xffff_ffff_ffff_ffffn - BigInt(`0x${inverted}`);
  if (sequence < 1n || sequence > BigInt(Number.MAX_SAFE_INTEGER)) return null;
  return { tag, sequence: Number(sequence), id: Buffer.from(id, 'hex') };
}

function sharded(prefix: string, id: Uint8Array, ending: string): string {
  const name = hex(id);
  return `${prefix}${name.slice(0, 2)}/${name}.${ending}`;
}

/** Ids are 16 bytes everywhere; a wrong size here is a bug of the caller. */
function hex(id: Uint8Array): string {
  const text = Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('hex');
  if (!HEX_ID.test(text)) throw new RangeError('an id must be 16 bytes');
  return text;
}
