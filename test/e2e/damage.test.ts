import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { memorySource } from '../../src/archive/reader.ts';
import { scanArchive } from '../../src/archive/scan.ts';
import type { VerifyReport } from '../../src/snapshot/verify/types.ts';
import { DamagedRepository, noise, type ReadResult, RozenError } from './damaged-repository.ts';
import { isRoot, mountObstacle, Sandbox, until } from './rozen.ts';

const place = await DamagedRepository.make();
afterAll(() => place.clean());

interface Region {
  what: string;
  from: number;
  to: number;
  /** Byte distance of the flips. */
  step: number;
  /** Offset of the frame in the object; null where there are no frames. */
  frame: number | null;
}

/** Every field of every frame of an archive or hot index: the first and last bytes, and some between. */
async function regionsOf(name: string, bytes: Buffer): Promise<Region[]> {
  if (name.endsWith('.cbor')) return [{ what: 'object', from: 0, to: bytes.length, step: 1, frame: null }];
  const scan = await scanArchive(memorySource(bytes));
  const regions: Region[] = [];
  for (const { type, offset, length } of scan.frames) {
    const cbor = bytes.readUInt32LE(offset + 28);
    const body = offset + 56 + cbor + 32;
    const fields: [string, number, number, number][] = [
      ['type', offset, offset + 4, 3],
      ['archive id', offset + 4, offset + 20, 15],
      ['sequence', offset + 20, offset + 24, 3],
      ['body length', offset + 24, offset + 28, 2],
      ['CBOR length', offset + 28, offset + 32, 2],
      ['nonce', offset + 32, offset + 56, 23],
      ['CBOR header', offset + 56, offset + 56 + cbor, Math.max(1, Math.floor(cbor / 4))],
      ['header hash', offset + 56 + cbor, body, 31],
      ['inner header', body, Math.min(body + 44, offset + length - 32), 22],
      ['body', body + 44, offset + length - 48, Math.max(40, Math.floor(length / 4))],
      ['tag', offset + length - 48, offset + length - 32, 15],
      ['block hash', offset + length - 32, offset + length, 31],
    ];
    for (const [what, from, to, step] of fields)
      if (to > from) regions.push({ what: `${type} ${what}`, from, to, step, frame: offset });
  }
  return regions;
}

function placesOf({ from, to, step }: Region): number[] {
  const places: number[] = [];
  for (let at = from; at < to; at += step) places.push(at);
  if (places.at(-1) !== to - 1) places.push(to - 1);
  return places;
}

/** Right bytes or a RozenError, nothing else; and whatever fails was named by verify. */
function judge(what: string, results: Map<string, ReadResult>, report: VerifyReport): void {
  for (const [snapshot, expected] of place.expected) {
    const result = results.get(snapshot)!;
    const named = new Set<string>();
    let whole = false;
    for (const finding of report.findings) {
      if (finding.whole && finding.snapshots.includes(snapshot)) whole = true;
      for (const file of finding.files) if (file.snapshot === snapshot) named.add(file.path.toString());
    }
    const incomplete = result.get('');
    if (incomplete === undefined && [...expected.keys()].some((path) => !result.has(path)))
      throw new Error(`${what}: names are missing without an error`);
    if (incomplete !== undefined && report.mode !== 'scrub' && !whole && named.size === 0)
      throw new Error(`${what}: a folder cannot be listed, and verify names nothing\n${incomplete}`);
    for (const [path, got] of result) {
      if (got instanceof Error) {
        if (!(got instanceof RozenError)) throw new Error(`${what}: ${path}: ${got.stack}`);
        if (path !== '' && !whole && !named.has(`/${path}`))
          throw new Error(`${what}: ${path} cannot be read (${got.message}), but verify does not name it`);
      } else if (!expected.get(path) || !got.equals(expected.get(path) as Buffer)) {
        throw new Error(`${what}: ${path} gives wrong bytes`);
      }
    }
  }
}

/** Objects whose damage a twin may show: both hold header and tail of one data archive. */
function isAbout(object: string, name: string): boolean {
  const id = /([0-9a-f]{32})\.(roz|rix)$/.exec(name)?.[1];
  return object === name || (id !== undefined && object.includes(id));
}

async function check(name: string, what: string, frame: number | null): Promise<void> {
  const report = await place.verify();
  if (!report.findings.some(({ object }) => isAbout(object, name)))
    throw new Error(
      `${what}: not found; findings: ${JSON.stringify(report.findings.map((it) => [it.object, it.message]))}`,
    );
  if (frame !== null && !report.findings.some((it) => it.object === name && it.offset === frame && it.frame !== null))
    throw new Error(
      `${what}: the frame is not named: ${JSON.stringify(report.findings.map((it) => [it.object, it.offset, it.frame, it.message]))}`,
    );
  judge(what, await place.readAll(), report);
}

test('a sound repository has no findings, with and without a key', async () => {
  expect((await place.verify()).findings).toEqual([]);
  expect((await place.scrub()).findings).toEqual([]);
  for (const result of (await place.readAll()).values())
    for (const got of result.values()) expect(got).toBeInstanceOf(Buffer);
});

describe('one flipped bit', () => {
  test.each([...place.objects.keys()])(
    'in %s is found, and never gives wrong bytes',
    { timeout: 180_000 },
    async (name) => {
      const bytes = place.objects.get(name)!;
      for (const region of await regionsOf(name, bytes)) {
        for (const at of placesOf(region)) {
          place.flip(name, at, at % 8);
          try {
            // Whole small objects are under one hash: reading all after each of their bytes would say the same again.
            if (region.frame !== null || at % 29 === 0)
              await check(name, `${name}: ${region.what}, byte ${at}`, region.frame);
            const scrubbed = await place.scrub();
            if (!scrubbed.findings.some(({ object }) => isAbout(object, name)))
              throw new Error(`${name}: ${region.what}, byte ${at}: not found without a key`);
          } finally {
            place.heal(name);
          }
        }
      }
    },
  );
});

describe('a cut', () => {
  test.each([...place.objects.keys()])(
    'of %s is found, and never gives wrong bytes',
    { timeout: 180_000 },
    async (name) => {
      const bytes = place.objects.get(name)!;
      const lengths = new Set([0, 1, 50, bytes.length - 1, Math.floor(bytes.length / 2)]);
      if (!name.endsWith('.cbor')) {
        for (const { offset, length } of (await scanArchive(memorySource(bytes))).frames)
          for (const at of [offset, offset + 30, offset + Math.floor(length / 2), offset + length - 1])
            if (at < bytes.length) lengths.add(at);
      }
      for (const length of lengths) {
        place.cut(name, length);
        try {
          await check(name, `${name} cut at ${length}`, null);
        } finally {
          place.heal(name);
        }
      }
    },
  );

  test('bytes that were added are found', async () => {
    for (const name of place.objects.keys()) {
      place.append(name, Buffer.from('x'));
      await check(name, `${name} with a byte added`, null);
      place.heal(name);
    }
  });
});

test('each missing object is found', async () => {
  for (const name of place.objects.keys()) {
    // Which keys there should be is written nowhere: removing one is how a passphrase is taken back.
    if (name.startsWith('keys/')) continue;
    place.remove(name);
    try {
      await check(name, `${name} removed`, null);
    } finally {
      place.bringBack(name);
    }
  }
});

test('each object in the place of another one is found', async () => {
  const names = [...place.objects.keys()];
  for (const name of names) {
    const folder = name.split('/')[0];
    const other = names.find((it) => it !== name && it.split('/')[0] === folder);
    if (other === undefined) continue;
    place.replace(name, place.objects.get(other)!);
    try {
      await check(name, `${other} in the place of ${name}`, null);
    } finally {
      place.heal(name);
    }
  }
});

test.each(['gone', 'cut', 'emptied'])('content whose archive is %s is not taken for stored', (what) => {
  const sandbox = new Sandbox();
  try {
    const source = join(sandbox.dir, 'source');
    mkdirSync(source);
    const content = noise(300_000, 5);
    writeFileSync(join(source, 'first'), content);
    sandbox.ok(['init']);
    sandbox.ok(['backup', source, '--set', 'one']);
    const data = join(sandbox.repo, 'data');
    const name = readdirSync(data, { recursive: true, encoding: 'utf8' }).find((it) => it.endsWith('.roz'))!;
    chmodSync(join(data, name), 0o600);
    if (what === 'gone') rmSync(join(data, name));
    else truncateSync(join(data, name), what === 'cut' ? 200_000 : 0);

    writeFileSync(join(source, 'second'), content);
    const again = sandbox.run(['backup', source, '--set', 'one']);
    expect(again).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(`data/${name} is gone, cut or altered.*verify`),
    });
    const target = join(sandbox.dir, 'target');
    sandbox.run(['restore', 'one@latest', '--target', target]);
    expect(readFileSync(join(target, 'second')).equals(content)).toBe(true);
    // Another machine, which has never seen it: all that it backs up can be restored.
    const elsewhere = { XDG_STATE_HOME: join(sandbox.dir, 'other state') };
    sandbox.ok(['backup', source, '--set', 'two'], 5);
    sandbox.ok(['backup', source, '--set', 'three'], 5, elsewhere);
    sandbox.ok(['restore', 'three@latest', '--target', join(sandbox.dir, 'whole')]);
    expect(readFileSync(join(sandbox.dir, 'whole/first')).equals(content)).toBe(true);
  } finally {
    sandbox.remove();
  }
});

const obstacle = mountObstacle();

describe.skipIf(obstacle !== null)('a mount of a repository with one damaged block', () => {
  const files = ['folder/first.bin', 'folder/second.bin', 'folder/third.bin', 'words'];
  let sandbox: Sandbox;
  let archive: string;
  beforeAll(() => {
    sandbox = new Sandbox();
    const source = join(sandbox.dir, 'source');
    mkdirSync(join(source, 'folder'), { recursive: true });
    writeFileSync(join(source, 'folder/first.bin'), noise(900 * 1024, 1));
    writeFileSync(join(source, 'folder/second.bin'), noise(900 * 1024, 2));
    writeFileSync(join(source, 'folder/third.bin'), noise(900 * 1024, 3));
    writeFileSync(join(source, 'words'), 'words\n'.repeat(1000));
    sandbox.ok(['init']);
    sandbox.ok(['backup', source, '--set', 'test']);
    const data = join(sandbox.repo, 'data');
    archive = readdirSync(data, { recursive: true, encoding: 'utf8' }).find((name) => name.endsWith('.roz'))!;
    const path = join(data, archive);
    chmodSync(path, 0o600);
    // 2.7 MB that do not compress: the middle lies in the middle one of the three large files.
    const middle = Math.floor(statSync(path).size / 2);
    const fd = openSync(path, 'r+');
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, middle);
    writeSync(fd, Buffer.from([byte[0]! ^ 0x10]), 0, 1, middle);
    closeSync(fd);
  });
  afterAll(() => sandbox.remove());

  /** The files that answer EIO; all others are as they were. */
  function unreadable(view: string): string[] {
    return files.filter((name) => {
      try {
        expect(readFileSync(join(view, name)).equals(readFileSync(join(sandbox.dir, 'source', name)))).toBe(true);
        return false;
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('EIO');
        return true;
      }
    });
  }

  test('gives EIO for the file that it concerns, all others, and says so in its status', async () => {
    const report = sandbox.json(['verify', '--read-data'], 5);
    expect(report.findings).toHaveLength(1);
    expect(report.findings[0]).toMatchObject({ kind: 'damaged', object: `data/${archive}`, frame: { type: 'DATA' } });
    const named = report.findings[0].files.map((file: { path: string }) => file.path);
    expect(named).toHaveLength(1);

    const view = join(sandbox.mount(), 'snapshots/test/latest');
    try {
      const failed = unreadable(view);
      expect(failed.map((name) => `/${name}`)).toEqual(named);
      // What lies before the damaged block can be read, also of that file.
      const torn = openSync(join(view, failed[0]!), 'r');
      const head = Buffer.alloc(4096);
      readSync(torn, head, 0, 4096, 0);
      closeSync(torn);
      expect(head.equals(readFileSync(join(sandbox.dir, 'source', failed[0]!)).subarray(0, 4096))).toBe(true);
      // A reader tells the main thread, which writes the status when it gets to it.
      const [id] = /[0-9a-f]{32}/.exec(archive)!;
      const told = new RegExp(`archive ${id}: DATA frame \\d+: authentication failed`);
      await until(
        () => told.test(readFileSync(join(sandbox.mountpoint, '.rozen/status'), 'utf8')),
        'the error in the status',
      );
    } finally {
      sandbox.unmount();
    }
  });

  test.runIf(isRoot)('lives on when its log has no room', async () => {
    const disk = join(sandbox.dir, 'disk');
    mkdirSync(disk);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]);
    sandbox.env.XDG_STATE_HOME = disk;
    const view = join(sandbox.mount(), 'snapshots/test/latest');
    try {
      const log = join(disk, 'rozen/log/mount.log');
      const fill = openSync(log, 'a');
      expect(() => {
        for (;;) writeSync(fill, Buffer.alloc(4096, '\n'));
      }).toThrow('ENOSPC');
      closeSync(fill);
      const { size } = statSync(log);
      expect(unreadable(view)).toHaveLength(1);
      const status = () => readFileSync(join(sandbox.mountpoint, '.rozen/status'), 'utf8');
      await until(() => status().includes('authentication failed'), 'the error in the status');
      expect(statSync(log).size).toBe(size);
      expect(unreadable(view)).toHaveLength(1);
    } finally {
      sandbox.unmount();
      execFileSync('umount', ['-l', disk]);
      sandbox.env.XDG_STATE_HOME = join(sandbox.dir, 'state');
    }
  });
});
