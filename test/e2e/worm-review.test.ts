import { execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PhotoSet } from './photo-set.ts';
import { importPhotos, photo, rot } from './photos.ts';

const set = new PhotoSet();
const at = (path: string): string => set.at(path);
/** Tree archives in the repository; two may share a folder. */
const trees = (): number =>
  readdirSync(join(set.box.repo, 'tree'), { recursive: true, withFileTypes: true }).filter((one) => one.isFile())
    .length;

/** A set in which a photo was retouched, two have decayed, a text was edited and a photo is a symlink now. */
async function diverged(): Promise<void> {
  set.begin();
  const { source } = set;
  importPhotos(source, 5, 5);
  writeFileSync(at('captions.txt'), 'one\ntwo\nthree\n');
  await set.backup(0, '--mode', 'worm');
  writeFileSync(at('album 0/IMG_0000.jpg'), photo(99, { width: 50, height: 40, date: '2024:12:24 18:00:00' }));
  rot(at('album 0/IMG_0001.jpg'), 700);
  rot(at('album 0/IMG_0002.jpg'), 701);
  writeFileSync(at('captions.txt'), 'one\n2\nthree\n');
  unlinkSync(at('album 0/IMG_0003.jpg'));
  execFileSync('ln', ['-s', 'IMG_0004.jpg', at('album 0/IMG_0003.jpg')]);
  await set.backup(4);
}

test('review shows both sides of each case, and does what the answers say in one snapshot', async () => {
  await diverged();
  const { source, box } = set;
  const { cases } = box.json(['review', 'photos', '--json'], 4);
  const byName = Object.fromEntries(cases.map((it: { path: string }) => [it.path.slice(source.length + 1), it]));
  expect(byName).toMatchObject({
    'album 0/IMG_0000.jpg': {
      kind: 'edited',
      archived: { image: { type: 'jpg', width: 96, height: 64, taken: '2020:01:01 00:00:00' } },
      local: { image: { type: 'jpg', width: 50, height: 40, taken: '2024:12:24 18:00:00' } },
    },
    'album 0/IMG_0001.jpg': { kind: 'decayed', differsAt: 700 },
    'album 0/IMG_0003.jpg': { kind: 'replaced', local: { image: null, isText: false } },
    'captions.txt': { kind: 'edited', archived: { isText: true, image: null }, local: { isText: true } },
  });
  expect(cases).toHaveLength(5);
  // Nothing is asked where there is nobody.
  expect(box.run(['review', 'photos']).code).toBe(2);

  const answers = join(box.dir, 'answers');
  writeFileSync(answers, `# mine\naccept captions.txt\naccept ${at('album 0/IMG_0000.jpg')}\nrestore kind=decayed\n`);
  const before = trees();
  expect(box.json(['review', 'photos', '--answers', answers], 4)).toMatchObject({ accepted: 2, restored: 2, open: 1 });
  expect(trees()).toBe(before + 1);
  expect(readFileSync(at('album 0/IMG_0001.jpg'))).toEqual(photo(1));
  expect(readFileSync(at('album 0/IMG_0002.jpg'))).toEqual(photo(2));
  expect(box.ok(['cat', 'photos@latest:captions.txt']).stdout).toBe('one\n2\nthree\n');
  const left = box.json(['status', 'photos'], 4);
  expect(left.diverged).toMatchObject([{ path: at('album 0/IMG_0003.jpg'), kind: 'replaced' }]);
  expect(box.json(['review', 'photos', '--answers', '-'], 4)).toMatchObject({ restored: 0, open: 1 });
  writeFileSync(answers, 'restore *\n');
  expect(box.json(['review', 'photos', '--answers', answers])).toMatchObject({ restored: 1, open: 0 });
  expect(readFileSync(at('album 0/IMG_0003.jpg'))).toEqual(photo(3));
  // The symlink is kept beside, and the next run finds the set whole.
  expect(readdirSync(at('album 0')).filter((name) => name.includes('.rozen-diverged-'))).toHaveLength(3);
  expect((await set.backup()).worm).toMatchObject({ divergedCount: 0 });
  expect(box.json(['status', 'photos']).diverged).toEqual([]);
  expect(box.json(['verify', '--read-data']).findings).toEqual([]);
});

test('review asks on a terminal, one by one or for all of a kind', async () => {
  await diverged();
  const { box } = set;
  const program = join(import.meta.dirname, '../../bin/rozen.js');
  const screen = spawnSync('script', ['-qec', `${process.execPath} ${program} review photos --no-keep`, '/dev/null'], {
    cwd: box.dir,
    env: box.env,
    input: 'a\ns\nx\nR\ns\n',
    encoding: 'utf8',
  });
  expect(screen.status).toBe(4);
  expect(screen.stdout).toContain('jpg 96 × 64, taken 2020:01:01 00:00:00');
  expect(screen.stdout).toContain('jpg 50 × 40, taken 2024:12:24 18:00:00');
  expect(screen.stdout).toMatch(/-two\s+\+2/);
  expect(screen.stdout).toContain('photos: 1 accepted, 2 restored, 2 open');
  expect(readFileSync(at('album 0/IMG_0002.jpg'))).toEqual(photo(2));
  expect(readdirSync(at('album 0')).filter((name) => name.includes('.rozen-diverged-'))).toEqual([]);
  appendFileSync(at('captions.txt'), 'four\n');
  const again = await set.backup(4);
  expect(again.worm.diverged.map((it: { kind: string }) => it.kind).sort()).toEqual(['edited', 'edited', 'replaced']);
});

test('review accepts what has replaced a file or a folder, and restores these', async () => {
  set.begin();
  const { source, box } = set;
  importPhotos(source, 8, 2);
  await set.backup(0, '--mode', 'worm');
  // A photo has become a symlink, another one a folder; an album a file, another one a symlink.
  unlinkSync(at('album 0/IMG_0000.jpg'));
  symlinkSync('IMG_0001.jpg', at('album 0/IMG_0000.jpg'));
  unlinkSync(at('album 0/IMG_0001.jpg'));
  mkdirSync(at('album 0/IMG_0001.jpg'));
  writeFileSync(at('album 0/IMG_0001.jpg/developed.jpg'), photo(50));
  rmSync(at('album 1'), { recursive: true });
  writeFileSync(at('album 1'), 'gone to the attic\n');
  rmSync(at('album 2'), { recursive: true });
  symlinkSync('elsewhere', at('album 2'));
  const { worm, bytesNew } = await set.backup(4);
  expect(worm.diverged.map((it: { kind: string }) => it.kind)).toEqual(Array(4).fill('replaced'));
  expect(bytesNew).toBe(0);
  expect(box.ok(['ls', 'photos@latest:album 1']).stdout).toBe('IMG_0002.jpg\nIMG_0003.jpg\n');
  const { cases } = box.json(['review', 'photos', '--json'], 4);
  const standing = cases.map((it: { path: string; standsThere: string }) => [
    it.path.slice(source.length + 1),
    it.standsThere,
  ]);
  expect(Object.fromEntries(standing)).toEqual({
    'album 0/IMG_0000.jpg': 'symlink',
    'album 0/IMG_0001.jpg': 'folder',
    'album 1': 'file',
    'album 2': 'symlink',
  });
  const answers = join(box.dir, 'answers');
  writeFileSync(answers, 'restore album 2\naccept kind=replaced\n');
  expect(box.json(['review', 'photos', '--answers', answers])).toMatchObject({ accepted: 3, restored: 1, open: 0 });
  expect(readFileSync(at('album 2/IMG_0004.jpg'))).toEqual(photo(4));
  expect(lstatSync(at('album 2')).isDirectory()).toBe(true);
  expect(box.ok(['cat', 'photos@latest:album 1']).stdout).toBe('gone to the attic\n');
  expect(box.ok(['ls', 'photos@latest:album 0']).stdout).toBe('IMG_0000.jpg\nIMG_0001.jpg\n');
  box.ok(['restore', 'photos@latest:album 0/IMG_0001.jpg', '--target', join(box.dir, 'restored')]);
  expect(readFileSync(join(box.dir, 'restored/developed.jpg'))).toEqual(photo(50));
  expect((await set.backup()).worm).toMatchObject({ divergedCount: 0, openCount: 0 });
  expect(box.json(['status', 'photos'])).toMatchObject({ diverged: [], deleted: 3 });
  // Deleted, with all that was in it, and still readable.
  expect(box.json(['stats', 'photos@latest']).snapshots[0]).toMatchObject({
    files: 6,
    deleted: { files: 4, folders: 1 },
  });
  expect(box.json(['verify', '--read-data']).findings).toEqual([]);
});
