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

/** Held open by `hold`; ended by `free`. */
async function hold(path: string): Promise<{ pid: number; free(): Promise<void> }> {
  const child = spawn('sh', ['-c', 'exec 3< "$1"; echo held; exec sleep 1000', 'sh', path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const gone = new Promise((resolve) => child.on('exit', resolve));
  return {
    pid: child.pid!,
    free: async () => {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

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
    for (const name of ['missing-1', 'missing-2', 'never-3', 'broken-4', 'dying-5'])
      writeFileSync(join(source, name), name.repeat(1000));
    for (let i = 10; i < 60; i++) writeFileSync(join(source, `missing-${i}`), `${i}`.repeat(100_000));
  });
  afterAll(() => endAll(dir));

  function place(): string {
    const mountpoint = join(dir, `mnt${count++}`);
    mkdirSync(mountpoint);
    return mountpoint;
  }
  function start(more: Partial<Serving> & { delay?: number } = {}): Promise<Mounted> {
    const { delay, ...rest } = more;
    return serveAt({ host: 'mirror', init: { root: source, delay }, mountpoint: place(), ...rest });
  }
  const umount = (mounted: Mounted) =>
    isRoot ? run('umount', [mounted.dir]) : run('fusermount3', ['-u', mounted.dir]);

  test('ends when it is unmounted from outside', async () => {
    const mounted = await start();
    expect(readFileSync(join(mounted.dir, 'file'), 'utf8')).toBe('content');
    await umount(mounted);
    expect(await mounted.exited).toBe(0);
    expect(mounted.output).toContain('"reason":"unmounted"');
    expect(mounted.errors).toContain('closed');
  });

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('ends by %s', async (signal) => {
    const mounted = await start();
    mounted.child.kill(signal);
    expect(await mounted.exited).toBe(0);
    expect(mounted.output).toContain(`"signal":"${signal}"`);
    expect(isMounted(mounted.dir)).toBe(false);
  });

  test('process.exit and uncaught errors leave no mount and do not hang', async () => {
    const leaving = await start();
    leaving.command('exit');
    expect(await leaving.exited).toBe(7);
    expect(isMounted(leaving.dir)).toBe(false);
    const failing = await start();
    failing.command('throw');
    expect(await failing.exited).toBe(1);
    expect(failing.output).toContain('made-up');
    expect(isMounted(failing.dir)).toBe(false);
  });

  test('a signal ends a busy mount and says who held it', async () => {
    const mounted = await start();
    const holder = await hold(join(mounted.dir, 'file'));
    mounted.child.kill('SIGTERM');
    expect(await mounted.exited).toBe(0);
    expect(mounted.output).toContain(`sleep (${holder.pid}, open file ${mounted.dir}/file)`);
    expect(isMounted(mounted.dir)).toBe(false);
    await holder.free();
  });

  test('umount refuses a busy mount, naming the holder; lazily it goes at once and ends with the holder', async () => {
    const mounted = await start();
    const holder = await hold(join(mounted.dir, 'file'));
    await expect(unmount(mounted.dir)).rejects.toThrow(`sleep (${holder.pid}, open file ${mounted.dir}/file)`);
    expect(readFileSync(join(mounted.dir, 'file'), 'utf8')).toBe('content');
    expect((await unmount(mounted.dir, { lazy: true })).holders).toContain(String(holder.pid));
    expect(isMounted(mounted.dir)).toBe(false);
    expect(mounted.child.exitCode).toBeNull();
    await holder.free();
    expect(await mounted.exited).toBe(0);
  });

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

  test('a killed server leaves a stale mount, and the next mount or umount cleans up', async () => {
    const mounted = await start();
    mounted.child.kill('SIGKILL');
    await mounted.exited;
    expect(isMounted(mounted.dir)).toBe(true);
    expect(() => readdirSync(mounted.dir)).toThrow(/ENOTCONN/);
    const second = await start({ mountpoint: mounted.dir });
    expect(readFileSync(join(second.dir, 'file'), 'utf8')).toBe('content');
    second.child.kill('SIGKILL');
    await second.exited;
    expect((await unmount(second.dir)).stale).toBe(true);
    expect(isMounted(second.dir)).toBe(false);
    expect(readdirSync(second.dir)).toEqual([]);
  });

  test('refuses places where it must not lie', async () => {
    const mounted = await start();
    await expect(start({ mountpoint: mounted.dir })).rejects.toThrow(/already a mount of Rozen/);
    await mounted.end();
    await expect(start({ mountpoint: source })).rejects.toThrow(/not empty/);
    await expect(start({ mountpoint: join(source, 'file') })).rejects.toThrow(/not a folder/);
    const mountpoint = place();
    await expect(start({ mountpoint, keepClearOf: [mountpoint] })).rejects.toThrow(/needed to serve/);
    await expect(start({ mountpoint, keepClearOf: [join(mountpoint, 'repo')] })).rejects.toThrow(/needed to serve/);
    await expect(start({ mountpoint, keepClearOf: [dir] })).rejects.toThrow(/needed to serve/);
  });

  test('what is missing is fetched, and the request runs again', async () => {
    const mounted = await start({ delay: 50 });
    const expected = readFileSync(join(source, 'missing-1'), 'utf8');
    const contents = await Promise.all([0, 1, 2].map(() => readFile(join(mounted.dir, 'missing-1'), 'utf8')));
    expect(contents).toEqual([expected, expected, expected]);
    const errno = (name: string) => readFile(join(mounted.dir, name)).then(String, (error) => error.code);
    expect(await errno('never-3')).toBe('EIO');
    expect(await errno('broken-4')).toBe('EIO');
    expect(mounted.errors).toContain('READ');
    expect(mounted.errors).toContain('made-up failure');
    await mounted.end();
  });

  test('fifty waiting misses do not delay what is here', async () => {
    const mounted = await start({ delay: 1500 });
    const waiting = Array.from({ length: 50 }, (_, i) => run('cat', [join(mounted.dir, `missing-${i + 10}`)]));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const started = performance.now();
    expect(readFileSync(join(mounted.dir, 'file'), 'utf8')).toBe('content');
    expect(performance.now() - started).toBeLessThan(200);
    const contents = await Promise.all(waiting);
    expect(contents.every((content, i) => content === `${i + 10}`.repeat(100_000))).toBe(true);
    await mounted.end();
  });

  test('a reader that is killed while it waits for a miss goes at once', async () => {
    const mounted = await start({ delay: 5000 });
    const child = spawn('cat', [join(mounted.dir, 'missing-2')], { stdio: 'ignore' });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const started = performance.now();
    child.kill('SIGTERM');
    await new Promise((resolve) => child.on('exit', resolve));
    expect(performance.now() - started).toBeLessThan(1000);
    expect(statSync(join(mounted.dir, 'file')).size).toBe(7);
    await mounted.end();
  });

  test('ends while misses wait', async () => {
    const mounted = await start({ delay: 100_000 });
    const child = spawn('cat', [join(mounted.dir, 'missing-2')], { stdio: 'ignore' });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const gone = new Promise((resolve) => child.on('exit', resolve));
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

  test('a trace has one line per request', async () => {
    const mounted = await start({ trace: true });
    readFileSync(join(mounted.dir, 'file'));
    await until(() => mounted.errors.includes(' READ '), 'trace of a read');
    expect(mounted.errors).toMatch(/^#\d+ LOOKUP 0:1 "file" pid \d+ = 128 bytes$/m);
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

  test('many mounts and ends leak nothing', async () => {
    for (let i = 0; i < 5; i++) {
      const mounted = await start();
      const fd = openSync(join(mounted.dir, 'file'), 'r');
      closeSync(fd);
      expect(await mounted.end()).toBe(0);
    }
  });
});
