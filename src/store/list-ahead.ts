import type { ObjectInfo, ObjectStore } from './object-store.ts';

/**
 * The same store, whose listing of `prefix` is under way already: whoever lists it first gets that. For a start that has other
 * things to load before it comes to the listing.
 */
export function listAhead(store: ObjectStore, prefix: string): ObjectStore {
  const begun = store.list(prefix, { after: prefix })[Symbol.asyncIterator]();
  let first: Promise<IteratorResult<ObjectInfo>> | null = begun.next();
  // Who comes for it hears of its failure; nobody may come.
  first.catch(() => {});
  const rest: AsyncIterable<ObjectInfo> = { [Symbol.asyncIterator]: () => begun };
  async function* listed(taken: Promise<IteratorResult<ObjectInfo>>): AsyncIterable<ObjectInfo> {
    const { done, value } = await taken;
    if (done === true) return;
    yield value;
    yield* rest;
  }
  const list: ObjectStore['list'] = (wanted, options) => {
    const taken = wanted === prefix && (options?.after ?? prefix) === prefix ? first : null;
    if (taken === null) return store.list(wanted, options);
    first = null;
    return listed(taken);
  };
  return new Proxy(store, {
    get(target, name) {
      if (name === 'list') return list;
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}
