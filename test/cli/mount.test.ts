import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { canMount, makeMountable } from './mount-home.ts';
import { Home, onTerminal, PASSPHRASE, program } from './rozen.ts';

const home = new Home();
const mountpoint = join(home.dir, 'mnt');
const identity = join(home.dir, 'identity.txt');
const repository = { ROZEN_REPOSITORY: home.repo };
const env = { ...repository, ROZEN_IDENTITY_FILE: identity };

function libfuse2(): boolean {
  const found = spawnSync(process.execPath, ['-e', "require('fuse-native'); process.exit(0)"]).status === 0;
  if (!found && process.env.CI === 'true') throw new Error('fuse-native does not load, and CI=true: it must be tested');
  return found;
}

const mounted = (): boolean =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4] === mountpoint);

/** Processes that are alive and serve the mount point: by the title that they give themselves. */
function servers(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(`rozen mount ${mountpoint}`) && !/\) Z /.test(status)
        );
      } catch {
        return false;
      }
    });
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

beforeAll(() => {
  home.ok(['key', 'export', identity], makeMountable(home));
});
afterEach(() => {
  if (mounted()) spawnSync('umount', ['-l', mountpoint]);
});
afterAll(() => home.remove());

describe('a mount is refused', () => {
  const refused = (args: string[], code: number, message: RegExp) => {
    const result = home.run(['mount', ...args], { env });
    expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: '' });
    expect(result.stderr).toMatch(message);
    expect(result.stderr.trimEnd()).not.toContain('\n');
    expect(mounted()).toBe(false);
  };

  test('over the repository, in it, and over what holds it', () => {
    mkdirSync(join(home.repo, 'inside'));
    refused([home.repo], 2, /repo/);
    refused([join(home.repo, 'inside')], 2, /mount somewhere else/);
    symlinkSync(join(home.repo, 'inside'), join(home.dir, 'detour'));
    refused([join(home.dir, 'detour')], 2, /mount somewhere else/);
    refused([home.dir], 2, /mount somewhere else|not empty/);
  });

  test('at a folder that is not empty, a file, nothing', () => {
    refused([join(home.dir, 'source')], 2, /source is not empty/);
    refused([join(home.dir, 'source/file')], 2, /not a folder/);
    refused([join(home.dir, 'nowhere')], 2, /nowhere does not exist; make the folder first/);
    refused([join(home.dir, 'source/file/below')], 2, /below: not a folder; mount somewhere else/);
  });

  test('with owners and drivers that make no sense', () => {
    refused(['--uid', 'me', mountpoint], 2, /--uid: 'me' is no number/);
    refused(['--gid', '4294967295', mountpoint], 2, /--gid: '4294967295' is no number/);
    refused(['--umask', '888', mountpoint], 2, /--umask: '888' is no umask/);
    refused(['--driver', 'nfs', mountpoint], 2, /kernel, fuse-native/);
  });

  test('with a wrong passphrase, no key, no repository, an unknown snapshot', () => {
    const wrong = home.run(['mount', mountpoint], { env: { ...repository, ROZEN_PASSWORD: 'wrong' } });
    expect(wrong).toMatchObject({ code: 6, stderr: expect.stringMatching(/^rozen: wrong passphrase/) });
    expect(home.run(['mount', mountpoint], { env: repository }).code).toBe(6);
    refused(['-r', join(home.dir, 'source'), mountpoint], 1, /holds no Rozen repository/);
    refused(['--snapshot', 'ffffffff', mountpoint], 1, /no snapshot with an id/);
    refused(['--snapshot', 'latest:/x', mountpoint], 2, /leave the :PATH out/);
  });
});

describe.runIf(canMount())('a mount', () => {
  test('stands when the command returns, and its server ends with it', async () => {
    expect(home.run(['mount', mountpoint], { env })).toEqual({
      code: 0,
      stdout: `${home.repo} is mounted at ${mountpoint}; end it with: rozen umount ${mountpoint}\n`,
      stderr: '',
    });
    expect(readFileSync(join(mountpoint, 'snapshots/s/latest/file'), 'utf8')).toBe('content\n');
    expect(servers()).toHaveLength(1);
    expect(home.run(['mount', mountpoint], { env })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('already a mount of Rozen'),
    });
    expect(home.ok(['umount', mountpoint]).stdout).toBe('');
    expect(mounted()).toBe(false);
    await until(() => servers().length === 0, 'the server to end');
    expect(home.run(['umount', mountpoint])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('nothing is mounted'),
    });
  });

  test('shows one snapshot alone', () => {
    const { pid } = JSON.parse(home.ok(['mount', '--json', '--snapshot', 's@latest', mountpoint], env).stdout);
    expect(servers()).toEqual([pid]);
    expect(readdirSync(mountpoint)).toEqual(['file']);
    home.ok(['umount', mountpoint]);
  });

  test('shows owners and permissions as told', () => {
    home.ok(['mount', '--uid', '4242', '--gid', '4343', '--umask', '077', mountpoint], env);
    const { uid, gid, mode } = statSync(join(mountpoint, 'snapshots/s/latest/file'));
    expect([uid, gid, mode & 0o777]).toEqual([4242, 4343, 0o600]);
    home.ok(['umount', mountpoint]);
  });

  test('gets its key through a pipe: neither in argv nor in the environment', async () => {
    home.ok(['mount', mountpoint], { ...repository, ROZEN_PASSWORD: PASSPHRASE });
    const [pid] = servers();
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).not.toContain(PASSPHRASE);
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).not.toContain('ROZEN_PASSWORD');
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).not.toContain(PASSPHRASE);
    home.ok(['umount', mountpoint]);
  });

  test('takes the passphrase from the terminal, and outlives it', async () => {
    const { code, shown } = await onTerminal(
      home,
      ['mount', mountpoint],
      [{ after: 'Passphrase: ', type: `${PASSPHRASE}\r` }],
      repository,
    );
    expect(code).toBe(0);
    expect(shown).not.toContain(PASSPHRASE);
    expect(readFileSync(join(mountpoint, 'snapshots/s/latest/file'), 'utf8')).toBe('content\n');
    home.ok(['umount', mountpoint]);
  });

  test('takes an identity that only this process can read', () => {
    const script = `exec "$0" "$1" mount --identity /dev/fd/9 "$2" 9<"$3"`;
    execFileSync('sh', ['-c', script, process.execPath, program, mountpoint, identity], {
      env: { ...home.env, ...repository },
    });
    expect(readdirSync(join(mountpoint, 'snapshots'))).toEqual(['s']);
    home.ok(['umount', mountpoint]);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)('in the foreground ends by %s', async (signal) => {
    const child = spawn(process.execPath, [program, 'mount', '--foreground', mountpoint], {
      env: { ...home.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = new Promise((resolve) => child.on('exit', (code) => resolve(code)));
    await until(mounted, 'the mount');
    await until(() => readdirSync(mountpoint).includes('snapshots'), 'its folders');
    child.kill(signal);
    expect(await ended).toBe(0);
    expect(mounted()).toBe(false);
  });

  test('in the foreground ends when it is unmounted from outside', async () => {
    const child = spawn(process.execPath, [program, 'mount', '-f', mountpoint], {
      env: { ...home.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = new Promise((resolve) => child.on('exit', (code) => resolve(code)));
    await until(mounted, 'the mount');
    home.ok(['umount', mountpoint]);
    expect(await ended).toBe(0);
  });

  test('that is in use is not taken away, unless lazily', async () => {
    home.ok(['mount', mountpoint], env);
    const holder = spawn('sleep', ['60'], { cwd: join(mountpoint, 'snapshots/s/latest'), stdio: 'ignore' });
    try {
      await until(() => holder.pid !== undefined, 'the holder');
      const { code, stderr } = home.run(['umount', mountpoint]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/is busy: sleep \(\d+, working folder .*\); .*--lazy/);
      expect(home.run(['umount', '--lazy', mountpoint])).toMatchObject({
        code: 0,
        stderr: expect.stringContaining('still in use by sleep'),
      });
      expect(mounted()).toBe(false);
    } finally {
      holder.kill();
    }
    await until(() => servers().length === 0, 'the server to end');
  });

  test('whose server was killed is cleaned by umount, and by the next mount', async () => {
    for (const next of ['umount', 'mount'] as const) {
      home.ok(['mount', mountpoint], env);
      process.kill(servers()[0]!, 'SIGKILL');
      await until(() => servers().length === 0, 'the server to die');
      home.ok([next, mountpoint], env);
    }
    expect(readdirSync(join(mountpoint, 'snapshots'))).toEqual(['s']);
    home.ok(['umount', mountpoint]);
  });

  test('leaves a log that only its owner can read', () => {
    const log = join(home.dir, 'state/rozen/log/mount.log');
    expect(statSync(log).mode & 0o777).toBe(0o600);
    expect(readFileSync(log, 'utf8')).not.toContain(PASSPHRASE);
  });

  test.runIf(libfuse2())('stands by the driver fuse-native, and its server ends with it', async () => {
    home.ok(['mount', '--driver', 'fuse-native', mountpoint], env);
    expect(readFileSync(join(mountpoint, 'snapshots/s/latest/file'), 'utf8')).toBe('content\n');
    expect(readFileSync(join(mountpoint, '.rozen/status'), 'utf8')).toMatch(/^snapshots +1 in 1 set$/m);
    expect(servers()).toHaveLength(1);
    home.ok(['backup', join(home.dir, 'source'), '--set', 'other'], { ...repository, ROZEN_PASSWORD: PASSPHRASE });
    await until(() => readdirSync(join(mountpoint, 'snapshots')).includes('other'), 'the new set');
    home.ok(['umount', mountpoint]);
    await until(() => servers().length === 0, 'the server to end');
  });
});
