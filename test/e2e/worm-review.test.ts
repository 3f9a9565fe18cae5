import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, mkdirSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test, vi } from 'vitest';
import { importPhotos, initWithIdentity, photo, rot } from './photos.ts';
import { Sandbox } from './rozen.ts';

// Many runs of the program: a machine that is busy must not fail them.
vi.setConfig({ testTimeout: 300_000 });

let box: Sandbox;
afterEach(() => box.remove());

async function backup(source: string, code = 0, ...options: string[]) {
  await sleep(60);
  return box.json(['backup', source, '--set', 'photos', ...options], code);
}

/** A set in which a photo was retouched, two have decayed, a text was edited and a photo is a symlink now. */
async function diverged(): Promise<{ source: string; at: (path: string) => string }> {
  box = new Sandbox();
  const source = join(box.dir, 'photos');
  const at = (path: string) => join(source, path);
  mkdirSync(source);
  initWithIdentity(box);
  importPhotos(source, 5, 5);
  writeFileSync(at('captions.txt'), 'one\ntwo\nthree\n');
  await backup(source, 0, '--mode', 'worm');
  writeFileSync(at('album 0/IMG_0000.jpg'), photo(99, { width: 50, height: 40, date: '2024:12:24 18:00:00' }));
  rot(at('album 0/IMG_0001.jpg'), 700);
  rot(at('album 0/IMG_0002.jpg'), 701);
  writeFileSync(at('captions.txt'), 'one\n2\nthree\n');
  unlinkSync(at('album 0/IMG_0003.jpg'));
  execFileSync('ln', ['-s', 'IMG_0004.jpg', at('album 0/IMG_0003.jpg')]);
  await backup(source, 4);
  return { source, at };
}

test('review shows both sides of each case, and does what the answers say in one snapshot', async () => {
  const { source, at } = await diverged();
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
  const before = readdirSync(join(box.repo, 'tree')).length;
  expect(box.json(['review', 'photos', '--answers', answers], 4)).toMatchObject({ accepted: 2, restored: 2, open: 1 });
  expect(readdirSync(join(box.repo, 'tree')).length).toBe(before + 1);
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
  expect((await backup(source)).worm).toMatchObject({ divergedCount: 0 });
  expect(box.json(['status', 'photos']).diverged).toEqual([]);
  expect(box.json(['verify', '--read-data']).findings).toEqual([]);
});

test('review asks on a terminal, one by one or for all of a kind', async () => {
  const { source, at } = await diverged();
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
  const again = await backup(source, 4);
  expect(again.worm.diverged.map((it: { kind: string }) => it.kind).sort()).toEqual(['edited', 'edited', 'replaced']);
});
