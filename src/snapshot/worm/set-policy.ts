/** Changes the policy of a WORM set: a snapshot like the one before that says so. */

import { RozenError } from '../../errors.ts';
import type { Repository, WormPolicy } from '../../repository/repository.ts';
import { DEFAULT_POLICY } from '../../repository/repository.ts';
import { commitSnapshot } from '../backup/commit.ts';
import { openLineage } from '../backup/lineage.ts';
import { localPages } from '../backup/local-pages.ts';
import { Plan } from '../backup/plan.ts';
import { setInfo } from './set-info.ts';
import { checkWorm } from './set-trees.ts';

export interface SetPolicyOptions {
  /** Opened to write. */
  repository: Repository;
  set: string;
  change: Partial<WormPolicy>;
}

/** Answers the policy that the set keeps from now on. Nothing is written when it is the one that it had. */
export async function setPolicy({ repository, set, change }: SetPolicyOptions): Promise<WormPolicy> {
  const lineage = await openLineage({ repository, stateDir: repository.stateDir, set, wait: false });
  try {
    const { state, local, slot } = lineage;
    if (state === null) {
      throw new RozenError('not-found', `this machine has no set '${set}'`, {
        hint: 'make it with rozen backup --mode worm; each machine keeps the policy of its own backups',
      });
    }
    const source = localPages(local);
    const trees = { source, roots: state.roots };
    const body = setInfo(trees);
    checkWorm(set, body);
    const before = body.policy ?? DEFAULT_POLICY;
    const policy = { ...before, ...change };
    if (JSON.stringify(policy) === JSON.stringify(before)) return policy;
    const now = Date.now();
    await commitSnapshot({
      repository,
      lineage,
      source,
      old: trees,
      plan: new Plan(true),
      rows: null,
      facts: () => {
        throw new RozenError('internal', 'a change of policy refers to no archive');
      },
      nextInode: state.nextInode,
      emptyId: Buffer.alloc(0),
      walkedAt: state.walkedAt,
      timeSec: Math.max(Math.floor(now / 1000), slot.base?.timeSec ?? 0),
      timeNs: (now % 1000) * 1e6,
      body: { ...body, policy },
      onCommit: () => {},
    });
    return policy;
  } finally {
    await lineage.close();
  }
}
