import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { unmount } from '../../../src/fs/kernel/umount.ts';
import { hold } from '../../contract/driver.ts';
import {
  endAll,
  isMounted,
  isRoot,
  type Mounted,
  mountObstacle,
  run,
  type Serving,
  serveAt,
  until,
  workFolder,
} from './mounted.ts';

describe.skipIf(mountObstacle() !== null)('the life of a mount', () => {
  let dir: string;
  let source: string;
  let count = 0;

  beforeAll(() => {
    dir = workFolder();
    source = join(dir, 'source');
    mkdirSync(source);
    chmodSync(source, 0o755);
    writeFileSync(join(source, 'file'), 'content');
    for (const name of ['missing-1', 'missing-2', 'never-3', 'broken-4', 'dying-5', 'hungry-6'])
      writeFileSync(join(source, name), name.repeat(1000));
    for (let i = 10; i < 60; i++) writeFileSync(join(source, `missing-${i}`), `${i}`.repeat(100_000));
  });
  afterAll(() => endAll(dir));

  function place(): string {
    const mountpoint = join(dir, `mnt${count++}`);
    mkdirSync(mountpoint);
    return mountpoint;
  }
  function start(more: Partial<Serving> & { delay?: number; held?: boolean } = {}): Promise<Mounted> {
    const { delay, held, ...rest } = more;
    return serveAt({ host: 'mirror', init: { root: source, delay, held }, mountpoint: place(), ...rest });
  }
  /** Until so many different misses wait to be released. */
  const waiting = (mounted: Mounted, count: number): Promise<void> =>
    until(() => mounted.output.includes(`waiting ${count}\n`), `${count} waiting misses`);

  test('a detached mount that is still held ends by SIGTERM', async () => {
    const mounted = await start();
    const holder = await hold(join(mounted.dir, 'file'));
    await unmount(mounted.dir, { lazy: true });
    mounted.child.kill('SIGTERM');
    await mounted.exited;
    await holder.free();
  });

  test('umount refuses what is no mount of Rozen', async () => {
    await expect(unmount('/proc')).rejects.toThrow('not one of Rozen');
    await expect(unmount(source)).rejects.toThrow('nothing is mounted');
  });

  test('fifty waiting misses do not delay what is here', async () => {
    const mounted = await start({ held: true });
    const reading = Array.from({ length: 50 }, (_, i) => run('cat', [join(mounted.dir, `missing-${i + 10}`)]));
    await waiting(mounted, 50);
    expect(readFileSync(join(mounted.dir, 'file'), 'utf8')).toBe('content');
    mounted.command('release');
    const contents = await Promise.all(reading);
    expect(contents.every((content, i) => content === `${i + 10}`.repeat(100_000))).toBe(true);
    await mounted.end();
  });

  test('a reader that is killed while it waits for a miss goes', async () => {
    // Nothing is ever released: if it waited for that, it would wait for ever.
    const mounted = await start({ held: true });
    const child = spawn('cat', [join(mounted.dir, 'missing-2')], { stdio: 'ignore' });
    const gone = new Promise((resolve) => child.on('exit', resolve));
    await waiting(mounted, 1);
    child.kill('SIGTERM');
    await gone;
    expect(statSync(join(mounted.dir, 'file')).size).toBe(7);
    await mounted.end();
  });

  test('ends while misses wait', async () => {
    const mounted = await start({ held: true });
    const child = spawn('cat', [join(mounted.dir, 'missing-2')], { stdio: 'ignore' });
    const gone = new Promise((resolve) => child.on('exit', resolve));
    await waiting(mounted, 1);
    await mounted.end();
    await gone;
    expect(isMounted(mounted.dir)).toBe(false);
  });

  test('notifications while a folder is in use', async () => {
    const mounted = await start({ delay: 200 });
    const reading = Array.from({ length: 20 }, (_, i) => readFile(join(mounted.dir, `missing-${i + 10}`)));
    for (let i = 0; i < 200; i++) {
      mounted.command('invalidate');
      readdirSync(mounted.dir);
    }
    await Promise.all(reading);
    await mounted.end();
  });

  test.skipIf(!isRoot)('an unprivileged server whose mount is held ends by SIGTERM all the same', async () => {
    chmodSync('/dev/fuse', 0o666);
    const mountpoint = place();
    chownSync(mountpoint, 65534, 65534);
    const mounted = await start({ mountpoint, user: 65534 });
    // Root may not look into another's mount: the holder is one of theirs.
    const holder = spawn(
      'setpriv',
      [
        '--reuid',
        '65534',
        '--regid',
        '65534',
        '--clear-groups',
        'sh',
        '-c',
        'cd "$1" && echo held && exec sleep 1000',
        'sh',
        mountpoint,
      ],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await new Promise((resolve) => holder.stdout.once('data', resolve));
    mounted.child.kill('SIGTERM');
    await mounted.exited;
    expect(isMounted(mountpoint)).toBe(false);
    holder.kill('SIGKILL');
    const killed = await start({ mountpoint, user: 65534 });
    killed.child.kill('SIGKILL');
    await killed.exited;
    const again = await start({ mountpoint, user: 65534 });
    expect(await again.end()).toBe(0);
  });

  test('a reader thread that dies is replaced, and nobody waits for its answer', async () => {
    const mounted = await start();
    for (let i = 0; i < 6; i++) {
      await expect(readFile(join(mounted.dir, 'dying-5'))).rejects.toThrow(/EIO/);
      expect(readFileSync(join(mounted.dir, 'file'), 'utf8')).toBe('content');
    }
    expect(await mounted.end()).toBe(0);
  });

  test('a reader thread that is out of memory is replaced, and the mount goes on', async () => {
    const mounted = await start({ env: { NODE_OPTIONS: '--max-old-space-size=64' } });
    for (let i = 0; i < 2; i++) {
      await expect(readFile(join(mounted.dir, 'hungry-6'))).rejects.toThrow(/EIO/);
      expect(readFileSync(join(mounted.dir, 'file'), 'utf8')).toBe('content');
    }
    await until(() => mounted.errors.includes('ERR_WORKER_OUT_OF_MEMORY'), 'word of it');
    expect(await mounted.end()).toBe(0);
  });

  test('many mounts and ends leak nothing', async () => {
    for (let i = 0; i < 5; i++) {
      const mounted = await start();
      const fd = openSync(join(mounted.dir, 'file'), 'r');
      closeSync(fd);
      expect(await mounted.end()).toBe(0);
    }
  });
});
