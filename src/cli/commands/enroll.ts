import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { RozenError } from '../../errors.ts';
import { reasonOf } from '../../posix/reason.ts';
import type { Context } from '../context.ts';
import { writeSecretFile } from '../secret-file.ts';

interface Options {
  name?: string;
  export?: string;
  import?: string;
}

export async function run(context: Context, _args: string[], options: Options): Promise<undefined> {
  if (options.export !== undefined && options.import !== undefined) {
    throw new RozenError('usage', '--export and --import exclude each other', {
      hint: 'export here, import on the other machine',
    });
  }
  if (options.import !== undefined) return importFile(context, options.import);
  const { enroll, enrollHere } = await import('../../repository/enroll.ts');
  const { out } = context;
  const repository = await context.open('owner');
  const name = options.name ?? hostname();
  if (options.export === undefined) {
    if (repository.writer !== null) {
      out.message(`this machine is enrolled already, as ${repository.writerName(repository.writer.id) ?? name}`);
    } else await enrollHere(repository, name);
    const writer = repository.writer?.id.toString('hex') ?? null;
    if (out.json) out.object({ name, writer });
    else out.message(`${name} can back up into ${repository.store.location} without a passphrase from now on`);
  } else {
    if (options.name === undefined) {
      throw new RozenError('usage', 'the other machine needs a name', { hint: 'add --name NAME' });
    }
    const bytes = await enroll(repository, { name });
    writeSecretFile(options.export, bytes);
    bytes.fill(0);
    if (out.json) out.object({ name, file: options.export });
    else {
      out.message(`${options.export} lets its holder add to ${repository.store.location}, never read; on ${name}:`);
      out.line(`rozen -r REPO enroll --import ${options.export}`);
    }
  }
  repository.close();
}

async function importFile(context: Context, path: string): Promise<undefined> {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new RozenError('io', `${path}: the writer file cannot be read: ${reasonOf(cause)}`, {
      cause,
    });
  }
  const { importWriter } = await import('../../repository/enroll.ts');
  const repository = await importWriter({ store: await context.store(), bytes }).catch((error: unknown) => {
    if (!(error instanceof RozenError) || error.code !== 'usage') throw error;
    throw new RozenError('usage', `${path}: ${error.message}`, { hint: error.hint, cause: error });
  });
  const { out } = context;
  if (out.json)
    out.object({ writer: repository.writer?.id.toString('hex') ?? null, fingerprint: repository.fingerprint });
  else {
    out.line(`enrolled in ${repository.store.location}, fingerprint ${repository.fingerprint}`);
    out.message(`delete ${path} now: it is a secret`);
  }
  repository.close();
}
