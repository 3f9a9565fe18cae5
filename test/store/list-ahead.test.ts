import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { RozenError } from '../../src/errors.ts';
import { listAhead } from '../../src/store/list-ahead.ts';
import { LocalStore } from '../../src/store/local.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';

let dir: string;
let store: LocalStore;
let lists: string[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'rozen-ahead-'));
  store = new LocalStore(dir);
  lists = [];
  const list = store.list.bind(store);
  store.list = (prefix, options) => {
    lists.push(prefix);
    return list(prefix, options);
  };
  await store.prepare();
  for (const name of ['s/a', 's/b', 't/a']) await store.put(name, Buffer.from(name));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function names(from: ObjectStore, prefix: string, after?: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of from.list(prefix, after === undefined ? {} : { after })) found.push(name);
  return found;
}

test('the first listing is the one that was begun, the next one is new', async () => {
  const ahead = listAhead(store, 's/');
  expect(lists).toEqual(['s/']);
  expect(await names(ahead, 't/')).toEqual(['t/a']);
  expect(await names(ahead, 's/', 's/')).toEqual(['s/a', 's/b']);
  expect(lists).toEqual(['s/', 't/']);
  await ahead.put('s/c', Buffer.from('c'));
  expect(await names(ahead, 's/', 's/')).toEqual(['s/a', 's/b', 's/c']);
  expect(lists).toEqual(['s/', 't/', 's/']);
});

test('a listing from another place is not the one that was begun', async () => {
  const ahead = listAhead(store, 's/');
  expect(await names(ahead, 's/', 's/a')).toEqual(['s/b']);
  expect(await names(ahead, 's/')).toEqual(['s/a', 's/b']);
  expect(lists).toEqual(['s/', 's/']);
});

test('whoever comes for it hears why it failed, and everything else works', async () => {
  store.list = () => ({
    [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new RozenError('io', 'no network')) }),
  });
  const ahead = listAhead(store, 's/');
  expect((await ahead.get('s/a')).toString()).toBe('s/a');
  expect(ahead.location).toBe(store.location);
  expect(ahead.localPath('s/a')).toBe(store.localPath('s/a'));
  await expect(names(ahead, 's/')).rejects.toThrow('no network');
});
