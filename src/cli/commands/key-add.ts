import { RozenError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { chooseNewPassphrase } from '../credentials.ts';
import { isoTime } from '../display.ts';

interface Options {
  label?: string;
  newPasswordFile?: string;
  recipient?: string;
  owner?: boolean;
}

export async function run(context: Context, _args: string[], options: Options): Promise<undefined> {
  const { recipient } = options;
  if (recipient !== undefined && options.newPasswordFile !== undefined) {
    throw new RozenError('usage', 'a key is either a passphrase or a recipient', {
      hint: 'add them one after another',
    });
  }
  if (options.owner && recipient === undefined) {
    throw new RozenError('usage', '--owner is for --recipient', { hint: 'a passphrase always owns the repository' });
  }
  const repository = await context.open('owner');
  const { keyAdd } = await import('../../repository/keys.ts');
  const passphrase =
    recipient === undefined
      ? await chooseNewPassphrase({ file: options.newPasswordFile, useEnvironment: false })()
      : undefined;
  const key = await keyAdd(repository, {
    label: options.label ?? (recipient === undefined ? 'passphrase' : 'recipient'),
    passphrase,
    recipient,
    owner: options.owner,
  });
  const { out } = context;
  if (out.json) out.object({ ...key, created: isoTime(key.created) });
  else {
    out.line(`added key ${key.id.slice(0, 8)} (${key.kind}, ${key.label})`);
    if (!key.past) out.message('it can read what is written from now on, not what was written before');
  }
  repository.close();
}
