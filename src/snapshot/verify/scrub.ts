/** `--no-key`: every object of a store held against its own hashes and signatures. Needs no key and opens nothing sealed. */
import { KIND_DATA, KIND_TREE } from '../../archive/format.ts';
import { parseHotIndex } from '../../archive/reader.ts';
import { type ScanResult, scanArchive } from '../../archive/scan.ts';
import { type Trailer, verifyTrailer } from '../../archive/trailer.ts';
import { RozenError } from '../../errors.ts';
import type { Config } from '../../repository/config.ts';
import type { Genesis } from '../../repository/genesis.ts';
import { type ArchiveNameParts, dataName, parseArchiveName, treeName } from '../../repository/names.ts';
import type { SnapshotRecord } from '../../repository/repository.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import { tellIndexDamage } from './archive-check.ts';
import { expectedFrames, tellDamage } from './archive-frames.ts';
import { Findings } from './findings.ts';
import { checkForwards } from './forwards.ts';
import { openObject } from './object-file.ts';
import { isFrozen, listObjects, noteStrangers, noteTemporaryFiles } from './objects.ts';
import { checkConfigs, checkGenesis, checkKeyObjects, checkRecords, isSnapshot } from './records.ts';
import type { VerifyListener, VerifyReport } from './types.ts';

export interface ScrubOptions {
  store: ObjectStore;
  signal?: AbortSignal;
  /** Why the repository could not be opened, when that is why it is scrubbed. */
  cause?: RozenError;
}

const INDEX_LIMIT = 160 * 1024 * 1024;

interface Scrub {
  store: ObjectStore;
  findings: Findings;
  genesis: Genesis | null;
  config: Config | null;
  names: ReadonlySet<string>;
  /** Names of data archives that cannot be read now. */
  frozen: ReadonlySet<string>;
}

export async function scrub(options: ScrubOptions, listener: VerifyListener = {}): Promise<VerifyReport> {
  const { store, signal, cause } = options;
  const findings = new Findings(listener, signal);
  findings.phase('records');
  const { names, archiveBytes, cold } = await listObjects(store, findings);
  const check = { store, findings, names };
  const genesis = await checkGenesis(check);
  const config = genesis === null ? null : await checkConfigs(check, genesis);
  if (genesis !== null) await checkKeyObjects(check, genesis);
  const records = genesis === null ? [] : await checkRecords(check, genesis, config);
  if (genesis !== null) await checkForwards(check, genesis);
  const snapshots = records.filter(isSnapshot);
  findings.counts.snapshots = snapshots.length;
  findings.counts.objects = names.length;
  if (cause !== undefined && findings.all.length === 0) findings.caught(cause, { object: 'rozen.cbor' });

  const archives = names.flatMap((name) => parseArchiveName(name) ?? []);
  findings.phase('archives', archiveBytes);
  const frozen = new Set<string>();
  for (const name of cold) {
    if (parseArchiveName(name)?.place === 'data' && (await isFrozen(store, cold, name))) frozen.add(name);
  }
  findings.counts.frozen = frozen.size;
  if (frozen.size > 0) findings.note(`${frozen.size} data archives lie in cold storage: they were not read`);
  const it: Scrub = { store, findings, genesis, config, names: new Set(names), frozen };
  const trees = new Map<string, SnapshotRecord[]>();
  for (const record of snapshots) {
    const object = treeName(record.tree.id);
    trees.set(object, [...(trees.get(object) ?? []), record]);
    if (!it.names.has(object)) {
      const snapshots = [record.id.toString('hex')];
      findings.add({ kind: 'missing', object, message: 'it is not in the store', snapshots, whole: true });
    }
  }
  for (const parts of archives) {
    if (parts.place === 'index') await scrubIndex(it, parts);
    else await scrubArchive(it, parts, trees.get(treeName(parts.id)) ?? []);
  }
  findings.counts.archives = archives.filter(({ place }) => place !== 'index').length;
  noteStrangers(findings, names);
  await noteTemporaryFiles(findings, store);
  return findings.report('scrub', 0);
}

async function scrubArchive(it: Scrub, parts: ArchiveNameParts, records: readonly SnapshotRecord[]): Promise<void> {
  const { store, findings } = it;
  const object = parts.place === 'tree' ? treeName(parts.id) : dataName(parts.id);
  const snapshots = records.map(({ id }) => id.toString('hex'));
  if (it.frozen.has(object)) return;
  try {
    const file = await openObject(store, object);
    if (file === null) return;
    try {
      const scan = await scanArchive(file);
      findings.advance(file.size);
      const blockType = parts.kind === KIND_TREE ? 'PAGE' : 'DATA';
      for (const { size } of records.map(({ tree }) => tree)) {
        if (size !== file.size) {
          const message = `it has ${file.size} bytes, the signed record says ${size}`;
          findings.add({ kind: 'damaged', object, offset: Math.min(size, file.size), message, snapshots });
        }
      }
      const expected = expectedFrames({ blockType, header: scan.header, blocks: null, trailer: scan.trailer });
      for (const { finding } of tellDamage(findings, object, { scan, expected, blockType }))
        for (const id of snapshots) if (!finding.snapshots.includes(id)) finding.snapshots.push(id);
      judge(it, object, { scan, parts, records, snapshots });
    } finally {
      file.close();
    }
  } catch (error) {
    findings.caught(error, { object, snapshots });
  }
}

function judge(
  it: Scrub,
  object: string,
  about: { scan: ScanResult; parts: ArchiveNameParts; records: readonly SnapshotRecord[]; snapshots: string[] },
): void {
  const { findings, genesis } = it;
  const { scan, parts, records, snapshots } = about;
  const { header, trailer } = scan;
  if (scan.headerError !== null) findings.caught(scan.headerError, { object, offset: 0, snapshots });
  if (header !== null) {
    const place = header.kind === parts.kind && header.id.equals(parts.id);
    if (!place || (genesis !== null && !header.repositoryId.equals(genesis.repositoryId)))
      findings.add({ kind: 'untrusted', object, message: 'another archive was put under this name', snapshots });
    for (const { tree } of records) {
      if (!tree.headerHash.equals(header.headerHash))
        findings.add({
          kind: 'untrusted',
          object,
          message: 'its header is not the one of the signed record',
          snapshots,
        });
    }
    if (trailer !== null) checkSignature(it, object, trailer, header.headerHash);
  }
  if (scan.damage.length > 0) return;
  const roots = [...(trailer === null ? [] : [trailer.merkleRoot]), ...records.map(({ tree }) => tree.merkleRoot)];
  if (roots.some((root) => !root.equals(scan.merkleRoot)))
    findings.add({ kind: 'damaged', object, message: 'its blocks do not give its Merkle root', snapshots });
  if (scan.torn && !findings.has(object)) {
    const message = trailer === null ? 'cut off: it has no trailer' : 'its frames are not in order';
    findings.add({ kind: 'damaged', object, offset: scan.end, message, snapshots });
  }
}

function checkSignature(
  { findings, genesis, config }: Scrub,
  object: string,
  trailer: Trailer,
  headerHash: Buffer,
): void {
  if (genesis === null || config === null) return;
  const writer = config.writers.find(({ id }) => id.equals(trailer.writerId));
  const signed =
    writer !== undefined &&
    writer.role === 'writer' &&
    verifyTrailer(trailer, { repositoryId: genesis.repositoryId, headerHash }, writer.publicKey);
  if (signed) return;
  findings.add({
    kind: 'untrusted',
    object,
    frame: { type: 'AEND', sequence: trailer.frames },
    message: writer === undefined ? 'signed by a writer who is not enrolled' : 'forged: the signature does not fit',
  });
}

/** A hot index: sound in itself, and byte-equal to header and tail of its archive. */
async function scrubIndex(it: Scrub, parts: ArchiveNameParts): Promise<void> {
  const { store, findings } = it;
  const hex = parts.id.toString('hex');
  const object = `index/${hex.slice(0, 2)}/${hex}.rix`;
  const archive = dataName(parts.id);
  try {
    const bytes = await store.get(object, INDEX_LIMIT);
    findings.advance(bytes.length);
    try {
      const { header, trailer } = parseHotIndex(bytes);
      if (header.kind !== KIND_DATA || !header.id.equals(parts.id))
        throw new RozenError('untrusted', 'another archive was put under this name');
      checkSignature(it, object, trailer, header.headerHash);
      await tellIndexDamage(findings, object, bytes);
    } catch (error) {
      await tellIndexDamage(findings, object, bytes);
      if (!findings.has(object)) findings.caught(error, { object });
      return;
    }
    if (!it.names.has(archive)) {
      findings.add({ kind: 'missing', object: archive, message: `it is not in the store, although ${object} is` });
      return;
    }
    if (findings.has(archive) || findings.has(object) || it.frozen.has(archive)) return;
    const headLength = bytes.length - tailLength(bytes);
    const file = (await openObject(store, archive))!;
    try {
      const tail = await file.read(file.size - (bytes.length - headLength), bytes.length - headLength);
      const head = await file.read(0, headLength);
      if (!head.equals(bytes.subarray(0, headLength)) || !tail.equals(bytes.subarray(headLength)))
        findings.add({ kind: 'inconsistent', object, message: `it differs from header and tail of ${archive}` });
    } finally {
      file.close();
    }
  } catch (error) {
    findings.caught(error, { object });
  }
}

function tailLength(index: Buffer): number {
  const { trailer } = parseHotIndex(index);
  return trailer.size - trailer.cidx!.offset;
}
