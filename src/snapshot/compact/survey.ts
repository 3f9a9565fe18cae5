/** Which data archives a repository has: what snapshots and forward records say of them, beside what lies in the store. */
import { FRAME_OVERHEAD, KIND_DATA, MAX_CBOR_HEADER, OUTER_OFFSETS } from '../../archive/format.ts';
import { parseHeader } from '../../archive/header.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { ARCHIVE, HISTORY, TREES } from '../../archive/tree/schema.ts';
import type { ArchiveFacts } from '../../cache/archives.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import type { StoredArchives } from '../../repository/archive-listing.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import { SnapshotOpener } from '../view/place.ts';

/** Data archives that snapshots refer to, oldest first within a lineage, one lineage after another. */
export type NamedArchives = Map<string, ArchiveFacts>;

/**
 * Every data archive that a snapshot names, and what they were merged into. A lineage's newest snapshot names all that the
 * snapshots of its history name, so that few must be opened. `problem` gets what cannot be read: then nothing of it is merged.
 */
export async function namedArchives(
  repository: Repository,
  problem: (object: string, error: unknown) => void,
): Promise<NamedArchives> {
  const records = (await repository.records((error, name) => problem(name, error))).filter(
    (record): record is SnapshotRecord => record.kind === 'snapshot',
  );
  const byLineage = (a: SnapshotRecord, b: SnapshotRecord): number =>
    a.tag < b.tag ? -1 : a.tag > b.tag ? 1 : b.sequence - a.sequence;
  const covered = new Set<string>();
  const named: NamedArchives = new Map();
  const opener = new SnapshotOpener(repository);
  try {
    for (const record of records.sort(byLineage)) {
      if (covered.has(record.id.toString('hex'))) continue;
      try {
        await take(await opener.open({ record }), { covered, named });
      } catch (error) {
        if (!(error instanceof RozenError) || error.code === 'no-key') throw error;
        problem(record.name, error);
      }
    }
  } finally {
    opener.close();
  }
  for (const { target, sources } of repository.forwards.records) {
    if (!sources.some(({ id }) => named.has(id.toString('hex')))) continue;
    const id = target.id.toString('hex');
    if (!named.has(id)) named.set(id, { ...target, kind: KIND_DATA });
  }
  return named;
}

async function take(
  reader: SnapshotReader,
  { covered, named }: { covered: Set<string>; named: NamedArchives },
): Promise<void> {
  const found: ArchiveFacts[] = [];
  const history = new Set<string>();
  await retrying(reader, () => {
    found.length = 0;
    const archives = new Cursor(reader.source, TREES.archives, reader.roots.archives);
    for (let on = archives.seek(0); on; on = archives.next()) {
      const page = archives.page!;
      const i = archives.index;
      if (page.num(ARCHIVE.kind, i) !== KIND_DATA) continue;
      found.push({
        kind: KIND_DATA,
        id: Buffer.from(page.slice(ARCHIVE.id, i)),
        size: page.num(ARCHIVE.size, i),
        headerHash: Buffer.from(page.slice(ARCHIVE.headerHash, i)),
        merkleRoot: Buffer.from(page.slice(ARCHIVE.merkleRoot, i)),
        envelope: Buffer.from(page.slice(ARCHIVE.envelope, i)),
      });
    }
    const rows = new Cursor(reader.source, TREES.history, reader.roots.history);
    for (let on = rows.seek(0); on; on = rows.next())
      history.add(rows.page!.slice(HISTORY.snapshotId, rows.index).toString('hex'));
  });
  for (const facts of found) {
    const id = facts.id.toString('hex');
    if (!named.has(id)) named.set(id, facts);
  }
  for (const id of history) covered.add(id);
}

/** An AHDR frame with some recipients. */
const HEADER_READ = 8 * 1024;
const AT_ONCE = 8;
/** What is wrong with one archive; merging it tells. */
const LOOKED_AT = new Set(['corrupt', 'not-found', 'unsupported']);

/**
 * Those of these archives whose headers say nothing special of them. What has a compatible flag can be read as any other, but is to be
 * kept as it is: merged with others it would lose what the flag says.
 */
export async function plainArchives(
  { store }: Repository,
  archives: readonly ArchiveFacts[],
  { index }: StoredArchives,
): Promise<ArchiveFacts[]> {
  const plain = new Array<boolean>(archives.length).fill(false);
  const look = async (at: number): Promise<void> => {
    const facts = archives[at]!;
    const { name, size } = index.get(facts.id.toString('hex'))!;
    try {
      let bytes = await store.getRange(name, 0, Math.min(HEADER_READ, size));
      const length = FRAME_OVERHEAD + bytes.readUInt32LE(OUTER_OFFSETS.cborLength);
      if (length > bytes.length && length <= Math.min(size, FRAME_OVERHEAD + MAX_CBOR_HEADER))
        bytes = await store.getRange(name, 0, length);
      const { flags, headerHash } = parseHeader(bytes.subarray(0, length));
      // One that is not the archive's own is told when it is opened.
      plain[at] = !headerHash.equals(facts.headerHash) || (flags.compatible === 0 && flags.readCompatible === 0);
    } catch (error) {
      if (!(error instanceof RozenError) || !LOOKED_AT.has(error.code)) throw error;
      plain[at] = error.code !== 'unsupported';
    }
  };
  const left = archives.keys();
  const work = async (): Promise<void> => {
    for (const at of left) await look(at);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return archives.filter((_, at) => plain[at]);
}
