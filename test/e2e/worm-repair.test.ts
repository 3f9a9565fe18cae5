import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PhotoSet } from './photo-set.ts';
import { importPhotos, photo, rot } from './photos.ts';
import { mountObstacle } from './rozen.ts';

const program = join(import.meta.dirname, '../../bin/rozen.js');
const set = new PhotoSet();
const at = (path: string): string => set.at(path);

/** Overwrites bytes of every data archive where the first blocks lie. */
function damageArchives(): void {
  const files = execFileSync('find', [join(set.box.repo, 'data'), '-name', '*.roz'])
    .toString()
    .trim()
    .split('\n');
  for (const file of files) {
    const bytes = readFileSync(file);
    bytes.fill(0x55, Math.floor(bytes.length / 3), Math.floor(bytes.length / 3) + 64);
    chmodSync(file, 0o600);
    writeFileSync(file, bytes);
  }
}

test('what decayed here comes back from the archive, what was edited stays', async () => {
  set.begin();
  const { source, box } = set;
  const paths = importPhotos(source, 4, 4);
  mkdirSync(at('best'));
  linkSync(at(paths[2]!), at('best/of all.jpg'));
  await set.backup(0, '--mode', 'worm');
  rot(at(paths[0]!), 700);
  rot(at(paths[2]!), 701);
  appendFileSync(at(paths[1]!), 'edited');
  const look = box.json(['verify', '--against', source, 'photos@latest'], 4);
  expect(look.divergences.filter((it: { kind: string }) => it.kind === 'content')).toMatchObject([
    { path: paths[0], decayed: true },
    { path: paths[1] },
    { path: paths[2], decayed: true },
    { path: 'best/of all.jpg', decayed: true },
  ]);
  const { mtime } = statSync(at(paths[0]!));
  const repaired = box.json(['verify', '--against', source, 'photos@latest', '--repair', 'local'], 4);
  expect(repaired.repairedLocal).toMatchObject(
    [paths[0], paths[2], 'best/of all.jpg'].map((path) => ({ path, problem: null })),
  );
  // Two names of one file, before and after.
  expect(readFileSync(at('best/of all.jpg'))).toEqual(photo(2));
  expect(statSync(at('best/of all.jpg')).ino).toBe(statSync(at(paths[2]!)).ino);
  expect(readFileSync(at(paths[0]!))).toEqual(photo(0));
  expect(statSync(at(paths[0]!)).mtime).toEqual(mtime);
  expect(readdirSync(at('album 0')).filter((name) => name.includes('.rozen-diverged-'))).toHaveLength(2);
  expect(readFileSync(at(paths[1]!)).subarray(-6).toString()).toBe('edited');
  // What was kept beside is no difference, and nothing that could not be backed up.
  writeFileSync(at(paths[1]!), photo(1));
  const after = box.ok(['verify', '--against', source, 'photos@latest']);
  expect(after.stdout).not.toContain('diverged');
  expect(after.stderr).not.toContain('missing or changed');
  const { stdout } = box.ok(['backup', source, '--set', 'photos']);
  expect(stdout).toContain('\n2 files kept beside restored ones (NAME.rozen-diverged-TIME) not backed up\n');
  expect(stdout).not.toContain('skipped');
});

test('what is damaged in the archive is stored once more from what is sound here', async () => {
  set.begin();
  const { source, box } = set;
  const paths = importPhotos(source, 12, 12);
  await set.backup(0, '--mode', 'worm');
  // A second version, whose first one must stay what it is.
  appendFileSync(at(paths[3]!), 'retouched');
  await set.backup(0, '--on-change', 'accept');
  expect(box.json(['verify', '--against', source, 'photos@latest', '--read-data']).findings).toEqual([]);
  damageArchives();
  const found = box.json(['verify', '--against', source, 'photos@latest', '--read-data'], 5);
  expect(found.findings.length).toBeGreaterThan(0);
  expect(box.run(['restore', 'photos@latest', '--target', join(box.dir, 'broken')]).code).not.toBe(0);
  const repaired = box.json(['verify', '--against', source, 'photos@latest', '--repair', 'archive']);
  expect(repaired.repairedArchive.damaged).toBeGreaterThan(0);
  expect(repaired.repairedArchive).toMatchObject({ repaired: repaired.repairedArchive.damaged, problems: [] });
  box.ok(['restore', 'photos@latest', '--target', join(box.dir, 'whole'), '--verify']);
  for (const [number, path] of paths.entries()) {
    const expected = number === 3 ? Buffer.concat([photo(3), Buffer.from('retouched')]) : photo(number);
    expect(readFileSync(join(box.dir, 'whole', path)).equals(expected), path).toBe(true);
  }
  expect(await set.backup()).toMatchObject({ bytesNew: 0 });
  expect(box.json(['status', 'photos']).diverged).toEqual([]);
  expect(box.run(['verify', 'photos@latest']).code).toBe(0);
});

test('what is damaged in older snapshots is stored once more from whatever file here has the content', async () => {
  set.begin();
  const { source, box } = set;
  const paths = importPhotos(source, 12, 12);
  const first = await set.backup(0, '--mode', 'worm');
  // A photo has an older version, another one was deleted; copies of both contents are here under other names.
  copyFileSync(at(paths[3]!), at('original.jpg'));
  copyFileSync(at(paths[5]!), at('spare.jpg'));
  appendFileSync(at(paths[3]!), 'retouched');
  await set.backup(0, '--on-change', 'accept');
  unlinkSync(at(paths[5]!));
  await set.backup();
  damageArchives();
  const restored = (name: string, code = 0): string => {
    const target = join(box.dir, name);
    box.ok(['restore', first.snapshotId, '--target', target, '--verify'], code);
    return target;
  };
  restored('broken', 5);
  // The snapshot that is named shows other contents than the folder has: that stays a difference.
  const args = ['verify', '--against', source, '--repair', 'archive'];
  const named = box.json([...args, first.snapshotId], 4).repairedArchive;
  expect(named).toMatchObject({ damaged: 12, repaired: 12, problems: [] });
  const whole = restored('whole');
  for (const [number, path] of paths.entries())
    expect(readFileSync(join(whole, path)).equals(photo(number)), path).toBe(true);
  const retouched = Buffer.concat([photo(3), Buffer.from('retouched')]);
  const cat = (name: string) => execFileSync(process.execPath, [program, 'cat', name], { env: box.env });
  expect(() => cat(`photos@latest:${paths[3]}`)).toThrow();
  // Without a name: all that the set ever had.
  expect(box.json(args).repairedArchive).toMatchObject({ damaged: 3, repaired: 3, problems: [] });
  expect(box.json(args).repairedArchive).toMatchObject({ damaged: 0, repaired: 0 });
  expect(cat(`photos@latest:${paths[3]}`).equals(retouched)).toBe(true);
  expect(cat(`photos@latest:${paths[5]}`).equals(photo(5))).toBe(true);
  expect(cat(`${first.snapshotId}:${paths[3]}`).equals(photo(3))).toBe(true);
  expect(await set.backup()).toMatchObject({ unchanged: true });
  if (mountObstacle() !== null) return;
  const mnt = box.mount();
  try {
    const oldest = readdirSync(join(mnt, 'snapshots/photos')).sort()[0]!;
    for (const [number, path] of paths.entries())
      expect(readFileSync(join(mnt, 'snapshots/photos', oldest, path)).equals(photo(number)), path).toBe(true);
    const versions = join(mnt, 'versions/photos', paths[3]!);
    const contents = readdirSync(versions)
      .sort()
      .map((name) => readFileSync(join(versions, name)));
    expect(contents).toEqual([photo(3), retouched]);
  } finally {
    box.unmount();
  }
});
