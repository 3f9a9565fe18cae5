import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Home, onTerminal, PASSPHRASE, program } from './rozen.ts';

const home = new Home();
const source = join(home.dir, 'source');
const env = { ROZEN_REPOSITORY: home.repo, ROZEN_PASSWORD: PASSPHRASE };
const FILES = 24;

/** How many files and folders the state folder holds. */
const stateSize = (): number => readdirSync(join(home.dir, 'state'), { recursive: true }).length;

beforeAll(() => {
  home.ok(['init'], env);
  mkdirSync(source);
  for (let i = 0; i < FILES; i++) writeFileSync(join(source, `file-${i}`), randomBytes(4 << 20));
});
afterAll(() => home.remove());

test('an interrupted backup says so, exits 130, and the next run goes on', async () => {
  const before = stateSize();
  const child = spawn(process.execPath, [program, 'backup', source, '--set', 'cut'], {
    env: { ...home.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (bytes) => {
    stderr += bytes;
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  // From when the run has begun to keep state, any moment will do: also one that comes too late.
  while (stateSize() === before && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 400));
  child.kill('SIGINT');
  const code = await ended;
  if (code !== 0) {
    expect(code).toBe(130);
    expect(stderr).toMatch(/^rozen: .*(interrupted|stopped).*\n$/);
  }
  expect(JSON.parse(home.ok(['--json', 'backup', source, '--set', 'cut'], env).stdout)).toMatchObject({
    totalFiles: FILES,
    problems: [],
  });
});

test('on a terminal a bar shows bytes, files and rate, and leaves nothing behind', async () => {
  const { code, shown } = await onTerminal(home, ['backup', source, '--set', 'bar', '--self-contained'], [], env);
  expect(code).toBe(0);
  expect(shown).toMatch(/\r\[0:0\d\] .*\d+ files/);
  expect(shown).toMatch(/iB\/96\.0 MiB {2}\d+\/24 files/);
  const left = shown.slice(shown.lastIndexOf('\x1b[K') + 3);
  expect(left).toMatch(/^bar: 24 files, 96\.0 MiB/);
});

test('elsewhere there is no bar, and --quiet shows nothing but results', () => {
  const { stdout, stderr } = home.ok(['backup', source, '--set', 'plain'], env);
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^plain: 24 files/);
  expect(stdout).not.toContain('\r');
});

test.runIf(process.getuid?.() !== 0)('files that cannot be read: exit 3, told on stderr and in the report', () => {
  writeFileSync(join(source, 'unreadable'), 'x', { mode: 0o000 });
  const { code, stdout, stderr } = home.run(['--json', 'backup', source, '--set', 'plain'], { env });
  expect(code).toBe(3);
  expect(stderr).toContain('unreadable');
  expect(JSON.parse(stdout).problems).toEqual([expect.objectContaining({ kind: 'unreadable' })]);
});
