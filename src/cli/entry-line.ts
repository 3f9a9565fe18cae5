import { type Attributes, S_IFLNK, S_IFMT } from '../snapshot/view/attributes.ts';
import { formatMode, formatTime, isoTime, jsonName, printableName, typeName } from './display.ts';
import type { Output } from './output.ts';

const ARROW = Buffer.from(' -> ');

/** A path for a person: as bytes into a pipe (so that xargs finds the file), made harmless on a terminal. */
export function pathForOutput(out: Output, path: Buffer): string | Buffer {
  return out.isTerminal ? printableName(path) : path;
}

/** Prints one entry: its path alone, or with its attributes as `ls -l` does. */
export function printEntry(out: Output, path: Buffer, attributes: Attributes | null): void {
  if (attributes === null) {
    out.line(pathForOutput(out, path));
    return;
  }
  const { mode, nlink, uid, gid, size, mtimeSec, target, rdev } = attributes;
  const special = (mode & S_IFMT) === 0o020000 || (mode & S_IFMT) === 0o060000;
  const length = special ? deviceNumbers(rdev) : String(size);
  out.write(
    `${formatMode(mode)} ${String(nlink).padStart(2)} ${String(uid).padStart(5)} ${String(gid).padStart(5)} ${length.padStart(12)} ${formatTime(mtimeSec)} `,
  );
  out.write(pathForOutput(out, path));
  if ((mode & S_IFMT) === S_IFLNK) {
    out.write(ARROW);
    out.write(pathForOutput(out, target));
  }
  out.write('\n');
}

/** As the kernel's new_decode_dev: 12 bits of major, 20 of minor. */
function deviceNumbers(rdev: number): string {
  const major = (rdev >>> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  return `${major}, ${minor}`;
}

export function entryAsJson(path: Buffer, attributes: Attributes): Record<string, unknown> {
  const { mode, nlink, uid, gid, size, mtimeSec, mtimeNs, ctimeSec, ctimeNs, target, inode } = attributes;
  return {
    ...jsonName('path', path),
    type: typeName(mode),
    mode: mode & 0o7777,
    permissions: formatMode(mode),
    nlink,
    uid,
    gid,
    size,
    mtime: isoTime(mtimeSec, mtimeNs),
    ctime: isoTime(ctimeSec, ctimeNs),
    inode,
    ...(target.length > 0 ? jsonName('target', target) : {}),
  };
}
