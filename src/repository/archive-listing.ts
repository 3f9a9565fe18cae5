import type { ObjectInfo, ObjectStore } from '../store/object-store.ts';
import { DATA_PREFIX, INDEX_PREFIX, parseArchiveName } from './names.ts';

/** The archives, or hot indexes, that lie below a prefix, by archive id in hex. */
export async function listArchives(store: ObjectStore, prefix: string): Promise<Map<string, ObjectInfo>> {
  const found = new Map<string, ObjectInfo>();
  for await (const info of store.list(prefix)) {
    const parts = parseArchiveName(info.name);
    if (parts !== null) found.set(parts.id.toString('hex'), info);
  }
  return found;
}

export interface StoredArchives {
  /** Data archives by id. */
  data: ReadonlyMap<string, ObjectInfo>;
  /** Hot indexes, by id too. */
  index: ReadonlyMap<string, ObjectInfo>;
}

export async function storedArchives({ store }: { store: ObjectStore }): Promise<StoredArchives> {
  const data = await listArchives(store, DATA_PREFIX);
  return { data, index: await listArchives(store, INDEX_PREFIX) };
}
