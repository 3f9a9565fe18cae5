import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compareFolders } from '../../e2e/compare.ts';
import { makeOddTree } from '../../e2e/odd-tree.ts';
import { endAll, isRoot, mountObstacle, run, serveAt, workFolder } from './mounted.ts';

describe.skipIf(mountObstacle() !== null)('a folder served through the kernel driver', () => {
  let dir: string;
  let source: string;
  let mirror: string;

  beforeAll(async () => {
    dir = workFolder();
    source = join(dir, 'source');
    makeOddTree(source, { privileged: isRoot });
    mirror = (await serveAt({ host: 'mirror', init: { root: source }, mountpoint: join(dir, 'mnt') })).dir;
  });
  afterAll(() => endAll(dir));

  test('is the same to diff, rsync and find', () => {
    expect(compareFolders(source, mirror, { folderSizes: true })).toEqual([]);
  });

  test('has names that are not UTF-8', () => {
    const names = (from: string): string[] => readdirSync(from, 'latin1').sort();
    expect(names(mirror)).toEqual(names(source));
  });

  test('a folder of a million entries', async () => {
    const made = await serveAt({ host: 'made-up', init: { flat: 1_000_000 }, mountpoint: join(dir, 'flat') });
    expect((await run('sh', ['-c', `ls -f ${made.dir}/flat | wc -l`])).trim()).toBe('1000002');
    await made.end();
  });
});
