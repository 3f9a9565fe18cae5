import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ALIGN_FROM, BLOCK_SIZE, MEDIA_HEAD } from '../../../src/archive/format.ts';
import { holdsHeads } from '../../../src/archive/header.ts';
import { scanArchive } from '../../../src/archive/scan.ts';
import { isMedia } from '../../../src/snapshot/data/media.ts';
import { describeFile, names, noise, Place } from './harness.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const JPEG = [0xff, 0xd8, 0xff, 0xe1];

vi.setConfig({ testTimeout: 240_000 });

function media(size: number, seed: number, magic: readonly number[] = JPEG): Buffer {
  const bytes = noise(size, seed);
  bytes.set(magic);
  return bytes;
}

describe('isMedia', () => {
  const of = (text: string, length = 64) => Buffer.concat([Buffer.from(text, 'latin1'), Buffer.alloc(length)]);
  const packet = (size: number, time: number) => {
    const bytes = Buffer.alloc(size * 5);
    for (let at = time; at < bytes.length; at += size) bytes[at] = 0x47;
    return bytes;
  };

  it.each([
    ['jpeg', of('\xff\xd8\xff\xe0')],
    ['nef, cr2, arw, dng', of('II*\0')],
    ['pef', of('MM\0*')],
    ['raf', of('FUJIFILMCCD-RAW 0201')],
    ['heic', of('\0\0\0\x18ftypheic')],
    ['cr3', of('\0\0\0\x18ftypcrx ')],
    ['mp4', of('\0\0\0\x18ftypmp42')],
    ['mov', of('\0\0\0\x08wide\0\0\0\0mdat')],
    ['avi', of('RIFF\0\0\0\0AVI LIST')],
    ['mkv', of('\x1a\x45\xdf\xa3')],
    ['mp3', of('ID3\x04')],
    ['mts', packet(192, 4)],
    ['ts', packet(188, 0)],
  ])('%s', (_, bytes) => {
    expect(isMedia(bytes, 0, bytes.length)).toBe(true);
    const shifted = Buffer.concat([Buffer.from('x'), bytes]);
    expect(isMedia(shifted, 1, shifted.length)).toBe(true);
    expect(isMedia(bytes, 0, 3)).toBe(false);
  });

  it.each([
    ['text', of('This file has an ftyp, but not there')],
    ['png', of('\x89PNG\r\n\x1a\n')],
    ['webp', of('RIFF\0\0\0\0WEBPVP8 ')],
    ['zip', of('PK\x03\x04')],
    ['zeros', Buffer.alloc(1000)],
    ['GGGG', Buffer.alloc(300, 'G').fill(0, 188)],
    ['nothing', Buffer.alloc(0)],
  ])('not %s', (_, bytes) => {
    expect(isMedia(bytes, 0, bytes.length)).toBe(false);
  });
});

describe('heads of media files', () => {
  let place: Place;
  beforeEach(async () => {
    place = await Place.make();
  });
  afterEach(() => place.remove());

  const isHeads = async (number: number, archives: { number: number; archive: { id: Buffer } }[]) => {
    const { archive } = archives.find((one) => one.number === number)!;
    const bytes = readFileSync(join(place.storePath, names.dataName(archive.id)));
    const scan = await scanArchive({
      read: async (offset, length) => bytes.subarray(offset, offset + length),
      suffix: async (length) => ({ bytes: bytes.subarray(-length), size: bytes.length }),
    });
    return holdsHeads(scan.header!);
  };

  it('lie in archives of their own, everything else lies where it did', async () => {
    const sizes = [100, MEDIA_HEAD, MEDIA_HEAD + 1, 700 * KIB, 9 * MIB];
    const contents = sizes.map((size, i) => media(size, i + 1));
    const plain = noise(800 * KIB, 99);
    const paths = [...contents, plain].map((bytes, i) => place.put(`f${i}`, bytes));
    const { files, contents: back, archives } = await place.store(paths, { separateHeads: true });
    expect(archives).toHaveLength(2);
    for (const [i, bytes] of [...contents, plain].entries()) expect(back[i]!.equals(bytes)).toBe(true);
    // A large file comes in pieces, each with a record in front: their lengths together.
    const kinds: [boolean, number][][] = [];
    for (const { extents } of files) {
      const kind: [boolean, number][] = [];
      for (const { archive, length } of extents) {
        const heads = await isHeads(archive, archives);
        if (kind.at(-1)?.[0] === heads) kind.at(-1)![1] += length;
        else kind.push([heads, length]);
      }
      kinds.push(kind);
    }
    expect(kinds).toEqual([
      [[true, 100]],
      [[true, MEDIA_HEAD]],
      [
        [true, MEDIA_HEAD],
        [false, 1],
      ],
      [
        [true, MEDIA_HEAD],
        [false, 700 * KIB - MEDIA_HEAD],
      ],
      [
        [true, MEDIA_HEAD],
        [false, 9 * MIB - MEDIA_HEAD],
      ],
      [[false, 800 * KIB]],
    ]);
    // An aligned read of a large file still touches one block.
    expect(sizes[4]).toBeGreaterThanOrEqual(ALIGN_FROM);
    for (const { offset, streamOffset } of files[4]!.extents.slice(1))
      expect((streamOffset - offset) % BLOCK_SIZE).toBe(0);
  });

  it('are cut alike with and without such archives, so that content is stored once', async () => {
    const contents = [media(600 * KIB, 1), media(5 * MIB, 2), media(50 * KIB, 3)];
    const paths = contents.map((bytes, i) => place.put(`f${i}`, bytes));
    const first = await place.store(paths);
    expect(first.archives).toHaveLength(1);
    // Together with the rest it is one piece.
    expect(first.files[0]!.extents.length).toBe(1);
    expect(first.files[1]!.extents[0]!.length).toBeGreaterThan(MEDIA_HEAD);
    const again = await place.store(paths, { separateHeads: true });
    expect(again.archives).toHaveLength(0);
    expect(again.stats.newBytes).toBe(0);
    // Another file that begins alike shares the head.
    const other = Buffer.from(contents[0]!);
    other.fill(7, MEDIA_HEAD);
    const third = await place.store([place.put('other', other)], { separateHeads: true });
    expect(third.stats.newBytes).toBe(600 * KIB - MEDIA_HEAD);
    expect(third.contents[0]!.equals(other)).toBe(true);
  });

  it('fill archives up to the goal, and a large film gets its own all the same', async () => {
    const photos = Array.from({ length: 12 }, (_, i) => media(300 * KIB, i + 1));
    const film = media(3 * MIB, 50, [0, 0, 0, 0x18, 0x66, 0x74, 0x79, 0x70]);
    const paths = [...photos, film].map((bytes, i) => place.put(`f${i}`, bytes));
    const {
      files,
      contents: back,
      archives,
    } = await place.store(paths, {
      separateHeads: true,
      archiveSize: MIB,
      overrun: 0,
    });
    for (const [i, bytes] of [...photos, film].entries()) expect(back[i]!.equals(bytes)).toBe(true);
    const heads: number[] = [];
    for (const one of archives) if (await isHeads(one.number, archives)) heads.push(one.number);
    // 13 heads of 128 KiB.
    expect(heads.length).toBeGreaterThanOrEqual(2);
    const own = files.at(-1)!.extents.at(-1)!.archive;
    expect(files.filter(({ extents }) => extents.some(({ archive }) => archive === own))).toHaveLength(1);
  });

  it('of a crashed run are taken up', async () => {
    const photos = Array.from({ length: 40 }, (_, i) => media(300 * KIB, i + 1));
    const paths = photos.map((bytes, i) => place.put(`f${i}`, bytes));
    const index = await place.openIndex();
    const writer = await place.openWriter(index, { separateHeads: true });
    await Promise.all(paths.slice(0, 30).map((path) => writer.add(describeFile(path))));
    // Whole blocks are in the spool now, or soon; what is not is read again.
    await writer.abort();
    await index.close();
    mkdirSync(place.spool, { recursive: true });
    const { archives, contents: back, stats } = await place.store(paths, { separateHeads: true });
    for (const [i, bytes] of photos.entries()) expect(back[i]!.equals(bytes)).toBe(true);
    expect(stats.recoveredBytes).toBeGreaterThan(0);
    const kinds = await Promise.all(archives.map(({ number }) => isHeads(number, archives)));
    expect(kinds.filter(Boolean)).toHaveLength(1);
    expect(kinds).toHaveLength(2);
  });
});
