import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type CborMap, field } from '../archive/cbor.ts';
import { generateSigningKey, publicKeyOf } from '../archive/crypto/ed25519.ts';
import type { EnrolledWriter } from './config.ts';
import { HASH_SIZE, ID_SIZE, KEY_SIZE, MAX_LABEL, TYPE } from './format.ts';
import { type Secrets, sealLabel, secretsFromMap, secretsToMap } from './secrets.ts';
import { decodeOuter, encodeOuter, named } from './signed.ts';
import { readStateFile, writeStateFile } from './state-file.ts';

/** One machine's right to add: what signs its snapshots and archives, and the secrets to find and name content. */
export interface Writer {
  id: Buffer;
  name: string;
  publicKey: Buffer;
  /** Ed25519 seed. */
  signingSecret: Buffer;
}

/** `writer.cbor`: a writer with its secrets and the genesis it was enrolled for. It reads nothing. */
export interface WriterFile {
  repositoryId: Buffer;
  genesisHash: Buffer;
  writer: Writer;
  secrets: Secrets;
}

export function generateWriter(name: string): Writer {
  const pair = generateSigningKey();
  return { id: randomBytes(ID_SIZE), name: shorten(name), publicKey: pair.public, signingSecret: pair.secret };
}

/** The writer's line in the config: its certificate, once the root key has signed it. */
export function enrolment(writer: Writer, secrets: Secrets, enrolled: number): EnrolledWriter {
  const { id, publicKey, name } = writer;
  return { id, publicKey, role: 'writer', sealedName: sealLabel(secrets, id, name), enrolled };
}

export function encodeWriterFile(file: WriterFile): Buffer {
  const { repositoryId, genesisHash, writer, secrets } = file;
  const members: CborMap = {
    repository: repositoryId,
    genesis: genesisHash,
    id: writer.id,
    name: writer.name,
    signing: writer.signingSecret,
    secrets: secretsToMap(secrets),
  };
  return encodeOuter(TYPE.writer, members);
}

export function decodeWriterFile(bytes: Buffer, what: string): WriterFile {
  const map = decodeOuter(bytes, TYPE.writer, what);
  return named(what, () => {
    const signingSecret = field.bytes(map, 'signing', KEY_SIZE);
    return {
      repositoryId: field.bytes(map, 'repository', ID_SIZE),
      genesisHash: field.bytes(map, 'genesis', HASH_SIZE),
      writer: {
        id: field.bytes(map, 'id', ID_SIZE),
        name: field.text(map, 'name', MAX_LABEL),
        publicKey: publicKeyOf(signingSecret),
        signingSecret,
      },
      secrets: secretsFromMap(field.map(map, 'secrets')),
    };
  });
}

function writerPath(stateDir: string): string {
  return join(stateDir, 'writer.cbor');
}

export function readWriterFile(stateDir: string): WriterFile | null {
  const path = writerPath(stateDir);
  const bytes = readStateFile(path);
  return bytes === null ? null : decodeWriterFile(bytes, path);
}

export function saveWriterFile(stateDir: string, file: WriterFile): void {
  const bytes = encodeWriterFile(file);
  writeStateFile(writerPath(stateDir), bytes);
  bytes.fill(0);
}

function shorten(name: string): string {
  let text = name;
  while (Buffer.byteLength(text) > MAX_LABEL) text = text.slice(0, -1);
  return text;
}
