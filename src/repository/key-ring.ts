import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { type Bundle, decodeKeyObject, type KeyObject, openAgeKey, openPassphraseKey } from './bundle.ts';
import { MAX_KEY_OBJECT } from './format.ts';
import type { Genesis } from './genesis.ts';
import { KEYS_PREFIX, keyName, parseKeyName } from './names.ts';

export interface KeyPlace {
  store: ObjectStore;
  genesis: Genesis;
}

/** Key objects that can be read; the errors of those that cannot. One damaged key must not lock out the others. */
export async function readKeyObjects({
  store,
  genesis,
}: KeyPlace): Promise<{ keys: KeyObject[]; errors: RozenError[] }> {
  const keys: KeyObject[] = [];
  const errors: RozenError[] = [];
  for await (const { name } of store.list(KEYS_PREFIX)) {
    const id = parseKeyName(name);
    if (id === null) continue;
    try {
      const bytes = await store.get(keyName(id), MAX_KEY_OBJECT);
      keys.push(decodeKeyObject(bytes, { genesis, id, what: `${store.location}/${name}` }));
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
    if (bundle !== null) return { id: key.id, bundle };
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
