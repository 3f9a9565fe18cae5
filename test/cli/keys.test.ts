import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Home, onTerminal, PASSPHRASE } from './rozen.ts';

const home = new Home();
const identity = join(home.dir, 'identity.txt');
const repository = { ROZEN_REPOSITORY: home.repo };
const key = { ...repository, ROZEN_PASSWORD: PASSPHRASE };

beforeAll(() => {
  const made = JSON.parse(home.ok(['init', '--json'], key).stdout);
  expect(made.fingerprint).toMatch(/^([0-9a-f]{4}-){7}[0-9a-f]{4}$/);
  home.ok(['key', 'export', identity], key);
});
afterAll(() => home.remove());

test('init refuses a place that holds a repository', () => {
  expect(home.run(['init'], { env: key })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('holds a repository already'),
  });
});

test('init refuses a folder that holds something else, not what a half-made init left', () => {
  const place = join(home.dir, 'place');
  mkdirSync(join(place, 'lost+found'), { recursive: true });
  mkdirSync(join(place, '.tmp'));
  mkdirSync(join(place, 'config'));
  writeFileSync(join(place, 'config/00000001.cbor'), 'half');
  utimesSync(join(place, 'config/00000001.cbor'), 1e9, 1e9);
  for (const name of ['letter.txt', 'config/mine.toml']) {
    writeFileSync(join(place, name), 'x');
    expect(home.run(['init', place], { env: key })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^rozen: \S+ is not empty \((letter.txt|mine.toml)\); name a folder that/),
    });
    rmSync(join(place, name));
  }
  home.ok(['init', place], key);
});

test('no repository: exit 1 with a hint', () => {
  const { code, stderr } = home.run(['-r', '/etc', 'snapshots'], { env: key });
  expect(code).toBe(1);
  expect(stderr).toMatch(/^rozen: \/etc holds no Rozen repository; .*rozen init/);
});

describe('the passphrase', () => {
  const listed = (env: Record<string, string>, ...args: string[]) =>
    home.run([...args, 'key', 'export'], { env: { ...repository, ...env } });

  test('a wrong one: exit 6', () => {
    expect(listed({ ROZEN_PASSWORD: 'wrong' })).toMatchObject({
      code: 6,
      stdout: '',
      stderr: expect.stringMatching(/^rozen: wrong passphrase/),
    });
  });

  test('none, and no terminal: exit 6, naming the ways to give one', () => {
    const { code, stderr } = listed({});
    expect(code).toBe(6);
    expect(stderr).toMatch(/ROZEN_PASSWORD.*--password-file/);
  });

  test('of a new key, and no terminal: exit 6, naming the way that gives a new one', () => {
    const { code, stderr } = home.run(['key', 'add'], { env: { ...repository, ROZEN_PASSWORD: PASSPHRASE } });
    expect(code).toBe(6);
    expect(stderr).toMatch(
      /^rozen: a passphrase is needed, and there is no terminal to ask on; use --new-password-file\n$/,
    );
    const first = home.run(['init', join(home.dir, 'other')]);
    expect(first.code).toBe(6);
    expect(first.stderr).toMatch(/; set ROZEN_PASSWORD or ROZEN_PASSWORD_COMMAND, or use --password-file\n$/);
  });

  test('from the environment, a file, a command, an identity file, the configuration', () => {
    const file = join(home.dir, 'password');
    writeFileSync(file, `${PASSPHRASE}\nsecond line\n`);
    const config = join(home.dir, 'with-key.toml');
    writeFileSync(config, `[repositories.r]\nlocation = "repo"\npassword-file = "password"\n`);
    const text = readFileSync(identity, 'utf8');
    for (const result of [
      listed({ ROZEN_PASSWORD: PASSPHRASE }),
      listed({}, '--password-file', file),
      listed({ ROZEN_PASSWORD_COMMAND: `cat ${file}` }),
      listed({ ROZEN_IDENTITY_FILE: identity }),
      listed({}, '--identity', identity),
      listed({}, '--config', config, '-r', 'r'),
      listed({ ROZEN_PASSWORD: 'wrong' }, '--password-file', file),
    ]) {
      expect(result).toEqual({ code: 0, stdout: text, stderr: '' });
    }
  });

  test.each([
    [{ ROZEN_PASSWORD_COMMAND: 'exit 3' }, /password command failed \(exit code 3\)/],
    [{ ROZEN_IDENTITY_FILE: '/nowhere' }, /\/nowhere/],
  ])('from %j: exit 6', (env, message) => {
    const result = listed(env);
    expect(result.code).toBe(6);
    expect(result.stderr).toMatch(message);
  });

  test('typed on a terminal: nothing is echoed', async () => {
    const { code, shown } = await onTerminal(
      home,
      ['key', 'export'],
      [{ after: 'Passphrase: ', type: `${PASSPHRASE}x\x7f\r` }],
      repository,
    );
    expect(code).toBe(0);
    expect(shown).toContain('AGE-SECRET-KEY-');
    expect(shown).not.toContain(PASSPHRASE.slice(0, 4));
    expect(shown.split('\r\n')[0]).toBe('Passphrase: ');
  });

  test('Ctrl-C at the prompt: exit 130', async () => {
    const { code, shown } = await onTerminal(
      home,
      ['key', 'export'],
      [{ after: 'Passphrase: ', type: 'abc\x03' }],
      repository,
    );
    expect(code).toBe(130);
    expect(shown).not.toContain('abc');
  });

  test('a new one is asked for twice', async () => {
    const other = { ROZEN_REPOSITORY: join(home.dir, 'second') };
    const answers = [
      { after: 'New passphrase: ', type: 'apple\r' },
      { after: 'the same again: ', type: 'pear\r' },
      { after: 'New passphrase: ', type: 'plum\r' },
      { after: 'the same again: ', type: 'plum\r' },
    ];
    const { code, shown } = await onTerminal(home, ['init'], answers, other);
    expect(code).toBe(0);
    expect(shown).toContain('the two are not equal');
    expect(shown).not.toMatch(/apple|pear|plum/);
    expect(home.run(['key', 'export'], { env: { ...other, ROZEN_PASSWORD: 'plum' } }).code).toBe(0);
  });
});

describe('keys', () => {
  test('are listed, added and removed, also as JSON', () => {
    const file = join(home.dir, 'new-password');
    writeFileSync(file, 'another one');
    const added = JSON.parse(
      home.ok(['key', 'add', '--label', 'spare', '--new-password-file', file, '--json'], key).stdout,
    );
    const list = () =>
      JSON.parse(home.ok(['key', 'list', '--json'], repository).stdout).keys as { id: string; label: string }[];
    expect(list().map(({ label }) => label)).toEqual(['first passphrase', 'spare']);
    expect(home.ok(['key', 'list'], repository).stdout).toContain('spare');
    expect(home.run(['key', 'export'], { env: { ...repository, ROZEN_PASSWORD: 'another one' } }).code).toBe(0);
    home.ok(['key', 'remove', added.id.slice(0, 6)], key);
    expect(list()).toHaveLength(1);
    expect(home.run(['key', 'export'], { env: { ...repository, ROZEN_PASSWORD: 'another one' } }).code).toBe(6);
    expect(home.run(['key', 'remove', list()[0]!.id], { env: key })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('only key'),
    });
  });

  test('an exported file is for its owner only, and never overwrites', () => {
    expect(statSync(identity).mode & 0o777).toBe(0o600);
    expect(home.run(['key', 'export', identity], { env: key })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('exists already'),
    });
  });
});

test('enroll gives another machine the right to add', () => {
  const writer = join(home.dir, 'nas.writer');
  expect(home.run(['enroll', '--export', writer], { env: key }).code).toBe(2);
  home.ok(['enroll', '--name', 'nas', '--export', writer], key);
  expect(statSync(writer).mode & 0o777).toBe(0o600);
  const there = new Home();
  try {
    chmodSync(writer, 0o600);
    expect(there.run(['enroll', '--import', identity], { env: repository })).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^rozen: \S+: not a writer file; /),
    });
    expect(there.run(['backup', there.dir, '--set', 'a'], { env: repository })).toMatchObject({
      code: 6,
      stderr: expect.stringMatching(/^rozen: this machine is not enrolled in .*rozen enroll --import FILE.*passphrase/),
    });
    const { stdout } = there.ok(['enroll', '--import', writer, '--json'], repository);
    expect(JSON.parse(stdout).writer).toMatch(/^[0-9a-f]{32}$/);
    const { writers } = JSON.parse(there.ok(['key', 'list', '--json'], repository).stdout);
    expect(
      writers.filter((w: { isThisMachine: boolean }) => w.isThisMachine).map((w: { name: string }) => w.name),
    ).toEqual(['nas']);
    expect(there.run(['snapshots'], { env: repository }).code).toBe(6);
  } finally {
    there.remove();
  }
});

test('a repository for recipients only has no passphrase', () => {
  const { stdout } = home.ok(['key', 'list', '--json'], repository);
  const recipient = JSON.parse(stdout).recipients[0] as string;
  const repo = join(home.dir, 'write-only');
  home.ok(['init', repo, '--recipient', recipient], { ROZEN_PASSWORD: PASSPHRASE });
  expect(existsSync(join(repo, 'rozen.cbor'))).toBe(true);
  expect(home.run(['key', 'add', '--recipient', recipient], { env: key })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('is a recipient already'),
  });
  const { keys } = JSON.parse(home.ok(['-r', repo, 'key', 'list', '--json']).stdout);
  expect(keys.map(({ kind }: { kind: string }) => kind)).toEqual(['age']);
  expect(home.run(['-r', repo, 'snapshots'], { env: { ROZEN_PASSWORD: PASSPHRASE } }).code).toBe(6);
  expect(home.run(['init', join(home.dir, 'x'), '--recipient', 'age1nonsense']).code).toBe(2);
});
