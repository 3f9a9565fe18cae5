import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

/** Threads run what was built; the module of this thread is one that loads native code and then waits. */
const THREAD = new URL('../../dist/posix/thread.js', import.meta.url).href;
const MODULE = new URL('../../dist/fs/kernel/reader.js', import.meta.url).href;
const HOST = new URL('../../dist/fs/vfs/create.js', import.meta.url).href;

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'rozen-thread-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function run(body: string) {
  const file = join(dir, 'program.mjs');
  const program = `
    import { startThread, stopThread } from '${THREAD}';
    const start = () => startThread(new URL('${MODULE}'), { module: '${HOST}' });
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    ${body}`;
  writeFileSync(file, program);
  return spawnSync(process.execPath, [file], { encoding: 'utf8', timeout: 60_000 });
}

/** Loading takes 60 to 200 ms: ends that are spread over it hit each stage. Without the wait several of them end by SIGABRT. */
const MOMENTS = Array.from({ length: 24 }, (_, i) => i * 6);

test('process.exit while threads still load ends with its code', () => {
  for (const moment of MOMENTS) {
    const { status, signal, stderr } = run(
      `for (let i = 0; i < 4; i++) start(); await pause(${moment}); process.exit(7);`,
    );
    expect({ moment, status, signal, stderr }).toEqual({ moment, status: 7, signal: null, stderr: '' });
  }
});

test('a thread is stopped while it loads, and the process goes on', () => {
  const { status, signal, stderr } = run(`
    for (const moment of ${JSON.stringify(MOMENTS)}) {
      const thread = start();
      await pause(moment);
      await stopThread(thread);
    }
    process.exit(7);`);
  expect({ status, signal, stderr }).toEqual({ status: 7, signal: null, stderr: '' });
});

test('a thread that cannot load does not hold the end up', () => {
  const { status, signal } = run(`
    const thread = startThread(new URL('data:text/javascript,throw new Error("made-up")'));
    const error = new Promise((resolve) => thread.once('error', resolve));
    if ((await error).message !== 'made-up') process.exit(1);
    await new Promise((resolve) => thread.once('exit', resolve));
    const before = performance.now();
    process.on('exit', () => { process.exitCode = performance.now() - before < 4000 ? 7 : 2; });
    await stopThread(thread);`);
  expect({ status, signal }).toEqual({ status: 7, signal: null });
});
