import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { isRoot, mountObstacle, Sandbox } from './rozen.ts';

const program = (name: string) => fileURLToPath(new URL(`../conformance/${name}`, import.meta.url));

describe.skipIf(mountObstacle() !== null)('a mounted backup', () => {
  const box = new Sandbox();
  afterAll(() => {
    // Node cannot remove what lies beyond PATH_MAX.
    execFileSync('rm', ['-rf', join(box.dir, 'source')]);
    box.remove();
  });

  test('passes every check that a read-only mount can be given', () => {
    const source = join(box.dir, 'source');
    // Other users must reach the mount, to be kept out of files in it.
    chmodSync(box.dir, 0o755);
    // A hole of a tebibyte is hashed for minutes by the backup; test/contract/driver.ts reads one.
    execFileSync(process.execPath, [program('make.mjs'), source, '--small']);
    box.ok(['init']);
    box.ok(['backup', source, '--set', 'c']);
    const mount = join(box.mount(...(isRoot ? ['--allow-other'] : [])), 'snapshots/c/latest/');
    const { stdout } = spawnSync(process.execPath, [program('run.mjs'), source, mount, '--json'], {
      encoding: 'utf8',
      timeout: 150_000,
    });
    const results = JSON.parse(stdout) as { group: string; title: string; outcome: string; why: string }[];
    expect(results.filter(({ outcome }) => outcome === 'fail')).toEqual([]);
    expect(results.length).toBeGreaterThan(130);
    // Devices, other owners and trusted attributes are made by root alone.
    const skipped = results.filter(({ outcome }) => outcome === 'skip').map(({ title }) => title);
    if (isRoot) expect(skipped).toEqual(['reads beyond 1 TiB']);
    box.unmount();
  }, 180_000);
});
