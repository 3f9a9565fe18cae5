import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { PhotoSet } from './photo-set.ts';
import { importPhotos, photo } from './photos.ts';
import { mountObstacle } from './rozen.ts';

const set = new PhotoSet();
const at = (path: string): string => set.at(path);

/** A set with a life behind it: renamed, retouched, deleted, deleted again under one name. */
async function lived(): Promise<void> {
  set.begin();
  const { source } = set;
  importPhotos(source, 6, 3);
  writeFileSync(at('note.txt'), 'first\n');
  await set.backup(0, '--mode', 'worm');
  renameSync(at('album 0/IMG_0001.jpg'), at('album 0/sunset.jpg'));
  unlinkSync(at('note.txt'));
  await set.backup();
  appendFileSync(at('album 0/sunset.jpg'), 'retouched');
  writeFileSync(at('note.txt'), 'second\n');
  await set.backup(0, '--on-change', 'accept');
  unlinkSync(at('note.txt'));
  unlinkSync(at('album 0/IMG_0000.jpg'));
  await set.backup();
  rmSync(at('album 1'), { recursive: true });
  await set.backup();
}

describe('a mount', () => {
  test.skipIf(mountObstacle() !== null)('shows a WORM set as it stands, what is gone, and old contents', async () => {
    await lived();
    const { source, box } = set;
    const mnt = box.mount();
    try {
      expect(readdirSync(join(mnt, 'worm'))).toEqual(['photos']);
      const worm = join(mnt, 'worm/photos');
      expect(readdirSync(worm).sort()).toEqual(['current', 'deleted']);
      expect(readlinkSync(join(worm, 'current'))).toMatch(/^\.\.\/\.\.\/snapshots\/photos\//);
      expect(readdirSync(join(worm, 'current')).sort()).toEqual(readdirSync(source).sort());
      const deleted = join(worm, 'deleted');
      const gone = readdirSync(deleted).sort();
      expect(gone).toHaveLength(4);
      expect(gone.slice(0, 3)).toEqual(['album 0', 'album 1', 'note.txt']);
      expect(gone[3]).toMatch(/^note\.txt\.deleted-20/);
      expect(readFileSync(join(deleted, 'note.txt'), 'utf8')).toBe('second\n');
      expect(readFileSync(join(deleted, gone[3]!), 'utf8')).toBe('first\n');
      expect(readdirSync(join(deleted, 'album 0'))).toEqual(['IMG_0000.jpg']);
      expect(readFileSync(join(deleted, 'album 0/IMG_0000.jpg'))).toEqual(photo(0));
      expect(readdirSync(join(deleted, 'album 1')).sort()).toEqual(['IMG_0003.jpg', 'IMG_0004.jpg', 'IMG_0005.jpg']);
      expect(readFileSync(join(deleted, 'album 1/IMG_0004.jpg'))).toEqual(photo(4));
      expect(lstatSync(join(deleted, 'album 1/..')).ino).toBe(lstatSync(deleted).ino);
      expect(existsSync(join(deleted, 'album 0/sunset.jpg'))).toBe(false);
      // Both contents, also the one from before the rename.
      const versions = join(mnt, 'versions/photos/album 0/sunset.jpg');
      const contents = readdirSync(versions)
        .sort()
        .map((name) => readFileSync(join(versions, name)));
      expect(contents).toEqual([photo(1), Buffer.concat([photo(1), Buffer.from('retouched')])]);
      // A newer snapshot shows at once where it should.
      writeFileSync(join(source, 'late.txt'), 'late\n');
      await set.backup();
      for (let tries = 0; tries < 1000 && !existsSync(join(worm, 'current/late.txt')); tries++) await sleep(20);
      expect(readFileSync(join(worm, 'current/late.txt'), 'utf8')).toBe('late\n');
    } finally {
      box.unmount();
    }
  });
});

test('what was deleted is found under the name that it had, and history tells a whole life', async () => {
  await lived();
  const { box } = set;
  expect(box.ok(['cat', 'photos@latest:note.txt']).stdout).toBe('second\n');
  const names = box.ok(['ls', 'photos@latest:album 1']).stdout.trim().split('\n');
  expect(names).toEqual(['IMG_0003.jpg', 'IMG_0004.jpg', 'IMG_0005.jpg']);
  const target = join(box.dir, 'target');
  box.ok(['restore', 'photos@latest:album 1', '--target', target]);
  expect(readFileSync(join(target, 'IMG_0005.jpg'))).toEqual(photo(5));
  expect(box.ok(['ls', 'photos@latest']).stdout).toBe('album 0\n');

  const events = (path: string) =>
    box
      .json(['history', `photos:${path}`])
      .steps.map((it: { events: string[]; path: string | null }) => [it.events.join(), it.path]);
  expect(events('album 0/sunset.jpg')).toEqual([
    ['stored', '/album 0/IMG_0001.jpg'],
    ['moved', '/album 0/sunset.jpg'],
    ['content', '/album 0/sunset.jpg'],
  ]);
  expect(events('album 0/IMG_0001.jpg')).toEqual(events('album 0/sunset.jpg'));
  expect(events('album 1/IMG_0003.jpg')).toEqual([
    ['stored', '/album 1/IMG_0003.jpg'],
    ['deleted', null],
  ]);

  // A file with several names: each that comes or goes is told, and none is taken for a move.
  linkSync(at('album 0/IMG_0002.jpg'), at('a link'));
  linkSync(at('album 0/IMG_0002.jpg'), at('z link'));
  await set.backup();
  unlinkSync(at('a link'));
  await set.backup();
  renameSync(at('z link'), at('album 0/link'));
  await set.backup();
  rmSync(at('album 0/link'));
  await set.backup();
  expect(events('album 0/IMG_0002.jpg')).toEqual([
    ['stored', '/album 0/IMG_0002.jpg'],
    ['linked', '/a link'],
    ['unlinked', '/album 0/IMG_0002.jpg'],
    ['moved', '/album 0/IMG_0002.jpg'],
    ['unlinked', '/album 0/IMG_0002.jpg'],
  ]);
  const listed = box.ok(['history', 'photos:album 0/IMG_0002.jpg']).stdout.split('\n');
  expect(listed.slice(1, 4).map((line) => /\/.*$/.exec(line)?.[0])).toEqual([
    '/a link',
    '/album 0/IMG_0002.jpg',
    '/z link',
  ]);

  // Attributes alone write pages and no data, and history tells them too.
  chmodSync(at('album 0/IMG_0002.jpg'), 0o600);
  const report = await set.backup();
  expect(report).toMatchObject({ archives: 0, bytesNew: 0 });
  expect(events('album 0/IMG_0002.jpg').at(-1)).toEqual(['metadata', '/album 0/IMG_0002.jpg']);

  const status = box.json(['status', 'photos']);
  expect(status).toMatchObject({ set: 'photos', diverged: [], deleted: 4, policy: { onChange: 'warn' } });
  expect(box.json(['set', 'photos', '--on-change', 'restore', '--accept-new', 'no']).policy).toEqual({
    onChange: 'restore',
    onDelete: 'record',
    acceptNew: false,
  });
  writeFileSync(at('new.txt'), 'new');
  expect((await set.backup(4)).worm.refused).toEqual([{ path: at('new.txt') }]);
  // The machine that backs it up needs no key to tell.
  const keyless = box.run(['set', 'photos'], { env: { ROZEN_PASSWORD: '', ROZEN_IDENTITY_FILE: '' } });
  expect(keyless.stdout).toBe('photos: on change restore, on delete record, new files are refused (frozen)\n');
  expect(keyless.code).toBe(0);
});
