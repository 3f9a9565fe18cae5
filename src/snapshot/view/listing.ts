import { RozenError } from '../../errors.ts';
import type { AnyRecord, OnProblem, Repository, SnapshotRecord } from '../../repository/repository.ts';
import { chooseSnapshot, type Nameable, type SnapshotName } from './naming.ts';

/** A snapshot with what only readers may know. */
export interface SnapshotInfo {
  /** 32 hexadecimal digits. */
  id: string;
  set: string;
  mode: 'worm' | 'snapshot';
  timeSec: number;
  timeNs: number;
  host: string;
  user: string;
  /** Absolute paths of what was backed up. */
  paths: Buffer[];
  tags: string[];
  stats: Record<string, number>;
  /** Lineage tag and the record's number in it. */
  lineage: string;
  sequence: number;
  /** When a later run last found nothing changed; null if none did. */
  confirmed: { timeSec: number; timeNs: number } | null;
  record: SnapshotRecord;
}

/** Envelopes opened at once: each costs some milliseconds of curve arithmetic on this thread, and waits in between. */
const PARALLEL = 8;

/** All snapshots, oldest first. With `onProblem`, damaged records are told and left out. */
export async function listSnapshots(repository: Repository, onProblem?: OnProblem): Promise<SnapshotInfo[]> {
  const records = await repository.records(onProblem);
  const confirmed = confirmations(records);
  const snapshots = records.filter((record) => record.kind === 'snapshot');
  const infos: (SnapshotInfo | null)[] = new Array(snapshots.length).fill(null);
  let next = 0;
  const work = async (): Promise<void> => {
    for (let index = next++; index < snapshots.length; index = next++) {
      const record = snapshots[index] as SnapshotRecord;
      try {
        infos[index] = await describe(repository, {
          ...record,
          confirmed: confirmed.get(record.id.toString('hex')) ?? null,
        });
      } catch (error) {
        passOver(error, record, onProblem);
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
  return infos
    .filter((info) => info !== null)
    .sort((a, b) => a.timeSec - b.timeSec || a.timeNs - b.timeNs || a.sequence - b.sequence);
}

/**
 * The snapshot that a name means, without opening the others: of each lineage one record tells the set, as a lineage
 * belongs to one set. `latest` reads the heads alone.
 */
export async function findSnapshot(
  repository: Repository,
  name: SnapshotName,
  onProblem?: OnProblem,
): Promise<SnapshotInfo> {
  const records = name.kind === 'latest' ? await repository.heads(onProblem) : await repository.records(onProblem);
  const confirmed = confirmations(records);
  const sets = new Map<string, string>();
  const candidates: (Nameable & { record: SnapshotRecord })[] = [];
  for (const record of records) {
    if (record.kind !== 'snapshot') continue;
    const { id, tag, sequence, timeSec, timeNs } = record;
    try {
      // An id is enough to choose by: no key is used for what is not asked for.
      const set = name.kind === 'id' ? '' : (sets.get(tag) ?? (await repository.openBody(record)).set);
      sets.set(tag, set);
      candidates.push({ id: id.toString('hex'), set, lineage: tag, sequence, timeSec, timeNs, record });
    } catch (error) {
      passOver(error, record, onProblem);
    }
  }
  const { id, record } = chooseSnapshot(name, candidates);
  return describe(repository, { ...record, confirmed: record.confirmed ?? confirmed.get(id) ?? null });
}

/** A record in the lineage of another machine is no snapshot of it. */
function passOver(error: unknown, { name }: SnapshotRecord, onProblem: OnProblem | undefined): void {
  if (onProblem === undefined || !(error instanceof RozenError) || error.code !== 'untrusted') throw error;
  onProblem(error, name);
}

/** Of each snapshot the newest "unchanged" record that stands on it. */
function confirmations(records: readonly AnyRecord[]): Map<string, { timeSec: number; timeNs: number }> {
  const found = new Map<string, { timeSec: number; timeNs: number }>();
  // Newest first.
  for (const record of records) {
    if (record.kind !== 'unchanged') continue;
    const base = record.base.id.toString('hex');
    if (!found.has(base)) found.set(base, { timeSec: record.timeSec, timeNs: record.timeNs });
  }
  return found;
}

/** What the record of a snapshot says to readers. */
export async function describe(repository: Repository, record: SnapshotRecord): Promise<SnapshotInfo> {
  const body = await repository.openBody(record);
  return {
    ...body,
    id: record.id.toString('hex'),
    timeSec: record.timeSec,
    timeNs: record.timeNs,
    lineage: record.tag,
    sequence: record.sequence,
    confirmed: record.confirmed,
    record,
  };
}
