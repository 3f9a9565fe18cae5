import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Home, PASSPHRASE } from './rozen.ts';

describe('restore, as people meet it', () => {
  const home = new Home();
  const run = (...args: string[]) => home.run(['restore', ...args]);

  beforeAll(() => {
    home.env.ROZEN_REPOSITORY = home.repo;
    home.env.ROZEN_PASSWORD = PASSPHRASE;
    mkdirSync(join(home.dir, 'source/sub'), { recursive: true });
    writeFileSync(join(home.dir, 'source/sub/file'), 'content\n');
    home.ok(['init']);
    home.ok(['backup', 'source', '--set', 's']);
    home.ok(['key', 'export', join(home.dir, 'identity')]);
    delete home.env.ROZEN_PASSWORD;
    home.env.ROZEN_IDENTITY_FILE = join(home.dir, 'identity');
  });
  afterAll(() => home.remove());

  test('says in words what it did; a relative target counts from here', () => {
    const first = run('latest', '--target', 'out');
    expect(first.code).toBe(0);
    expect(first.stdout).toMatch(/^[0-9a-f]{8} s: 1 file, 8 B restored in .*\nentries: 3 new\n$/);
    expect(first.stderr).toBe('');
    expect(readFileSync(join(home.dir, 'out/sub/file'), 'utf8')).toBe('content\n');
    expect(run('s@latest', '-t', 'out', '--verify').stdout).toMatch(
      /0 files, 0 B restored .* and verified\nentries: 3 kept\n$/,
    );
  });

  test('lists what it would do', () => {
    const { code, stdout } = run('latest', '-n', '-t', 'nowhere');
    expect(code).toBe(0);
    expect(stdout).toBe(
      '+ .\n+ sub\n+ sub/file\nnothing was written (--dry-run): 1 file, 8 B to restore\nentries: 3 new\n',
    );
  });

  test('answers in JSON', () => {
    const { stdout } = home.ok(['--json', 'restore', 'latest:/sub', '-t', 'other']);
    expect(JSON.parse(stdout)).toMatchObject({
      set: 's',
      target: join(home.dir, 'other'),
      dryRun: false,
      verified: false,
      classes: { new: { files: 1, folders: 1, others: 0 } },
      bytesRestored: 8,
      problems: [],
    });
  });

  test('refuses what makes no sense, by exit code', () => {
    const without = run('latest');
    expect([without.code, without.stderr]).toEqual([
      2,
      'rozen: restore needs a place to restore to; add --target DIR\n',
    ]);
    expect(run('-t', 'x').code).toBe(2);
    expect(run('latest:/not/there', '-t', 'x').code).toBe(1);
    const file = run('latest', '-t', 'source/sub/file');
    expect([file.code, file.stderr]).toEqual([1, expect.stringMatching(/^rozen: .*source\/sub\/file: /)]);
  });

  test('says in its help what happens to what stands there', () => {
    expect(run('--help').stdout).toMatch(/same size and modification time is kept/);
  });
});
