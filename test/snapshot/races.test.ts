/** What happens to files between the walk and the moment when they are read. */
import { linkSync, lstatSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { INODE } from '../../src/archive/tree/schema.ts';
import type { BackupOptions, BackupReport } from '../../src/snapshot/backup/backup-types.ts';
import { Place, settle } from './machine.ts';

/** A backup during which something happens when the walk is over, and nothing was read. */
async function backup(
  place: Place,
  meanwhile: () => void,
  options: Partial<BackupOptions> = {},
): Promise<BackupReport> {
  let isOver = false;
  return place.backup(options, {
    progress: ({ phase }) => {
      if (phase === 'store' && !isOver) meanwhile();
      isOver ||= phase === 'store';
    },
  });
}

const problems = (place: Place, report: BackupReport): string[] =>
  report.problems.map(({ kind, path }) => `${kind} ${path.toString().slice(place.source.length)}`).sort();

describe('a folder in place of which there is a symlink when its files are read', () => {
  const LARGE = 5 * 1024 * 1024;

  /** Files in `a/b`, and the same names with other content outside, to which a symlink leads. */
  async function make(): Promise<{ place: Place; swap: (name: string) => void }> {
    const place = await Place.make();
    mkdirSync(join(place.source, 'a/b'), { recursive: true });
    const outside = join(place.folder, 'outside');
    mkdirSync(join(outside, 'b'), { recursive: true });
    for (const [name, size] of [
      ['small', 10],
      ['large', LARGE],
    ] as const) {
      writeFileSync(join(place.source, 'a/b', name), Buffer.alloc(size, 'own'));
      writeFileSync(join(outside, 'b', name), Buffer.alloc(size, 'other'));
      writeFileSync(join(outside, name), Buffer.alloc(size, 'other'));
    }
    return {
      place,
      swap: (name) => {
        renameSync(join(place.source, name), join(place.folder, 'aside'));
        symlinkSync(outside, join(place.source, name));
      },
    };
  }

  for (const name of ['a', 'a/b']) {
    test(`is not followed: ${name}`, async () => {
      const { place, swap } = await make();
      const report = await backup(place, () => swap(name));
      expect(problems(place, report)).toEqual(['vanished /a/b/large', 'vanished /a/b/small']);
      expect(report).toMatchObject({ bytesNew: 0, archives: 0 });
      expect([...(await place.read()).entries.keys()]).toEqual(['', '/a', '/a/b']);
    });
  }

  test('is not followed in a WORM set either, whatever it accepts', async () => {
    const { place, swap } = await make();
    await settle();
    const options = { mode: 'worm', policy: { onChange: 'accept' } } as const;
    await place.backup(options);
    for (const name of ['small', 'large']) writeFileSync(join(place.source, 'a/b', name), `changed ${name}`);
    // The last one of the folder: then the contents are compared.
    writeFileSync(join(place.source, 'a/b/z'), '');
    const report = await place.backup(options, {
      entry: (path) => {
        if (path.toString().endsWith('/z')) swap('a');
      },
    });
    expect(problems(place, report)).toEqual(['vanished /a/b/large', 'vanished /a/b/small']);
    expect(report).toMatchObject({ bytesNew: 0, archives: 0 });
  });

  test('is not followed to a file that somebody has decided on', async () => {
    const { place, swap } = await make();
    await settle();
    await place.backup({ mode: 'worm' });
    const { inode } = (await place.read()).entries.get('/a/b/small')!;
    const path = Buffer.from(join(place.source, 'a/b/small'));
    const decisions = new Map([[inode, { action: 'accept', path }]] as const);
    swap('a');
    const report = await place.backup({ mode: 'worm', decisions });
    expect(problems(place, report)).toEqual(['unreadable /a/b/small']);
    expect(report).toMatchObject({ bytesRead: 0, bytesNew: 0 });
    rmSync(join(place.source, 'a'));
    renameSync(join(place.folder, 'aside'), join(place.source, 'a'));
    writeFileSync(path, 'decided');
    expect((await place.backup({ mode: 'worm', decisions })).problems).toEqual([]);
    expect(String(await (await place.read()).content('/a/b/small'))).toBe('decided');
  });
});

test('a file that was replaced is read as it is now', async () => {
  const place = await Place.make();
  writeFileSync(join(place.source, 'file'), 'old');
  const report = await backup(place, () => {
    writeFileSync(join(place.source, 'file.tmp'), 'new content');
    renameSync(join(place.source, 'file.tmp'), join(place.source, 'file'));
  });
  expect(report.problems).toEqual([]);
  expect(String(await (await place.read()).content('/file'))).toBe('new content');
});

describe('a file with several names of which one goes before it is read', () => {
  const NAMES = ['a/1', 'b/2', 'c/3'];

  async function make(): Promise<{ place: Place; at: (name: string) => string }> {
    const place = await Place.make();
    const at = (name: string): string => join(place.source, name);
    for (const folder of ['a', 'b', 'c']) mkdirSync(at(folder));
    return { place, at };
  }

  for (const mode of ['snapshot', 'worm'] as const) {
    test(`is read by the next one that is still it, in a set of mode ${mode}`, async () => {
      const { place, at } = await make();
      writeFileSync(at('a/1'), 'linked');
      for (const name of ['b/2', 'c/3']) linkSync(at('a/1'), at(name));
      writeFileSync(at('other'), 'other');
      const report = await backup(
        place,
        () => {
          unlinkSync(at('a/1'));
          renameSync(at('other'), at('b/2'));
        },
        { mode },
      );
      expect(problems(place, report)).toEqual(['vanished /a/1', 'vanished /b/2', 'vanished /other']);
      const { entries, content } = await place.read();
      expect([...entries.keys()]).toEqual(['', '/a', '/b', '/c', '/c/3']);
      expect([report.totalFiles, report.totalBytes]).toEqual([1, 6]);
      expect(String(await content('/c/3'))).toBe('linked');
      const { row } = entries.get('/c/3')!;
      expect([row[INODE.nlink], row[INODE.parent], row[INODE.sourceIno]]).toEqual([
        1,
        entries.get('/c')!.inode,
        lstatSync(at('c/3')).ino,
      ]);
      await settle();
      const next = await place.backup({ mode });
      expect(next.problems).toEqual([]);
      expect(next.classes.new.files).toBe(1);
      expect((await place.read()).entries.get('/c/3')!.inode).toBe(entries.get('/c/3')!.inode);
    });
  }

  test('is left out when all have gone', async () => {
    const { place, at } = await make();
    writeFileSync(at('a/1'), 'linked');
    for (const name of ['b/2', 'c/3']) linkSync(at('a/1'), at(name));
    const report = await backup(place, () => {
      for (const name of NAMES) unlinkSync(at(name));
    });
    expect(problems(place, report)).toEqual(['vanished /a/1', 'vanished /b/2', 'vanished /c/3']);
    expect([...(await place.read()).entries.keys()]).toEqual(['', '/a', '/b', '/c']);
  });

  test('has its new content when it was there before, and loses the name by the next run', async () => {
    const { place, at } = await make();
    writeFileSync(at('a/1'), 'linked');
    for (const name of ['b/2', 'c/3']) linkSync(at('a/1'), at(name));
    await settle();
    await place.backup();
    writeFileSync(at('c/3'), 'changed');
    const report = await backup(place, () => unlinkSync(at('a/1')));
    expect(problems(place, report)).toEqual(['vanished /a/1']);
    const { entries, content } = await place.read();
    expect(String(await content('/b/2'))).toBe('changed');
    expect(new Set(NAMES.map((name) => entries.get(`/${name}`)!.inode)).size).toBe(1);
    expect((await place.backup()).problems).toEqual([]);
    expect([...(await place.read()).entries.keys()]).toEqual(['', '/a', '/b', '/b/2', '/c', '/c/3']);
  });
});
