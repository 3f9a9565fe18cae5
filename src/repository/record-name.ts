import { asMap, field } from '../archive/cbor.ts';
import { corrupt } from '../errors.ts';
import { ID_SIZE } from './format.ts';
import type { SnapshotNameParts } from './names.ts';

/* `[tag, sequence, id]`: how records and configs name a record. */

export function encodeRecordName({ tag, sequence, id }: SnapshotNameParts): [Buffer, number, Buffer] {
  return [Buffer.from(tag, 'hex'), sequence, id];
}

export function decodeRecordName(item: unknown): SnapshotNameParts {
  if (!Array.isArray(item) || item.length !== 3) throw corrupt('the name of a record is a list of three');
  const map = asMap({ tag: item[0], sequence: item[1], id: item[2] }, 'name of a record');
  return {
    tag: field.bytes(map, 'tag', ID_SIZE).toString('hex'),
    sequence: field.uint(map, 'sequence', undefined, 1),
    id: field.bytes(map, 'id', ID_SIZE),
  };
}
