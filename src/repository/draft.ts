import { RozenError } from '../errors.ts';
import { MAX_SEEN, MAX_SEEN_UNCHANGED } from './format.ts';
import type { LineageTop } from './lineages.ts';
import type { SnapshotNameParts } from './names.ts';
import {
  type AnyRecord,
  type RecordDraft,
  type SnapshotBody,
  type SnapshotRecord,
  type SnapshotTree,
  sealBody,
} from './snapshot-record.ts';

/** A place in a lineage that is free: what a backup needs to know before it writes its trees. */
export interface SnapshotSlot {
  set: string;
  /** Lineage tag, 32 hex characters. */
  tag: string;
  /** Of the record to come. */
  sequence: number;
  /** Of the snapshot to come. */
  id: Buffer;
  /** The snapshot that the lineage stands on; null when it has none. */
  base: SnapshotRecord | null;
  /** The newest record, `base` or an "unchanged" one after it. */
  newest: AnyRecord | null;
}

export type CommitDraft =
  | {
      kind: 'snapshot';
      slot: SnapshotSlot;
      timeSec: number;
      timeNs: number;
      tree: SnapshotTree;
      /** Key of the tree archive: seals the body. */
      key: Buffer;
      body: SnapshotBody;
    }
  | { kind: 'unchanged'; slot: SnapshotSlot; timeSec: number; timeNs: number };

export interface DraftContext {
  repositoryId: Buffer;
  writerId: Buffer;
  /** The config that the writer works under. */
  configNumber: number;
  /** What the store shows now. */
  tops: LineageTop[];
}

/** Everything that the writer signs. */
export function recordDraft(draft: CommitDraft, context: DraftContext): RecordDraft {
  const { slot, timeSec, timeNs } = draft;
  const { newest } = slot;
  const { repositoryId, writerId, configNumber, tops } = context;
  const common = {
    id: slot.id,
    writerId,
    tag: slot.tag,
    sequence: slot.sequence,
    timeSec,
    timeNs,
    previous: newest === null ? null : { sequence: newest.sequence, id: newest.id, hash: newest.hash },
    configNumber,
    seen: seenHeads(tops, slot.tag, draft.kind === 'snapshot' ? MAX_SEEN : MAX_SEEN_UNCHANGED),
  };
  if (draft.kind === 'snapshot') {
    const sealedBody = sealBody(draft.body, { archiveKey: draft.key, repositoryId, id: slot.id });
    const worm = draft.body.mode === 'worm' ? { worm: true } : {};
    return { ...common, kind: 'snapshot', tree: draft.tree, sealedBody, ...worm };
  }
  if (slot.base === null) throw new RozenError('internal', 'nothing can be unchanged before the first snapshot');
  const { sequence, id, hash } = slot.base;
  return { ...common, kind: 'unchanged', base: { sequence, id, hash } };
}

/** Heads of other lineages, the most recent first. */
function seenHeads(tops: LineageTop[], ownTag: string, limit: number): SnapshotNameParts[] {
  return tops
    .filter((top) => top.tag !== ownTag)
    .map((top) => top.records[0]!)
    .sort((a, b) => b.timeSec - a.timeSec)
    .slice(0, limit)
    .map(({ tag, sequence, id }) => ({ tag, sequence, id }));
}
