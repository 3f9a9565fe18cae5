import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  cpSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Home, PASSPHRASE } from './rozen.ts';

const home = new Home();
const source = join(home.dir, 'source');
const identity = join(home.dir, 'identity.txt');
const env = { ROZEN_REPOSITORY: home.repo, ROZEN_IDENTITY_FILE: identity };
const oddName = Buffer.concat([Buffer.from(`${source}/a/`), Buffer.from([0x6f, 0xff, 0x1b, 0x5b])]);
const ids: string[] = [];

const ok = (...args: string[]) => home.ok(args, env).stdout;
const lines = (...args: string[]) =>
  ok(...args)
    .trimEnd()
    .split('\n');
const objects = (...args: string[]) =>
  lines('--json', ...args)
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const backup = (path: string, set: string, ...more: string[]) => {
  const report = JSON.parse(ok('--json', 'backup', path, '--set', set, ...more));
  if (report.snapshotId !== null) ids.push(report.snapshotId);
  return report;
};

beforeAll(() => {
  home.ok(['init'], { ROZEN_REPOSITORY: home.repo, ROZEN_PASSWORD: PASSPHRASE });
  home.ok(['key', 'export', identity], { ROZEN_REPOSITORY: home.repo, ROZEN_PASSWORD: PASSPHRASE });
  mkdirSync(join(source, 'a/deep'), { recursive: true });
  mkdirSync(join(source, 'c'));
  writeFileSync(join(source, 'a/one'), 'one\n');
  writeFileSync(join(source, 'a/two'), 'two\n');
  writeFileSync(join(source, 'a/deep/large'), Buffer.alloc(3_000_000, 'abcdefg'));
  writeFileSync(join(source, 'c/holes'), 'x');
  truncateSync(join(source, 'c/holes'), 5_000_000);
  symlinkSync('one', join(source, 'a/link'));
  linkSync(join(source, 'a/one'), join(source, 'c/hard'));
  cpSync(join(source, 'a/deep/large'), join(source, 'c/copy'));
  writeFileSync(oddName, 'odd');
  backup(source, 'first');

  renameSync(join(source, 'a/deep'), join(source, 'c/moved'));
  appendFileSync(join(source, 'a/two'), 'more\n');
  chmodSync(join(source, 'c/copy'), 0o600);
  rmSync(join(source, 'a/link'));
  mkdirSync(join(source, 'a/link'));
  writeFileSync(join(source, 'a/link/new'), 'new\n');
  rmSync(oddName);
  backup(source, 'first', '--tag', 'second run');
  backup(join(source, 'c'), 'other');
});
afterAll(() => home.remove());

describe('snapshots', () => {
  test('are listed, oldest first', () => {
    const listed = JSON.parse(ok('snapshots', '--json'));
    expect(listed.map((s: { id: string }) => s.id)).toEqual(ids);
    expect(listed[1]).toMatchObject({ set: 'first', mode: 'snapshot', tags: ['second run'], paths: [source] });
    expect(lines('snapshots')).toHaveLength(4);
    expect(lines('snapshots')[1]).toContain(ids[0]!.slice(0, 8));
  });

  test('can be filtered', () => {
    const listed = (...args: string[]) =>
      JSON.parse(ok('snapshots', '--json', ...args)).map((s: { id: string }) => s.id);
    expect(listed('--set', 'other')).toEqual([ids[2]]);
    expect(listed('--tag', 'second run')).toEqual([ids[1]]);
    expect(listed('--host', 'nobody')).toEqual([]);
    expect(home.run(['snapshots', '--set', 'frist'], { env })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('did you mean first?'),
    });
  });
});

describe('ls', () => {
  test('lists a folder, all below it, or the thing itself', () => {
    expect(lines('ls', 'first@latest')).toEqual(['a', 'c']);
    expect(lines('ls', 'first@latest:/a')).toEqual(['link', 'one', 'two']);
    expect(lines('ls', '-R', 'first@latest')).toEqual([
      'a',
      'a/link',
      'a/link/new',
      'a/one',
      'a/two',
      'c',
      'c/copy',
      'c/hard',
      'c/holes',
      'c/moved',
      'c/moved/large',
    ]);
    expect(lines('ls', '-d', 'first@latest:a')).toEqual(['a']);
    expect(lines('ls', 'first@latest:a/one')).toEqual(['one']);
    expect(lines('ls')).toEqual(['copy', 'hard', 'holes', 'moved']);
  });

  test('-l shows what ls -l shows', () => {
    const [link] = lines('ls', '-l', `${ids[0]}:/a/link`);
    expect(link).toMatch(/^lrwxrwxrwx {2}1 +\d+ +\d+ +3 \d{4}-\d\d-\d\d \d\d:\d\d:\d\d link -> one$/);
    expect(lines('ls', '-l', 'first@latest:/c').find((line) => line.endsWith(' copy'))).toMatch(
      /^-rw------- {2}1 .* 3000000 /,
    );
  });

  test('finds a path as it was on the machine, too', () => {
    expect(lines('ls', `first@latest:${source}/a`)).toEqual(['link', 'one', 'two']);
  });

  test('names that are no UTF-8 go out as they are, and come back', () => {
    const { stdout } = home.ok(['ls', `${ids[0]}:a`], env);
    expect(stdout).toContain('\x1b[');
    const found = objects('ls', `${ids[0]}:a`).find((entry) => entry.pathBase64 !== undefined);
    expect(Buffer.from(found.pathBase64, 'base64')).toEqual(oddName.subarray(source.length + 3));
    const script = `exec "$0" "$1" cat "$2:a/$(printf 'o\\377\\033[')"`;
    const out = execFileSync(
      'sh',
      ['-c', script, process.execPath, join(import.meta.dirname, '../../bin/rozen.js'), ids[0]!],
      {
        env: { ...home.env, ...env },
      },
    );
    expect(out.toString()).toBe('odd');
  });

  test('what is not there is named', () => {
    expect(home.run(['ls', 'first@latest:/a/nope/deeper'], { env })).toMatchObject({
      code: 1,
      stderr: `rozen: "/a/nope/deeper" is not in snapshot ${ids[1]!.slice(0, 8)}: it has no "/a/nope"; see rozen ls ${ids[1]!.slice(0, 8)}:/a\n`,
    });
    const missing = (path: string) => home.run(['ls', `first@latest:${path}`], { env }).stderr;
    const id = ids[1]!.slice(0, 8);
    expect(missing('a/nope')).toBe(`rozen: "/a/nope" is not in snapshot ${id}; see rozen ls ${id}:/a\n`);
    expect(missing(`${source}/a/nope/deeper`)).toBe(
      `rozen: "${source}/a/nope/deeper" is not in snapshot ${id}: it has no "${source}/a/nope"; see rozen ls ${id}:${source}/a\n`,
    );
    expect(missing('/nope/a')).toBe(
      `rozen: "/nope/a" is not in snapshot ${id}: it has no "/nope"; its root is ${source}, see rozen ls ${id}:/\n`,
    );
    expect(home.run(['ls', 'ffff'], { env }).code).toBe(1);
    expect(home.run(['ls', 'firts@latest'], { env })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('there are first, other'),
    });
    expect(home.run(['ls', 'what?'], { env }).code).toBe(2);
  });
});

describe('cat', () => {
  test('writes content, from every snapshot as it was', () => {
    expect(ok('cat', `${ids[0]}:a/two`)).toBe('two\n');
    expect(ok('cat', 'first@latest:a/two', 'first@latest:/c/hard')).toBe('two\nmore\none\n');
    expect(ok('cat', 'first@latest:c/moved/large')).toBe('abcdefg'.repeat(500_000).slice(0, 3_000_000));
    const holes = ok('cat', 'first@latest:c/holes');
    expect([holes.length, holes[0], holes.slice(1).replaceAll('\0', '')]).toEqual([5_000_000, 'x', '']);
  });

  test('refuses what has no content', () => {
    expect(home.run(['cat', 'first@latest:/a'], { env })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('is a folder'),
    });
    expect(home.run(['cat', `${ids[0]}:/a/link`], { env })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('no regular file'),
    });
  });

  test('ends quietly when nobody reads on', () => {
    const script = `"$0" "$1" cat first@latest:c/moved/large | head -c 7; echo`;
    const out = execFileSync('sh', ['-c', script, process.execPath, join(import.meta.dirname, '../../bin/rozen.js')], {
      env: { ...home.env, ...env },
    });
    expect(out.toString()).toBe('abcdefg\n');
  });
});

describe('find', () => {
  const found = (...args: string[]) => objects('find', ...args).map(({ path }) => path);

  test('by name, path, type, size and time', () => {
    expect(found('--snapshot', 'first@latest', 'o*')).toEqual(['a/one']);
    expect(found('--snapshot', 'first@latest', 'link/*')).toEqual(['a/link/new']);
    expect(found('--snapshot', 'first@latest', '-type', 'd')).toEqual(['a', 'a/link', 'c', 'c/moved']);
    expect(found('--snapshot', 'first@latest', '-size', '+4M', '-type', 'f')).toEqual(['c/holes']);
    expect(found('--snapshot', 'first@latest', '--size', '-5', '-name', '*e*')).toEqual(['a/link/new', 'a/one']);
    expect(found('--snapshot', 'first@latest:c', '*')).toEqual([
      'c/copy',
      'c/hard',
      'c/holes',
      'c/moved',
      'c/moved/large',
    ]);
    expect(found('--set', 'first', '--newer', '1d', 'two')).toEqual(['a/two', 'a/two']);
    expect(found('--older', '2020-01-01')).toEqual([]);
    expect(found('-i', '--set', 'other', 'HARD')).toEqual(['hard']);
    expect(found('--set', 'other', '-iname', 'HARD')).toEqual(['hard']);
  });

  test('tells a person which snapshot on stderr, a pipe the paths alone', () => {
    const { stdout, stderr } = home.run(['find', 'two'], { env });
    expect(stdout).toBe('a/two\na/two\n');
    expect(stderr).toMatch(
      new RegExp(`^snapshot ${ids[0]!.slice(0, 8)} first .*\n\nsnapshot ${ids[1]!.slice(0, 8)} first .*\n$`),
    );
    expect(home.run(['find', 'nothing*'], { env })).toEqual({ code: 0, stdout: '', stderr: 'nothing found\n' });
  });
});

describe('diff', () => {
  const marks = (...args: string[]) => lines('diff', ...args);

  test('within a lineage knows what was moved', () => {
    expect(marks(ids[0]!, ids[1]!)).toEqual([
      'T a/link/',
      '+ a/link/new',
      `- a/o\ufffd\x1b[`,
      'M a/two',
      'U c/copy (mode)',
      'R a/deep/ -> c/moved/',
    ]);
    expect(marks('--no-metadata', ids[0]!, ids[1]!)).toHaveLength(5);
    expect(marks(ids[1]!, ids[0]!)).toContain('R c/moved/ -> a/deep/');
  });

  test('of a folder', () => {
    expect(marks(`${ids[0]}:a`, `${ids[1]}:a`)).toEqual([
      '- deep/',
      '- deep/large',
      'T link/',
      '+ link/new',
      `- o\ufffd\x1b[`,
      'M two',
    ]);
  });

  test('of a snapshot with itself finds nothing', () => {
    expect(home.run(['diff', ids[1]!, ids[1]!], { env })).toMatchObject({
      code: 0,
      stdout: '',
      stderr: expect.stringContaining('no difference'),
    });
  });

  test('across sets goes by path and content', () => {
    expect(marks(`${ids[1]}:c`, ids[2]!)).toEqual(['']);
    expect(objects('diff', `${ids[0]}:c`, ids[2]!)).toEqual([
      { kind: 'metadata', path: 'copy', type: 'file', fields: ['mode'], olderSize: 3_000_000, newerSize: 3_000_000 },
      { kind: 'added', path: 'moved', type: 'dir', olderSize: null, newerSize: null },
      { kind: 'added', path: 'moved/large', type: 'file', olderSize: null, newerSize: 3_000_000 },
    ]);
  });

  test('across archives reads content when nothing else can tell', () => {
    const alone = backup(source, 'first', '--self-contained', '--force');
    expect(lines('diff', ids[1]!, alone.snapshotId)).toEqual(['']);
    const copy = backup(source, 'copy', '--self-contained');
    expect(lines('diff', ids[1]!, copy.snapshotId)).toEqual(['']);
    ids.splice(3);
  });
});

test('stats count once what is there once', () => {
  const one = JSON.parse(ok('stats', '--json', ids[1]!));
  expect(one.snapshots).toEqual([
    expect.objectContaining({ files: 6, folders: 5, symlinks: 0, others: 0, bytes: 11_000_017 }),
  ]);
  expect(one.snapshots[0].holeBytes).toBeGreaterThan(4_900_000);
  expect(one.snapshots[0].uniqueBytes).toBeLessThan(3_100_000);
  expect(one.store.areas.data.objects).toBeGreaterThan(0);
  expect(one.store.objects).toBe(
    Object.values(one.store.areas as Record<string, { objects: number }>).reduce((n, area) => n + area.objects, 0),
  );
  const all = JSON.parse(ok('stats', '--json'));
  expect(all.snapshots.length).toBeGreaterThanOrEqual(3);
  expect(all.total.deduplication).toBeGreaterThan(2);
  expect(ok('stats')).toMatch(/deduplicated .*×/);
});

describe('backup', () => {
  test('says what it would do, and does nothing, with --dry-run', () => {
    writeFileSync(join(source, 'a/dry'), 'x');
    const before = JSON.parse(ok('snapshots', '--json')).length;
    expect(ok('backup', source, '--set', 'first', '--dry-run')).toContain(
      'nothing was written (--dry-run): 1 B to read',
    );
    expect(JSON.parse(ok('snapshots', '--json'))).toHaveLength(before);
    rmSync(join(source, 'a/dry'));
  });

  test('takes paths and options from the configuration', () => {
    const config = join(home.dir, 'backup.toml');
    writeFileSync(config, `[sets.conf]\npaths = ["source/a"]\nexclude = ["two"]\ntag = "daily"\n`);
    const report = JSON.parse(ok('--config', config, '--json', 'backup', '--set', 'conf'));
    expect(report).toMatchObject({ set: 'conf', totalFiles: 2 });
    expect(JSON.parse(ok('snapshots', '--json', '--set', 'conf'))[0].tags).toEqual(['daily']);
  });

  test('goes on although nobody reads its output', () => {
    writeFileSync(join(source, 'a/unread'), 'x');
    const script = `"$0" "$1" backup "$2" --set first -v | true; true`;
    execFileSync('sh', ['-c', script, process.execPath, join(import.meta.dirname, '../../bin/rozen.js'), source], {
      env: { ...home.env, ...env },
    });
    expect(lines('ls', 'first@latest:a')).toContain('unread');
  });

  test('an exclude pattern with a leading slash is an absolute path, as the help says', () => {
    const files = (pattern: string): number => backup(source, 'first', '--dry-run', '--exclude', pattern).totalFiles;
    const all = files('nothing');
    expect(files('/a')).toBe(all);
    expect(files(`${source}/a`)).toBeLessThan(all);
    expect(files('./source/a')).toBe(files(`${source}/a`));
    expect(files('a/')).toBe(files(`${source}/a`));
    expect(home.ok(['backup', '--help']).stdout).toMatch(/with a leading \/ an\s+absolute path/);
  });

  test('missing paths are refused', () => {
    expect(home.run(['backup', join(home.dir, 'nowhere'), '--set', 'first'], { env })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('nowhere'),
    });
  });

  test('a set keeps its mode', () => {
    expect(home.run(['backup', source, '--set', 'first', '--mode', 'worm'], { env })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('first'),
    });
  });
});
