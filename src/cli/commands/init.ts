import { readdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { RozenError } from '../../errors.ts';
import { parseConfigName, parseKeyName } from '../../repository/names.ts';
import { isUrl } from '../../store/location.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import type { RepositoryConfig } from '../config.ts';
import type { Context } from '../context.ts';
import { chooseNewPassphrase } from '../credentials.ts';
import { parseDays, parseStorageClass } from '../values.ts';

interface Options {
  recipient?: string[];
  postQuantum?: boolean;
  label?: string;
  endpoint?: string;
  region?: string;
  storageClass?: string;
  objectLock?: string;
}

export async function run(context: Context, args: string[], options: Options): Promise<undefined> {
  const recipients = options.recipient ?? [];
  const { passwordFile } = context.options;
  // With recipients the environment's passphrase is not meant: it would be a second way in that nobody asked for.
  const wantsPassphrase = recipients.length === 0 || passwordFile !== undefined;
  const [named] = args;
  const { openStore } = await import('../../store/open.ts');
  const storageClass = parseStorageClass(options.storageClass);
  const lockDays = options.objectLock === undefined ? undefined : parseDays(options.objectLock, '--object-lock');
  const place = named === undefined ? await context.repository() : await placeOf(context, named);
  const { endpoint = place.endpoint, region = place.region } = options;
  const store = await openStore(place.location, { ...place, endpoint, region });
  if (await hasGenesis(store)) throw alreadyThere(store.location);
  await refuseForeign(store);
  const passphrase = wantsPassphrase ? await chooseNewPassphrase({ useEnvironment: true, passwordFile })() : undefined;
  const { initRepository } = await import('../../repository/init.ts');
  const repository = await initRepository({
    store,
    passphrase,
    recipients,
    postQuantum: options.postQuantum,
    label: options.label,
    keeping: { storageClass, lockDays },
  });
  const { out } = context;
  if (out.json) {
    out.document({
      location: store.location,
      id: repository.id.toString('hex'),
      fingerprint: repository.fingerprint,
      recipients: repository.config.recipients,
    });
  } else {
    out.line(`made repository ${repository.id.toString('hex').slice(0, 8)} in ${store.location}`);
    out.line(`fingerprint: ${repository.fingerprint}`);
    out.message('Write the fingerprint down: it proves later that a repository is this one.');
    if (passphrase !== undefined) {
      out.message(
        'Without the passphrase nothing can be read. Keep a copy of the key in a safe: rozen key export --owner',
      );
    } else {
      out.message('This machine can back up, but not read: only the identities of the recipients can.');
    }
  }
  repository.close();
}

/** A name from the configuration, or a place. */
async function placeOf(context: Context, named: string): Promise<RepositoryConfig> {
  const { repositories } = await context.config();
  const configured = Object.hasOwn(repositories, named) ? repositories[named] : undefined;
  return configured ?? { location: isUrl(named) ? named : resolve(named) };
}

/** A folder that cannot be looked into is told of by what init does next; a bucket says now what is wrong with keys or network. */
async function hasGenesis(store: ObjectStore): Promise<boolean> {
  try {
    return (await store.stat('rozen.cbor')) !== null;
  } catch (error) {
    const isAbsent = error instanceof RozenError && error.code === 'not-found';
    if (isAbsent || store.localPath('rozen.cbor') !== null) return false;
    throw error;
  }
}

/** What a new file system and an init that was interrupted leave; snapshots without a genesis have a refusal of their own. */
const OURS = new Set(['lost+found', '.tmp', 'keys', 'config', 'snapshots']);

/** Refuses a folder that holds something else: a repository among the files of somebody is a mishap. */
async function refuseForeign(store: ObjectStore): Promise<void> {
  const genesis = store.localPath('rozen.cbor');
  if (genesis === null) return refuseForeignObjects(store);
  const folder = dirname(genesis);
  const found = namesIn(folder);
  const foreign =
    found.find((name) => !OURS.has(name)) ??
    namesIn(`${folder}/keys`).find((name) => parseKeyName(`keys/${name}`) === null) ??
    namesIn(`${folder}/config`).find((name) => parseConfigName(`config/${name}`) === null);
  if (foreign === undefined) return;
  throw new RozenError('exists', `${store.location} is not empty (${foreign})`, {
    hint: `name a folder that does not exist yet, such as ${folder === '/' ? '' : folder}/rozen`,
  });
}

/** How many objects of a bucket are looked at: more do not come from an init. */
const LOOKED_AT = 100;

async function refuseForeignObjects(store: ObjectStore): Promise<void> {
  let looked = 0;
  try {
    for await (const { name } of store.list('')) {
      if (parseKeyName(name) === null && parseConfigName(name) === null && !name.startsWith('snapshots/')) {
        throw new RozenError('exists', `${store.location} is not empty (${name})`, {
          hint: 'name a prefix that holds nothing yet, such as s3://bucket/rozen',
        });
      }
      if (++looked >= LOOKED_AT) return;
    }
  } catch (error) {
    // A bucket that does not exist will be made.
    if (!(error instanceof RozenError) || error.code !== 'not-found') throw error;
  }
}

/** None of what is no folder, or cannot be read: what init does next tells why. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** Said before a passphrase is asked for in vain. */
function alreadyThere(location: string): RozenError {
  return new RozenError('exists', `${location} holds a repository already`, {
    hint: 'choose another place, or use the one that is there',
  });
}
