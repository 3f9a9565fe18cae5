/** A snapshot record that is gone for good: refused as a rollback, and what an owner can do about it. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compareFolders } from './compare.ts';
import { noise } from './odd-tree.ts';
import { mountObstacle, Sandbox } from './rozen.ts';

let sandbox: Sandbox;
let source: string;
/** Name of the newest record of the set `photos`. */
let record: string;

beforeAll(() => {
  sandbox = new Sandbox();
  source = join(sandbox.dir, 'source');
  mkdirSync(source);
  for (let i = 0; i < 8; i++) writeFileSync(join(source, `photo ${i}`), noise(100_000, i));
  sandbox.ok(['init']);
  sandbox.ok(['backup', source, '--set', 'photos']);
  sandbox.ok(['backup', source, '--set', 'papers']);
  const snapshots = join(sandbox.repo, 'snapshots');
  const before = new Set(readdirSync(snapshots, { recursive: true, encoding: 'utf8' }));
  writeFileSync(join(source, 'new'), noise(100_000, 100));
  sandbox.ok(['backup', source, '--set', 'photos']);
  const added = readdirSync(snapshots, { recursive: true, encoding: 'utf8' }).filter((name) => !before.has(name));
  expect(added).toHaveLength(1);
  record = `snapshots/${added[0]}`;
  rmSync(join(sandbox.repo, record));
});
afterAll(() => sandbox.remove());

/** As a machine that has never seen the repository. */
const elsewhere = () => ({ XDG_STATE_HOME: join(sandbox.dir, 'other state') });

test('is declared by its owner, and everybody goes on', () => {
  const refusal = sandbox.run(['snapshots']);
  expect(refusal.code).toBe(5);
  expect(refusal.stderr).toContain(`${record}, which this machine has seen, is gone`);
  expect(refusal.stderr).toContain('rozen repair --accept-loss');

  // Looking declares nothing, nor does a question that nobody hears.
  expect(sandbox.ok(['repair', '--accept-loss', '--dry-run']).stdout).toBe(`lost  ${record}\n`);
  expect(sandbox.ok(['repair', '--accept-loss'], 2).stderr).toContain('--yes');
  sandbox.ok(['snapshots'], 5);
  expect(sandbox.ok(['repair', record], 2).stderr).toContain('--accept-loss');
  expect(sandbox.ok(['repair', '--accept-loss', '--yes', 'snapshots/x'], 2).stderr).toContain('not the name');
  // A machine that has not seen it can be told its name.
  expect(sandbox.ok(['repair', '--accept-loss', '--dry-run'], 0, elsewhere()).stdout).toBe('');
  expect(sandbox.ok(['repair', '--accept-loss', '--yes', record], 0, elsewhere()).stderr).toMatch(
    /1 record declared lost, in config 2/,
  );

  expect(sandbox.json(['snapshots'])).toHaveLength(2);
  const verified = sandbox.ok(['verify', '--read-data']);
  expect(verified.stdout + verified.stderr).toContain('1 snapshot record is declared lost');
  expect(sandbox.ok(['repair', '--accept-loss', '--yes']).stderr).toContain('no record is missing');

  // What only the lost snapshot named is stored again, nothing else.
  const run = sandbox.json(['backup', source, '--set', 'photos']);
  expect(run).toMatchObject({ unchanged: false });
  const target = join(sandbox.dir, 'restored');
  sandbox.ok(['restore', 'photos@latest', '--target', target]);
  expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
  sandbox.ok(['verify', '--read-data']);
  expect(sandbox.json(['backup', source, '--set', 'photos'])).toMatchObject({ unchanged: true });
});

test.skipIf(mountObstacle() !== null)('and is not in a mount', () => {
  const root = sandbox.mount();
  try {
    expect(readdirSync(join(root, 'snapshots')).sort()).toEqual(['papers', 'photos']);
    expect(readFileSync(join(root, 'snapshots/photos/latest/new')).equals(readFileSync(join(source, 'new')))).toBe(
      true,
    );
  } finally {
    sandbox.unmount();
  }
});
