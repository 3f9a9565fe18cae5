import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { helperArguments } from '../../src/cli/mount-helper.ts';
import { canMount, makeMountable } from './mount-home.ts';
import { Home, PASSPHRASE } from './rozen.ts';

test('what mount(8) says becomes what rozen mount takes', () => {
  const options =
    'identity=/root/a\\,b.txt,allow_other,uid=1000,umask=077,snapshot=s@latest,noauto,x-systemd.automount';
  expect(helperArguments(['/backup/rozen', '/mnt/archive', '-n', '-o', options])).toEqual({
    argv: [
      '--quiet',
      '-r',
      '/backup/rozen',
      '--identity=/root/a,b.txt',
      'mount',
      '--allow-other',
      '--uid=1000',
      '--umask=077',
      '--snapshot=s@latest',
      '--',
      '/mnt/archive',
    ],
    fake: false,
    warnings: [],
  });
  expect(helperArguments(['a', 'b', '-f']).fake).toBe(true);
  expect(helperArguments(['a', 'b', '-t', 'rozen', '-o', 'rw,suid,nofail']).warnings).toEqual([
    'suid: a mount of Rozen is read-only, nosuid, nodev, noatime',
  ]);
  expect(() => helperArguments(['a', 'b', '-o', 'colour=blue'])).toThrow('mount.rozen: unknown option colour=blue');
  expect(() => helperArguments(['a', 'b', '-o', 'allow_other=1'])).toThrow('unknown option');
  expect(helperArguments(['a', 'b', '-s', '-o', 'colour=blue']).argv).toEqual([
    '--quiet',
    '-r',
    'a',
    'mount',
    '--',
    'b',
  ]);
  expect(() => helperArguments(['a', '-o', 'ro'])).toThrow('a source and a folder');
  expect(() => helperArguments(['a', 'b', '--help'])).toThrow('unknown argument');
});

describe.runIf(canMount())('mount.rozen', () => {
  const home = new Home();
  const program = fileURLToPath(new URL('../../bin/mount.rozen.js', import.meta.url));
  const mountpoint = join(home.dir, 'mnt');
  const helper = (...args: string[]) =>
    spawnSync(process.execPath, [program, ...args], { env: home.env, encoding: 'utf8' });

  beforeAll(() => {
    makeMountable(home);
    writeFileSync(join(home.dir, 'password'), `${PASSPHRASE}\n`);
  });
  afterAll(() => home.remove());

  test('mounts as an fstab line says, in silence', () => {
    const options = `password-file=${join(home.dir, 'password')},uid=4242,nofail`;
    const { status, stdout, stderr } = helper(home.repo, mountpoint, '-o', options);
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(readFileSync(join(mountpoint, 'snapshots/s/latest/file'), 'utf8')).toBe('content\n');
    home.ok(['umount', mountpoint]);
  });

  test('says what is wrong on one line', () => {
    const wrong = helper(home.repo, mountpoint, '-o', 'colour=blue');
    expect(wrong.status).toBe(2);
    expect(wrong.stderr).toMatch(/^mount.rozen: unknown option colour=blue; .*allow_other.*\n$/);
    expect(helper('/nowhere', mountpoint).status).toBe(1);
  });
});
