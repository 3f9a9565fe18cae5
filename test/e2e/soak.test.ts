/**
 * Many readers of all snapshots at once, compared byte by byte with what was backed up, while new snapshots appear. A few
 * seconds in the everyday suite; `npm run test:soak` goes on for ten minutes (ROZEN_SOAK_SECONDS).
 */
import { constants, copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type FileHandle, lstat, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { noise } from './odd-tree.ts';
import { mountObstacle, Sandbox, until } from './rozen.ts';

const SECONDS = Number(process.env.ROZEN_SOAK_SECONDS ?? 4);
const READERS = 64;
const SNAPSHOTS = 3;
/** How often a snapshot is added. */
const ROUNDS = SECONDS < 60 ? 1 : 8;
const KIB = 1024;

/** xorshift32: each reader has its own walk, which can be repeated. */
function chooser(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** A folder whose files change with each version: sizes from nothing to some blocks, text, noise and holes. */
function makeVersion(folder: string, version: number): Map<string, Buffer> {
  mkdirSync(folder, { recursive: true });
  const contents = new Map<string, Buffer>();
  for (let n = 0; n < 80; n++) {
    const seed = n % 4 === 0 ? version : 1;
    const size = n % 16 === 0 ? 3000 * KIB + n * 777 : (n * n * 53) % (300 * KIB);
    const bytes =
      n % 3 === 0 ? Buffer.alloc(size, `version ${seed} of file ${n}, again and again. `) : noise(size, n * 100 + seed);
    if (n % 7 === 0 && size > 128 * KIB) bytes.fill(0, 16 * KIB, 112 * KIB);
    contents.set(`file-${n}`, bytes);
    writeFileSync(join(folder, `file-${n}`), bytes);
  }
  return contents;
}

describe.skipIf(mountObstacle() !== null)(`${READERS} readers for ${SECONDS} s`, () => {
  const box = new Sandbox();
  afterAll(() => box.remove());

  function server(): number {
    const own = (pid: string) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(`rozen mount ${box.mountpoint}`);
      } catch {
        return false;
      }
    };
    return Number(readdirSync('/proc').find((pid) => /^[0-9]+$/.test(pid) && own(pid)));
  }
  const descriptors = (pid: number) => readdirSync(`/proc/${pid}/fd`).length;
  const memory = (pid: number) =>
    Number(/^VmRSS:\s+([0-9]+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * KIB;

  test(
    'not one wrong byte, no descriptor left, no growing memory',
    async () => {
      const source = join(box.dir, 'source');
      const versions: Map<string, Buffer>[] = [];
      box.ok(['init']);
      for (let version = 1; version <= SNAPSHOTS; version++) {
        versions.push(makeVersion(source, version));
        box.ok(['backup', source, '--set', 's', '--archive-size', '8M']);
      }
      const set = join(box.mount(), 'snapshots/s');
      const pid = server();
      const places = readdirSync(set)
        .filter((name) => name !== 'latest')
        .sort()
        .map((name) => join(set, name));
      expect(places.length).toBe(SNAPSHOTS);
      let checked = 0;

      async function readOne(file: FileHandle, expected: Buffer, random: (below: number) => number, what: string) {
        for (let i = 0; i < 8; i++) {
          const offset = random(expected.length + 1);
          const size = 1 + random(random(4) === 0 ? 1200 * KIB : 20 * KIB);
          const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(size), 0, size, offset);
          if (!buffer.subarray(0, bytesRead).equals(expected.subarray(offset, offset + size)))
            throw new Error(`${what} at ${offset} for ${size}: ${bytesRead} bytes, wrong ones`);
          checked++;
        }
      }

      async function reader(seed: number, end: number): Promise<void> {
        const random = chooser(seed);
        while (performance.now() < end) {
          const version = random(SNAPSHOTS);
          const name = `file-${random(80)}`;
          const expected = versions[version]!.get(name)!;
          const path = join(places[version]!, name);
          if (random(10) === 0) {
            expect((await readdir(places[version]!)).length).toBe(80);
            expect((await lstat(path)).size).toBe(expected.length);
          }
          // Past the kernel's page cache most of the time: the server is what is tested.
          const file = await open(path, constants.O_RDONLY | (random(4) > 0 ? constants.O_DIRECT : 0));
          try {
            await readOne(file, expected, random, path);
          } finally {
            await file.close();
          }
        }
      }

      const all = async (seconds: number, seed: number): Promise<void> => {
        const end = performance.now() + seconds * 1000;
        await Promise.all(Array.from({ length: READERS }, (_, i) => reader(seed + i * 7919, end)));
      };
      // Until memory is what it will be: caches are full, code is compiled.
      await all(Math.min(SECONDS / 2, 60), 1);
      const before = { descriptors: descriptors(pid), memory: memory(pid) };
      for (let round = 0; round < ROUNDS; round++) {
        await all(SECONDS / 2 / ROUNDS, 1_000_003 * (round + 1));
        // A snapshot more, while others read; it shows, and what was there stays.
        copyFileSync(join(source, 'file-1'), join(source, `more-${round}`));
        const backup = box.start(['backup', source, '--set', 's', '--archive-size', '8M']);
        const ended = new Promise((resolve) => backup.on('close', resolve));
        await all(SECONDS / 2 / ROUNDS, 2_000_003 * (round + 1));
        expect(await ended).toBe(0);
        await until(() => readdirSync(set).length === SNAPSHOTS + 2 + round, 'the new snapshot');
      }
      const after = { descriptors: descriptors(pid), memory: memory(pid) };
      expect(checked).toBeGreaterThan(SECONDS * 20);
      expect(server()).toBe(pid);
      // Each new snapshot may open an archive or two in each thread; a leak would be one for each of thousands of reads.
      expect(after.descriptors - before.descriptors).toBeLessThan(ROUNDS * 2 * 5);
      expect(after.memory).toBeLessThan(before.memory * 1.25 + 48 * KIB * KIB);
      const status = readFileSync(join(box.mountpoint, '.rozen/status'), 'utf8');
      expect(status).toMatch(/^errors +none/m);
      expect(status).toMatch(/^blocks failed +0/m);
      process.stdout.write(
        `soak: ${checked} reads, memory ${before.memory / KIB ** 2} to ${after.memory / KIB ** 2} MiB, descriptors ${before.descriptors} to ${after.descriptors}\n`,
      );
      box.unmount();
    },
    SECONDS * 4000 + 120_000,
  );
});
