import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { INODE, INODE_FLAGS } from '../../src/archive/tree/schema.ts';
import { joinName } from '../../src/posix/folder.ts';
import { listXattrs } from '../../src/posix/xattr.ts';
import { FIELD, STATE } from '../../src/snapshot/backup/plan.ts';
import { makeOddTree } from '../e2e/odd-tree.ts';
import { differences, MemoryLineage } from './memory-lineage.ts';
import { TestFolders } from './test-folders.ts';

const folders = new TestFolders('compare');

const isRoot = process.getuid?.() === 0;
let dir: string;
let lineage: MemoryLineage;
beforeEach(() => {
  dir = folders.make();
  lineage = new MemoryLineage();
});
const write = (name: string, content = name): void => writeFileSync(join(dir, name), content);

describe('a first run', () => {
  test('writes down what lstat and the attribute calls say of every entry', () => {
    makeOddTree(dir, { privileged: isRoot });
    const run = lineage.run([dir]);
    expect(run.problems).toEqual([]);
    const paths = lineage.paths();
    const found = execFileSync('find', [dir, '-mindepth', '1', '-print0'], { maxBuffer: 1 << 26 })
      .toString('latin1')
      .split('\0')
      .filter((path) => path !== '');
    expect([...paths.keys()].sort()).toEqual(found.map((path) => path.slice(dir.length)).sort());
    for (const [path, inode] of paths) {
      const file = Buffer.concat([Buffer.from(dir), Buffer.from(path, 'latin1')]);
      const row = lineage.row(inode)!;
      expect([path, differences(row, file)]).toEqual([path, []]);
      const names = listXattrs(file).map((name) => name.toString('latin1'));
      expect([...lineage.xattrs(inode).keys()]).toEqual([...names].sort());
      expect((row[INODE.flags] as number) & INODE_FLAGS.xattrs).toBe(names.length > 0 ? INODE_FLAGS.xattrs : 0);
    }
    expect(differences(lineage.row(1)!, Buffer.from(dir))).toEqual([]);
    expect(paths.get('/links/first')).toBe(paths.get('/links/second'));
    expect(paths.get('/links/first')).toBe(paths.get('/a third name elsewhere'));
    expect(paths.get('/fifo')).toBe(paths.get('/links/fifo too'));
    const acl = lineage.row(paths.get('/attributes/with acl')!)!;
    expect(acl[INODE.flags]).toBe(INODE_FLAGS.xattrs | INODE_FLAGS.accessAcl);
    const second = lineage.run([dir]);
    expect({ ...second, classes: Object.keys(second.classes) }).toEqual({
      classes: ['unchanged'],
      reading: [],
      problems: [],
      skipped: [],
      empty: true,
    });
  });

  test('numbers the entries of a folder side by side, in walk order', () => {
    for (const folder of ['b', 'a']) {
      mkdirSync(join(dir, folder));
      for (const name of ['2', '1']) write(`${folder}/${name}`);
    }
    write('c');
    lineage.run([dir]);
    expect([...lineage.paths()].sort((x, y) => x[1] - y[1])).toEqual([
      ['/a', 2],
      ['/b', 3],
      ['/c', 4],
      ['/a/1', 5],
      ['/a/2', 6],
      ['/b/1', 7],
      ['/b/2', 8],
    ]);
  });

  test('reaches what lies deeper than the longest path', () => {
    const parts = Array.from({ length: 30 }, (_, i) => `${i}-${'x'.repeat(240)}`);
    const shell = parts.map((part) => `mkdir ${part} && cd -P ${part}`).join(' && ');
    execFileSync('sh', [
      '-c',
      `cd ${dir} && ${shell} && echo deep > file && ln -s target link && mkdir last && echo x > last/y`,
    ]);
    const run = lineage.run([dir]);
    expect(run.problems).toEqual([]);
    const bottom = `/${parts.join('/')}`;
    expect(bottom.length).toBeGreaterThan(7000);
    const paths = lineage.paths();
    expect([...paths.keys()].filter((path) => path.startsWith(`${bottom}/`)).sort()).toEqual(
      ['file', 'last', 'last/y', 'link'].map((name) => `${bottom}/${name}`),
    );
    expect(Buffer.from(lineage.row(paths.get(`${bottom}/link`)!)![INODE.target] as Uint8Array).toString()).toBe(
      'target',
    );
    expect(lineage.run([dir]).empty).toBe(true);
    execFileSync('rm', ['-rf', dir]);
  });

  test('skips sockets and says so', () => {
    execFileSync('python3', [
      '-c',
      `import socket; socket.socket(socket.AF_UNIX).bind(${JSON.stringify(join(dir, 's'))})`,
    ]);
    write('file');
    const run = lineage.run([dir]);
    expect(run.skipped).toEqual(['/s: a socket']);
    expect([...lineage.paths().keys()]).toEqual(['/file']);
    expect(lineage.run([dir]).empty).toBe(true);
  });
});

describe('a later run', () => {
  test('tells new, changed, touched and deleted entries apart', () => {
    mkdirSync(join(dir, 'gone folder'));
    mkdirSync(join(dir, 'folder'));
    for (const name of ['same', 'grown', 'mode', 'gone', 'gone folder/a', 'gone folder/b', 'emptied', 'folder/x'])
      write(name);
    write('empty', '');
    lineage.run([dir]);
    const before = lineage.paths();
    appendFileSync(join(dir, 'grown'), 'more');
    chmodSync(join(dir, 'mode'), 0o600);
    unlinkSync(join(dir, 'gone'));
    rmSync(join(dir, 'gone folder'), { recursive: true });
    write('emptied', '');
    write('empty', '');
    write('folder/new');
    const run = lineage.run([dir]);
    // Whose ctime differs is read again; whether it has changed is told by its content.
    expect(run.reading).toEqual(['/grown', '/mode', '/folder/new']);
    expect(run.classes).toEqual({
      unchanged: ['/folder/x', '/same'],
      metadata: ['/', '/empty', '/folder'],
      changed: ['/emptied'],
      deleted: ['/gone', '/gone folder', '/gone folder/a', '/gone folder/b'],
    });
    const after = lineage.paths();
    for (const name of ['/same', '/grown', '/mode', '/emptied', '/folder/x'])
      expect(after.get(name)).toBe(before.get(name));
    expect(after.get('/folder/new')).toBe(Math.max(...before.values()) + 1);
    expect(lineage.count('inodes')).toBe(after.size + 1);
    expect(lineage.count('extents')).toBe(5);
    expect(lineage.run([dir]).empty).toBe(true);
  });

  test('knows a file and a folder under another name, and reads neither again', () => {
    mkdirSync(join(dir, 'a'));
    mkdirSync(join(dir, 'a', 'inner'));
    mkdirSync(join(dir, 'z'));
    for (const name of ['a/1', 'a/inner/2', 'file', 'z/3']) write(name);
    symlinkSync('t', join(dir, 'link'));
    lineage.run([dir]);
    const before = lineage.paths();
    renameSync(join(dir, 'a'), join(dir, 'z', 'moved'));
    renameSync(join(dir, 'file'), join(dir, 'renamed'));
    renameSync(join(dir, 'z/3'), join(dir, '3'));
    renameSync(join(dir, 'link'), join(dir, 'z', 'link'));
    const run = lineage.run([dir]);
    expect(run.reading).toEqual([]);
    expect(run.classes.moved).toEqual(['/3', '/renamed', '/z/link', '/z/moved']);
    expect(run.classes.deleted).toBeUndefined();
    expect(run.classes.unchanged).toEqual(['/z/moved/1', '/z/moved/inner', '/z/moved/inner/2']);
    const after = lineage.paths();
    expect(after.get('/z/moved/inner/2')).toBe(before.get('/a/inner/2'));
    expect(after.get('/z/moved')).toBe(before.get('/a'));
    expect(after.get('/renamed')).toBe(before.get('/file'));
    expect(after.get('/3')).toBe(before.get('/z/3'));
    expect(after.size).toBe(before.size);
    expect(lineage.row(after.get('/z/moved')!)![INODE.parent]).toBe(after.get('/z'));
    expect(lineage.run([dir]).empty).toBe(true);
  });

  test('follows two files that changed places', () => {
    write('a', 'first');
    write('b', 'other');
    lineage.run([dir]);
    const before = lineage.paths();
    renameSync(join(dir, 'a'), join(dir, 't'));
    renameSync(join(dir, 'b'), join(dir, 'a'));
    renameSync(join(dir, 't'), join(dir, 'b'));
    const run = lineage.run([dir]);
    expect(run.reading).toEqual([]);
    expect(lineage.paths().get('/a')).toBe(before.get('/b'));
    expect(lineage.paths().get('/b')).toBe(before.get('/a'));
  });

  test('keeps the number of a file that was replaced under its name', () => {
    write('file', 'old');
    lineage.run([dir]);
    const before = lineage.paths();
    write('file.tmp', 'new content');
    renameSync(join(dir, 'file.tmp'), join(dir, 'file'));
    const run = lineage.run([dir]);
    expect(run.reading).toEqual(['/file']);
    expect(lineage.paths()).toEqual(before);
    expect(lineage.count('extents')).toBe(1);
    expect(lineage.row(before.get('/file')!)![INODE.version]).toBe(2);
  });

  test('gives a number to an entry that became something else', () => {
    write('it', 'a file');
    mkdirSync(join(dir, 'that'));
    write('that/below');
    lineage.run([dir]);
    const before = lineage.paths();
    unlinkSync(join(dir, 'it'));
    mkdirSync(join(dir, 'it'));
    rmSync(join(dir, 'that'), { recursive: true });
    symlinkSync('it', join(dir, 'that'));
    const run = lineage.run([dir]);
    expect(run.classes.new).toEqual(['/it', '/that']);
    expect(run.classes.deleted).toEqual(['/it', '/that', '/that/below']);
    expect(lineage.paths().get('/it')).not.toBe(before.get('/it'));
    expect(lineage.count('inodes')).toBe(3);
    expect(lineage.count('extents')).toBe(0);
  });

  test('follows hard links as they come, go and part', () => {
    for (const name of ['a', 'b']) write(name, 'linked');
    linkSync(join(dir, 'a'), join(dir, 'c'));
    lineage.run([dir]);
    let paths = lineage.paths();
    expect(paths.get('/a')).toBe(paths.get('/c'));
    const [a, b] = [paths.get('/a'), paths.get('/b')];
    // b becomes a link of a, and c a file of its own.
    unlinkSync(join(dir, 'b'));
    linkSync(join(dir, 'a'), join(dir, 'b'));
    unlinkSync(join(dir, 'c'));
    write('c', 'own');
    lineage.run([dir]);
    paths = lineage.paths();
    expect([paths.get('/a'), paths.get('/b')]).toEqual([a, a]);
    expect(paths.get('/c')).not.toBe(a);
    expect(paths.get('/c')).not.toBe(b);
    expect(lineage.count('inodes')).toBe(3);
    expect(lineage.row(a!)![INODE.nlink]).toBe(2);
    // The first name goes; the inode stays with the other one.
    unlinkSync(join(dir, 'a'));
    lineage.run([dir]);
    paths = lineage.paths();
    expect([...paths.keys()]).toEqual(['/b', '/c']);
    expect(paths.get('/b')).toBe(a);
    expect(lineage.run([dir]).empty).toBe(true);
  });

  test('replaces attributes, and takes away what is gone', () => {
    const set = (...args: string[]) => execFileSync('setfattr', [...args, join(dir, 'file')]);
    write('file');
    set('-n', 'user.a', '-v', '1');
    set('-n', 'user.b', '-v', '2');
    set('-n', 'user.d', '-v', '4');
    lineage.run([dir]);
    set('-x', 'user.a');
    set('-n', 'user.b', '-v', 'changed');
    set('-n', 'user.c', '-v', '3');
    lineage.run([dir]);
    const inode = lineage.paths().get('/file')!;
    expect([...lineage.xattrs(inode)].map(([name, value]) => `${name}=${value}`)).toEqual([
      'user.b=changed',
      'user.c=3',
      'user.d=4',
    ]);
    for (const name of ['b', 'c', 'd']) set('-x', `user.${name}`);
    lineage.run([dir]);
    expect(lineage.count('xattrs')).toBe(0);
    expect(lineage.row(inode)![INODE.flags]).toBe(0);
  });

  test('reads a file again whose times are those of the walk itself', () => {
    write('file');
    lineage.run([dir], { walkedAt: Date.now() - 10_000 });
    const second = lineage.run([dir]);
    expect(second.reading).toEqual(['/file']);
    expect(lineage.run([dir]).reading).toEqual([]);
  });

  test('reads a file again that was stored incomplete', () => {
    write('file');
    lineage.run([dir], {
      store: (plan, record) => {
        plan.records.addFlags(record, INODE_FLAGS.incomplete);
        plan.records.set(record, FIELD.extents, plan.extents.count);
        plan.records.mark(record, STATE.put | STATE.content);
      },
    });
    expect(lineage.run([dir]).reading).toEqual(['/file']);
    expect(lineage.run([dir]).empty).toBe(true);
  });

  test('leaves a new file out that cannot be read, and writes nothing for its sake', () => {
    write('good');
    write('other');
    lineage.run([dir]);
    const times = { atime: 1_600_000_000, mtime: 1_600_000_000 };
    utimesSync(dir, times.atime, times.mtime);
    write('bad');
    const drop = {
      store: (plan: { records: { mark(r: number, s: number): void } }, record: number) =>
        plan.records.mark(record, STATE.dropped),
    };
    lineage.run([dir], drop);
    expect([...lineage.paths().keys()]).toEqual(['/good', '/other']);
    expect(lineage.run([dir], drop).empty).toBe(true);
    expect(lineage.run([dir]).empty).toBe(false);
    expect([...lineage.paths().keys()]).toEqual(['/bad', '/good', '/other']);
  });

  test('writes everything afresh when it must stand alone, and keeps the numbers', () => {
    makeOddTree(dir, { privileged: isRoot });
    lineage.run([dir]);
    const before = { paths: lineage.paths(), counts: counts() };
    const run = lineage.run([dir], { fromNothing: true });
    expect(run.empty).toBe(false);
    expect(lineage.paths()).toEqual(before.paths);
    expect(counts()).toEqual(before.counts);
    expect(lineage.run([dir]).empty).toBe(true);
  });

  const counts = () => (['names', 'inodes', 'extents', 'xattrs'] as const).map((tree) => lineage.count(tree));
});

describe('sources', () => {
  test('several are shown by their absolute paths, folders above them with their attributes', () => {
    for (const name of ['a', 'a/inner', 'b', 'c']) mkdirSync(join(dir, name));
    write('a/inner/1');
    write('b/2');
    write('c/3');
    write('single');
    const run = lineage.run([join(dir, 'a'), `${dir}/./b/../b//`, join(dir, 'single'), join(dir, 'a/inner')]);
    expect(run.problems).toEqual([]);
    const paths = lineage.paths();
    const inside = [...paths.keys()].filter((path) => path.startsWith(`${dir}/`)).map((path) => path.slice(dir.length));
    expect(inside.sort()).toEqual(['/a', '/a/inner', '/a/inner/1', '/b', '/b/2', '/single']);
    expect([...paths.keys()].filter((path) => !path.startsWith(`${dir}/`)).length).toBe(dir.split('/').length - 1);
    expect(differences(lineage.row(paths.get(dir)!)!, Buffer.from(dir))).toEqual([]);
  });

  test('a symbolic link to a folder is the folder; one file is shown by its path', () => {
    mkdirSync(join(dir, 'real'));
    write('real/file');
    symlinkSync('real', join(dir, 'link'));
    lineage.run([join(dir, 'link')]);
    expect([...lineage.paths().keys()]).toEqual(['/file']);
    const single = new MemoryLineage();
    single.run([join(dir, 'real/file')]);
    expect(single.paths().has(join(dir, 'real/file'))).toBe(true);
  });

  test('files keep their numbers when another folder is added to the set', () => {
    for (const name of ['a', 'b']) mkdirSync(join(dir, name));
    write('a/1');
    write('b/2');
    lineage.run([join(dir, 'a')]);
    const before = lineage.paths();
    const run = lineage.run([join(dir, 'a'), join(dir, 'b')]);
    expect(run.reading.map((path) => path.replace(/^\//, ''))).toEqual([join(dir, 'b/2').slice(1)]);
    expect(lineage.paths().get(join(dir, 'a/1'))).toBe(before.get('/1'));
  });

  test('nothing at all is an error that names the paths', () => {
    expect(() => lineage.run([join(dir, 'nowhere')])).toThrow(expect.objectContaining({ code: 'not-found' }));
    write('file');
    const run = lineage.run([join(dir, 'file'), join(dir, 'nowhere')]);
    expect(run.problems).toEqual([`unreadable ${join(dir, 'nowhere').slice(1)}`]);
  });
});

describe('what is left out', () => {
  test('excluded entries, with all below them', () => {
    for (const name of ['keep', 'cache', 'cache/deep']) mkdirSync(join(dir, name));
    for (const name of ['keep/a.o', 'keep/a.c', 'cache/x', 'cache/deep/y', 'z.o']) write(name);
    const run = lineage.run([dir], { exclude: ['*.o', 'cache/', '!z.o'] });
    expect([...lineage.paths().keys()].sort()).toEqual(['/keep', '/keep/a.c', '/z.o']);
    expect(run.skipped).toEqual([]);
    lineage.run([dir]);
    expect(lineage.paths().size).toBe(8);
    expect(lineage.run([dir], { exclude: ['cache'] }).classes.deleted).toEqual([
      '/cache',
      '/cache/deep',
      '/cache/deep/y',
      '/cache/x',
    ]);
  });

  test('caches, but for their tag; a wrong tag is none', () => {
    for (const name of ['cache', 'cache/sub', 'fake']) mkdirSync(join(dir, name));
    write('cache/CACHEDIR.TAG', 'Signature: 8a477f597d28d172789f06886806bc55\n# x');
    write('fake/CACHEDIR.TAG', 'Signature: something else');
    for (const name of ['cache/x', 'cache/sub/y', 'fake/z']) write(name);
    lineage.run([dir], { excludeCaches: true });
    expect([...lineage.paths().keys()].sort()).toEqual([
      '/cache',
      '/cache/CACHEDIR.TAG',
      '/fake',
      '/fake/CACHEDIR.TAG',
      '/fake/z',
    ]);
  });

  test.runIf(isRoot)('other file systems, but for their mount points', () => {
    mkdirSync(join(dir, 'mnt'));
    execFileSync('mount', ['-t', 'tmpfs', 'none', join(dir, 'mnt')]);
    try {
      write('mnt/file');
      lineage.run([dir], { oneFileSystem: true });
      expect([...lineage.paths().keys()]).toEqual(['/mnt']);
      lineage.run([dir]);
      expect([...lineage.paths().keys()]).toEqual(['/mnt', '/mnt/file']);
      lineage.run([join(dir, 'mnt')], { oneFileSystem: true });
      expect([...lineage.paths().keys()]).toEqual(['/file']);
    } finally {
      execFileSync('umount', [join(dir, 'mnt')]);
    }
  });
});

test('a large folder that changes here and there', () => {
  mkdirSync(join(dir, 'many'));
  for (let i = 0; i < 3000; i++) write(`many/${i}`);
  lineage.run([dir]);
  for (let i = 0; i < 3000; i += 7) unlinkSync(join(dir, 'many', String(i)));
  for (let i = 0; i < 3000; i += 11) write(`many/new-${i}`);
  for (let i = 1; i < 3000; i += 7) chmodSync(join(dir, 'many', String(i)), 0o640);
  if (isRoot) for (let i = 2; i < 3000; i += 7) chownSync(join(dir, 'many', String(i)), 5, 6);
  lineage.run([dir]);
  const paths = lineage.paths();
  expect([...paths.keys()].sort()).toEqual(
    ['/many', ...readdirSync(join(dir, 'many')).map((name) => `/many/${name}`)].sort(),
  );
  for (const [path, inode] of paths) {
    expect(differences(lineage.row(inode)!, joinName(Buffer.from(dir), path.slice(1)))).toEqual([]);
  }
  expect(lineage.run([dir]).empty).toBe(true);
});

test('a descriptor is never left open', () => {
  for (let i = 0; i < 50; i++) mkdirSync(join(dir, String(i)));
  const probe = () => {
    const fd = openSync(dir, 'r');
    closeSync(fd);
    return fd;
  };
  const before = probe();
  lineage.run([dir]);
  expect(probe()).toBe(before);
});
