import type { Context } from '../context.ts';
import { isoTime } from '../display.ts';

export async function run(context: Context, args: string[]): Promise<undefined> {
  const repository = await context.open('owner');
  const { keyRemove } = await import('../../repository/keys.ts');
  const key = await keyRemove(repository, args[0] as string);
  const { out } = context;
  if (out.json) out.object({ ...key, created: isoTime(key.created) });
  else {
    out.line(`removed key ${key.id.slice(0, 8)} (${key.kind}${key.label === null ? '' : `, ${key.label}`})`);
    const opener = key.kind === 'passphrase' ? 'this passphrase' : 'that identity';
    out.message(`it still opens copies of the repository made before: who has one and ${opener} can read it`);
  }
  repository.close();
}
