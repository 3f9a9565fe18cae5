import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Home } from './rozen.ts';

let home: Home;
let source: string;
const key = { ROZEN_PASSWORD: 'words' };

beforeAll(() => {
  home = new Home();
  source = join(home.dir, 'source');
  mkdirSync(join(source, 'folder'), { recursive: true });
  writeFileSync(join(source, 'a.txt'), 'words and words\n'.repeat(100));
  writeFileSync(join(source, 'folder/b.bin'), Buffer.alloc(300_000, 'not all zeros'));
  home.env.ROZEN_REPOSITORY = home.repo;
  home.ok(['init'], key);
  home.ok(['backup', source, '--set', 'test'], key);
});
afterAll(() => home.remove());

/** Files of the repository below a folder, as object names. */
function objects(folder: string): string[] {
  return readdirSync(join(home.repo, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function flip(path: string, at: number): void {
  chmodSync(path, 0o600);
  const bytes = readFileSync(path);
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([bytes[at]! ^ 1]), 0, 1, at);
  closeSync(fd);
}

describe('a sound repository', () => {
  test('has no problems', () => {
    const { stdout } = home.ok(['verify'], key);
    expect(stdout).toMatch(/1 snapshot, 2 archives/);
    expect(stdout).toMatch(/content was not read/);
    expect(stdout).toMatch(/no problems were found/);
    expect(home.ok(['verify', '--read-data'], key).stdout).toMatch(/2 blocks, \d+ chunks?/);
    expect(home.ok(['verify', '--sample', '10', 'latest'], key).stdout).toMatch(/no problems/);
  });

  test('is scrubbed without asking for anything', () => {
    const report = JSON.parse(home.ok(['--json', 'verify', '--no-key']).stdout);
    expect(report).toMatchObject({ mode: 'scrub', findings: [], snapshots: 1, archives: 2 });
    expect(home.run(['verify']).code).toBe(6);
  });

  test('left-over and strange files are notes', () => {
    mkdirSync(join(home.repo, '.tmp'), { recursive: true });
    writeFileSync(join(home.repo, '.tmp/left'), 'x');
    writeFileSync(join(home.repo, 'stranger'), 'x');
    const { notes, findings } = JSON.parse(home.ok(['--json', 'verify'], key).stdout);
    rmSync(join(home.repo, '.tmp/left'));
    rmSync(join(home.repo, 'stranger'));
    expect(findings).toEqual([]);
    expect(notes).toEqual([expect.stringContaining('stranger'), expect.stringContaining('.tmp/left')]);
  });

  test('options that contradict each other are refused', () => {
    expect(home.run(['verify', '--no-key', '--read-data'], { env: key }).code).toBe(2);
    expect(home.run(['verify', '--no-key', 'latest'], { env: key }).code).toBe(2);
    expect(home.run(['verify', '--sample', '0'], { env: key }).code).toBe(2);
    expect(home.run(['verify', '--sample', '5', '--read-data'], { env: key }).code).toBe(2);
    expect(home.run(['verify', 'feedbeef'], { env: key }).code).toBe(1);
  });
});

describe('a damaged repository', () => {
  test('a bit in a block names archive, block and file', () => {
    const [archive] = objects('data') as [string];
    const at = readFileSync(archive).length - 12_000;
    const middle = Math.max(700, Math.min(at, 900));
    flip(archive, middle);
    try {
      const { code, stdout } = home.run(['verify', '--read-data'], { env: key });
      expect(code).toBe(5);
      expect(stdout).toMatch(/^DAMAGED data\/.*\.roz: block 0 at byte \d+: /m);
      expect(stdout).toMatch(/^ {2}concerns 2 files:$/m);
      expect(stdout).toMatch(/^ {4}[0-9a-f]{8}:\/a\.txt$/m);
      expect(stdout).toMatch(/^1 problem found$/m);
      const { findings } = JSON.parse(home.run(['--json', 'verify', '--read-data'], { env: key }).stdout);
      expect(findings).toMatchObject([
        { kind: 'damaged', block: 0, frame: { type: 'DATA', sequence: 1 }, fileCount: 2 },
      ]);
      expect(findings[0].files.map((file: { path: string }) => file.path)).toEqual(['/a.txt', '/folder/b.bin']);
      expect(home.run(['verify', '--no-key']).code).toBe(5);
    } finally {
      flip(archive, middle);
    }
  });

  test('a damaged genesis is a result, not the end', () => {
    flip(join(home.repo, 'rozen.cbor'), 60);
    try {
      const { code, stdout } = home.run(['verify'], { env: key });
      expect(code).toBe(5);
      expect(stdout).toMatch(/^DAMAGED rozen\.cbor: /m);
    } finally {
      flip(join(home.repo, 'rozen.cbor'), 60);
    }
    expect(home.run(['verify'], { env: key }).code).toBe(0);
  });

  test('a missing tree archive concerns the whole snapshot', () => {
    const [archive] = objects('tree') as [string];
    renameSync(archive, join(home.dir, 'away'));
    try {
      const { code, stdout } = home.run(['verify'], { env: key });
      expect(code).toBe(5);
      expect(stdout).toMatch(/^MISSING tree\/.*\n {2}nothing in [0-9a-f]{8} can be read$/m);
      expect(home.run(['verify', '--no-key']).code).toBe(5);
    } finally {
      renameSync(join(home.dir, 'away'), archive);
    }
  });

  test.each([
    ['tree', [['ls'], ['find'], ['stats'], ['restore', 'latest', '--target', 'out']]],
    [
      'data',
      [
        ['cat', 'latest:/a.txt'],
        ['restore', 'latest', '--target', 'out'],
      ],
    ],
  ])('whoever needs a missing %s archive ends as with a damaged one', (kind, commands) => {
    const [archive] = objects(kind) as [string];
    renameSync(archive, join(home.dir, 'away'));
    try {
      for (const args of commands) {
        expect(home.run(args, { env: key }), args[0]).toMatchObject({
          code: 5,
          stderr: expect.stringContaining(`no object ${kind}/`),
        });
      }
    } finally {
      renameSync(join(home.dir, 'away'), archive);
      rmSync(join(home.dir, 'out'), { recursive: true, force: true });
    }
    expect(home.run(['cat', 'latest:/nowhere'], { env: key }).code).toBe(1);
  });

  test('a listing that had to leave a snapshot out says so by its exit code', () => {
    const [record] = objects('snapshots') as [string];
    flip(record, 100);
    try {
      for (const command of ['snapshots', 'find', 'stats']) {
        const { code, stderr } = home.run([command], { env: key });
        expect(code, command).toBe(5);
        expect(stderr, command).toMatch(/^rozen: .*snapshots\/.*\.cbor: /);
      }
    } finally {
      flip(record, 100);
    }
    expect(home.run(['snapshots'], { env: key }).code).toBe(0);
  });
});

describe('--against', () => {
  const compare = (...more: string[]) => {
    const { code, stdout } = home.run(['--json', 'verify', '--against', source, ...more], { env: key });
    return { code, report: JSON.parse(stdout) };
  };

  test('equal folders are equal', () => {
    const { code, report } = compare('latest');
    expect(code).toBe(0);
    expect(report).toMatchObject({ divergences: [], equal: 4, files: 2 });
    expect(home.run(['verify', '--against', source], { env: key }).stderr).toMatch(/^no differences, 4 equal; /m);
  });

  test('without a name the newest snapshot of that folder is meant, not the newest of all', () => {
    const other = new Home();
    try {
      const env = { ...key, ROZEN_REPOSITORY: other.repo };
      const folders = ['one', 'two'].map((name) => join(other.dir, name));
      other.ok(['init'], env);
      for (const folder of folders) {
        mkdirSync(folder);
        writeFileSync(join(folder, folder.endsWith('one') ? 'a' : 'b'), folder);
        other.ok(['backup', folder, '--set', folder.slice(-3)], env);
      }
      expect(other.run(['verify', '--against', folders[0]!], { env })).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/^comparing with [0-9a-f]{8} one .*, the newest snapshot of /),
      });
      expect(other.run(['verify', '--against', folders[1]!], { env }).code).toBe(0);
    } finally {
      other.remove();
    }
  });

  test('tells what is missing, extra, moved and changed', () => {
    const kept = readFileSync(join(source, 'a.txt'));
    writeFileSync(join(source, 'extra'), 'x');
    renameSync(join(source, 'folder/b.bin'), join(source, 'elsewhere.bin'));
    const altered = Buffer.from(kept);
    altered[500]! ^= 1;
    writeFileSync(join(source, 'a.txt'), altered);
    const { code, report } = compare();
    expect(code).toBe(4);
    expect(report.divergences.map(({ kind, path }: { kind: string; path: string }) => `${kind} ${path}`)).toEqual([
      'content a.txt',
      'moved elsewhere.bin',
      'extra extra',
    ]);
    expect(report.divergences[0].message).toBe('differs between bytes 0 and 1600');
    expect(report.divergences[1].from).toBe('folder/b.bin');
    rmSync(join(source, 'extra'));
    renameSync(join(source, 'elsewhere.bin'), join(source, 'folder/b.bin'));
    writeFileSync(join(source, 'a.txt'), kept);
    utimesSync(join(source, 'a.txt'), 1, 1);
    const after = compare();
    expect(after.code).toBe(0);
    expect(after.report.divergences).toMatchObject([{ kind: 'metadata', path: 'a.txt', message: 'mtime' }]);
    rmSync(join(source, 'a.txt'));
    const gone = compare();
    expect(gone.code).toBe(4);
    expect(gone.report.divergences).toMatchObject([{ kind: 'missing', path: 'a.txt' }]);
    const summary = () => home.run(['verify', '--against', source], { env: key });
    writeFileSync(join(source, 'extra'), 'x');
    expect(summary()).toMatchObject({
      code: 4,
      stderr: expect.stringMatching(/^1 missing or changed, \d only here, moved or with other metadata, \d equal; /m),
    });
    writeFileSync(join(source, 'a.txt'), kept);
    expect(summary()).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^\d only here, moved or with other metadata, \d equal; /m),
    });
  });
});

describe('keys', () => {
  const verified = (identity: string) => home.run(['verify', '--identity', identity], { env: {} });

  test('are counted, and told when they are gone', () => {
    const identity = join(home.dir, 'identity.txt');
    home.ok(['key', 'export', '--owner', identity], key);
    expect(verified(identity)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/it opens by 1 passphrase and 0 age keys\n/),
    });
    const [path] = objects('keys') as [string];
    const aside = join(home.dir, 'aside');
    renameSync(path, aside);
    for (const args of [['--identity', identity], ['--no-key']])
      expect(home.run(['verify', ...args], { env: {} })).toMatchObject({
        code: 5,
        stdout: expect.stringMatching(/^MISSING keys\/: there is no key object at all/m),
      });
    // With another one in its place it may have been taken back: a note.
    const words = join(home.dir, 'words');
    writeFileSync(words, 'other words');
    home.ok(['--identity', identity, 'key', 'add', '--label', 'other', '--new-password-file', words]);
    expect(verified(identity)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^note: keys\/[0-9a-f]{32}\.cbor: the key that this machine used last is gone/m),
    });
    renameSync(aside, path);
    expect(verified(identity).stdout).toMatch(/opens by 2 passphrases/);
    // Removed here: no word of it.
    home.ok(['--identity', identity, 'key', 'remove', path.slice(-37, -5)]);
    const after = verified(identity);
    expect(after.stdout).toMatch(/opens by 1 passphrase and/);
    expect(after.stdout).not.toMatch(/note:/);
  });
});
