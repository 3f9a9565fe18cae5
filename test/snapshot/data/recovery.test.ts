/** Spools as a crash, a power cut or a sick disk may leave them. */
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { memorySource } from '../../../src/archive/reader.ts';
import { scanArchive, streamFrames } from '../../../src/archive/scan.ts';
import { RozenError } from '../../../src/errors.ts';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { describeFile, noise, Place } from './harness.ts';

const MIB = 1024 * 1024;

let place: Place;
beforeEach(async () => {
  place = await Place.make();
});
afterEach(() => place.remove());

/** Stores half of the files and stops: the spool holds an archive without a tail. Returns its path. */
async function leaveSpool(paths: readonly string[]): Promise<string> {
  const index = await place.openIndex();
  const writer = await place.openWriter(index);
  for (const path of paths) await writer.add(describeFile(path));
  // All blocks but the last, which is not full, reach the spool.
  const full = Math.floor(writer.stats.newBytes / (256 * 1024)) * 256 * 1024;
  while (writer.stats.sealedBytes < full) await new Promise((resolve) => setImmediate(resolve));
  await writer.abort();
  await index.close();
  const [name] = readdirSync(place.spool).filter((entry) => entry.endsWith('.roz'));
  return join(place.spool, name!);
}

describe('recovery', () => {
  it('keeps the whole frames of a spool that is cut or damaged anywhere', { timeout: 400_000 }, async () => {
    const paths = Array.from({ length: 12 }, (_, i) => place.put(`f${i}`, noise(MIB - 5000 * i, i + 1)));
    const spoolFile = await leaveSpool(paths.slice(0, 6));
    const good = readFileSync(spoolFile);
    const saved = join(place.root, 'saved');
    cpSync(place.spool, saved, { recursive: true });
    for (let round = 0; round < 14; round++) {
      rmSync(place.spool, { recursive: true, force: true });
      cpSync(saved, place.spool, { recursive: true });
      for (const name of [...place.objects('data'), ...place.objects('index')]) unlinkSync(join(place.storePath, name));
      rmSync(join(place.root, 'dedup'), { recursive: true, force: true });
      const at = Math.floor((good.length - 1) * (round / 13));
      if (round % 2 === 0) truncateSync(spoolFile, at);
      else {
        const bad = Buffer.from(good);
        bad[at] = bad[at]! ^ 0x40;
        writeFileSync(spoolFile, bad);
      }
      const scan = await scanArchive(memorySource(readFileSync(spoolFile)));
      const whole = scan.header === null ? [] : streamFrames(scan);
      const { archives, contents, stats } = await place.store(paths);
      expect(contents.every((bytes, i) => bytes.equals(readFileSync(paths[i]!)))).toBe(true);
      expect(archives).toHaveLength(1);
      const end = whole.length === 0 ? 0 : whole.at(-1)!.offset + whole.at(-1)!.length;
      expect(stats.recoveredBytes).toBe(end);
      const final = readFileSync(join(place.storePath, place.objects('data')[0]!));
      expect(final.subarray(0, end).equals(good.subarray(0, end))).toBe(true);
    }
  });

  it('cuts a tail off that was not finished, and continues', async () => {
    const paths = [place.put('a', noise(3 * MIB, 1)), place.put('b', noise(3 * MIB, 2))];
    const first = await place.store(paths.slice(0, 1));
    const [data] = place.objects('data');
    const [rix] = place.objects('index');
    // The state right before the archive was complete, made from the finished one: its last bytes are missing.
    const whole = readFileSync(join(place.storePath, data!));
    const spoolFile = await leaveSpool([paths[1]!]);
    const id = spoolFile.slice(-36, -4);
    expect(whole.length).toBe(first.archives[0]!.archive.size);
    expect(rix).toBeDefined();
    const { archives } = await place.store(paths);
    expect(archives.map(({ archive }) => archive.id.toString('hex'))).toEqual([id]);
  });

  it('goes on with the archive of one large file', async () => {
    const path = place.put('huge', noise(30 * MIB, 1));
    const options = { archiveSize: 16 * MIB, overrun: MIB };
    const index = await place.openIndex();
    const writer = await place.openWriter(index, options);
    const stored = writer.add(describeFile(path));
    stored.catch(() => {});
    while (writer.stats.sealedBytes < 10 * MIB) await new Promise((resolve) => setImmediate(resolve));
    await writer.abort();
    await index.close();
    const [spooled] = readdirSync(place.spool).filter((entry) => entry.endsWith('.roz'));
    const { archives, contents, files, stats } = await place.store([place.put('first', 'small'), path], options);
    expect(contents[1]!.equals(readFileSync(path))).toBe(true);
    expect(stats.recoveredBytes).toBeGreaterThan(9 * MIB);
    const own = archives.find(({ archive }) => `${archive.id.toString('hex')}.roz` === spooled);
    expect(new Set(files[1]!.extents.map((extent) => extent.archive))).toEqual(new Set([own!.number]));
    expect(files[1]!.newBytes).toBeLessThan(21 * MIB);
  });

  it('removes what nothing can open', async () => {
    const spoolFile = await leaveSpool([place.put('a', noise(2 * MIB, 1))]);
    const key = spoolFile.replace(/roz$/, 'cbor');
    unlinkSync(key);
    const { stats } = await place.store([place.put('b', 'b')]);
    expect(stats.recoveredBytes).toBe(0);
    expect(readdirSync(place.spool)).toEqual([]);
    writeFileSync(key, 'not CBOR at all');
    await place.store([place.put('c', 'c')]);
    expect(readdirSync(place.spool)).toEqual([]);
  });

  it('removes a spool that holds no block yet', async () => {
    const spoolFile = await leaveSpool([place.put('a', noise(MIB, 1))]);
    const scan = await scanArchive(memorySource(readFileSync(spoolFile)));
    truncateSync(spoolFile, scan.frames[0]!.length);
    await place.store([]);
    expect(readdirSync(place.spool)).toEqual([]);
    expect(place.objects('data')).toEqual([]);
  });

  it('ends an archive whose recipients are not the repository’s any more, instead of adding to it', async () => {
    const paths = [place.put('a', noise(2 * MIB, 1)), place.put('b', noise(MIB, 2))];
    const spoolFile = await leaveSpool([paths[0]!]);
    place.repository.config = { ...place.repository.config, number: 2 };
    const { archives } = await place.store(paths);
    expect(archives).toHaveLength(2);
    expect(archives.map(({ archive }) => `${archive.id.toString('hex')}.roz`)).toContain(spoolFile.slice(-36));
  });

  /** A store in which some calls fail, once. */
  function failing(broken: (operation: 'put' | 'putFile', name: string) => 'before' | 'after' | null): ObjectStore {
    const inner = place.repository.store;
    const attempt = async (operation: 'put' | 'putFile', name: string, work: () => Promise<void>): Promise<void> => {
      const when = broken(operation, name);
      if (when !== 'before') await work();
      if (when !== null) throw new RozenError('io', 'the network is gone', { retryable: true });
    };
    return new Proxy(inner, {
      get(target, property) {
        if (property === 'put')
          return (name: string, bytes: Uint8Array) => attempt('put', name, () => inner.put(name, bytes));
        if (property === 'putFile')
          return (name: string, path: string) => attempt('putFile', name, () => inner.putFile(name, path));
        const value = Reflect.get(target, property) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  for (const [what, operation, when, consumed] of [
    ['before the store has the data', 'putFile', 'before', false],
    ['after the store has the data, unacknowledged', 'putFile', 'after', false],
    ['after the store has the data, having consumed the file', 'putFile', 'after', true],
    ['before the store has the index', 'put', 'before', false],
    ['before the store has the index, having consumed the file', 'put', 'before', true],
    ['after the store has the index, unacknowledged', 'put', 'after', false],
    ['after the store has the index, having consumed the file', 'put', 'after', true],
  ] as const) {
    it(`stores a sealed archive once when the store fails ${what}`, async () => {
      const paths = [place.put('a', noise(3 * MIB, 1)), place.put('b', 'b')];
      const index = await place.openIndex();
      const { repository } = place;
      const { store } = repository;
      Object.defineProperty(repository, 'store', { value: failing((op) => (op === operation ? when : null)) });
      const writer = await place.openWriter(index);
      const stored = paths.map((path) => writer.add(describeFile(path)));
      await expect(writer.finish()).rejects.toMatchObject({ code: 'io' });
      await Promise.allSettled(stored);
      await writer.abort();
      await index.close();
      Object.defineProperty(repository, 'store', { value: store });
      const left = readdirSync(place.spool);
      expect(
        left
          .map((name) => name.slice(33))
          .sort()
          .slice(0, 2),
      ).toEqual(['cbor', 'rix']);
      const spoolFile = join(place.spool, left[0]!.replace(/[a-z]+$/, 'roz'));
      const [object] = place.objects('data');
      if (consumed) rmSync(spoolFile, { force: true });
      if (!consumed && object !== undefined) cpSync(join(place.storePath, object), spoolFile);

      const again = await place.store(paths);
      expect(again.stats.newBytes).toBe(0);
      expect(again.contents[0]!.equals(readFileSync(paths[0]!))).toBe(true);
      expect(place.objects('data')).toHaveLength(1);
      expect(place.objects('index')).toHaveLength(1);
      expect(again.archives).toHaveLength(1);
      expect(readdirSync(place.spool)).toEqual([]);
    });
  }

  it('forgets a consumed spool file that the store does not have', async () => {
    const spoolFile = await leaveSpool([place.put('a', noise(MIB, 1))]);
    writeFileSync(spoolFile.replace(/roz$/, 'rix'), 'the index object');
    unlinkSync(spoolFile);
    const { archives } = await place.store([join(place.source, 'a')]);
    expect(archives).toHaveLength(1);
    expect(existsSync(spoolFile.replace(/roz$/, 'rix'))).toBe(false);
  });
});
