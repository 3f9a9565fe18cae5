import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { COMMANDS } from '../../src/cli/catalog.ts';
import type { CommandSpec } from '../../src/cli/command.ts';
import { Home, program } from './rozen.ts';

const home = new Home();
afterAll(() => home.remove());

const paths = (specs: readonly CommandSpec[], before: string[] = []): string[][] =>
  specs.flatMap((spec) => [[...before, spec.name], ...paths(spec.subcommands ?? [], [...before, spec.name])]);
const everyCommand = paths(COMMANDS);

describe('help', () => {
  test('of the program names every command and the exit codes', () => {
    const { code, stdout, stderr } = home.run(['--help']);
    expect(code).toBe(0);
    expect(stderr).toBe('');
    for (const { name } of COMMANDS) expect(stdout).toContain(`  ${name}`);
    expect(stdout).toContain('Exit codes:');
  });

  test.each(everyCommand.map((words) => [words.join(' '), words] as const))('of %s has an example', (name, words) => {
    const { code, stdout } = home.run([...words, '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain(`Usage: rozen ${name}`);
    expect(stdout).toMatch(/\nExamples:\n(.*\n)*?.*rozen /);
  });

  test('help COMMAND is the same', () => {
    for (const words of [['mount'], ['key'], ['key', 'add'], []]) {
      const asked = home.run([...words, '--help']);
      expect(home.run(['help', ...words])).toEqual(asked);
      expect(asked.code).toBe(0);
    }
    expect(home.run(['key', 'help', 'add']).stdout).toBe(home.run(['key', 'add', '--help']).stdout);
  });

  test('the version alone is printed by --version', () => {
    expect(home.run(['--version'])).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^rozen \d+\.\d+\.\d+\n$/),
      stderr: '',
    });
  });
});

describe('a usage error is one line and exit code 2', () => {
  test.each([
    [['bakup'], "rozen: unknown command 'bakup'; did you mean backup?"],
    [['snapshot'], "rozen: unknown command 'snapshot'; did you mean snapshots?"],
    [['help', 'nope'], "rozen: unknown command 'nope'; see rozen --help"],
    [['help', 'bakup'], "rozen: unknown command 'bakup'; did you mean backup?"],
    [['help', 'key', 'ad'], "rozen: unknown command 'key ad'; did you mean key add?"],
    [['help', 'mount', 'x'], "rozen: unknown command 'mount x'; see rozen mount --help"],
    [['mount', '--forground', 'x'], "rozen: unknown option '--forground'; did you mean --foreground?"],
    [['mount'], "rozen: missing required argument 'dir'; see rozen mount --help"],
    [['backup', '/etc', '--set'], /^rozen: option '-s, --set <name>' argument missing; see rozen backup --help$/],
    [['snapshots'], /^rozen: no repository is named; give -r REPO/],
    [['-r', 'x', 'backup', '/etc'], /^rozen: backup needs the name of a set; add --set NAME/],
    [['-r', 'x', 'backup', '--set', 'a'], /^rozen: nothing to back up into set 'a'/],
    [['-r', 'x', 'backup', '/etc', '--set', 'a', '--codec', 'rar'], /^rozen: .*rar/],
    [['-r', 'x', 'backup', '/etc', '--set', 'a', '--archive-size', 'big'], /^rozen: --archive-size: 'big' is no size/],
    [['-r', 'x', 'find', '--size', '+many'], /^rozen: --size: 'many' is no size/],
    [['-r', 'x', 'find', '-type', 'q'], /^rozen: --type: 'q' is no type/],
    [['-r', 'x', 'find', '--newer', 'soon'], /^rozen: --newer: 'soon' is no time/],
    [['-r', 'x', 'find', '[a'], /^rozen: pattern '\[a': a \[ without its \]/],
    [['completion', 'tcsh'], "rozen: 'tcsh' is no shell; it is one of bash, zsh, fish; see rozen completion --help"],
    [['snapshots', 'x'], "rozen: too many arguments for 'snapshots': 1 where 0 fit; see rozen snapshots --help"],
  ])('%j', (args, message) => {
    const { code, stdout, stderr } = home.run(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr.trimEnd()).toEqual(typeof message === 'string' ? message : expect.stringMatching(message));
    expect(stderr.trimEnd()).not.toContain('\n');
  });

  test('without any command the help goes to stderr', () => {
    const { code, stdout, stderr } = home.run([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('Usage: rozen');
  });

  test('a stack trace only with --debug', () => {
    expect(home.run(['snapshots']).stderr).not.toContain('    at ');
    expect(home.run(['snapshots', '--debug']).stderr).toContain('    at ');
  });
});

describe('configuration', () => {
  const config = join(home.dir, 'config.toml');
  test.each([
    ['repository = 7', /config.toml: repository must be a string/],
    ['repositry = "x"', /config.toml: unknown key repositry; did you mean repository\?/],
    [
      '[repositories.home]\nlocaton = "x"',
      /unknown key repositories.home.localton|repositories.home.locaton; did you mean location\?/,
    ],
    ['[repositories.home]\nidentity = "x"', /repositories.home.location must be given/],
    ['[sets.a]\nexclude-caches = "yes"', /sets.a.exclude-caches must be true or false/],
    ['repository = ', /config.toml, line 1: /],
  ])('%j is refused with exit code 2', (text, message) => {
    writeFileSync(config, text);
    const { code, stderr } = home.run(['--config', config, 'snapshots']);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain('\n');
  });

  test('names a repository, relative to itself', () => {
    writeFileSync(config, 'repository = "home"\n[repositories.home]\nlocation = "nowhere"\n');
    const { code, stderr } = home.run(['--config', config, 'key', 'list']);
    expect(code).toBe(1);
    expect(stderr).toContain(join(home.dir, 'nowhere'));
  });

  test('-r wins over ROZEN_REPOSITORY, that over the configuration', () => {
    writeFileSync(config, 'repository = "/c"\n');
    const env = { ROZEN_CONFIG: config };
    expect(home.run(['key', 'list'], { env }).stderr).toContain('/c ');
    expect(home.run(['key', 'list'], { env: { ...env, ROZEN_REPOSITORY: '/e' } }).stderr).toContain('/e ');
    expect(home.run(['-r', '/o', 'key', 'list'], { env: { ...env, ROZEN_REPOSITORY: '/e' } }).stderr).toContain('/o ');
  });
});

describe('completion', () => {
  const script = (shell: string) => home.ok(['completion', shell]).stdout;
  const has = (shell: string) => spawnSync('sh', ['-c', `command -v ${shell}`]).status === 0;

  const bash = (line: string): string[] => {
    const words = line.split(' ');
    const test = `${script('bash')}\nCOMP_WORDS=(${words.map((w) => `'${w}'`).join(' ')})\nCOMP_CWORD=${words.length - 1}\n_rozen\nprintf '%s\\n' "\${COMPREPLY[@]}"`;
    // compopt works only inside of a real completion.
    const result = spawnSync('bash', ['-c', `compopt() { :; }\n${test}`], { encoding: 'utf8', cwd: home.dir });
    expect(result.stderr).toBe('');
    return result.stdout.trim().split('\n');
  };

  test('bash completes commands, subcommands, options and values', () => {
    expect(bash('rozen sn')).toEqual(['snapshots']);
    expect(bash('rozen -r /x ba')).toEqual(['backup']);
    expect(bash('rozen key ')).toEqual(['list', 'add', 'remove', 'export']);
    expect(bash('rozen mount --all')).toEqual(['--allow-other']);
    expect(bash('rozen backup --mode ')).toEqual(['snapshot', 'worm']);
    expect(bash('rozen completion f')).toEqual(['fish']);
    expect(bash('rozen mount st')).toEqual(['state']);
    expect(bash('rozen mount --rep')).toEqual(['--repository']);
  });

  test.each(['bash', 'zsh', 'fish'])('the script for %s has no syntax error', (shell) => {
    const text = script(shell);
    for (const words of everyCommand) expect(text).toContain(words.at(-1));
    if (!has(shell)) return;
    expect(spawnSync(shell, ['-n'], { input: text, encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
  });
});

test('a reader of stdout that goes away ends the command quietly', async () => {
  const child = spawn('sh', ['-c', `"${process.execPath}" "${program}" completion zsh; echo "code $?" >&2`], {
    env: home.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.on('data', (bytes) => {
    stderr += bytes;
  });
  await new Promise((resolve) => child.on('close', resolve));
  expect(stderr).toMatch(/^code (0|141)\n$/);
});
