import { randomBytes } from 'node:crypto';
import type { Repository, SnapshotRecord, UnchangedRecord } from '../../src/repository/repository.ts';

/** Commits a snapshot whose tree archive is made up: enough for everything that looks at records. */
export async function commitSnapshot(
  repository: Repository,
  set: string,
  timeSec = 1_000_000_000,
): Promise<SnapshotRecord> {
  const slot = await repository.nextSlot(set);
  const { key, envelope } = await repository.newArchiveKey();
  const tree = {
    id: randomBytes(16),
    size: 4711,
    row: 1,
    headerHash: randomBytes(32),
    merkleRoot: randomBytes(32),
    envelope,
  };
  const body = {
    set,
    mode: 'snapshot' as const,
    host: 'host',
    user: 'user',
    paths: [Buffer.from('/home/\xff', 'latin1')],
    tags: ['a tag'],
    stats: { files: 3, bytes: 2 ** 40 },
  };
  return repository.commit({ kind: 'snapshot', slot, timeSec, timeNs: 5, tree, key, body });
}

export async function commitUnchanged(
  repository: Repository,
  set: string,
  timeSec = 1_000_000_100,
): Promise<UnchangedRecord> {
  const slot = await repository.nextSlot(set);
  return repository.commit({ kind: 'unchanged', slot, timeSec, timeNs: 0 });
}
