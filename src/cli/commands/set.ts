import { RozenError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { openForStatus, type PolicyOptions, policyLine, policyOf } from '../worm-set.ts';

export async function run(context: Context, args: string[], options: PolicyOptions): Promise<undefined> {
  const [set] = args as [string];
  const change = policyOf(options);
  const changes = Object.keys(change).length > 0;
  const repository = changes ? await context.open('write') : await openForStatus(context);
  const { out } = context;
  try {
    const policy = changes ? await changed() : await kept();
    if (out.json) out.document({ set, mode: 'worm', policy });
    else out.line(`${set}: ${policyLine(policy)}`);
  } finally {
    repository.close();
  }

  async function changed() {
    const { setPolicy } = await import('../../snapshot/worm/set-policy.ts');
    return setPolicy({ repository, set, change });
  }

  async function kept() {
    const { checkWorm, openSetTrees } = await import('../../snapshot/worm/set-trees.ts');
    const { body, close } = await openSetTrees(repository, set);
    await close();
    checkWorm(set, body);
    if (body.policy === undefined) throw new RozenError('internal', 'a WORM set without a policy');
    return body.policy;
  }
}
