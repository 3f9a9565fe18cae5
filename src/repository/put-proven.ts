import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';

/**
 * Creates an object that other machines may create at the same time, and makes sure that the store has this one and not theirs: on a
 * server that overwrites all the same, each would go on as if it were the only one. 'exists' as `put`.
 */
export async function putProven(store: ObjectStore, name: string, bytes: Buffer): Promise<void> {
  await store.put(name, bytes);
  if (await isStored(store, name, bytes)) return;
  throw new RozenError('io', `${store.location}/${name} is not what was just written: something has overwritten it`, {
    hint: 'the store must refuse to make an object that is there (If-None-Match); use another server, then run it again',
  });
}

/** Whether the object has these bytes. */
export async function isStored(store: ObjectStore, name: string, bytes: Buffer): Promise<boolean> {
  try {
    return (await store.get(name, bytes.length)).equals(bytes);
  } catch (error) {
    // Gone, or longer.
    if (error instanceof RozenError && (error.code === 'not-found' || error.code === 'corrupt')) return false;
    throw error;
  }
}
