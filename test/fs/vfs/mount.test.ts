import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mountObstacle, until } from '../kernel/mounted.ts';
import type { ModelEntry } from './model.ts';
import { entriesOf } from './real-folder.ts';
import { type Committed, TestRepository } from './repository.ts';

const KIB = 1024;
const folder = mkdtempSync(join(tmpdir(), 'rozen-vfs-mount-'));
const source = fileURLToPath(new URL('../../../node_modules/typescript', import.meta.url));
const mountpoint = join(folder, 'mnt');
const latest = join(mountpoint, 'snapshots/modules/latest');
const contents = new Map<string, Buffer>();
let made: TestRepository;
let older: Committed;
let child: ChildProcess;
let exited: Promise<number | null>;
let output = '';

/** Files from nothing to some blocks, with holes, most of them small. */
function soakEntries(salt: number): ModelEntry[] {
  const entries: ModelEntry[] = [{ path: '', type: 'folder', mtimeSec: salt }];
  for (let n = 0; n < 60; n++) {
    const size = n % 10 === 0 ? 900 * KIB + n : (n * n * 37) % (96 * KIB);
    const bytes = randomBytes(size);
    const name = `f${n}`;
    const hole = n % 7 === 0 ? 200 * KIB : 0;
    contents.set(`${salt}/${name}`, Buffer.concat([bytes, Buffer.alloc(hole)]));
    entries.push({ path: name, type: 'file', content: hole > 0 ? [bytes, { hole }] : [bytes] });
  }
  return entries;
}

beforeAll(async () => {
  if (mountObstacle() !== null) return;
  made = await TestRepository.create(folder);
  await made.commit('modules', entriesOf(source));
  older = await made.commit('soak', soakEntries(1), { timeSec: 1_800_000_000 });
  await made.commit('soak', soakEntries(2), { timeSec: 1_800_000_060 });
  mkdirSync(mountpoint);
  // Few block slots: they are taken from each other all the time.
  const { location } = made.store;
  const options = {
    store: location,
    identityFile: made.identityFile,
    mountpoint,
    blockBytes: 2 * KIB * KIB,
    pollMs: 200,
  };
  child = spawn(process.execPath, [fileURLToPath(new URL('./serve.mjs', import.meta.url)), JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  exited = new Promise((resolve) => child.on('close', resolve));
  child.stdout!.on('data', (text) => {
    output += String(text);
  });
  await until(() => output.includes('ready') || child.exitCode !== null, 'a mount');
});

afterAll(async () => {
  if (child !== undefined) {
    child.kill('SIGTERM');
    await exited;
  }
  delete process.env.ROZEN_STATE_DIR;
  rmSync(folder, { recursive: true, force: true });
});

function status(): string {
  return readFileSync(join(mountpoint, '.rozen/status'), 'utf8');
}

describe.skipIf(mountObstacle() !== null)('a mounted repository', () => {
  it('holds what the folder holds', () => {
    execFileSync('diff', ['-r', '--no-dereference', source, `${latest}/`]);
    const find = (place: string) =>
      execFileSync('find', [place, '-printf', '%P %y %m %U %G %T@ %l\n'], { maxBuffer: 2 ** 26 })
        .toString()
        .split('\n');
    expect(find(`${latest}/`).sort()).toEqual(find(source).sort());
  });

  it('gives the right bytes to many readers at once, of two snapshots, with too little memory for blocks', async () => {
    const names = [...contents.keys()];
    const places = ['2027-01-15T08.00.00Z', 'latest'];
    let checked = 0;
    const reader = async (seed: number) => {
      let state = seed;
      const random = (below: number) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * below);
      };
      for (let round = 0; round < 60; round++) {
        const key = names[random(names.length)]!;
        const expected = contents.get(key)!;
        const [salt, name] = key.split('/') as [string, string];
        const file = await open(join(mountpoint, 'snapshots/soak', places[Number(salt) - 1]!, name));
        try {
          for (let part = 0; part < 5; part++) {
            const offset = random(expected.length + 1);
            const bytes = Buffer.alloc(1 + random(300 * KIB));
            const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
            const wanted = expected.subarray(offset, offset + bytes.length);
            if (bytesRead !== wanted.length || !bytes.subarray(0, bytesRead).equals(wanted))
              throw new Error(`${key} ${offset}`);
            checked++;
          }
        } finally {
          await file.close();
        }
      }
    };
    await Promise.all(Array.from({ length: 16 }, (_, index) => reader(index + 1)));
    expect(checked).toBe(16 * 60 * 5);
    for (const key of names) {
      const [salt, name] = key.split('/') as [string, string];
      const whole = await readFile(join(mountpoint, 'snapshots/soak', places[Number(salt) - 1]!, name));
      const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
      expect(digest(whole)).toBe(digest(contents.get(key)!));
    }
    output = '';
    child.kill('SIGUSR2');
    await until(() => output.includes('\n'), 'the counters');
    expect(JSON.parse(output).pinned).toBe(0);
  });

  it('shows its status, and cannot be written to', () => {
    expect(status()).toMatch(/blocks decoded +[1-9]/);
    expect(status()).toMatch(/errors +none/);
    expect(() => writeFileSync(join(latest, 'new'), '')).toThrow(/EROFS/);
  });

  it('shows a snapshot that is made while it stands', async () => {
    const set = join(mountpoint, 'snapshots/soak');
    const before = readdirSync(set);
    expect(readdirSync(join(set, 'latest'))).toContain('f1');
    const entries: ModelEntry[] = [
      { path: '', type: 'folder', mtimeSec: 3 },
      { path: 'fresh', type: 'file', content: [Buffer.from('fresh')] },
    ];
    await made.commit('soak', entries, { timeSec: 1_800_000_120 });
    await until(() => readdirSync(set).length > before.length, 'the new snapshot');
    await until(() => existsSync(join(set, 'latest', 'fresh')), 'latest');
    expect(readFileSync(join(set, 'latest', 'fresh'), 'utf8')).toBe('fresh');
    expect(readdirSync(join(mountpoint, 'versions/soak'))).toContain('fresh');
  });

  it('answers EIO for what is gone, says so once, and reads it when it is back', async () => {
    const file = join(mountpoint, 'by-id', older.id, 'f10');
    const gone = await made.commit('gone', [
      { path: '', type: 'folder' },
      { path: 'f', type: 'file', content: [Buffer.from('still here')] },
    ]);
    const place = join(mountpoint, 'snapshots/gone/latest/f');
    await until(() => existsSync(place), 'the new set');
    const object = join(made.store.location, gone.data!);
    renameSync(object, `${object}.away`);
    expect(() => readFileSync(place)).toThrow(/EIO/);
    expect(() => readFileSync(place)).toThrow(/EIO/);
    expect(readFileSync(file).length).toBeGreaterThan(0);
    await until(() => status().includes(gone.data!), 'the error in the status');
    expect(
      status()
        .split('\n')
        .filter((line) => line.includes(gone.data!)).length,
    ).toBe(1);
    renameSync(`${object}.away`, object);
    expect(readFileSync(place, 'utf8')).toBe('still here');
  });
});
