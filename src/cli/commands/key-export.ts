import type { Context } from '../context.ts';
import { writeSecretFile } from '../secret-file.ts';

export async function run(context: Context, args: string[], options: { owner?: boolean }): Promise<undefined> {
  const repository = await context.open(options.owner ? 'owner' : 'read');
  const { keyExport } = await import('../../repository/keys.ts');
  const text = await keyExport(repository, { owner: options.owner ?? false });
  repository.close();
  const [path] = args;
  if (path === undefined) context.out.write(text);
  else {
    writeSecretFile(path, text);
    context.out.message(`${path} opens the repository without a passphrase: keep it secret`);
  }
}
