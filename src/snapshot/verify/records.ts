/** The objects beside the archives: genesis, configs, keys and snapshot records. Nothing here needs a key. */
import { corrupt, RozenError } from '../../errors.ts';
import { decodeKeyObject } from '../../repository/bundle.ts';
import { type Config, decodeConfig } from '../../repository/config.ts';
import { MAX_CONFIG, MAX_KEY_OBJECT, MAX_SNAPSHOT_RECORD, TYPE } from '../../repository/format.ts';
import { type Genesis, readGenesis } from '../../repository/genesis.ts';
import { strangerIn } from '../../repository/lineages.ts';
import { Losses } from '../../repository/losses.ts';
import {
  configName,
  GENESIS_NAME,
  KEYS_PREFIX,
  parseConfigName,
  parseKeyName,
  parseSnapshotName,
  snapshotName,
} from '../../repository/names.ts';
import { isSignedBy } from '../../repository/signed.ts';
import {
  type AnyRecord,
  decodeRecordBody,
  decodeRecordOuter,
  type SnapshotRecord,
} from '../../repository/snapshot-record.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import type { Findings } from './findings.ts';

export interface RecordCheck {
  store: ObjectStore;
  findings: Findings;
  /** Names of all objects. */
  names: readonly string[];
}

export async function checkGenesis({ store, findings }: Omit<RecordCheck, 'names'>): Promise<Genesis | null> {
  try {
    return await readGenesis(store);
  } catch (error) {
    findings.caught(error, { object: GENESIS_NAME });
    return null;
  }
}

/** All configs, each signed and following the one before. Answers the newest that can be read. */
export async function checkConfigs({ store, findings, names }: RecordCheck, genesis: Genesis): Promise<Config | null> {
  const numbers = names.map(parseConfigName).filter((number) => number !== null);
  const newest = Math.max(0, ...numbers);
  if (newest === 0) findings.add({ kind: 'missing', object: configName(1), message: 'there is no config at all' });
  let before: Config | null = null;
  let best: Config | null = null;
  for (let number = 1; number <= newest; number++) {
    const object = configName(number);
    let config: Config | null = null;
    try {
      const bytes = await store.get(object, MAX_CONFIG);
      findings.advance(bytes.length);
      config = decodeConfig(bytes, genesis, object);
      if (config.number !== number)
        throw new RozenError('untrusted', `holds config ${config.number}: an older config was put in its place`);
      if (before !== null && !config.previous?.equals(before.hash))
        throw new RozenError('untrusted', `does not follow ${configName(number - 1)}`);
      best = config;
    } catch (error) {
      findings.caught(error, { object });
    }
    before = config;
  }
  return best;
}

/**
 * Which keys there should be is written nowhere: removing one is how a passphrase is taken back. So they are counted, for people to
 * compare. One is made with the repository, and the last one is never removed.
 */
export async function checkKeyObjects({ store, findings, names }: RecordCheck, genesis: Genesis): Promise<void> {
  const objects = names.filter((name) => parseKeyName(name) !== null);
  if (objects.length === 0) {
    const message =
      'there is no key object at all: no passphrase opens the repository, only identities that were exported';
    findings.add({ kind: 'missing', object: KEYS_PREFIX, message });
  }
  for (const object of objects) {
    try {
      const bytes = await store.get(object, MAX_KEY_OBJECT);
      findings.advance(bytes.length);
      const { kind } = decodeKeyObject(bytes, { genesis, id: parseKeyName(object)!, what: object });
      findings.counts[kind === 'passphrase' ? 'passphrases' : 'ageKeys']++;
    } catch (error) {
      findings.caught(error, { object });
    }
  }
}

/** All snapshot records that can be read, oldest first in each lineage, after signatures and chains were checked. */
export async function checkRecords(check: RecordCheck, genesis: Genesis, config: Config | null): Promise<AnyRecord[]> {
  const { store, findings, names } = check;
  const records = new Map<string, AnyRecord>();
  const present = new Set<string>();
  const losses = new Losses(config?.lost);
  if (config?.lost !== undefined) {
    const count = config.lost.length === 1 ? '1 snapshot record is' : `${config.lost.length} snapshot records are`;
    findings.note(`${count} declared lost`);
  }
  for (const object of names) {
    const parts = parseSnapshotName(object);
    if (parts === null) continue;
    present.add(object);
    try {
      const bytes = await store.get(object, MAX_SNAPSHOT_RECORD);
      findings.advance(bytes.length);
      const outer = decodeRecordOuter(bytes, object);
      if (config !== null) checkSignature(outer, genesis, config);
      records.set(object, decodeRecordBody(outer, { name: object, bytes, what: object }));
    } catch (error) {
      if (losses.has(object)) continue;
      findings.caught(error, { object, snapshots: [parts.id.toString('hex')], whole: true });
    }
  }
  const highest = new Map<string, number>();
  for (const name of present) {
    const { tag, sequence } = parseSnapshotName(name)!;
    highest.set(tag, Math.max(highest.get(tag) ?? 0, sequence));
  }
  for (const record of records.values()) {
    checkLinks(findings, record, { records, present, losses });
    for (const seen of record.seen) {
      if ((highest.get(seen.tag) ?? 0) > seen.sequence) continue;
      const object = snapshotName(seen.tag, seen.sequence, seen.id);
      if (!present.has(object) && !losses.has(object))
        findings.add({ kind: 'missing', object, message: `gone, although ${record.name} has seen it` });
    }
    if (config !== null && record.configNumber > config.number) {
      const object = configName(record.configNumber);
      findings.add({ kind: 'missing', object, message: `gone, although ${record.name} was made under it` });
    }
  }
  return [...records.values()].sort((a, b) => (a.tag < b.tag ? -1 : a.tag > b.tag ? 1 : a.sequence - b.sequence));
}

function checkSignature(
  outer: { writerId: Buffer; body: Buffer; signature: Buffer },
  genesis: Genesis,
  config: Config,
): void {
  const writer = config.writers.find((it) => it.id.equals(outer.writerId));
  if (writer === undefined || writer.role !== 'writer')
    throw new RozenError('untrusted', `signed by writer ${outer.writerId.toString('hex')}, who is not enrolled`);
  const { body, signature } = outer;
  if (!isSignedBy(writer.publicKey, TYPE.snapshot, { repositoryId: genesis.repositoryId, body, signature }))
    throw new RozenError('untrusted', 'forged: the signature is not by the writer it names');
}

function checkLinks(
  findings: Findings,
  record: AnyRecord,
  {
    records,
    present,
    losses,
  }: { records: ReadonlyMap<string, AnyRecord>; present: ReadonlySet<string>; losses: Losses },
): void {
  const references = record.kind === 'unchanged' ? [record.previous, record.base] : [record.previous];
  for (const reference of references) {
    if (reference === null) continue;
    const object = snapshotName(record.tag, reference.sequence, reference.id);
    if (!present.has(object)) {
      if (losses.has(object)) continue;
      const snapshots = [reference.id.toString('hex')];
      findings.add({ kind: 'missing', object, message: `gone, although ${record.name} follows it`, snapshots });
      continue;
    }
    const found = records.get(object);
    if (found !== undefined && !found.writerId.equals(record.writerId))
      findings.caught(strangerIn(record.name, record), { object: record.name, snapshots: [record.id.toString('hex')] });
    if (found !== undefined && !found.hash.equals(reference.hash))
      findings.add({ kind: 'untrusted', object, message: `not the record that ${record.name} refers to` });
    if (record.kind === 'unchanged' && reference === record.base && found?.kind === 'unchanged')
      findings.caught(corrupt('refers to a record that is no snapshot'), { object: record.name });
  }
}

export function isSnapshot(record: AnyRecord): record is SnapshotRecord {
  return record.kind === 'snapshot';
}
