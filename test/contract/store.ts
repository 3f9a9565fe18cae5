import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { RozenError } from '../../src/errors.ts';
import type { ObjectInfo, ObjectStore } from '../../src/store/object-store.ts';

/**
 * What every store must do. `makeStore` gives an empty place that is not prepared yet.
 */
export function storeContract(name: string, makeStore: () => Promise<ObjectStore> | ObjectStore): void {
  describe(`${name} as a store`, () => {
    const scratch = mkdtempSync(join(tmpdir(), 'rozen-contract-'));
    afterAll(() => rmSync(scratch, { recursive: true, force: true }));
    let store: ObjectStore;

    beforeEach(async () => {
      store = await makeStore();
      await store.prepare();
    });

    test('prepare may be called again', async () => {
      await store.put('a', Buffer.from('a'));
      await store.prepare();
      expect(await names(store, '')).toEqual(['a']);
    });

    test('gives back what was put', async () => {
      const bytes = Buffer.from('some bytes');
      await store.put('data/ab/abcd.roz', bytes);
      expect(await store.get('data/ab/abcd.roz')).toEqual(bytes);
      const info = await store.stat('data/ab/abcd.roz');
      expect(info?.size).toBe(bytes.length);
      expect(Math.abs(Date.now() - info!.modified)).toBeLessThan(120_000);
    });

    test('keeps an empty object', async () => {
      await store.put('empty', Buffer.alloc(0));
      expect((await store.get('empty')).length).toBe(0);
      expect(await store.getSuffix('empty', 10)).toEqual({ bytes: Buffer.alloc(0), size: 0 });
      expect((await store.getRange('empty', 0, 0)).length).toBe(0);
      expect((await store.stat('empty'))?.size).toBe(0);
    });

    test('never overwrites, and says exists', async () => {
      await store.put('once', Buffer.from('first'));
      await expectCode(store.put('once', Buffer.from('second')), 'exists');
      await expectCode(store.put('once', Buffer.from('first')), 'exists');
      await expectCode(store.putFile('once', file('other')), 'exists');
      expect((await store.get('once')).toString()).toBe('first');
    });

    test('lets exactly one of many writers create an object', async () => {
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, i) =>
          i % 2 === 0 ? store.put('race', Buffer.from(`writer ${i}`)) : store.putFile('race', file(`writer ${i}`)),
        ),
      );
      const winners = outcomes.flatMap((outcome, i) => (outcome.status === 'fulfilled' ? [i] : []));
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'exists' });
      }
      expect((await store.get('race')).toString()).toBe(`writer ${winners[0]}`);
    });

    test('stores a file', async () => {
      await store.putFile('tree/ab/file', file('content of a file'));
      expect((await store.get('tree/ab/file')).toString()).toBe('content of a file');
      expect(await names(store, '')).toEqual(['tree/ab/file']);
    });

    test('a missing file is an error and makes no object', async () => {
      await expect(store.putFile('x', join(scratch, 'nothing here'))).rejects.toThrow(RozenError);
      expect(await names(store, '')).toEqual([]);
    });

    test('says not-found for what is not there', async () => {
      await store.put('a/b', Buffer.from('b'));
      for (const missing of ['nothing', 'a', 'a/b/c', 'a/c']) {
        await expectCode(store.get(missing), 'not-found');
        await expectCode(store.getRange(missing, 0, 1), 'not-found');
        await expectCode(store.getSuffix(missing, 1), 'not-found');
        expect(await store.stat(missing)).toBeNull();
      }
    });

    test('reads ranges exactly, or says corrupt', async () => {
      await store.put('r', Buffer.from('0123456789'));
      expect((await store.getRange('r', 0, 10)).toString()).toBe('0123456789');
      expect((await store.getRange('r', 3, 4)).toString()).toBe('3456');
      const target = Buffer.from('abcdefgh');
      const given = await store.getRange('r', 3, 4, target);
      expect([given.toString(), given.buffer, target.toString()]).toEqual(['3456', target.buffer, '3456efgh']);
      expect((await store.getRange('r', 9, 1)).toString()).toBe('9');
      expect((await store.getRange('r', 4, 0)).length).toBe(0);
      await expectCode(store.getRange('r', 9, 2), 'corrupt');
      await expectCode(store.getRange('r', 11, 1), 'corrupt');
      await expectCode(store.getRange('r', 0, 2 ** 52), 'corrupt');
    });

    test('reads suffixes with the size', async () => {
      await store.put('s', Buffer.from('0123456789'));
      expect(await store.getSuffix('s', 3)).toEqual({ bytes: Buffer.from('789'), size: 10 });
      expect(await store.getSuffix('s', 10)).toEqual({ bytes: Buffer.from('0123456789'), size: 10 });
      expect(await store.getSuffix('s', 2 ** 40)).toEqual({ bytes: Buffer.from('0123456789'), size: 10 });
    });

    test('refuses an object larger than the limit', async () => {
      await store.put('big', Buffer.alloc(1000));
      await expectCode(store.get('big', 999), 'corrupt');
      expect((await store.get('big', 1000)).length).toBe(1000);
    });

    test('lists in byte order of full names', async () => {
      const all = ['a-b', 'a.b', 'a/b', 'a/c/d', 'a0', 'B', 'b/1', 'b/10', 'b/2', 'c_d', 'Z'];
      for (const one of all) await store.put(`l/${one}`, Buffer.from(one));
      const sorted = all.map((one) => `l/${one}`).sort((x, y) => Buffer.compare(Buffer.from(x), Buffer.from(y)));
      expect(await names(store, 'l/')).toEqual(sorted);
    }, 60_000);

    test('lists by prefix and after a name', async () => {
      for (const one of ['x/aa/1', 'x/aa/2', 'x/ab/1', 'x/b', 'y/1', 'x-1']) await store.put(one, Buffer.from(one));
      expect(await names(store, 'x/a')).toEqual(['x/aa/1', 'x/aa/2', 'x/ab/1']);
      expect(await names(store, 'x/aa/')).toEqual(['x/aa/1', 'x/aa/2']);
      expect(await names(store, 'x/aa/2')).toEqual(['x/aa/2']);
      expect(await names(store, 'z')).toEqual([]);
      expect(await names(store, 'x/', 'x/aa/1')).toEqual(['x/aa/2', 'x/ab/1', 'x/b']);
      expect(await names(store, 'x/', 'x/aa/g')).toEqual(['x/ab/1', 'x/b']);
      expect(await names(store, 'x/', 'x/b')).toEqual([]);
      expect(await names(store, '', 'x/b')).toEqual(['y/1']);
      expect(await names(store, 'y/', 'x/zzz')).toEqual(['y/1']);
    });

    test('lists what a sorted list would say, whatever the names', async () => {
      const part = fc.stringMatching(/^[a-c_-][a-c0.-]{0,2}$/);
      const objectName = fc.array(part, { minLength: 2, maxLength: 2 }).map((parts) => `${parts.join('/')}.x/o`);
      let round = 0;
      await fc.assert(
        fc.asyncProperty(fc.uniqueArray(objectName, { maxLength: 12 }), objectName, async (list, after) => {
          const base = `p${round++}/`;
          for (const one of list) await store.put(base + one, Buffer.from(one));
          const expected = list
            .map((one) => base + one)
            .filter((one) => one > base + after)
            .sort();
          expect(await names(store, base, base + after)).toEqual(expected);
        }),
        { numRuns: 25 },
      );
    });

    test('deletes, and deleting nothing is no error', async () => {
      await store.put('d', Buffer.from('d'));
      await store.delete('d');
      expect(await store.stat('d')).toBeNull();
      await store.delete('d');
      await store.put('d', Buffer.from('again'));
      expect((await store.get('d')).toString()).toBe('again');
    });

    test('a name below another object is refused or kept, never damages it', async () => {
      await store.put('o', Buffer.from('o'));
      await store.put('o/p', Buffer.from('p')).catch((error) => expect(error).toMatchObject({ code: 'exists' }));
      expect((await store.get('o')).toString()).toBe('o');
    });

    test('refuses illegal names', async () => {
      const illegal = [
        '',
        '/',
        '/abs',
        'a/',
        'a//b',
        '.',
        '..',
        '../x',
        'a/../b',
        'a/./b',
        '.hidden',
        'a/.b',
        'a\\b',
        'a b',
        'a\0',
        'ä',
        'x'.repeat(600),
      ];
      for (const bad of illegal) {
        await expectCode(async () => store.put(bad, Buffer.from('x')), 'usage');
        await expectCode(async () => store.putFile(bad, file('x')), 'usage');
        await expectCode(async () => store.get(bad), 'usage');
        await expectCode(async () => store.stat(bad), 'usage');
        await expectCode(async () => store.delete(bad), 'usage');
        await expectCode(async () => store.localPath(bad), 'usage');
      }
    });

    test('a local path, where there is one, holds the bytes', async () => {
      await store.put('here', Buffer.from('bytes'));
      const path = store.localPath('here');
      if (path !== null) expect(readFileSync(path, 'utf8')).toBe('bytes');
    });

    let files = 0;
    function file(content: string): string {
      const path = join(scratch, `file ${files++}`);
      writeFileSync(path, content);
      return path;
    }
  });
}

export async function names(store: ObjectStore, prefix: string, after?: string): Promise<string[]> {
  const found: ObjectInfo[] = [];
  for await (const info of store.list(prefix, after === undefined ? {} : { after })) found.push(info);
  for (const info of found) expect(info.size).toBe((await store.stat(info.name))!.size);
  return found.map((info) => info.name);
}

/** Expects a RozenError of this code; returns it. */
export async function expectCode(
  promise: Promise<unknown> | (() => Promise<unknown>),
  code: string,
): Promise<RozenError> {
  let error: unknown;
  try {
    await (typeof promise === 'function' ? promise() : promise);
  } catch (caught) {
    error = caught;
  }
  expect(error, `expected ${code}`).toBeInstanceOf(RozenError);
  expect((error as RozenError).code, (error as RozenError).message).toBe(code);
  return error as RozenError;
}
