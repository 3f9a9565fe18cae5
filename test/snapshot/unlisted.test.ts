/** Folders and entries that cannot be looked at stay as they were, while what was in them may have moved. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, linkSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { INODE, INODE_FLAGS } from '../../src/archive/tree/schema.ts';
import { Place, settle } from './machine.ts';
import { MemoryLineage, type Run } from './memory-lineage.ts';
import { TestFolders } from './test-folders.ts';

const { verify } = (await import(
  new URL('../../dist/snapshot/verify/verify.js', import.meta.url).href
)) as typeof import('../../src/snapshot/verify/verify.ts');

const folders = new TestFolders('unlisted');

const isRoot = process.getuid?.() === 0;
let dir: string;
let lineage: MemoryLineage;
beforeEach(() => {
  dir = folders.make();
  lineage = new MemoryLineage();
});

function make(...paths: string[]): void {
  for (const path of paths) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), path);
  }
  if (isRoot) execFileSync('chown', ['-R', '65534', dir]);
}
const move = (from: string, to: string): void => renameSync(join(dir, from), join(dir, to));
const close = (path: string, mode = 0): void => chmodSync(join(dir, path), mode);

/** Nothing is closed to root. */
async function asNobody<T>(work: () => T | Promise<T>): Promise<T> {
  if (isRoot) process.seteuid!(65534);
  try {
    return await work();
  } finally {
    if (isRoot) process.seteuid!(0);
  }
}

const run = (): Promise<Run> => asNobody(() => lineage.run([dir]));

describe('a folder that cannot be listed', () => {
  test('does not get back what moved out of it, whether that was met before or after', async () => {
    for (const name of ['a', 'z']) {
      make('m/inner/deep/file', 'm/moves', 'm/stays');
      await run();
      const before = lineage.paths();
      move('m/inner', name);
      move('m/moves', `${name} file`);
      close('m');
      const moved = await run();
      expect(moved.problems).toEqual(['unreadable /m']);
      expect(moved.reading).toEqual([]);
      const after = lineage.paths();
      expect([...after.keys()].sort()).toEqual(
        ['/m', '/m/stays', `/${name}`, `/${name} file`, `/${name}/deep`, `/${name}/deep/file`].sort(),
      );
      expect(after.get(`/${name}/deep/file`)).toBe(before.get('/m/inner/deep/file'));
      expect(after.get(`/${name} file`)).toBe(before.get('/m/moves'));
      expect((await run()).empty).toBe(true);
      execFileSync('chmod', ['-R', 'u+rwx', dir]);
      rmSync(dir, { recursive: true });
      mkdirSync(dir);
      lineage = new MemoryLineage();
    }
  });

  test('does not come to lie in itself', async () => {
    make('A/sub/f', 'A/g');
    await run();
    const before = lineage.paths();
    move('A/sub', 'sub');
    move('A', 'sub/A');
    close('sub/A');
    await run();
    const after = lineage.paths();
    expect([...after].sort()).toEqual([
      ['/sub', before.get('/A/sub')],
      ['/sub/A', before.get('/A')],
      ['/sub/A/g', before.get('/A/g')],
      ['/sub/f', before.get('/A/sub/f')],
    ]);
    close('sub/A', 0o755);
    await run();
    expect(lineage.paths()).toEqual(after);
    expect(lineage.count('inodes')).toBe(5);
  });

  test('keeps a name of a file that has another one elsewhere', async () => {
    make('m/linked', 'm/parted');
    for (const name of ['linked', 'parted']) linkSync(join(dir, 'm', name), join(dir, name));
    await run();
    const before = lineage.paths();
    rmSync(join(dir, 'm/parted'));
    close('m');
    await run();
    const after = new Map(before);
    after.delete('/m/parted');
    expect(lineage.paths()).toEqual(after);
  });

  test('stays with all below it while what is not in it comes and goes', async () => {
    make('m/inner/file', 'gone', 'other');
    await run();
    const before = lineage.paths();
    rmSync(join(dir, 'gone'));
    make('new');
    close('m/inner');
    expect((await run()).classes.deleted).toEqual(['/gone']);
    expect([...lineage.paths().keys()].sort()).toEqual(['/m', '/m/inner', '/m/inner/file', '/new', '/other']);
    expect(lineage.paths().get('/m/inner/file')).toBe(before.get('/m/inner/file'));
  });
});

test('entries whose attributes cannot be had stay, but for those that moved away', async () => {
  make('m/a/file', 'm/b', 'm/c');
  await run();
  const before = lineage.paths();
  move('m/a', 'a');
  move('m/b', 'z');
  // Names are still told: something new has those of what moved.
  make('m/a', 'm/b');
  close('m', 0o444);
  const closed = await run();
  expect(closed.problems).toEqual(['unreadable /m/a', 'unreadable /m/b', 'unreadable /m/c']);
  expect(lineage.paths()).toEqual(
    new Map([
      ['/a', before.get('/m/a')!],
      ['/a/file', before.get('/m/a/file')!],
      ['/m', before.get('/m')!],
      ['/m/c', before.get('/m/c')!],
      ['/z', before.get('/m/b')!],
    ]),
  );
  expect((await run()).empty).toBe(true);
});

describe('attributes that cannot be read', () => {
  const set = (path: string, value: string): void => {
    execFileSync('setfattr', ['-n', 'user.a', '-v', value, join(dir, path)]);
  };
  const attributes = (path: string): string[] => {
    const inode = lineage.paths().get(path)!;
    const found = [...lineage.xattrs(inode)].map(([name, value]) => `${name}=${value}`);
    expect((lineage.row(inode)![INODE.flags] as number) & INODE_FLAGS.xattrs).toBe(found.length);
    return found;
  };

  test('stay as they were', async () => {
    make('m/file', 'closed');
    for (const path of ['m', 'closed']) set(path, 'old');
    await run();
    for (const path of ['m', 'closed']) close(path);
    expect((await run()).problems).toEqual(['unreadable /closed', 'unreadable /m', 'unreadable /m']);
    for (const path of ['/m', '/closed']) expect(attributes(path)).toEqual(['user.a=old']);
    const again = await run();
    expect(again.problems).toContain('unreadable /m');
    expect(again.classes.metadata).toBeUndefined();
    for (const path of ['/m', '/closed']) expect(attributes(path)).toEqual(['user.a=old']);
  });

  test('of a folder cost no snapshot more than once', async () => {
    make('m/file');
    set('m', 'old');
    await run();
    close('m');
    expect((await run()).empty).toBe(false);
    expect((await run()).empty).toBe(true);
    expect((await run()).empty).toBe(true);
  });

  test.runIf(isRoot)('are read by the next run that can, though nothing else has changed', async () => {
    make('known/file');
    set('known', 'old');
    await run();
    set('known', 'newer');
    close('known');
    await run();
    expect(attributes('/known')).toEqual(['user.a=old']);
    lineage.run([dir]);
    expect(attributes('/known')).toEqual(['user.a=newer']);
    expect(lineage.run([dir]).empty).toBe(true);
    mkdirSync(join(dir, 'fresh'));
    chownSync(join(dir, 'fresh'), 65534, 65534);
    set('fresh', 'first');
    close('fresh');
    await run();
    expect(attributes('/fresh')).toEqual([]);
    lineage.run([dir]);
    expect(attributes('/fresh')).toEqual(['user.a=first']);
  });
});

describe.runIf(isRoot)('stored', () => {
  for (const mode of ['snapshot', 'worm'] as const) {
    test(`in a set of mode ${mode}, it is a tree that verify finds sound`, async () => {
      const place = await Place.make();
      chmodSync(dirname(place.folder), 0o755);
      dir = place.source;
      make('A/sub/f', 'A/g', 'A/moves', 'B/inner/h');
      const backup = async () => {
        await settle();
        execFileSync('chown', ['-R', '65534', place.folder]);
        return asNobody(() => place.backup({ mode }));
      };
      await backup();
      const before = await place.read();
      move('A/sub', 'sub');
      move('A/moves', 'moved');
      move('A', 'sub/A');
      move('B/inner', 'z');
      close('sub/A');
      close('B');
      const report = await backup();
      expect(report.problems.map(({ kind, path }) => `${kind} ${path.toString().slice(dir.length)}`)).toEqual([
        'unreadable /B',
        'unreadable /sub/A',
      ]);
      expect(report.classes.moved).toMatchObject({ files: 1, folders: 3 });
      expect(report.totalFiles).toBe(4);
      const after = await place.read();
      const names = ['', '/B', '/moved', '/sub', '/sub/A', '/sub/A/g', '/sub/f', '/z', '/z/h'];
      expect([...after.entries.keys()].sort()).toEqual(names);
      expect(after.entries.get('/sub/f')!.inode).toBe(before.entries.get('/A/sub/f')!.inode);
      if (mode === 'worm') {
        expect(report.worm!.moves.map(({ to }) => to.toString().slice(dir.length)).sort()).toEqual([
          '/moved',
          '/sub',
          '/sub/A',
          '/z',
        ]);
      }
      const repository = await place.open('read');
      expect((await verify({ repository, readData: 0, threads: 0 })).findings).toEqual([]);
      repository.close();
      chownSync(dir, 0, 0);
    });
  }
});
