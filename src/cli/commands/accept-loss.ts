import { declareLost, findLost } from '../../repository/declare-lost.ts';
import type { Context } from '../context.ts';
import { plural } from '../display.ts';
import { EXIT } from '../exit.ts';
import { confirm } from '../prompt.ts';

/**
 * `rozen repair --accept-loss [OBJECT...]`: an owner says which snapshot records are lost, so that nobody refuses the rest of
 * the repository. Without names: all that this machine can tell to be missing or damaged.
 */
export async function acceptLoss(
  context: Context,
  names: string[],
  options: { dryRun?: boolean; yes?: boolean },
): Promise<number> {
  const { out } = context;
  const repository = await context.open('owner');
  try {
    const lost = names.length > 0 ? names : await findLost(repository);
    if (!out.json) for (const name of lost) out.line(`lost  ${name}`);
    let config: number | null = null;
    if (lost.length > 0 && !options.dryRun) {
      const agreed =
        options.yes ||
        (await confirm(
          `Is there no copy of ${lost.length === 1 ? 'this record' : `these ${lost.length} records`} anywhere? Their snapshots will be gone for everybody.`,
          'add --yes to declare them lost',
        ));
      if (!agreed) {
        out.message('nothing was declared');
        return EXIT.failed;
      }
      config = (await declareLost(repository, lost)).number;
    }
    if (out.json) out.document({ lost, config });
    else if (lost.length === 0) out.message('no record is missing or damaged');
    else if (config !== null)
      out.message(
        `${plural(lost.length, 'record')} declared lost, in config ${config}: every machine goes on without them`,
      );
    return EXIT.done;
  } finally {
    repository.close();
  }
}
