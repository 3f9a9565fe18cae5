import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { HISTORY, INODE, INODE_FLAGS } from '../../src/archive/tree/schema.ts';
import { joinName } from '../../src/posix/folder.ts';
import { getXattr, listXattrs } from '../../src/posix/xattr.ts';
import { makeOddTree, noise } from '../e2e/odd-tree.ts';
import { childPointer, Place, rows, type Snapshot, settle, TREES } from './machine.ts';
import { differences } from './memory-lineage.ts';

const isRoot = process.getuid?.() === 0;

/** Everything that differs between a folder and a snapshot of it, the contents of all files included. */
async function compareWith(snapshot: Snapshot, source: string, contents = true): Promise<string[]> {
  const wrong: string[] = [];
  const found = execFileSync('find', [source, '-print0'], { maxBuffer: 1 << 26 })
    .toString('latin1')
    .split('\0')
    .filter((path) => path !== '')
    .map((path) => path.slice(source.length));
  const missing = found.filter((path) => !snapshot.entries.has(path));
  const extra = [...snapshot.entries.keys()].filter((path) => !found.includes(path));
  wrong.push(...missing.map((path) => `${path}: missing`), ...extra.map((path) => `${path}: extra`));
  for (const path of found.filter((it) => snapshot.entries.has(it))) {
    const file = path === '' ? Buffer.from(source) : joinName(Buffer.from(source), path.slice(1));
    const { row, xattrs } = snapshot.entries.get(path)!;
    wrong.push(...differences(row as (number | Uint8Array)[], file).map((it) => `${path}: ${it}`));
    const names = listXattrs(file).map((name) => name.toString('latin1'));
    if (names.sort().join() !== [...xattrs.keys()].sort().join())
      wrong.push(`${path}: attributes ${[...xattrs.keys()]}`);
    for (const [name, value] of xattrs) {
      if (!getXattr(file, Buffer.from(name, 'latin1'))?.equals(value)) wrong.push(`${path}: attribute ${name}`);
    }
    if (!contents || !lstatSync(file).isFile()) continue;
    if (!(await snapshot.content(path)).equals(readFileSync(file))) wrong.push(`${path}: content`);
  }
  return wrong;
}

describe('a backup', () => {
  test('holds every odd case that POSIX allows, and finds nothing to do the second time', async () => {
    const place = await Place.make();
    makeOddTree(place.source, { privileged: isRoot });
    await settle();
    const first = await place.backup({ tags: ['a', 'ü'], host: 'here', user: 'me' });
    expect(first.problems).toEqual([]);
    expect(first).toMatchObject({ sequence: 1, parentId: null, unchanged: false, stateNotice: null, archives: 1 });
    const snapshot = await place.read();
    expect(await compareWith(snapshot, place.source)).toEqual([]);
    expect(snapshot.body).toMatchObject({ set: 'test', mode: 'snapshot', tags: ['a', 'ü'], host: 'here', user: 'me' });
    expect(snapshot.body.paths).toEqual([Buffer.from(place.source)]);
    expect(first.totalFiles).toBe(snapshot.body.stats.files);
    for (const path of ['/sizes/all hole', '/sizes/holes between', '/sizes/hole at the start']) {
      expect((snapshot.entries.get(path)!.row[INODE.flags] as number) & INODE_FLAGS.holes, path).toBe(
        INODE_FLAGS.holes,
      );
    }
    const objects = await place.objects('');
    const second = await place.backup();
    expect(second).toMatchObject({ snapshotId: null, sequence: null, parentId: first.snapshotId, unchanged: true });
    expect(second).toMatchObject({ bytesRead: 0, bytesStored: 0, problems: [] });
    const added = (await place.objects('')).filter((name) => !objects.includes(name));
    expect(added).toEqual([expect.stringMatching(/^snapshots\//)]);
    expect((await place.store.get(added[0]!)).length).toBeLessThan(1024);
  });

  test('shares its pages with the snapshot before, which stays as it was', async () => {
    const place = await Place.make();
    for (const folder of ['a', 'b', 'c', 'd', 'e', 'f']) {
      mkdirSync(join(place.source, folder));
      for (let i = 0; i < 2000; i++) writeFileSync(join(place.source, folder, `file ${i}`), `${folder} ${i}\n`);
    }
    await settle();
    const first = await place.backup();
    const before = await place.read();
    writeFileSync(join(place.source, 'b', 'file 7'), 'other content\n');
    renameSync(join(place.source, 'c'), join(place.source, 'b', 'moved'));
    unlinkSync(join(place.source, 'a', 'file 9'));
    const second = await place.backup();
    expect(second.classes).toMatchObject({
      changed: { files: 1, folders: 0 },
      moved: { files: 0, folders: 1 },
      deleted: { files: 1, folders: 0 },
    });
    expect(second.bytesRead).toBe(14);
    const after = await place.read();
    expect(await compareWith(after, place.source, false)).toEqual([]);
    const { source, roots } = after.reader;
    const { row, offset, length } = roots.inodes;
    const top = source.page(row, offset, length);
    const leaves = Array.from({ length: top.count }, (_, i) => childPointer(top, i).row);
    expect(top.level).toBe(1);
    expect(leaves).toContain(before.record.tree.row);
    expect(leaves).toContain(after.record.tree.row);
    for (const name of ['/a/file 3', '/b/file 7']) {
      expect(after.entries.get(name)!.inode, name).toBe(before.entries.get(name)!.inode);
    }
    expect(after.entries.get('/b/moved/file 3')!.inode).toBe(before.entries.get('/c/file 3')!.inode);
    const again = await place.read(first.snapshotId);
    expect([...again.entries.keys()]).toEqual([...before.entries.keys()]);
    expect(String(await again.content('/b/file 7'))).toBe('b 7\n');
    expect(String(await again.content('/a/file 9'))).toBe('a 9\n');
    const history = [...rows({ source, schema: TREES.history, root: roots.history })];
    expect(history.map((row) => Buffer.from(row[HISTORY.snapshotId] as Uint8Array).toString('hex'))).toEqual([
      first.snapshotId,
      second.snapshotId,
    ]);
  });

  test('stores content once, whatever the names and times', async () => {
    const place = await Place.make();
    const big = noise(3_000_000, 5);
    writeFileSync(join(place.source, 'one'), big);
    await place.backup();
    writeFileSync(join(place.source, 'copy'), big);
    writeFileSync(join(place.source, 'one'), big);
    const second = await place.backup();
    expect(second).toMatchObject({ bytesRead: 6_000_000, bytesNew: 0, archives: 0 });
    expect(second.classes.metadata.files).toBe(1);
    expect(second.classes.new.files).toBe(1);
    const snapshot = await place.read();
    expect(await compareWith(snapshot, place.source)).toEqual([]);
  });

  test('forced, writes a snapshot of what has not changed', async () => {
    const place = await Place.make();
    writeFileSync(join(place.source, 'file'), 'x');
    await place.backup();
    const forced = await place.backup({ force: true });
    expect(forced).toMatchObject({ unchanged: false, sequence: 2, archives: 0 });
    expect(await compareWith(await place.read(), place.source)).toEqual([]);
  });

  test('in a dry run, says what it would do and does nothing', async () => {
    const place = await Place.make();
    writeFileSync(join(place.source, 'file'), 'content');
    const objects = await place.objects('');
    const entries: string[] = [];
    const report = await place.backup({ dryRun: true }, { entry: (path, what) => entries.push(`${what} ${path}`) });
    expect(report).toMatchObject({ dryRun: true, snapshotId: null, unchanged: false, bytesRead: 7, bytesStored: 0 });
    expect(entries).toEqual([`new ${place.source}`, `new ${place.source}/file`]);
    expect(report.classes.new).toEqual({ files: 1, folders: 1, others: 0 });
    expect(await place.objects('')).toEqual(objects);
    expect(await place.backup()).toMatchObject({ sequence: 1 });
  });

  test('self-contained, refers to the archives of no other snapshot', async () => {
    const place = await Place.make();
    makeOddTree(place.source, { privileged: isRoot });
    const first = await place.backup();
    const before = await place.read();
    const second = await place.backup({ selfContained: true });
    expect(second.sequence).toBe(2);
    const own = new Set(await place.objects(''));
    const third = await place.backup();
    expect(third.unchanged).toBe(true);
    writeFileSync(join(place.source, 'later'), 'later');
    const fourth = await place.backup();
    expect(fourth.classes.new.files).toBe(1);
    // Nothing is needed but what came with it: the archives of the first snapshot may go.
    const old = (await place.objects('')).filter((name) => !name.startsWith('snapshots/') && !isNew(name));
    function isNew(name: string): boolean {
      return (
        !/^(data|index|tree)\//.test(name) ||
        !first.archives ||
        lstatSync(place.store.localPath(name)).mtimeMs > first.finishedAt
      );
    }
    expect(old.length).toBeGreaterThan(2);
    for (const name of old) {
      expect(own.has(name)).toBe(true);
      await place.store.delete(name);
    }
    const snapshot = await place.read(second.snapshotId);
    expect([...snapshot.entries.keys()]).toEqual([...before.entries.keys()]);
    for (const [path, { inode }] of snapshot.entries) expect(inode, path).toBe(before.entries.get(path)!.inode);
    unlinkSync(join(place.source, 'later'));
    utimesSync(place.source, 1, 1);
    const wrong = await compareWith(snapshot, place.source);
    expect(wrong.filter((it) => !/^: (m|c)time/.test(it))).toEqual([]);
    expect((await place.read(fourth.snapshotId)).entries.size).toBe(snapshot.entries.size + 1);
  });
});

describe('files that do not hold still', () => {
  /** The callback runs while the walk stands behind `a…` and before `z…`, and nothing is read yet. */
  async function during(prepare: (source: string) => void, act: (source: string) => void) {
    const place = await Place.make();
    prepare(place.source);
    execFileSync('python3', [
      '-c',
      `import socket; socket.socket(socket.AF_UNIX).bind(${JSON.stringify(join(place.source, 'm'))})`,
    ]);
    const told: string[] = [];
    const report = await place.backup(
      {},
      {
        skipped: () => act(place.source),
        problem: ({ kind, path }) => told.push(`${kind} ${path.toString().slice(place.source.length)}`),
      },
    );
    unlinkSync(join(place.source, 'm'));
    return { place, report, told, snapshot: await place.read() };
  }

  test('one that vanishes is left out and reported', async () => {
    const { place, report, told, snapshot } = await during(
      (source) => {
        for (const name of ['a', 'b']) writeFileSync(join(source, name), name);
        linkSync(join(source, 'a'), join(source, 'a2'));
      },
      (source) => {
        unlinkSync(join(source, 'a'));
        unlinkSync(join(source, 'a2'));
      },
    );
    expect(told).toEqual(['vanished /a', 'vanished /a2']);
    expect(report.problems).toHaveLength(2);
    expect(report.sequence).toBe(1);
    expect([...snapshot.entries.keys()]).toEqual(['', '/b']);
    await place.backup();
    expect(await compareWith(await place.read(), place.source)).toEqual([]);
  });

  test('one that grows is stored as it was read, with its own attributes', async () => {
    const { place, told, snapshot } = await during(
      (source) => writeFileSync(join(source, 'a'), 'short'),
      (source) => appendFileSync(join(source, 'a'), ' and then long'),
    );
    expect(told).toEqual([]);
    expect(String(await snapshot.content('/a'))).toBe('short and then long');
    expect(
      differences(snapshot.entries.get('/a')!.row as (number | Uint8Array)[], Buffer.from(`${place.source}/a`)),
    ).toEqual([]);
  });

  test('one that shrinks to nothing, too', async () => {
    const { snapshot, told } = await during(
      (source) => writeFileSync(join(source, 'a'), 'some content'),
      (source) => writeFileSync(join(source, 'a'), ''),
    );
    expect(told).toEqual([]);
    expect((await snapshot.content('/a')).length).toBe(0);
    expect(snapshot.entries.get('/a')!.row[INODE.size]).toBe(0);
  });

  test('one that became a link or a folder is never followed', async () => {
    const { told, snapshot } = await during(
      (source) => {
        for (const name of ['a', 'b']) writeFileSync(join(source, name), name);
        writeFileSync(join(source, 'z'), 'z');
      },
      (source) => {
        unlinkSync(join(source, 'a'));
        symlinkSync('/etc/passwd', join(source, 'a'));
        unlinkSync(join(source, 'b'));
        mkdirSync(join(source, 'b'));
      },
    );
    expect(told.map((it) => it.split(' ')[1]).sort()).toEqual(['/a', '/b']);
    expect([...snapshot.entries.keys()]).toEqual(['', '/z']);
  });

  test('one that goes on changing is kept as last read, marked, and read again', async () => {
    const place = await Place.make();
    writeFileSync(join(place.source, 'calm'), 'calm');
    const path = join(place.source, 'busy');
    writeFileSync(path, noise(40_000_000, 3));
    const { spawn } = await import('node:child_process');
    const child = spawn('sh', ['-c', `while :; do echo x >> ${path}; done`]);
    const report = await place.backup();
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    expect(report.problems.map(({ kind }) => kind)).toEqual(['changed']);
    const torn = await place.read();
    const row = torn.entries.get('/busy')!.row;
    expect((row[INODE.flags] as number) & INODE_FLAGS.incomplete).toBe(INODE_FLAGS.incomplete);
    expect((await torn.content('/busy')).length).toBe(row[INODE.size]);
    const next = await place.backup();
    expect(next.problems).toEqual([]);
    expect(await compareWith(await place.read(), place.source)).toEqual([]);
  });
});

describe.runIf(isRoot)('files that cannot be read', () => {
  /** Runs a backup as nobody; answers its report as JSON. */
  function backupAsNobody(place: Place): {
    problems: { kind: string; path: string }[];
    sequence: number;
    unchanged: boolean;
  } {
    const script = `
      const built = (path) => import(${JSON.stringify(new URL('../../dist/', import.meta.url).href)} + path);
      const { backup } = await built('snapshot/backup/backup.js');
      const { openRepository } = await built('repository/repository.js');
      const { LocalStore } = await built('store/local.js');
      const store = new LocalStore(${JSON.stringify(place.store.location)});
      const repository = await openRepository({ store, need: 'write' });
      const paths = [Buffer.from(${JSON.stringify(place.source)})];
      const report = await backup({ repository, stateDir: repository.stateDir, set: 'test', mode: 'snapshot', paths, threads: 1 });
      const problems = report.problems.map(({ kind, path }) => ({ kind, path: path.toString() }));
      console.log(JSON.stringify({ problems, sequence: report.sequence, unchanged: report.unchanged }));
    `;
    const file = join(place.folder, 'as-nobody.mjs');
    writeFileSync(file, script);
    execFileSync('chown', ['-R', '65534:65534', place.store.location, place.stateHome()]);
    const out = execFileSync(process.execPath, [file], {
      uid: 65534,
      gid: 65534,
      env: { ...process.env, ROZEN_STATE_DIR: place.stateHome(), HOME: place.folder },
    });
    return JSON.parse(out.toString());
  }

  test('are reported; the rest is safe, and what was there before stays', async () => {
    const place = await Place.make();
    execFileSync('chmod', ['755', join(place.folder, '..')]);
    execFileSync('chown', ['65534:65534', place.folder]);
    mkdirSync(join(place.source, 'folder'));
    for (const name of ['known', 'open', 'folder/inside']) writeFileSync(join(place.source, name), name);
    expect(backupAsNobody(place).problems).toEqual([]);
    const inodes = (await place.read()).entries;
    writeFileSync(join(place.source, 'new'), 'new');
    writeFileSync(join(place.source, 'known'), 'known and changed');
    for (const name of ['new', 'known', 'folder']) chmodSync(join(place.source, name), 0);
    const report = backupAsNobody(place);
    expect(report.problems).toEqual(
      ['folder', 'known', 'new'].map((name) => ({ kind: 'unreadable', path: join(place.source, name) })),
    );
    const snapshot = await place.read();
    expect([...snapshot.entries.keys()].sort()).toEqual(['', '/folder', '/folder/inside', '/known', '/open']);
    expect(String(await snapshot.content('/known'))).toBe('known');
    expect(String(await snapshot.content('/folder/inside'))).toBe('folder/inside');
    // Nothing else changed meanwhile: no snapshot for the sake of what still cannot be read.
    const again = backupAsNobody(place);
    expect([again.unchanged, again.problems.length]).toEqual([true, 3]);
    for (const name of ['new', 'known']) chmodSync(join(place.source, name), 0o644);
    chmodSync(join(place.source, 'folder'), 0o755);
    expect(backupAsNobody(place).problems).toEqual([]);
    const last = await place.read();
    expect(await compareWith(last, place.source)).toEqual([]);
    for (const path of ['/known', '/folder/inside'])
      expect(last.entries.get(path)!.inode).toBe(inodes.get(path)!.inode);
  });
});

test('deeper than the longest path, contents and all', async () => {
  const place = await Place.make();
  const parts = Array.from({ length: 25 }, (_, i) => `${i}-${'x'.repeat(240)}`);
  const shell = parts.map((part) => `mkdir ${part} && cd -P ${part}`).join(' && ');
  execFileSync('sh', ['-c', `cd ${place.source} && ${shell} && echo deep > file && setfattr -n user.a -v b file`]);
  const report = await place.backup();
  expect(report.problems).toEqual([]);
  const snapshot = await place.read();
  const path = `/${parts.join('/')}/file`;
  expect(String(await snapshot.content(path))).toBe('deep\n');
  expect([...snapshot.entries.get(path)!.xattrs.keys()]).toEqual(['user.a']);
  expect((await place.backup()).unchanged).toBe(true);
  execFileSync('rm', ['-rf', place.source]);
});

test('holes that move are followed', async () => {
  const place = await Place.make();
  const path = join(place.source, 'sparse');
  const piece = noise(65536, 9);
  const fill = (offset: number): void => {
    const fd = openSync(path, 'w');
    ftruncateSync(fd, 8_000_000);
    writeSync(fd, piece, 0, piece.length, offset);
    fsyncSync(fd);
    closeSync(fd);
  };
  fill(1_048_576);
  await place.backup();
  fill(4_194_304);
  const report = await place.backup();
  expect(report.classes.changed.files).toBe(1);
  expect(report.bytesNew).toBe(0);
  expect(await compareWith(await place.read(), place.source)).toEqual([]);
});

test('its own repository and state are walked past', async () => {
  const place = await Place.make();
  writeFileSync(join(place.folder, 'beside'), 'x');
  const report = await place.backup({ paths: [Buffer.from(place.folder)] });
  expect(report.skipped.map(({ path, reason }) => `${path.toString().slice(place.folder.length)}: ${reason}`)).toEqual([
    '/store: the repository itself',
    expect.stringMatching(/^\/state-first\/repositories\/[0-9a-f]+: Rozen's own state$/),
  ]);
  const paths = [...(await place.read()).entries.keys()];
  expect(paths).toContain('/store');
  expect(paths.some((path) => path.startsWith('/store/'))).toBe(false);
  expect(paths).toContain('/beside');
});

test('what makes no sense is refused', async () => {
  const place = await Place.make();
  await expect(place.backup({ paths: [] })).rejects.toMatchObject({ code: 'usage' });
  await expect(place.backup({ paths: [Buffer.from('/nowhere/at/all')] })).rejects.toMatchObject({ code: 'not-found' });
  await expect(place.backup({ exclude: ['['] })).rejects.toMatchObject({ code: 'usage' });
  await expect(place.backup({ set: '' })).rejects.toMatchObject({ code: 'usage' });
  await expect(place.backup({ mode: 'worm', set: 'w', selfContained: true })).rejects.toMatchObject({ code: 'usage' });
  rmSync(place.folder, { recursive: true });
});
