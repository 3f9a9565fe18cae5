import {
  appendFileSync,
  cpSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { INODE, INODE_FLAGS } from '../../../src/archive/tree/schema.ts';
import type { BackupOptions, BackupReport } from '../../../src/snapshot/backup/backup-types.ts';
import { Place, type Snapshot, settle } from '../machine.ts';

// Many runs of the program: a machine that is busy must not fail them.
vi.setConfig({ testTimeout: 300_000 });

let place: Place;
beforeEach(async () => {
  place = await Place.make();
});
const at = (path: string): string => join(place.source, path);
const write = (path: string, content = path): void => {
  mkdirSync(join(at(path), '..'), { recursive: true });
  writeFileSync(at(path), content);
};
const read = (path: string): string => readFileSync(at(path), 'utf8');
const kept = (folder = ''): string[] => readdirSync(at(folder)).filter((name) => name.includes('.rozen-diverged-'));
const backup = async (options: Partial<BackupOptions> = {}): Promise<BackupReport> => {
  await settle();
  return place.backup({ mode: 'worm', ...options });
};
const paths = (snapshot: Snapshot): string[] => [...snapshot.entries.keys()].filter((path) => path !== '').sort();
const content = async (snapshot: Snapshot, path: string): Promise<string> => (await snapshot.content(path)).toString();
const isFlagged = (snapshot: Snapshot, path: string): boolean =>
  ((snapshot.entries.get(path)!.row[INODE.flags] as number) & INODE_FLAGS.diverged) !== 0;
const told = (report: BackupReport) =>
  report.worm!.diverged.map(({ path, kind, action }) => [path.toString().slice(place.source.length + 1), kind, action]);

describe('a file with several names that diverged', () => {
  beforeEach(async () => {
    write('a');
    mkdirSync(at('folder'));
    linkSync(at('a'), at('b'));
    linkSync(at('a'), at('folder/c'));
    await backup();
    appendFileSync(at('b'), ' and more');
  });

  test('is restored under all of them, as one file', async () => {
    const report = await backup({ policy: { onChange: 'restore' } });
    expect(report.problems).toEqual([]);
    expect(told(report)).toEqual([['a', 'edited', 'restored']]);
    const inodes = ['a', 'b', 'folder/c'].map((name) => lstatSync(at(name)).ino);
    expect(new Set(inodes).size).toBe(1);
    expect(lstatSync(at('a')).nlink).toBe(3);
    expect(read('folder/c')).toBe('a');
    expect(kept()).toHaveLength(1);
    expect(read(kept()[0]!)).toBe('a and more');
    expect(readdirSync(at('folder'))).toEqual(['c']);
    await backup();
    const snapshot = await place.read();
    expect(new Set(['/a', '/b', '/folder/c'].map((path) => snapshot.entries.get(path)!.inode)).size).toBe(1);
    expect((await backup()).unchanged).toBe(true);
  });

  test('is restored by a decision, which no walk precedes', async () => {
    await backup();
    const { inode } = (await place.read()).entries.get('/a')!;
    const decisions = new Map([[inode, { action: 'restore' as const, path: Buffer.from(at('b')) }]]);
    const report = await place.backup({ mode: 'worm', decisions, keepDiverged: false });
    expect(report.problems).toEqual([]);
    expect(lstatSync(at('a')).nlink).toBe(3);
    expect([read('a'), read('b'), read('folder/c'), kept()]).toEqual(['a', 'a', 'a', []]);
  });

  test('is left as it is when it has a name elsewhere, which would be parted', async () => {
    linkSync(at('a'), join(place.folder, 'elsewhere'));
    const report = await backup({ policy: { onChange: 'restore' } });
    expect(report.problems.map(({ message }) => message)).toEqual([
      'not restored: it has another name (hard link) outside of the set, which would be parted from it',
    ]);
    expect(told(report)).toEqual([['a', 'edited', 'kept']]);
    expect([read('a'), lstatSync(at('a')).nlink, kept()]).toEqual(['a and more', 4, []]);
  });
});

test.each(['file', 'symlink'])(
  'what diverged again after it was settled, by the same %s, counts from then',
  async (what) => {
    const diverge = (): void => {
      if (what === 'file') return appendFileSync(at('a'), ' and more');
      unlinkSync(at('a'));
      symlinkSync('elsewhere', at('a'));
    };
    const since = (report: BackupReport) => report.worm!.diverged.map((file) => file.since);
    write('a');
    await backup();
    diverge();
    const first = await backup();
    expect(since(first)).toEqual([null]);
    expect(since(await backup())).toEqual([first.sequence]);
    await backup({ policy: { onChange: 'restore' } });
    expect(read('a')).toBe('a');
    expect((await backup({ policy: { onChange: 'warn' } })).worm!.diverged).toEqual([]);
    diverge();
    const second = await backup();
    expect(since(second)).toEqual([null]);
    expect(since(await backup())).toEqual([second.sequence]);
  },
);

test('what is told of a snapshot is what it has: archived sizes, and nothing that was left out', async () => {
  write('a', 'archived');
  write('b');
  const first = await backup();
  expect(first).toMatchObject({ totalFiles: 2, totalBytes: 9 });
  appendFileSync(at('a'), ' and more');
  expect(await backup()).toMatchObject({ totalFiles: 2, totalBytes: 9 });
  expect(await backup()).toMatchObject({ totalFiles: 2, totalBytes: 9 });
  unlinkSync(at('b'));
  symlinkSync('elsewhere', at('b'));
  write('c', 'refused');
  write('empty', '');
  const frozen = await backup({ policy: { acceptNew: false } });
  expect(frozen.worm!.refused).toHaveLength(2);
  expect(frozen).toMatchObject({ totalFiles: 2, totalBytes: 9 });
  const restored = await backup({ policy: { onChange: 'restore' } });
  expect(restored).toMatchObject({ totalFiles: 4, totalBytes: 16 });
  expect((await place.read()).body.stats).toMatchObject({ files: 4, bytes: 16 });
});

test('deleted names of one file come back as one file, and each has its tombstone', async () => {
  write('a');
  mkdirSync(at('folder'));
  linkSync(at('a'), at('folder/b'));
  await backup();
  unlinkSync(at('a'));
  unlinkSync(at('folder/b'));
  const report = await backup({ policy: { onDelete: 'restore' } });
  expect(report.problems).toEqual([]);
  expect(lstatSync(at('a')).ino).toBe(lstatSync(at('folder/b')).ino);
  expect(read('folder/b')).toBe('a');
  await backup();
  unlinkSync(at('a'));
  unlinkSync(at('folder/b'));
  await backup();
  const snapshot = await place.read();
  expect(paths(snapshot)).toEqual(['/folder']);
  expect(snapshot.reader.roots.deleted.count).toBe(2);
});

describe('a folder in place of a file', () => {
  beforeEach(async () => {
    write('a', 'archived');
    write('z');
    await backup();
    unlinkSync(at('a'));
    write('a/inside');
  });

  test('is told; the file stays current, and nothing of the folder is stored or read twice', async () => {
    const report = await backup();
    expect(told(report)).toEqual([['a', 'replaced', 'kept']]);
    expect(report.worm!.openCount).toBe(1);
    expect(report).toMatchObject({ bytesRead: 0, bytesNew: 0 });
    const snapshot = await place.read();
    expect(paths(snapshot)).toEqual(['/a', '/z']);
    expect(await content(snapshot, '/a')).toBe('archived');
    expect(isFlagged(snapshot, '/a')).toBe(true);
    write('a/another');
    const again = await backup();
    expect(again).toMatchObject({ unchanged: true, bytesRead: 0 });
    expect(again.worm!.diverged).toMatchObject([{ since: report.sequence }]);
  });

  test('is taken when that is accepted, and the file is deleted', async () => {
    const { inode } = (await place.read()).entries.get('/a')!;
    const report = await backup({ policy: { onChange: 'accept' } });
    expect(told(report)).toEqual([['a', 'replaced', 'accepted']]);
    expect(report.worm!.openCount).toBe(0);
    expect(report.classes.deleted).toMatchObject({ files: 1 });
    const snapshot = await place.read();
    expect(paths(snapshot)).toEqual(['/a', '/a/inside', '/z']);
    expect(await content(snapshot, '/a/inside')).toBe('a/inside');
    expect(snapshot.entries.get('/a')!.inode).not.toBe(inode);
    expect((await backup()).unchanged).toBe(true);
  });

  test('makes room when the file is restored, and is kept whatever is said', async () => {
    const report = await backup({ policy: { onChange: 'restore' }, keepDiverged: false });
    expect(report.problems).toEqual([]);
    expect(told(report)).toEqual([['a', 'replaced', 'restored']]);
    expect(read('a')).toBe('archived');
    expect(read(join(kept()[0]!, 'inside'))).toBe('a/inside');
    expect(isFlagged(await place.read(), '/a')).toBe(false);
    expect((await backup()).worm!.divergedCount).toBe(0);
  });

  test('is taken or makes room by a decision', async () => {
    await backup();
    const first = (await place.read()).entries.get('/a')!.inode;
    const path = Buffer.from(at('a'));
    const report = await place.backup({ mode: 'worm', decisions: new Map([[first, { action: 'accept', path }]]) });
    expect(report.problems).toEqual([]);
    expect(report.worm).toMatchObject({ openCount: 0, divergedCount: 1 });
    const snapshot = await place.read();
    expect(paths(snapshot)).toEqual(['/a', '/a/inside', '/z']);
    expect(await content(snapshot, '/a/inside')).toBe('a/inside');
    expect(snapshot.body.stats).toMatchObject({ files: 2, diverged: 0 });
    expect((await backup()).unchanged).toBe(true);
    unlinkSync(at('z'));
    write('z/inside');
    await backup();
    const second = (await place.read()).entries.get('/z')!.inode;
    const restore = new Map([[second, { action: 'restore' as const, path: Buffer.from(at('z')) }]]);
    expect((await place.backup({ mode: 'worm', decisions: restore })).worm).toMatchObject({ openCount: 0 });
    expect(read('z')).toBe('z');
  });

  test('is no replacement when the file is in it, or somewhere else', async () => {
    renameSync(at('z'), at('a/z'));
    write('z/new');
    const report = await backup();
    // What has the name of z holds it no more, but the walk has not met it in a: that is another file's case.
    expect(told(report).map(([path]) => path)).toEqual(['a', 'z']);
    rmSync(at('z'), { recursive: true });
    renameSync(at('a/z'), at('z'));
    rmSync(at('a'), { recursive: true });
    write('a', 'archived');
    await backup({ policy: { onChange: 'accept' } });
    const { inode } = (await place.read()).entries.get('/a')!;
    renameSync(at('a'), at('aside'));
    mkdirSync(at('a'));
    renameSync(at('aside'), at('a/itself'));
    const moved = await backup();
    expect(moved.worm).toMatchObject({ divergedCount: 0 });
    expect(moved.bytesRead).toBe(0);
    expect((await place.read()).entries.get('/a/itself')!.inode).toBe(inode);
  });

  test('may hold a known folder in which the same has happened', async () => {
    write('known/x');
    write('known/y');
    await backup();
    const { inode } = (await place.read()).entries.get('/known')!;
    for (const decided of [false, true]) {
      renameSync(at('known'), at('a/known'));
      unlinkSync(at('a/known/x'));
      write('a/known/x/new');
      if (decided) {
        const report = await backup();
        expect(told(report)).toEqual([['a', 'replaced', 'kept']]);
        const file = (await place.read()).entries.get('/a')!.inode;
        const decisions = new Map([[file, { action: 'accept' as const, path: Buffer.from(at('a')) }]]);
        // Only of the one that was decided on is it known that it may be gone.
        expect(told(await place.backup({ mode: 'worm', decisions }))).toEqual([
          ['a', 'replaced', 'accepted'],
          ['a/known/x', 'replaced', 'kept'],
        ]);
        expect(paths(await place.read())).toContain('/a/known/x');
      }
      await backup({ policy: { onChange: 'accept' } });
      const snapshot = await place.read();
      expect(paths(snapshot)).toEqual([
        '/a',
        '/a/inside',
        '/a/known',
        '/a/known/x',
        '/a/known/x/new',
        '/a/known/y',
        '/z',
      ]);
      expect(snapshot.entries.get('/a/known')!.inode).toBe(inode);
      expect(await content(snapshot, '/a/known/x/new')).toBe('a/known/x/new');
      expect((await backup()).unchanged).toBe(true);
      // And back, for the other way.
      rmSync(at('a/known/x'), { recursive: true });
      renameSync(at('a/known'), at('known'));
      write('known/x');
      rmSync(at('a'), { recursive: true });
      write('a', 'archived');
      await backup({ policy: { onChange: 'accept' } });
      unlinkSync(at('a'));
      write('a/inside');
    }
  });

  test('goes, and the file is back: the case is settled', async () => {
    renameSync(at('a'), join(place.folder, 'away'));
    writeFileSync(at('a'), 'archived');
    await backup();
    expect(isFlagged(await place.read(), '/a')).toBe(false);
  });
});

describe('a file in place of a folder', () => {
  beforeEach(async () => {
    write('a/x');
    write('a/deep/y');
    write('other');
    await backup();
    rmSync(at('a'), { recursive: true });
    write('a', 'a file now');
  });

  test('is told; the folder stays current with all that is in it', async () => {
    const report = await backup();
    expect(told(report)).toEqual([['a', 'replaced', 'kept']]);
    expect(report).toMatchObject({ bytesRead: 0, bytesNew: 0 });
    expect(report.classes.deleted).toEqual({ files: 0, folders: 0, others: 0 });
    const snapshot = await place.read();
    expect(paths(snapshot)).toEqual(['/a', '/a/deep', '/a/deep/y', '/a/x', '/other']);
    expect(await content(snapshot, '/a/deep/y')).toBe('a/deep/y');
    expect((await backup()).unchanged).toBe(true);
    // A folder has this name again.
    unlinkSync(at('a'));
    write('a/x');
    const back = await backup();
    expect(back.worm!.divergedCount).toBe(0);
    expect(isFlagged(await place.read(), '/a')).toBe(false);
    expect(paths(await place.read())).toEqual(['/a', '/a/x', '/other']);
  });

  test('is taken when that is accepted; what was in the folder stays readable', async () => {
    const report = await backup({ policy: { onChange: 'accept' } });
    expect(told(report)).toEqual([['a', 'replaced', 'accepted']]);
    const snapshot = await place.read();
    expect(paths(snapshot)).toEqual(['/a', '/other']);
    expect(await content(snapshot, '/a')).toBe('a file now');
    expect(snapshot.reader.roots.deleted.count).toBe(1);
  });

  test('makes room when the folder is restored', async () => {
    const report = await backup({ policy: { onChange: 'restore' } });
    expect(report.problems).toEqual([]);
    expect(read('a/deep/y')).toBe('a/deep/y');
    expect(read(kept()[0]!)).toBe('a file now');
    expect((await backup()).worm!.divergedCount).toBe(0);
  });

  test('is taken by a decision', async () => {
    await backup();
    const { inode } = (await place.read()).entries.get('/a')!;
    const decisions = new Map([[inode, { action: 'accept' as const, path: Buffer.from(at('a')) }]]);
    // Also in a frozen set: what a person accepts is no surprise.
    const policy = { acceptNew: false };
    const report = await place.backup({ mode: 'worm', decisions, policy });
    expect(report.worm).toMatchObject({ openCount: 0, refusedCount: 0 });
    expect(paths(await place.read())).toEqual(['/a', '/other']);
    expect((await place.read()).body.stats).toMatchObject({ files: 2 });
    expect((await backup()).unchanged).toBe(true);
  });

  test('parts from what was in the folder and moved on', async () => {
    unlinkSync(at('a'));
    write('a/x');
    write('a/deep/y');
    await backup({ policy: { onChange: 'accept' } });
    const { inode } = (await place.read()).entries.get('/a/deep')!;
    renameSync(at('a/deep'), at('moved'));
    rmSync(at('a'), { recursive: true });
    symlinkSync('moved', at('a'));
    const report = await backup();
    expect(told(report)).toEqual([['a', 'replaced', 'kept']]);
    const snapshot = await place.read();
    expect(paths(snapshot)).toEqual(['/a', '/a/x', '/moved', '/moved/y', '/other']);
    expect(snapshot.entries.get('/moved')!.inode).toBe(inode);
  });
});

test('a symlink in place of a file is taken by a decision, in one snapshot with others of the folder', async () => {
  for (const name of ['a', 'b', 'c']) write(`f/${name}`);
  await backup();
  for (const name of ['c', 'a', 'b']) {
    unlinkSync(at(`f/${name}`));
    symlinkSync('nowhere', at(`f/${name}`));
  }
  const { diverged } = (await backup()).worm!;
  const decisions = new Map(diverged.map(({ inode, path }) => [inode, { action: 'accept' as const, path }]));
  const report = await place.backup({ mode: 'worm', decisions });
  expect(report.worm).toMatchObject({ openCount: 0, divergedCount: 3 });
  const snapshot = await place.read();
  expect(Buffer.from(snapshot.entries.get('/f/b')!.row[INODE.target] as Uint8Array).toString()).toBe(
    readlinkSync(at('f/b')),
  );
  expect(snapshot.reader.roots.deleted.count).toBe(3);
  expect((await backup()).unchanged).toBe(true);
});

test('a frozen set follows its files to another file system, and takes nothing new with them', async () => {
  for (const name of ['one', 'two', 'three']) write(`f/${name}`, `${name} `.repeat(50));
  const frozen = { policy: { acceptNew: false } };
  await backup();
  const before = (await place.read()).entries;
  // Copied with other inode numbers, into a folder of another name, some under other names, one with another content.
  cpSync(at('f'), at('g'), { recursive: true, preserveTimestamps: true });
  rmSync(at('f'), { recursive: true });
  renameSync(at('g/one'), at('g/renamed'));
  writeFileSync(at('g/three'), 'not the same content\n');
  write('g/new');
  write('new folder/new');
  mkdirSync(at('empty'));
  const report = await backup(frozen);
  const refused = report.worm!.refused.map((path) => path.toString().slice(place.source.length + 1));
  expect(refused.sort()).toEqual(['empty', 'g/new', 'new folder']);
  expect(told(report)).toEqual([['g/three', 'edited', 'kept']]);
  expect(report.classes).toMatchObject({ new: { files: 0, folders: 0 }, deleted: { files: 0, folders: 0 } });
  expect(report.bytesNew).toBe(0);
  const { entries } = await place.read();
  expect([...entries.keys()].sort()).toEqual(['', '/g', '/g/renamed', '/g/three', '/g/two']);
  expect(entries.get('/g/renamed')!.inode).toBe(before.get('/f/one')!.inode);
  expect(entries.get('/g')!.inode).toBe(before.get('/f')!.inode);
  // A new folder is taken for what is known in it.
  mkdirSync(at('apart'));
  renameSync(at('g/two'), at('apart/two'));
  const apart = await backup(frozen);
  expect(apart.classes).toMatchObject({ moved: { files: 1 }, new: { folders: 1 }, deleted: { files: 0 } });
  expect((await place.read()).entries.get('/apart/two')!.inode).toBe(before.get('/f/two')!.inode);
  expect((await backup(frozen)).unchanged).toBe(true);
  expect(existsSync(at('new folder/new'))).toBe(true);
});

test('contents are stored once more for the newest snapshot of this machine alone, and only if they are right', async () => {
  write('a', 'archived');
  await backup();
  const { record, entries } = await place.read();
  const { inode } = entries.get('/a')!;
  const contentId = Buffer.alloc(32);
  const contents = [{ inode, version: record.sequence, contentId, path: Buffer.from(at('a')) }];
  await expect(place.backup({ mode: 'worm', repairs: { base: Buffer.alloc(16), contents } })).rejects.toMatchObject({
    code: 'usage',
  });
  const report = await place.backup({ mode: 'worm', repairs: { base: record.id, contents } });
  expect(report.worm).toMatchObject({ repaired: 0 });
  expect(report.problems.map(({ message }) => message)).toEqual(['it has changed since it was compared']);
  expect(report.unchanged).toBe(true);
  expect(await content(await place.read(), '/a')).toBe('archived');
});
