import { mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { encode } from 'jpeg-js';
import type { Sandbox } from './rozen.ts';

/** Pictures that photos share: to encode one takes some milliseconds. */
const PICTURES = 16;
const pictures = new Map<string, Buffer>();

function picture(number: number, width: number, height: number): Buffer {
  const key = `${number} ${width} ${height}`;
  let jpeg = pictures.get(key);
  if (jpeg === undefined) {
    const data = Buffer.alloc(width * height * 4);
    let state = number * 2654435761 + 1;
    for (let i = 0; i < data.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      data[i] = (i * (number + 3) + (state >>> 27)) & 0xff;
    }
    jpeg = encode({ data, width, height }, 80).data;
    pictures.set(key, jpeg);
  }
  return jpeg;
}

/**
 * A JPEG of its own for each number, with the EXIF date that a camera would write and a comment with the number. Every 16th
 * shows the same picture.
 */
export function photo(number: number, options: { width?: number; height?: number; date?: string } = {}): Buffer {
  const { width = 96, height = 64, date = exifDate(number) } = options;
  const jpeg = picture(number % PICTURES, width, height);
  return Buffer.concat([jpeg.subarray(0, 2), exifSegment(date), comment(`photo ${number}`), jpeg.subarray(2)]);
}

function comment(text: string): Buffer {
  const head = Buffer.from([0xff, 0xfe, 0, 0]);
  head.writeUInt16BE(2 + text.length, 2);
  return Buffer.concat([head, Buffer.from(text)]);
}

function exifDate(number: number): string {
  return new Date(Date.UTC(2020, 0, 1) + number * 3_600_000)
    .toISOString()
    .slice(0, 19)
    .replace(/-/g, ':')
    .replace('T', ' ');
}

/** APP1: a TIFF block with IFD0, which points to an EXIF IFD with DateTimeOriginal. */
function exifSegment(date: string): Buffer {
  const tiff = Buffer.alloc(64);
  tiff.write('II*\0', 0, 'latin1');
  tiff.writeUInt32LE(8, 4);
  tiff.writeUInt16LE(1, 8);
  tiff.writeUInt16LE(0x8769, 10);
  tiff.writeUInt16LE(4, 12);
  tiff.writeUInt32LE(1, 14);
  tiff.writeUInt32LE(26, 18);
  tiff.writeUInt16LE(1, 26);
  tiff.writeUInt16LE(0x9003, 28);
  tiff.writeUInt16LE(2, 30);
  tiff.writeUInt32LE(20, 32);
  tiff.writeUInt32LE(44, 36);
  tiff.write(`${date}\0`, 44, 'latin1');
  const head = Buffer.from([0xff, 0xe1, 0, 0, ...Buffer.from('Exif\0\0', 'latin1')]);
  head.writeUInt16BE(8 + tiff.length, 2);
  return Buffer.concat([head, tiff]);
}

const IMPORTED = new Date('2020-06-01T12:00:00Z');

/** Writes photos 0 … count - 1 into folders of `perFolder`, all with times of long ago. Answers their paths, relative. */
export function importPhotos(folder: string, count: number, perFolder = 8): string[] {
  const paths: string[] = [];
  for (let i = 0; i < count; i++) {
    const path = join(`album ${Math.floor(i / perFolder)}`, `IMG_${String(i).padStart(4, '0')}.jpg`);
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), photo(i));
    utimesSync(join(folder, path), IMPORTED, IMPORTED);
    paths.push(path);
  }
  return paths;
}

/** Makes the repository; what follows is opened by an identity file, which takes no time, unlike a passphrase. */
export function initWithIdentity(box: Sandbox): void {
  box.ok(['init']);
  const file = join(box.dir, 'identity.txt');
  box.ok(['key', 'export', '--owner', file]);
  box.env.ROZEN_IDENTITY_FILE = file;
}

/** Flips a bit and leaves no trace of it in size and mtime. */
export function rot(path: string, byte: number): void {
  const { atime, mtime } = statSync(path);
  const bytes = readFileSync(path);
  bytes[byte]! ^= 4;
  writeFileSync(path, bytes);
  utimesSync(path, atime, mtime);
}
