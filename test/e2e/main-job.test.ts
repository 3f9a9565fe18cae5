import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compareFolders } from './compare.ts';
import { makeOddTree } from './odd-tree.ts';
import { isMounted, isRoot, mountObstacle, Sandbox } from './rozen.ts';

const obstacle = mountObstacle();
const project = join(import.meta.dirname, '../..');

/** Backs up real folders with the built command line, then compares source, mount and restored copy. */
function mainJob(user: 'self' | 'nobody', sources: (sandbox: Sandbox) => [string, string][]): void {
  let sandbox: Sandbox;
  let folders: [string, string][];

  beforeAll(() => {
    sandbox = new Sandbox(user);
    sandbox.ok(['init']);
    folders = sources(sandbox);
    for (const [set, folder] of folders) sandbox.ok(['backup', folder, '--set', set]);
  });
  afterAll(() => sandbox.remove());

  test('the repository verifies, with every byte read', () => {
    sandbox.ok(['verify', '--read-data']);
    sandbox.ok(['verify', '--no-key']);
  });

  test.skipIf(obstacle !== null)('the mount shows what was backed up', () => {
    const mountpoint = sandbox.mount();
    try {
      expect(sandbox.shell(`ls ${mountpoint}/snapshots`).trim().split('\n')).toEqual(
        folders.map(([set]) => set).sort(),
      );
      for (const [set, folder] of folders) {
        const view = join(mountpoint, 'snapshots', set, 'latest');
        expect(compareFolders(folder, view, { folderSizes: true, prefix: sandbox.prefix })).toEqual([]);
      }
      expect(sandbox.shell(`cat ${mountpoint}/.rozen/status`)).toContain('blocks decoded');
    } finally {
      sandbox.unmount();
    }
    expect(isMounted(mountpoint)).toBe(false);
  });

  test('a restored copy is what was backed up', () => {
    for (const [set, folder] of folders) {
      const target = join(sandbox.dir, `restored-${set}`);
      sandbox.ok(['restore', `${set}@latest`, '--target', target]);
      expect(compareFolders(folder, target, { folderSizes: false })).toEqual([]);
    }
  });

  test('a second backup finds nothing to do', () => {
    for (const [set, folder] of folders) {
      const report = sandbox.json(['backup', folder, '--set', set]);
      expect(report).toMatchObject({ unchanged: true });
    }
    expect(sandbox.json(['snapshots'])).toHaveLength(folders.length);
  });
}

describe.runIf(isRoot)('as root', () => {
  mainJob('self', (sandbox) => {
    makeOddTree(join(sandbox.dir, 'odd'), { privileged: true });
    // A copy: the test runner keeps its own cache in the original.
    const modules = join(sandbox.dir, 'node_modules');
    execFileSync('cp', ['-a', join(project, 'node_modules'), modules]);
    return [
      ['odd', join(sandbox.dir, 'odd')],
      ['etc', '/etc'],
      ['node_modules', modules],
    ];
  });
});

describe('as an unprivileged user', () => {
  mainJob(isRoot ? 'nobody' : 'self', (sandbox) => {
    const odd = join(sandbox.dir, 'odd');
    makeOddTree(odd, { privileged: false });
    if (isRoot) execFileSync('chown', ['-hR', '65534:65534', odd]);
    return [['odd', odd]];
  });
});
