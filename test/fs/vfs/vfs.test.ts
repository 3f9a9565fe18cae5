import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type MountHost, openVfsHost } from '../../../src/fs/vfs/host.ts';
import { VIEW_BIT } from '../../../src/fs/vfs/nodes.ts';
import { EINVAL, EIO, EISDIR, ENOTDIR, ENXIO, ESTALE } from '../../../src/posix/errno.ts';
import { Client, errnoOf } from './client.ts';
import type { ModelEntry } from './model.ts';
import { type Committed, TestRepository } from './repository.ts';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const MIB = 1024 * 1024;

const folder = mkdtempSync(join(tmpdir(), 'rozen-vfs-'));
const big = randomBytes(3 * MIB + 12_345);
const text = Buffer.from('hello\n');
const [head, middle, tail] = [randomBytes(4096), randomBytes(8192), randomBytes(100)];
const acl = Buffer.from('0200000001000600ffffffff04000400ffffffff20000400ffffffff', 'hex');
const longName = 'n'.repeat(255);

function entriesOfFirst(): ModelEntry[] {
  return [
    { path: '', type: 'folder', mode: 0o750, uid: 12, gid: 34 },
    { path: 'big.bin', type: 'file', content: [big], mode: 0o600, mtimeSec: -5, mtimeNs: 999_999_999 },
    { path: 'docs', type: 'folder' },
    { path: 'docs/caf\xe9.txt', type: 'file', content: [text], uid: 1000, gid: 1000 },
    { path: 'docs/empty', type: 'file' },
    { path: 'docs/hard', type: 'file', linkTo: 'docs/caf\xe9.txt' },
    { path: 'docs/link', type: 'symlink', target: '../big.bin', mode: 0o777 },
    { path: `docs/${longName}`, type: 'file', content: [Buffer.from('long')] },
    { path: 'null', type: 'device', rdev: 0x103, mode: 0o666 },
    { path: 'pipe', type: 'fifo' },
    {
      path: 'sparse',
      type: 'file',
      content: [{ hole: MIB }, head, { hole: 64 * 1024 }, middle, tail, { hole: 5 * 1024 ** 3 }],
    },
    {
      path: 'tagged',
      type: 'file',
      content: [text],
      xattrs: {
        'security.capability': Buffer.from([1, 2, 3]),
        'system.posix_acl_access': acl,
        'user.a': Buffer.from('b'),
      },
    },
  ];
}

let made: TestRepository;
let first: Committed;
let second: Committed;
let host: MountHost;
let client: Client;
const lines: string[] = [];

async function openHost(options: Partial<Parameters<typeof openVfsHost>[0]> = {}): Promise<MountHost> {
  const repository = await made.reader();
  return openVfsHost({
    store: made.store,
    repository,
    pollMs: 0,
    blockBytes: 4 * MIB,
    log: (line) => lines.push(line),
    ...options,
  });
}

beforeAll(async () => {
  made = await TestRepository.create(folder);
  first = await made.commit('home', entriesOfFirst(), { timeSec: 1_795_416_603 });
  // The root loses one name and gains another: its times change.
  const changed = entriesOfFirst()
    .filter((entry) => entry.path !== 'pipe')
    .map((entry) => (entry.path === '' ? { ...entry, mtimeSec: 1_795_503_000 } : entry))
    .map((entry) => (entry.path === 'docs/empty' ? { ...entry, content: [Buffer.from('no longer')] } : entry));
  changed.push({ path: 'zz', type: 'folder' }, { path: 'zz/new', type: 'file', content: [Buffer.from('new')] });
  second = await made.commit('home', changed, { timeSec: 1_795_503_003 });
  await made.commit('other', [{ path: '', type: 'folder' }], { timeSec: 1_795_503_003 });
  host = await openHost();
  client = new Client(host);
});

afterAll(async () => {
  await host.close();
  delete process.env.ROZEN_STATE_DIR;
  rmSync(folder, { recursive: true, force: true });
});

describe('the folders of the mount', () => {
  it('list sets, snapshots, ids, versions and the status', async () => {
    expect(await client.names({ slot: 0, ino: 1 })).toEqual(['snapshots', 'by-id', 'versions', '.rozen']);
    expect((await client.names(await client.walk('snapshots'))).sort()).toEqual(['home', 'other']);
    expect(await client.names(await client.walk('snapshots/home'))).toEqual([
      'latest',
      '2026-11-23T06.50.03Z',
      '2026-11-24T06.50.03Z',
    ]);
    expect((await client.names(await client.walk('by-id'))).includes(first.id)).toBe(true);
    expect((await client.names(await client.walk('versions'))).sort()).toEqual(['home', 'other']);
    expect(await client.names(await client.walk('.rozen'))).toEqual(['status']);
    expect(await client.lookup({ slot: 0, ino: 1 }, '.Trash')).toBeNull();
    expect((await client.getattr({ slot: 0, ino: 1 })).nlink).toBe(6);
  });

  it('lead to snapshots by time, by id and by latest', async () => {
    const byTime = await client.walk('snapshots/home/2026-11-23T06.50.03Z');
    expect([byTime.ino, byTime.mode, byTime.uid, byTime.gid, byTime.volatile]).toEqual([1, 0o040750, 12, 34, false]);
    expect(await client.walk(`by-id/${first.id}`)).toEqual(byTime);
    expect((await client.walk('snapshots/home/latest')).slot).toBe((await client.walk(`by-id/${second.id}`)).slot);
    const link = await client.lookup(await client.walk('snapshots/home'), 'latest');
    expect((await client.readlink(link!)).toString()).toBe('2026-11-24T06.50.03Z');
    expect(link!.volatile).toBe(true);
  });

  it('answer `.` and `..` on every node, from a snapshot out to the root', async () => {
    const docs = await client.walk('snapshots/home/latest/docs');
    const root = await client.lookup(docs, '..');
    expect([root!.slot, root!.ino]).toEqual([docs.slot, 1]);
    const set = await client.lookup(root!, '..');
    expect([set!.slot, (await client.names(set!)).length]).toEqual([0, 3]);
    const snapshots = await client.lookup(set!, '..');
    expect((await client.lookup(snapshots!, '..'))!.ino).toBe(1);
    const file = await client.walk('snapshots/home/latest/docs/empty');
    expect(await client.lookup(file, '.')).toEqual(file);
    expect(await errnoOf(client.lookup(file, '..'))).toBe(ENOTDIR);
  });

  it('do not open snapshots to list them', async () => {
    const fresh = await openHost();
    const other = new Client(fresh);
    const before = fresh.snapshotsOpen;
    const listed = await other.list(await other.walk('snapshots/home'));
    expect(listed.map(({ attr }) => [attr.complete, attr.mode & 0o170000])).toEqual([
      [true, 0o120000],
      [false, 0o040000],
      [true, 0o040000],
    ]);
    expect(fresh.snapshotsOpen).toBe(before);
    await fresh.close();
  });

  it('give a new text of the status to each lookup', async () => {
    const [one, two] = [await client.walk('.rozen/status'), await client.walk('.rozen/status')];
    expect(one.ino).not.toBe(two.ino);
    const shown = (await client.content(two)).toString();
    expect(shown.length).toBe(two.size);
    expect(shown).toContain(`repository         ${made.store.location}`);
    expect(shown).toMatch(/snapshots +3 in 2 sets/);
    expect(shown).toMatch(/pages decoded +[1-9]/);
  });
});

describe('a snapshot', () => {
  it('shows the attributes of every kind of file', async () => {
    const root = await client.walk(`by-id/${first.id}`);
    const listed = await client.list(root);
    expect(listed.map(({ name }) => name)).toEqual(['big.bin', 'docs', 'null', 'pipe', 'sparse', 'tagged']);
    for (const { name, attr } of listed) expect(attr).toEqual(await client.lookup(root, name));
    const bigFile = listed[0]!.attr;
    expect([bigFile.mode, bigFile.size, bigFile.mtimeSec, bigFile.mtimeNs]).toEqual([
      0o100600,
      big.length,
      -5,
      999_999_999,
    ]);
    expect([bigFile.ctimeSec, bigFile.btimeSec, bigFile.btimeNs]).toEqual([-4, -15, 5]);
    expect([listed[2]!.attr.mode, listed[2]!.attr.rdev]).toEqual([0o020666, 0x103]);
    expect(listed[3]!.attr.mode).toBe(0o010644);
    const plain = await client.list(root, 3, false);
    expect(plain.map(({ name, attr }) => [name, attr.ino, attr.mode >> 12])).toEqual(
      listed.map(({ name, attr }) => [name, attr.ino, attr.mode >> 12]),
    );
  });

  it('knows names that are bytes, long names, hard links and symlinks', async () => {
    const docs = await client.walk(`by-id/${first.id}/docs`);
    const names = await client.names(docs);
    expect(names).toEqual(['caf\xe9.txt', 'empty', 'hard', 'link', longName]);
    const [one, two] = [await client.lookup(docs, 'caf\xe9.txt'), await client.lookup(docs, 'hard')];
    expect(one).toEqual(two);
    expect(one!.nlink).toBe(2);
    const link = await client.lookup(docs, 'link');
    expect([(await client.readlink(link!)).toString(), link!.size]).toEqual(['../big.bin', 10]);
    expect(await client.lookup(docs, 'Hard')).toBeNull();
    expect(await client.lookup(docs, 'emptyx')).toBeNull();
  });

  it('gives back content, in any pieces', async () => {
    const file = await client.walk(`by-id/${first.id}/big.bin`);
    expect((await client.content(file)).equals(big)).toBe(true);
    for (const [offset, size] of [
      [0, 1],
      [262_143, 2],
      [MIB - 1, MIB + 2],
      [big.length - 10, 100],
      [big.length, 100],
      [big.length + 5, 1],
      [0, 0],
    ] as const) {
      expect((await client.read(file, offset, size)).equals(big.subarray(offset, offset + size))).toBe(true);
    }
    const empty = await client.walk(`by-id/${first.id}/docs/empty`);
    expect(await client.read(empty, 0, 4096)).toEqual(Buffer.alloc(0));
    expect((await client.content(await client.walk('snapshots/home/latest/docs/empty'))).toString()).toBe('no longer');
    expect(host.pinned()).toBe(0);
  });

  it('reads holes as zeros and finds them', async () => {
    const file = await client.walk(`by-id/${first.id}/sparse`);
    const dataEnd = MIB + 4096 + 64 * 1024 + 8192 + 100;
    expect(file.size).toBe(dataEnd + 5 * 1024 ** 3);
    expect(file.blocks).toBe(8 + 16 + 1);
    const start = await client.read(file, 0, 2 * MIB);
    const expected = Buffer.concat([Buffer.alloc(MIB), head, Buffer.alloc(64 * 1024), middle, tail]);
    expect(start.subarray(0, dataEnd).equals(expected)).toBe(true);
    expect(start.subarray(dataEnd).every((byte) => byte === 0)).toBe(true);
    expect((await client.read(file, file.size - 5, 10)).equals(Buffer.alloc(5))).toBe(true);
    const seek = (offset: number, whence: number) => client.lseek(file, offset, whence);
    expect(await seek(0, SEEK_DATA)).toBe(MIB);
    expect(await seek(MIB + 5, SEEK_DATA)).toBe(MIB + 5);
    expect(await seek(0, SEEK_HOLE)).toBe(0);
    expect(await seek(MIB, SEEK_HOLE)).toBe(MIB + 4096);
    expect(await seek(MIB + 4096, SEEK_DATA)).toBe(MIB + 4096 + 64 * 1024);
    // Two pieces of data side by side are one stretch.
    expect(await seek(MIB + 4096 + 64 * 1024, SEEK_HOLE)).toBe(dataEnd);
    expect(await errnoOf(seek(dataEnd, SEEK_DATA))).toBe(ENXIO);
    expect(await errnoOf(seek(file.size, SEEK_HOLE))).toBe(ENXIO);
    const whole = await client.walk(`by-id/${first.id}/big.bin`);
    expect(await client.lseek(whole, 77, SEEK_DATA)).toBe(77);
    expect(await client.lseek(whole, 77, SEEK_HOLE)).toBe(big.length);
  });

  it('refuses what makes no sense, with the errno that Linux would give', async () => {
    const root = await client.walk(`by-id/${first.id}`);
    expect(await errnoOf(client.read(root, 0, 10))).toBe(EISDIR);
    expect(await errnoOf(client.readlink(root))).toBe(EINVAL);
    const file = await client.walk(`by-id/${first.id}/big.bin`);
    expect(await errnoOf(client.list(file))).toBe(ENOTDIR);
    expect(await errnoOf(client.getattr({ slot: root.slot, ino: 99_999 }))).toBe(ESTALE);
    expect(await errnoOf(client.getattr({ slot: 4711, ino: 1 }))).toBe(ESTALE);
    expect(await errnoOf(client.getattr({ slot: 0, ino: 4711 }))).toBe(ESTALE);
    expect(await errnoOf(client.getattr({ slot: 4711 | VIEW_BIT, ino: 1 }))).toBe(ESTALE);
    expect(await errnoOf(client.getattr({ slot: 0, ino: 2 ** 33 + 4_000_000 }))).toBe(ESTALE);
  });

  it('has xattrs and ACLs, and touches no page for a file without', async () => {
    const file = await client.walk(`by-id/${first.id}/tagged`);
    expect((await client.listxattr(file)).sort()).toEqual(['security.capability', 'system.posix_acl_access', 'user.a']);
    expect(await client.getxattr(file, 'security.capability')).toEqual(Buffer.from([1, 2, 3]));
    expect(await client.getxattr(file, 'system.posix_acl_access')).toEqual(acl);
    expect(await client.getxattr(file, 'user.b')).toBeNull();
    expect(await client.getxattr(file, 'system.posix_acl_default')).toBeNull();
    const plain = await client.walk(`by-id/${first.id}/big.bin`);
    const fresh = await openHost();
    const other = new Client(fresh);
    await other.walk(`by-id/${first.id}/big.bin`);
    const before = fresh.pagesDecoded;
    for (const name of ['security.capability', 'system.posix_acl_access', 'security.selinux']) {
      expect(await other.getxattr(plain, name)).toBeNull();
    }
    expect(await other.listxattr(plain)).toEqual([]);
    expect(fresh.pagesDecoded).toBe(before);
    await fresh.close();
  });

  it('tells id, snapshot, archive and state, which no listing shows', async () => {
    const file = await client.walk('snapshots/home/latest/big.bin');
    expect((await client.getxattr(file, 'user.rozen.snapshot'))!.toString()).toBe(second.id);
    expect((await client.getxattr(file, 'user.rozen.id'))!.toString()).toMatch(/^[0-9a-f]{64}$/);
    const archive = (await client.getxattr(file, 'user.rozen.archive'))!.toString();
    expect(first.data).toBe(`data/${archive.slice(0, 2)}/${archive}.roz`);
    expect((await client.getxattr(file, 'user.rozen.state'))!.toString()).toBe('hot');
    expect(await client.getxattr(file, 'user.rozen.other')).toBeNull();
    expect(await client.listxattr(file)).toEqual([]);
    expect(await client.getxattr(await client.walk('snapshots/home/latest/docs'), 'user.rozen.id')).toBeNull();
  });

  it('keeps its slot and inode numbers from mount to mount, and has others than its neighbours', async () => {
    const again = await openHost();
    const other = new Client(again);
    for (const path of [`by-id/${first.id}/docs/empty`, 'snapshots/home/latest/big.bin', 'snapshots/other']) {
      const [a, b] = [await client.walk(path), await other.walk(path)];
      expect([b.slot, b.ino, b.generation]).toEqual([a.slot, a.ino, a.generation]);
    }
    await again.close();
    const [old, now] = [
      await client.walk(`by-id/${first.id}/big.bin`),
      await client.walk('snapshots/home/latest/big.bin'),
    ];
    expect(old.ino).toBe(now.ino);
    expect(old.slot).not.toBe(now.slot);
    expect(old.generation).not.toBe(now.generation);
  });

  it('can be the whole mount', async () => {
    const alone = await openHost({ choose: (snapshots) => snapshots.find(({ id }) => id === first.id)! });
    const other = new Client(alone);
    const root = await other.getattr({ slot: 0, ino: 1 });
    expect([root.slot, root.ino, root.mode, root.volatile]).toEqual([0, 1, 0o040750, false]);
    expect(await other.names(root)).toEqual(['big.bin', 'docs', 'null', 'pipe', 'sparse', 'tagged']);
    const docs = await other.walk('docs');
    expect(await other.lookup(docs, '..')).toEqual(root);
    expect(await other.lookup(root, '..')).toEqual(root);
    expect((await other.content(await other.walk('big.bin'))).equals(big)).toBe(true);
    expect(await other.lookup(root, 'snapshots')).toBeNull();
    await alone.close();
  });
});

describe('the view of versions', () => {
  it('shows each file as a folder of its distinct contents', async () => {
    const docs = await client.walk('versions/home/docs');
    expect(docs.mode & 0o170000).toBe(0o040000);
    expect(await client.names(docs)).toEqual(['caf\xe9.txt', 'empty', 'hard', 'link', longName]);
    const empty = await client.walk('versions/home/docs/empty');
    expect([empty.mode, empty.nlink]).toEqual([0o040555, 2]);
    const versions = await client.list(empty);
    expect(versions.map(({ name, attr }) => [name, attr.mode, attr.size])).toEqual([
      ['2026-11-23T06.50.03Z', 0o100644, 0],
      ['2026-11-24T06.50.03Z', 0o100644, 9],
    ]);
    const last = await client.lookup(empty, '2026-11-24T06.50.03Z');
    expect((await client.content(last!)).toString()).toBe('no longer');
    expect(await client.walk('snapshots/home/latest/docs/empty')).toEqual(last);
    expect(await client.lookup(empty, '2026-11-25T06.50.03Z')).toBeNull();
    // Unchanged content is there once, under its first snapshot.
    expect(await client.names(await client.walk('versions/home/big.bin'))).toEqual(['2026-11-23T06.50.03Z']);
  });

  it('shows what was deleted, what is new, and leaves other kinds of files as they are', async () => {
    const root = await client.walk('versions/home');
    expect(await client.names(root)).toEqual(['big.bin', 'docs', 'null', 'sparse', 'tagged', 'zz', 'pipe']);
    for (const room of [1, 2, 5]) {
      expect((await client.list(root, room)).map(({ name }) => name)).toEqual(await client.names(root));
    }
    expect((await client.walk('versions/home/pipe')).mode).toBe(0o010644);
    expect(await client.names(await client.walk('versions/home/zz/new'))).toEqual(['2026-11-24T06.50.03Z']);
    const link = await client.lookup(await client.walk('versions/home/docs'), 'link');
    expect((await client.readlink(link!)).toString()).toBe('../big.bin');
    expect(await client.lookup(await client.walk('versions/home/docs'), '..')).toEqual(root);
    expect((await client.lookup(root, '..'))!.slot).toBe(0);
    expect(await errnoOf(client.read(await client.walk('versions/home/big.bin'), 0, 1))).toBe(EISDIR);
  });
});

describe('a folder of 100,000 entries', () => {
  it('is listed in pieces of any size, and a cookie goes on where it stood', async () => {
    const entries: ModelEntry[] = [
      { path: '', type: 'folder' },
      { path: 'many', type: 'folder' },
    ];
    for (let n = 0; n < 100_000; n++) entries.push({ path: `many/${String(n).padStart(6, '0')}`, type: 'fifo' });
    entries.push({ path: 'z', type: 'fifo' });
    await made.commit('many', entries);
    expect(await host.refresh()).toBe(true);
    const many = await client.walk('snapshots/many/latest/many');
    const listed = await client.list(many, 777);
    expect(listed.length).toBe(100_000);
    expect(listed.every(({ name, attr }, n) => Number(name) === n && (attr.mode & 0o170000) === 0o010000)).toBe(true);
    expect(new Set(listed.map(({ cookie }) => cookie)).size).toBe(100_000);
    for (const n of [0, 1, 4711, 63_000, 99_998]) {
      const names = await client.run((vfs) => {
        const found: string[] = [];
        vfs.readdir(many.slot, many.ino, {
          cookie: listed[n]!.cookie,
          attributes: false,
          sink: {
            add: ({ source, start, end }) => {
              if (found.length === 2) return false;
              found.push(Buffer.from(source.subarray(start, end)).toString());
              return true;
            },
          },
        });
        return found;
      });
      expect(names).toEqual(listed.slice(n + 1, n + 3).map(({ name }) => name));
    }
    const start = performance.now();
    const count = await client.run((vfs) => {
      let entriesSeen = 0;
      const sink = {
        add: () => {
          entriesSeen++;
          return true;
        },
      };
      vfs.readdir(many.slot, many.ino, { cookie: 0, attributes: true, sink });
      return entriesSeen;
    });
    console.log(`readdirplus of ${count} entries: ${(performance.now() - start).toFixed(1)} ms`);
  });
});

describe('new snapshots', () => {
  it('appear, and the kernel is told what to forget', async () => {
    const told: string[] = [];
    host.onInvalidate(({ slot, ino, name }) => told.push(`${slot} ${ino} ${name === null ? '' : Buffer.from(name)}`));
    expect(await host.refresh()).toBe(false);
    const set = await client.walk('snapshots/home');
    const before = await client.names(set);
    const third = await made.commit('home', entriesOfFirst(), { timeSec: 1_795_503_003 });
    expect(await host.refresh()).toBe(true);
    expect(await client.names(set)).toEqual([...before, '2026-11-24T06.50.03Z-2']);
    expect(await client.walk('snapshots/home/latest')).toEqual(await client.walk(`by-id/${third.id}`));
    expect(told).toContain(`0 ${set.ino} latest`);
    await made.commit('brand new', [{ path: '', type: 'folder' }]);
    expect(await host.refresh()).toBe(true);
    expect(await client.names(await client.walk('snapshots'))).toContain('brand new');
    expect(told).toContain('0 2 brand new');
  });
});

describe('damage', () => {
  it('of a block gives EIO for its reads alone, and one line a minute', async () => {
    const good = randomBytes(MIB);
    const entries: ModelEntry[] = [
      { path: '', type: 'folder' },
      { path: 'file', type: 'file', content: [good] },
    ];
    const { data } = await made.commit('damaged', entries, { codec: { codec: 'none' } });
    const path = join(made.store.location, data!);
    const bytes = readFileSync(path);
    // In the middle of the second of four blocks of about 256 KiB.
    bytes[bytes.length >> 1]! ^= 1;
    const at = bytes.indexOf(good.subarray(300_000, 300_016));
    expect(at).toBe(-1);
    rmSync(path);
    writeFileSync(path, bytes);
    const fresh = await openHost();
    const other = new Client(fresh);
    const file = await other.walk('snapshots/damaged/latest/file');
    const results: string[] = [];
    lines.length = 0;
    for (let block = 0; block < 4; block++) {
      const offset = block * 256 * 1024;
      const read = other.read(file, offset, 256 * 1024);
      results.push(
        (await errnoOf(read)) === EIO ? 'EIO' : String((await read).equals(good.subarray(offset, offset + 256 * 1024))),
      );
    }
    expect(results.filter((result) => result === 'EIO').length).toBe(1);
    expect(results.filter((result) => result === 'true').length).toBe(3);
    const bad = results.indexOf('EIO') * 256 * 1024;
    for (let i = 0; i < 5; i++) expect(await errnoOf(other.read(file, bad + i, 10))).toBe(EIO);
    expect(lines.length).toBe(1);
    expect(lines[0]).toContain('authentication failed');
    expect(fresh.pinned()).toBe(0);
    await fresh.flushStatus();
    const status = (await other.content(await other.walk('.rozen/status'))).toString();
    expect(status).toMatch(/errors +6\n/);
    expect(status).toContain('(6 times since');
    await fresh.close();
  });

  it('of a data archive as a whole leaves all names and all other files', async () => {
    const { data } = await made.commit('gone', [
      { path: '', type: 'folder' },
      { path: 'file', type: 'file', content: [Buffer.from('content')] },
    ]);
    rmSync(join(made.store.location, data!));
    const fresh = await openHost();
    const other = new Client(fresh);
    const file = await other.walk('snapshots/gone/latest/file');
    expect(file.size).toBe(7);
    expect(await errnoOf(other.read(file, 0, 7))).toBe(EIO);
    expect((await other.content(await other.walk(`by-id/${first.id}/docs/hard`))).equals(text)).toBe(true);
    await fresh.close();
  });

  it('of the newest tree archive leaves the snapshots before it', async () => {
    const entries: ModelEntry[] = [
      { path: '', type: 'folder' },
      { path: 'a', type: 'fifo' },
    ];
    const older = await made.commit('broken', entries, { timeSec: 1_800_000_000 });
    const newer = await made.commit('broken', [...entries, { path: 'b', type: 'fifo' }], { timeSec: 1_800_000_060 });
    writeFileSync(join(made.store.location, newer.tree), 'nothing of use');
    const fresh = await openHost();
    const other = new Client(fresh);
    expect(await other.names(await other.walk(`by-id/${older.id}`))).toEqual(['a']);
    expect(await other.names(await other.walk('snapshots/broken'))).toEqual(['latest', '2027-01-15T08.00.00Z']);
    expect(await other.names(await other.walk('snapshots/home/latest'))).toContain('big.bin');
    expect(lines.some((line) => line.includes(newer.tree))).toBe(true);
    await fresh.close();
  });
});
