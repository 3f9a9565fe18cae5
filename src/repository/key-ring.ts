import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { type Bundle, decodeKeyObject, type KeyObject, openAgeKey, openPassphraseKey } from './bundle.ts';
import { MAX_KEY_OBJECT } from './format.ts';
import type { Genesis } from './genesis.ts';
import { KEYS_PREFIX, keyName, parseKeyName } from './names.ts';
import type { ObjectCache } from './object-cache.ts';

export interface KeyPlace {
  store: ObjectStore;
  genesis: Genesis;
  /** Of a remote store: the key object that was opened last is kept there, sealed as it is. */
  objects?: ObjectCache | null;
}

/** Key objects that can be read; the errors of those that cannot. One damaged key must not lock out the others. */
export async function readKeyObjects({
  store,
  genesis,
}: KeyPlace): Promise<{ keys: (KeyObject & { bytes: Buffer })[]; errors: RozenError[] }> {
  const keys: (KeyObject & { bytes: Buffer })[] = [];
  const errors: RozenError[] = [];
  for await (const { name } of store.list(KEYS_PREFIX)) {
    const id = parseKeyName(name);
    if (id === null) continue;
    try {
      const bytes = await store.get(keyName(id), MAX_KEY_OBJECT);
      keys.push({ ...decodeKeyObject(bytes, { genesis, id, what: `${store.location}/${name}` }), bytes });
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
      errors.push(error);
    }
  }
  return { keys, errors };
}

/** The bundle that the passphrase opens, beginning with the key that it opened last time. 'no-key' when there is none. */
export async function openWithPassphrases(
  place: KeyPlace,
  passphrase: string,
  lastKey: Buffer | null,
): Promise<{ id: Buffer; bundle: Bundle }> {
  const { objects = null } = place;
  if (objects !== null && lastKey !== null) {
    const bundle = await openLastKey({ ...place, objects }, passphrase, lastKey);
    if (bundle !== null) return { id: lastKey, bundle };
  }
  const { keys, errors } = await readKeyObjects(place);
  const { repositoryId, hash: genesisHash } = place.genesis;
  const own = keys.filter((key) => key.kind === 'passphrase');
  own.sort((a, b) => Number(lastKey?.equals(b.id) ?? false) - Number(lastKey?.equals(a.id) ?? false));
  for (const key of own) {
    let bundle: Bundle | null;
    try {
      bundle = await openPassphraseKey(key, passphrase, { repositoryId, genesisHash });
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'corrupt') throw error;
      errors.push(error);
      continue;
    }
    if (bundle !== null) {
      objects?.put(repositoryId, keyName(key.id), key.bytes);
      return { id: key.id, bundle };
    }
  }
  // A damaged or tampered key object may be the very one: say that instead of "wrong passphrase".
  if (errors[0] !== undefined) throw errors[0];
  if (own.length === 0) {
    throw new RozenError('no-key', `${place.store.location} has no passphrase`, {
      hint: 'use an identity file: --identity FILE',
    });
  }
  throw new RozenError('no-key', `wrong passphrase for ${place.store.location}`, {
    hint: 'try again; `rozen key list` shows which keys there are',
  });
}

/**
 * The key object that was opened last, alone: from the cache or by one read. One that the store does not have any more opens
 * nothing: somebody removed that key. Null when it is not to be had, damaged, or of another passphrase.
 */
async function openLastKey(
  { store, genesis, objects }: KeyPlace & { objects: ObjectCache },
  passphrase: string,
  id: Buffer,
): Promise<Bundle | null> {
  const { repositoryId, hash: genesisHash } = genesis;
  const name = keyName(id);
  const kept = objects.get(repositoryId, name);
  try {
    // While the passphrase is stretched, which takes longer. A store that cannot be reached cannot say no.
    const stored =
      kept === null
        ? Promise.resolve(true)
        : store.stat(name).then(
            (info) => info !== null,
            (error) => error instanceof RozenError && error.code === 'io',
          );
    const bytes = kept ?? (await store.get(name, MAX_KEY_OBJECT));
    const key = decodeKeyObject(bytes, { genesis, id, what: `${store.location}/${name}` });
    const bundle = await openPassphraseKey(key, passphrase, { repositoryId, genesisHash });
    if (!(await stored)) {
      objects.remove(repositoryId, name);
      return null;
    }
    if (bundle !== null && kept === null) objects.put(repositoryId, name, bytes);
    return bundle;
  } catch (error) {
    if (!(error instanceof RozenError)) throw error;
    if (kept !== null) objects.remove(repositoryId, name);
    return null;
  }
}

/** The bundle sealed to one of these identities, an owner's before a reader's; null when there is none. */
export async function openWithAge(
  place: KeyPlace,
  identities: string[],
): Promise<{ id: Buffer; bundle: Bundle } | null> {
  const { keys, errors } = await readKeyObjects(place);
  let best: { id: Buffer; bundle: Bundle } | null = null;
  for (const key of keys) {
    const bundle = await openAgeKey(key, identities, { genesisHash: place.genesis.hash });
    if (bundle !== null && (best === null || best.bundle.rootSecret === null)) best = { id: key.id, bundle };
  }
  if (best === null && errors[0] !== undefined) throw errors[0];
  return best;
}
