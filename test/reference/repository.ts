/**
 * A slow, plain reader of the objects around the archives, written from docs/FORMAT-REPOSITORY.md: noble for the
 * cryptography, the age package for age files, nothing from src. Takes all objects by name; throws at the first thing wrong.
 */
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { argon2id } from '@noble/hashes/argon2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { Decrypter } from 'age-encryption';

export type Objects = Map<string, Uint8Array>;
// biome-ignore lint/suspicious/noExplicitAny: decoded CBOR, checked by the tests that use it
type Map_ = Record<string, any>;

interface ReferenceSnapshot {
  name: string;
  record: Map_;
  /** Null for "unchanged" records. */
  body: Map_ | null;
}

export interface ReferenceRepository {
  id: Uint8Array;
  fingerprint: string;
  config: Map_;
  bundle: Map_;
  secrets: Map_;
  snapshots: ReferenceSnapshot[];
}

const text = new TextEncoder();
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const derive = (context: string, material: Uint8Array) => blake3(material, { context: text.encode(context) });

export async function readRepository(objects: Objects, passphrase: string): Promise<ReferenceRepository> {
  const genesisBytes = objects.get('rozen.cbor')!;
  const genesisBody = decode(outer(genesisBytes, 'genesis').body);
  const id = genesisBody.repository as Uint8Array;
  const root = genesisBody.rootKey as Uint8Array;
  const genesisHash = blake3(genesisBytes);
  signed(genesisBytes, 'genesis', id, () => root);

  const configs = [...objects.keys()].filter((name) => name.startsWith('config/')).sort();
  let previous: Uint8Array | null = null;
  let config: Map_ = {};
  for (const [index, name] of configs.entries()) {
    config = signed(objects.get(name)!, 'config', id, () => root);
    check(config.number === index + 1 && name === `config/${String(index + 1).padStart(8, '0')}.cbor`, 'config number');
    check(hex(config.previous ?? new Uint8Array()) === hex(previous ?? new Uint8Array()), 'config chain');
    previous = blake3(objects.get(name)!);
  }

  let bundle: Map_ | null = null;
  for (const [name, bytes] of objects) {
    if (!name.startsWith('keys/')) continue;
    const key = signed(bytes, 'key', id, () => root);
    if (key.kind !== 'passphrase') continue;
    const { memoryKiB: m, passes: t, lanes: p, salt } = key.kdf;
    const stretched = argon2id(text.encode(passphrase.normalize('NFC')), salt, { m, t, p, dkLen: 32 });
    if (hex(derive('rozen 1 2026 passphrase commitment', stretched)) !== hex(key.commitment)) continue;
    const aad = join(text.encode('rozen 1 key\0'), id, key.id);
    bundle = decode(
      xchacha20poly1305(derive('rozen 1 2026 passphrase seal key', stretched), key.nonce, aad).decrypt(key.sealed),
    );
  }
  if (bundle === null) throw new Error('no key fits');
  check(hex(bundle.genesis) === hex(genesisHash), 'genesis pin');
  check(hex(ed25519.getPublicKey(bundle.root)) === hex(root), 'root key');
  const secrets = decode(await unwrap(bundle.identities, config.secrets));
  check(JSON.stringify(secrets) === JSON.stringify(bundle.secrets), 'secrets');

  const snapshots: ReferenceSnapshot[] = [];
  for (const [name, bytes] of [...objects].filter(([one]) => one.startsWith('snapshots/'))) {
    const writer = (signer: Uint8Array) =>
      config.writers.find((one: Map_) => hex(one.id) === hex(signer) && one.role === 'writer').publicKey;
    const record = signed(bytes, 'snapshot', id, writer);
    const inverted = (0xffff_ffff_ffff_ffffn - BigInt(record.sequence)).toString(16).padStart(16, '0');
    check(name === `snapshots/${hex(record.tag)}/${inverted}-${hex(record.id)}.cbor`, 'record name');
    for (const reference of [record.previous, record.base]) {
      if (reference === null || reference === undefined) continue;
      const found = [...objects].find(
        ([one]) => one.startsWith(`snapshots/${hex(record.tag)}/`) && one.includes(`-${hex(reference.id)}.`),
      );
      check(hex(blake3(found![1])) === hex(reference.hash), 'record chain');
    }
    let body: Map_ | null = null;
    if (record.kind === 'snapshot') {
      const recordKey = derive(
        'rozen 1 2026 snapshot record key',
        await unwrap(bundle.identities, record.tree.envelope),
      );
      const aad = join(text.encode('rozen 1 snapshot body\0'), id, record.id);
      body = decode(
        xchacha20poly1305(recordKey, record.sealed.subarray(0, 24), aad).decrypt(record.sealed.subarray(24)),
      );
      const tagged = blake3(join(text.encode(body.set), Uint8Array.of(0), outer(bytes, 'snapshot').signer), {
        key: secrets.setTag,
      });
      check(hex(tagged.subarray(0, 16)) === hex(record.tag), 'lineage tag');
    }
    snapshots.push({ name, record, body });
  }
  const fingerprint = hex(genesisHash.subarray(0, 16)).replace(/(.{4})(?=.)/g, '$1-');
  return { id, fingerprint, config, bundle, secrets, snapshots };
}

/** What a row of `archives` says of an archive. */
export interface ReferenceRow {
  id: Uint8Array;
  size: number;
  headerHash: Uint8Array;
  merkleRoot: Uint8Array;
}

/**
 * Where a byte of the stream of an archive lies: in the archive itself while it is there, else where forward records lead
 * (FORMAT-REPOSITORY.md §8). Checks all of them.
 */
export function placeOf(objects: Objects, row: ReferenceRow, streamOffset: number): { id: string; offset: number } {
  const genesis = decode(outer(objects.get('rozen.cbor')!, 'genesis').body);
  const records: Map_[] = [];
  let previous = '';
  for (const name of [...objects.keys()].filter((one) => one.startsWith('forward/')).sort()) {
    const bytes = objects.get(name)!;
    const record = signed(bytes, 'forward', genesis.repository, () => genesis.rootKey);
    check(record.number === records.length + 1, 'forward number');
    check(name === `forward/${String(record.number).padStart(8, '0')}.cbor`, 'forward name');
    check(hex(record.previous ?? new Uint8Array()) === previous, 'forward chain');
    check(record.incompatible === 0 && record.sources.length >= 1 && record.sources.length <= 4096, 'forward record');
    previous = hex(blake3(bytes));
    records.push(record);
  }
  let at = { ...row, offset: streamOffset };
  for (const record of records) {
    const id = hex(at.id);
    if (objects.has(`data/${id.slice(0, 2)}/${id}.roz`)) break;
    const source = record.sources.find((one: Map_) => hex(one.id) === id);
    if (source === undefined) continue;
    check(source.size === at.size && hex(source.headerHash) === hex(at.headerHash), 'forwarded archive');
    check(hex(source.merkleRoot) === hex(at.merkleRoot), 'forwarded Merkle root');
    check(at.offset < source.blocks * 262144, 'place in a forwarded archive');
    at = { ...record.target, offset: at.offset + source.block * 262144 };
  }
  return { id: hex(at.id), offset: at.offset };
}

export function openLabel(setTag: Uint8Array, id: Uint8Array, sealed: Uint8Array): string {
  const key = derive('rozen 1 2026 label key', setTag);
  return Buffer.from(xchacha20poly1305(key, sealed.subarray(0, 24), id).decrypt(sealed.subarray(24))).toString('utf8');
}

async function unwrap(identities: string[], file: Uint8Array): Promise<Uint8Array> {
  const decrypter = new Decrypter();
  for (const identity of identities) decrypter.addIdentity(identity);
  return decrypter.decrypt(file);
}

function outer(bytes: Uint8Array, type: string): Map_ {
  const end = bytes.length - 34;
  check(hex(bytes.subarray(end)) === `5820${hex(blake3(bytes.subarray(0, end)))}`, 'hash');
  const map = decode(bytes.subarray(0, end));
  check(map.rozen === type && map.format === 1, 'type and format');
  return map;
}

function signed(bytes: Uint8Array, type: string, id: Uint8Array, publicKey: (signer: Uint8Array) => Uint8Array): Map_ {
  const map = outer(bytes, type);
  const message = join(text.encode(`rozen 1 ${type}\0`), id, map.body);
  check(ed25519.verify(map.signature, message, publicKey(map.signer)), 'signature');
  return decode(map.body);
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`${what} does not fit`);
}

function decode(bytes: Uint8Array): Map_ {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const argument = (info: number): number => {
    if (info < 24) return info;
    const width = 1 << (info - 24);
    at += width;
    if (width === 1) return view.getUint8(at - 1);
    if (width === 2) return view.getUint16(at - 2);
    if (width === 4) return view.getUint32(at - 4);
    return Number(view.getBigUint64(at - 8));
  };
  const item = (): unknown => {
    const initial = bytes[at++]!;
    const info = initial & 31;
    switch (initial >> 5) {
      case 0:
        return argument(info);
      case 1:
        return -1 - argument(info);
      case 2:
      case 3: {
        const length = argument(info);
        at += length;
        const slice = bytes.slice(at - length, at);
        return initial >> 5 === 2 ? slice : new TextDecoder().decode(slice);
      }
      case 4:
        return Array.from({ length: argument(info) }, item);
      case 5:
        return Object.fromEntries(Array.from({ length: argument(info) }, () => [item(), item()]));
      default:
        if (info === 27) {
          at += 8;
          return view.getFloat64(at - 8);
        }
        return info === 20 ? false : info === 21 ? true : null;
    }
  };
  const value = item();
  check(at === bytes.length, 'CBOR length');
  return value as Map_;
}
