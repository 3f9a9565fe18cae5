import { execFileSync } from 'node:child_process';
import { appendFileSync, chmodSync, mkdtempSync, rmSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compareFolders } from './compare.ts';
import { makeOddTree } from './odd-tree.ts';

/** The judge of the end-to-end tests is itself judged: it must be content with a copy and notice each kind of change. */
describe('compareFolders', () => {
  let dir: string;
  const differences = () => compareFolders(join(dir, 'a'), join(dir, 'b'), { folderSizes: false });

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'rozen-compare-'));
    makeOddTree(join(dir, 'a'), { privileged: process.getuid?.() === 0 });
    execFileSync('cp', ['-a', '--sparse=always', join(dir, 'a'), join(dir, 'b')]);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('finds a faithful copy of the odd tree alike', () => {
    expect(differences()).toEqual([]);
  });

  test.each<[string, (b: string) => void]>([
    ['content', (b) => appendFileSync(join(b, 'case'), 'x')],
    ['a mode', (b) => chmodSync(join(b, 'CASE'), 0o640)],
    ['a time', (b) => utimesSync(join(b, '.hidden'), 1, 1)],
    [
      'an attribute',
      (b) => execFileSync('setfattr', ['-n', 'user.comment', '-v', 'other', join(b, 'attributes/plain')]),
    ],
    ['an ACL', (b) => execFileSync('setfacl', ['-m', 'u:1234:r', join(b, 'attributes/with acl')])],
    ['a broken hard link', (b) => execFileSync('sh', ['-c', 'cp -a links/first x && mv x links/first'], { cwd: b })],
    ['a missing file', (b) => rmSync(join(b, 'many/file-77'))],
  ])('notices %s', (_what, change) => {
    const before = differences().length;
    change(join(dir, 'b'));
    expect(differences().length).toBeGreaterThan(before);
  });
});
