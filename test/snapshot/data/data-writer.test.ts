import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ALIGN_FROM, BLOCK_SIZE } from '../../../src/archive/format.ts';
import { HOLE, type StoredFile } from '../../../src/snapshot/data/types.ts';
import { describeFile, noise, Place } from './harness.ts';

const MIB = 1024 * 1024;

// A machine that is busy with other things may take its time.
vi.setConfig({ testTimeout: 240_000 });

let place: Place;
beforeEach(async () => {
  place = await Place.make();
});
afterEach(() => place.remove());

function archivesOf(files: readonly StoredFile[]): number[] {
  return [...new Set(files.flatMap((file) => file.extents.map((extent) => extent.archive)))].sort((a, b) => a - b);
}

describe('DataWriter', () => {
  it('stores small, large and empty files and gives them back, answers in order', async () => {
    const sizes = [0, 1, 2, 100, 128 * 1024, 128 * 1024 + 1, 300_000, 4 * MIB, 4 * MIB + 1, 9 * MIB + 17, 3, 2 * MIB];
    const contents = sizes.map((size, i) => noise(size, i + 1));
    const paths = contents.map((bytes, i) => place.put(`folder ${i % 3}/file ${i}`, bytes));
    const { files, contents: back, archives, stats } = await place.store(paths);
    expect(files.map((file) => file.status)).toEqual(sizes.map(() => 'stored'));
    expect(files.map((file) => file.restat)).toEqual(sizes.map(() => false));
    expect(files.map((file) => file.size)).toEqual(sizes);
    for (const [i, bytes] of contents.entries()) expect(back[i]!.equals(bytes)).toBe(true);
    expect(archives).toHaveLength(1);
    expect(archivesOf(files)).toEqual([archives[0]!.number]);
    expect(stats.files).toBe(sizes.length);
    expect(stats.bytes).toBe(sizes.reduce((a, b) => a + b));
    expect(stats.newBytes).toBe(stats.bytes);
    expect(place.objects('data')).toHaveLength(1);
    expect(place.objects('index')).toHaveLength(1);
  });

  it('stores names that are not UTF-8 and thousands of files', async () => {
    const index = await place.openIndex();
    const writer = await place.openWriter(index);
    const contents: Buffer[] = [];
    const stored: Promise<StoredFile>[] = [];
    const odd = Buffer.from(join(place.source, 'odd-\xff\xfe'), 'latin1');
    closeSync(openSync(odd, 'w'));
    const fd = openSync(odd, 'w');
    writeSync(fd, 'odd');
    closeSync(fd);
    const known = describeFile(place.put('like-odd', 'odd'));
    stored.push(writer.add({ ...known, path: odd }));
    contents.push(Buffer.from('odd'));
    for (let i = 0; i < 3000; i++) {
      contents.push(Buffer.from(`content number ${i} `.repeat(1 + (i % 50))));
      const path = place.put(`d${i % 7}/f${i}`, contents.at(-1)!);
      if (writer.full) await writer.ready();
      stored.push(writer.add(describeFile(path)));
    }
    await writer.finish();
    const back = await place.readBack(index, await Promise.all(stored));
    expect(back.every((bytes, i) => bytes.equals(contents[i]!))).toBe(true);
    await index.close();
  });

  it('answers a single file without flush or finish', async () => {
    const index = await place.openIndex();
    const writer = await place.openWriter(index);
    expect((await writer.add(describeFile(place.put('a', 'alone')))).status).toBe('stored');
    expect((await writer.add(describeFile(place.put('b', 'again')))).status).toBe('stored');
    await writer.finish();
    await index.close();
  });

  it('writes no archive when nothing is new, and finds duplicates across runs, files and machines', async () => {
    const paths = [place.put('a', noise(3 * MIB, 1)), place.put('b', 'small'), place.put('c', noise(7 * MIB, 2))];
    const first = await place.store(paths);
    expect(first.archives).toHaveLength(1);

    const again = await place.store(paths);
    expect(again.archives).toHaveLength(0);
    expect(again.stats.newBytes).toBe(0);
    expect(again.files.map(({ extents, contentId }) => ({ extents, contentId }))).toEqual(
      first.files.map(({ extents, contentId }) => ({ extents, contentId })),
    );

    // A machine without any state but the right to write: everything comes from the store's chunk tables.
    const index = await place.openIndex('other-machine');
    expect(await index.sync()).toEqual({ added: 1, removed: 0, lost: [], ignored: [] });
    expect(await index.sync()).toEqual({ added: 0, removed: 0, lost: [], ignored: [] });
    const writer = await place.openWriter(index);
    const copies = [place.put('copy', readFileSync(paths[2]!)), place.put('copy2', 'small')];
    const stored = copies.map((path) => writer.add(describeFile(path)));
    expect((await writer.finish()).archives).toHaveLength(0);
    const [back] = await place.readBack(index, await Promise.all(stored));
    expect(back!.equals(noise(7 * MIB, 2))).toBe(true);
    await index.close();
  });

  it('finds duplicates within a run, also inside one file', async () => {
    const block = noise(6 * MIB, 3);
    const zeros = Buffer.alloc(12 * MIB);
    const paths = [
      place.put('a', block),
      place.put('b', block),
      place.put('zeros', zeros),
      place.put('s1', 'x'),
      place.put('s2', 'x'),
    ];
    const { files, contents, stats } = await place.store(paths);
    expect(contents[1]!.equals(block)).toBe(true);
    expect(contents[2]!.equals(zeros)).toBe(true);
    expect(files[1]!.newBytes).toBe(0);
    expect(files[1]!.contentId.equals(files[0]!.contentId)).toBe(true);
    expect(files[2]!.newBytes).toBe(2 * MIB);
    expect(files[4]!.extents).toEqual(files[3]!.extents);
    expect(stats.newBytes).toBe(8 * MIB + 1);
  });

  it('stores only what changed of a large file', async () => {
    const before = noise(24 * MIB, 4);
    const path = place.put('big', before);
    await place.store([path]);
    const after = Buffer.concat([before.subarray(0, 10 * MIB), Buffer.from('inserted'), before.subarray(10 * MIB)]);
    place.put('big', after);
    const { files, contents } = await place.store([path]);
    expect(contents[0]!.equals(after)).toBe(true);
    expect(files[0]!.newBytes).toBeLessThan(5 * MIB);
  });

  it('lets large files lie in phase with the blocks', async () => {
    const paths = [place.put('a', 'something first'), place.put('big', noise(ALIGN_FROM + 5 * MIB, 5))];
    const { files } = await place.store(paths);
    for (const { offset, length, streamOffset } of files[1]!.extents) {
      if (length >= MIB || offset === 0) expect(streamOffset % BLOCK_SIZE).toBe(offset % BLOCK_SIZE);
    }
    expect(files[1]!.extents.length).toBeLessThanOrEqual(4);
  });

  it('keeps holes', async () => {
    const path = place.put('sparse', '');
    const size = 40 * MIB + 123;
    const fd = openSync(path, 'r+');
    writeSync(fd, noise(MIB, 6), 0, MIB, 8 * MIB);
    writeSync(fd, 'tail of data', 30 * MIB);
    closeSync(fd);
    truncateSync(path, size);
    const allHole = place.put('hole', '');
    truncateSync(allHole, 5 * MIB);
    const file = describeFile(path);
    expect(file.sparse).toBe(true);
    const { files, contents, stats } = await place.store([path, allHole]);
    expect(contents[0]!.equals(readFileSync(path))).toBe(true);
    expect(files[0]!.extents.filter((extent) => extent.archive === HOLE).length).toBeGreaterThanOrEqual(2);
    expect(files[0]!.extents[0]).toEqual({ offset: 0, length: 8 * MIB, archive: HOLE, streamOffset: 0 });
    expect(files[1]!.extents).toEqual([{ offset: 0, length: 5 * MIB, archive: HOLE, streamOffset: 0 }]);
    expect(stats.newBytes).toBeLessThan(2 * MIB);
    // The id is that of the whole content, however it lies on the disk.
    const dense = place.put('dense', readFileSync(path));
    const again = await place.store([dense]);
    expect(again.files[0]!.contentId.equals(files[0]!.contentId)).toBe(true);
  });

  it('says what it could not read, and stores the rest', async () => {
    const paths = ['a', 'gone', 'folder', 'link', 'b'].map((name) => place.put(name, `content of ${name}`));
    const files = paths.map((path) => describeFile(path));
    unlinkSync(paths[1]!);
    rmSync(paths[2]!);
    mkdirSync(paths[2]!);
    rmSync(paths[3]!);
    symlinkSync('a', paths[3]!);
    const large = describeFile(place.put('large gone', Buffer.alloc(5 * MIB)));
    unlinkSync(join(place.source, 'large gone'));
    const index = await place.openIndex();
    const writer = await place.openWriter(index);
    const stored = await Promise.all([...files, large].map((file) => writer.add(file)));
    expect(stored.map((file) => file.status)).toEqual([
      'stored',
      'vanished',
      'vanished',
      'vanished',
      'stored',
      'vanished',
    ]);
    expect(stored[1]!.error).toBe('no such file or folder');
    expect(stored[3]!.error).toBe('too many symbolic links');
    await writer.finish();
    await index.close();
  });

  it('tells when the walk has seen an older file, and stores the new one', async () => {
    const small = place.put('small', 'before');
    const grown = place.put('grown', 'before');
    const files = [small, grown].map((path) => describeFile(path));
    place.put('small', 'after!!');
    place.put('grown', noise(6 * MIB, 7));
    const index = await place.openIndex();
    const writer = await place.openWriter(index);
    const stored = await Promise.all(files.map((file) => writer.add(file)));
    await writer.finish();
    expect(stored.map(({ status, restat, size }) => ({ status, restat, size }))).toEqual([
      { status: 'stored', restat: true, size: 7 },
      { status: 'stored', restat: true, size: 6 * MIB },
    ]);
    const back = await place.readBack(index, stored);
    expect(back[0]!.toString()).toBe('after!!');
    expect(back[1]!.equals(noise(6 * MIB, 7))).toBe(true);
    await index.close();
  });

  it('never takes a file that changes all the time for whole', async () => {
    const log = place.put('log', noise(64 * MIB, 8));
    const index = await place.openIndex();
    const writer = await place.openWriter(index);
    const file = describeFile(log);
    let done = false;
    const stored = writer.add(file).finally(() => {
      done = true;
    });
    // Changes between any two pieces: the main thread runs while a worker reads.
    while (!done) {
      appendFileSync(log, 'line\n');
      await new Promise((resolve) => setImmediate(resolve));
    }
    const result = await stored;
    expect(result).toMatchObject({ status: 'changed', restat: true, retries: 2 });
    expect(result.error).toContain('changed');
    await writer.finish();
    const [back] = await place.readBack(index, [result]);
    expect(back!.length).toBe(result.size);
    expect(back!.subarray(0, 64 * MIB).equals(noise(64 * MIB, 8))).toBe(true);
    await index.close();
  });

  it('keeps different contents apart that share an id', async () => {
    // Ids of one byte: nearly everything collides. What is at hand is compared, what has another length is told apart.
    const contents = Array.from({ length: 400 }, (_, i) => noise(50 + (i % 90), i + 1));
    const paths = contents.map((bytes, i) => place.put(`f${i}`, bytes));
    const first = await place.store(paths, { idBytes: 1 });
    expect(first.contents.every((bytes, i) => bytes.equals(contents[i]!))).toBe(true);
    // In a later run lengths decide: as many as there are ordinals, and none is lost.
    const others = Array.from({ length: 40 }, (_, i) => noise(1000 + i, i + 1));
    const second = await place.store(
      others.map((bytes, i) => place.put(`g${i}`, bytes)),
      { idBytes: 1 },
    );
    expect(second.contents.every((bytes, i) => bytes.equals(others[i]!))).toBe(true);
  });

  it('stops at an abort and goes on in the next run', async () => {
    const paths = Array.from({ length: 30 }, (_, i) => place.put(`f${i}`, noise(MIB, i + 1)));
    const index = await place.openIndex();
    const controller = new AbortController();
    const writer = await place.openWriter(index, { signal: controller.signal });
    const stored = paths.map((path) => writer.add(describeFile(path)));
    const settled = Promise.allSettled(stored);
    await stored[4];
    controller.abort();
    expect((await settled).some((result) => result.status === 'rejected')).toBe(true);
    await expect(writer.finish()).rejects.toMatchObject({ code: 'interrupted' });
    await writer.abort();
    await index.close();
    const { contents, archives } = await place.store(paths);
    expect(contents.every((bytes, i) => bytes.equals(noise(MIB, i + 1)))).toBe(true);
    expect(archives).toHaveLength(1);
  });
});

describe('packs', () => {
  const options = { archiveSize: 8 * MIB, overrun: 2 * MIB };

  it('closes packs near their goal, and gives large files archives of their own', async () => {
    const paths = [3, 3, 9, 3, 3, 3, 3, 20, 1].map((size, i) => place.put(`f${i}`, noise(size * MIB, i + 1)));
    const { files, archives, contents } = await place.store(paths, options);
    expect(contents.every((bytes, i) => bytes.equals(readFileSync(paths[i]!)))).toBe(true);
    const at = files.map((file) => archivesOf([file]));
    expect(at.every((numbers) => numbers.length === 1)).toBe(true);
    const [a, b, big, c, d, , , huge] = at.map((numbers) => numbers[0]);
    expect(a).toBe(b);
    // 3 + 3 + 3 runs over the goal within the allowance; then the pack is closed.
    expect(c).toBe(a);
    expect(d).not.toBe(a);
    expect([big, huge].map((own) => at.filter(([number]) => number === own).length)).toEqual([1, 1]);
    expect(archives.length).toBe(5);
  });

  it('opens a second pack for a file that would run over, and goes on filling the first', async () => {
    const paths = [6, 7, 1].map((size, i) => place.put(`f${i}`, noise(size * MIB, i + 1)));
    const { files } = await place.store(paths, options);
    const [a, b, c] = files.map((file) => archivesOf([file])[0]);
    expect(b).not.toBe(a);
    expect([a, b]).toContain(c);
  });

  it('adds the few new bytes of a known large file to a pack', async () => {
    const before = noise(20 * MIB, 1);
    const path = place.put('image', before);
    await place.store([path], options);
    before.fill(7, 10 * MIB, 10 * MIB + 100);
    place.put('image', before);
    const { archives, contents } = await place.store([place.put('a', 'first'), path, place.put('z', 'last')], options);
    expect(archives).toHaveLength(1);
    expect(contents[1]!.equals(before)).toBe(true);
  });

  it('refers to no older archive when self-contained', async () => {
    const paths = [place.put('a', noise(3 * MIB, 1)), place.put('b', 'same'), place.put('c', 'same')];
    const first = await place.store(paths);
    const second = await place.store(paths, { selfContained: true });
    expect(second.archives).toHaveLength(1);
    expect(archivesOf(second.files)).not.toContain(first.archives[0]!.number);
    expect(second.files[1]!.extents).toEqual(second.files[2]!.extents);
    expect(second.contents[0]!.equals(noise(3 * MIB, 1))).toBe(true);
  });
});
