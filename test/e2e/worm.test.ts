import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { PhotoSet } from './photo-set.ts';
import { importPhotos, photo, rot } from './photos.ts';

const PHOTOS = Number(process.env.ROZEN_WORM_PHOTOS ?? 24);

const set = new PhotoSet();
const at = (path: string): string => set.at(path);

/** Files of each class that has any, without the unchanged. */
function classes(report: { classes: Record<string, { files: number }> }): Record<string, number> {
  return Object.fromEntries(
    Object.entries(report.classes)
      .filter(([name, { files }]) => files > 0 && name !== 'unchanged')
      .map(([name, { files }]) => [name, files]),
  );
}

/** Bytes of all data archives in the store. */
function dataBytes(): number {
  return Number(
    execFileSync('du', ['-sb', '--apparent-size', join(set.box.repo, 'data')])
      .toString()
      .split('\t')[0],
  );
}

/** The folder and the newest snapshot are the same, whichever side is asked. */
function agrees(): void {
  const { divergences } = set.box.json(['verify', '--against', set.source, 'photos@latest']);
  expect(divergences).toEqual([]);
}

test('the life of a photo archive: each run tells exactly what happened, and stores exactly what is new', async () => {
  set.begin();
  const { source, box } = set;
  const paths = importPhotos(source, PHOTOS);
  const [retouched, rotten, cut, gone] = [paths[1]!, paths[2]!, paths[3]!, paths[4]!];
  const first = await set.backup(0, '--mode', 'worm');
  expect(classes(first)).toEqual({ new: PHOTOS });
  expect(first.worm).toMatchObject({ diverged: [], openCount: 0, policy: { onChange: 'warn', onDelete: 'record' } });

  const same = await set.backup();
  expect(same).toMatchObject({ mode: 'worm', unchanged: true, bytesRead: 0, bytesStored: 0 });
  const size = dataBytes();
  agrees();

  // A folder is renamed, and a file moves between folders: nothing is read.
  renameSync(at('album 1'), at('Rome'));
  renameSync(at(paths[0]!), at('Rome/first.jpg'));
  const moved = await set.backup();
  expect(classes(moved)).toEqual({ moved: 1 });
  expect(moved.classes.moved.folders).toBe(1);
  expect(moved.worm.moves).toEqual(
    expect.arrayContaining([
      { from: at('album 1'), to: at('Rome') },
      { from: at(paths[0]!), to: at('Rome/first.jpg') },
    ]),
  );
  expect(moved.worm.moves).toHaveLength(2);
  expect(moved.bytesRead).toBe(0);
  agrees();

  // Attributes change: the content is looked at, and nothing is stored.
  chmodSync(at(paths[5]!), 0o600);
  expect(classes(await set.backup())).toEqual({ metadata: 1 });

  // Everything that must not happen in silence.
  appendFileSync(at(retouched), 'retouched');
  rot(at(rotten), 700);
  truncateSync(at(cut), 900);
  unlinkSync(at(gone));
  symlinkSync('elsewhere', at(gone));
  const diverged = await set.backup(4);
  expect(classes(diverged)).toEqual({ diverged: 3 });
  expect(diverged.classes.diverged.others).toBe(1);
  const byPath = (report: { worm: { diverged: { path: string }[] } }) =>
    Object.fromEntries(report.worm.diverged.map((file) => [file.path.slice(source.length + 1), file]));
  expect(byPath(diverged)).toMatchObject({
    [retouched]: { kind: 'edited', action: 'kept', differsAt: photo(1).length, exact: true, since: null },
    [rotten]: { kind: 'decayed', action: 'kept', differsAt: 700, exact: true },
    [cut]: { kind: 'truncated', differsAt: 900, archived: { size: photo(3).length }, local: { size: 900 } },
    [gone]: { kind: 'replaced', differsAt: null },
  });
  expect(dataBytes()).toBe(size);

  // Seen once, nothing is read twice, and it is told again.
  const again = await set.backup(4);
  expect(again).toMatchObject({ unchanged: true, bytesRead: 0 });
  expect(byPath(again)[rotten]).toMatchObject({ kind: 'decayed', since: diverged.sequence, differsAt: 700 });

  // The archived content comes back; what stood there is kept beside and not backed up.
  const restored = await set.backup(0, '--on-change', 'restore');
  expect(restored.worm).toMatchObject({ divergedCount: 4, openCount: 0 });
  expect(readFileSync(at(retouched))).toEqual(photo(1));
  expect(readFileSync(at(rotten))).toEqual(photo(2));
  expect(readFileSync(at(cut))).toEqual(photo(3));
  expect(readFileSync(at(gone))).toEqual(photo(4));
  expect(statSync(at(rotten)).mtime).toEqual(new Date('2020-06-01T12:00:00Z'));
  const kept = readdirSync(at('album 0')).filter((name) => name.includes('.rozen-diverged-'));
  expect(kept).toHaveLength(4);
  expect((await set.backup()).worm).toMatchObject({ divergedCount: 0, proven: { files: 4 } });
  expect(await set.backup()).toMatchObject({ unchanged: true, bytesRead: 0 });
  for (const name of kept) rmSync(at(join('album 0', name)));
  expect(dataBytes()).toBe(size);
  agrees();

  // An edit that is wanted becomes a new version.
  appendFileSync(at(retouched), 'retouched');
  const accepted = await set.backup(0, '--on-change', 'accept');
  expect(classes(accepted)).toEqual({ changed: 1 });
  expect(accepted.worm.diverged).toMatchObject([{ kind: 'edited', action: 'accepted' }]);
  expect((await set.backup()).unchanged).toBe(true);
  agrees();
  const grown = dataBytes();
  expect(grown).toBeGreaterThan(size);

  // Deletions are recorded; what comes back is known again without being read.
  renameSync(at('Rome'), join(box.dir, 'away'));
  const deleted = await set.backup();
  expect(deleted.classes.deleted).toMatchObject({ folders: 1 });
  renameSync(join(box.dir, 'away'), at('Rome'));
  const returned = await set.backup();
  expect(returned.classes).toMatchObject({ returned: { folders: 1 }, new: { files: 0 } });
  expect(returned.bytesRead).toBe(0);
  expect(dataBytes()).toBe(grown);
  agrees();

  // Copies and sidecars.
  copyFileSync(at(paths[6]!), at('a copy.jpg'));
  writeFileSync(at('IMG_0006.xmp'), '<x:xmpmeta/>');
  const added = await set.backup();
  expect(classes(added)).toEqual({ copied: 1, new: 1 });
  expect(added.bytesNew).toBe(12);
  agrees();

  // The whole archive on another file system, one file rotten on the way, a folder renamed: known by content.
  const other = mkdtempSync('/dev/shm/rozen-worm-');
  try {
    execFileSync('cp', ['-a', `${source}/.`, other]);
    rmSync(source, { recursive: true });
    renameSync(join(other, 'Rome'), join(other, 'Roma'));
    rot(join(other, 'Roma', 'first.jpg'), 600);
    symlinkSync(other, source);
    const carried = await set.backup(4);
    // Rows of all files, and of data only the rotten one.
    expect(carried.bytesNew).toBe(photo(0).length);
    expect(carried.bytesStored - carried.bytesNew).toBeLessThan(40_000 + 40 * PHOTOS);
    expect(carried.worm.diverged).toMatchObject([{ path: at('Roma/first.jpg'), kind: 'decayed', differsAt: 600 }]);
    expect(carried.worm.moves).toEqual([{ from: at('Rome'), to: at('Roma') }]);
    expect(carried.classes.new.files).toBe(0);
    expect(carried.classes.deleted).toEqual({ files: 0, folders: 0, others: 0 });
    expect((await set.backup(4)).unchanged).toBe(true);
  } finally {
    rmSync(other, { recursive: true, force: true });
  }
  expect(box.json(['verify', '--read-data']).findings).toEqual([]);
});

test('a set keeps its mode, a frozen one takes nothing new, and deletions can be undone', async () => {
  set.begin();
  const { source, box } = set;
  const paths = importPhotos(source, 4, 2);
  await set.backup(0, '--mode', 'worm');
  expect(box.run(['backup', source, '--set', 'photos', '--mode', 'snapshot']).code).toBe(2);
  writeFileSync(at('late.jpg'), photo(77));
  renameSync(at(paths[0]!), at('album 0/renamed.jpg'));
  const frozen = await set.backup(4, '--accept-new', 'no');
  expect(classes(frozen)).toEqual({ moved: 1, refused: 1 });
  expect(frozen.worm.refused).toEqual([{ path: at('late.jpg') }]);
  // Once, whether all entries are listed or only those that were refused.
  for (const options of [[], ['-v'], ['-n']]) {
    const { stdout } = box.ok(['backup', source, '--set', 'photos', '--accept-new', 'no', ...options], 4);
    expect(stdout.match(/^x .*late\.jpg$/gm)).toHaveLength(1);
  }
  rmSync(at('late.jpg'));
  rmSync(at('album 1'), { recursive: true });
  const restored = await set.backup(0, '--on-delete', 'restore');
  expect(restored.classes.restored).toMatchObject({ folders: 1 });
  expect(readFileSync(at(paths[2]!))).toEqual(photo(2));
  expect(lstatSync(at(paths[3]!)).mtime).toEqual(new Date('2020-06-01T12:00:00Z'));
  const after = await set.backup();
  expect(classes(after)).toEqual({ metadata: 2 });
  expect(existsSync(at('late.jpg'))).toBe(false);
  // Snapshot sets know none of this.
  expect(box.run(['backup', source, '--set', 'plain', '--on-change', 'accept']).code).toBe(2);
});

test('what nobody has touched is read again, the oldest proof first', async () => {
  set.begin();
  const { source, box } = set;
  const paths = importPhotos(source, 10, 10);
  await set.backup(0, '--mode', 'worm');
  const begun = Math.floor(Date.now() / 1000) * 1000;
  let oldest = '';
  for (let run = 0; run < 2; run++) {
    await sleep(1000);
    const report = await set.backup(0, '--rehash', '50%');
    expect(report.unchanged).toBe(true);
    expect(report.worm.proven.files).toBeGreaterThanOrEqual(4);
    oldest = report.worm.oldestProof;
  }
  expect(Date.parse(oldest)).toBeGreaterThan(begun);
  expect(Date.parse(box.json(['stats']).oldestProofs.photos)).toBe(Date.parse(oldest));
  rot(at(paths[7]!), 640);
  expect((await set.backup(4)).worm.diverged).toMatchObject([{ kind: 'decayed', differsAt: 640 }]);
});
