import { missArchive } from '../../../src/cache/miss.ts';
import { corrupt } from '../../../src/errors.ts';
import { type Attr, type DirectoryEntry, emptyAttr, FsError, type Vfs } from '../../../src/fs/vfs.ts';

const MODES: Record<number, number> = { 1: 0o040755, 2: 0o100644, 3: 0o120777, 4: 0o020600, 5: 0o100644, 6: 0o100644 };
const NAMES = ['file', 'link', 'device', 'missing', 'broken'];
export const CONTENT = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251));

function fill(slot: number, ino: number, attr: Attr): void {
  const mode = MODES[ino];
  if (mode === undefined) throw new FsError(116);
  Object.assign(attr, emptyAttr(), {
    slot,
    ino,
    generation: 9,
    mode,
    nlink: 3,
    uid: 10,
    gid: 20,
    rdev: 0x12305,
    size: CONTENT.length,
    blocks: 16,
    mtimeSec: -2,
    mtimeNs: 5,
    ctimeSec: 2 ** 33,
    ctimeNs: 6,
    btimeSec: 77,
    btimeNs: 8,
    volatile: slot === 0,
  });
}

/** Every kind of answer: attributes, refusals, misses (inode 5) and corruption (inode 6), in any slot. */
export class TinyVfs implements Vfs {
  pinned = 0;

  lookup(slot: number, ino: number, name: Uint8Array, attr: Attr): boolean {
    if (ino !== 1) throw new FsError(20);
    const at = NAMES.indexOf(Buffer.from(name).toString());
    if (at < 0) return false;
    fill(slot, at + 2, attr);
    return true;
  }

  getattr(slot: number, ino: number, attr: Attr): void {
    fill(slot, ino, attr);
  }

  readdir(slot: number, ino: number, options: Parameters<Vfs['readdir']>[2]): void {
    if (ino !== 1) throw new FsError(20);
    const all = ['.', '..', ...NAMES];
    const source = Buffer.from(`--${all.join('')}`);
    const entry: DirectoryEntry = { source, start: 2, end: 2, attr: emptyAttr(), cookie: 0 };
    all.forEach((name, i) => {
      entry.start = entry.end;
      entry.end += name.length;
      entry.cookie = i + 1;
      if (i < options.cookie) return;
      fill(slot, Math.max(1, i), entry.attr);
      entry.attr.complete = name !== 'device';
      if (!options.sink.add(entry)) options.cookie = all.length;
    });
  }

  readlink(_slot: number, ino: number): Uint8Array {
    if (ino !== 3) throw new FsError(22);
    return Buffer.from('target');
  }

  read(_slot: number, ino: number, { offset, size, sink }: Parameters<Vfs['read']>[2]): void {
    this.pinned++;
    let released = false;
    sink.onRelease(() => {
      if (released) throw new Error('released twice');
      released = true;
      this.pinned--;
    });
    const end = Math.min(CONTENT.length, offset + size);
    for (let at = offset; at < end; at += 7) sink.push(CONTENT.subarray(at, Math.min(at + 7, end)));
    if (ino === 5) throw missArchive('s', 1);
    if (ino === 6) throw corrupt('archive abc: block 7 fails its check');
    if (ino !== 2) throw new FsError(21);
  }

  getxattr(_slot: number, ino: number, name: Uint8Array): Uint8Array | null {
    if (ino === 5) throw missArchive('s', 1);
    return Buffer.from(name).toString() === 'user.a' ? Buffer.from('value') : null;
  }

  listxattr(): Uint8Array {
    return Buffer.from('user.a\0user.b\0');
  }

  lseek(_slot: number, _ino: number, offset: number, whence: number): number {
    if (offset >= CONTENT.length) throw new FsError(6);
    return whence === 3 ? offset : CONTENT.length;
  }

  statfs() {
    return { blocks: 10, blockSize: 4096, files: 6 };
  }

  pump(): void {}
  idle(): boolean {
    return false;
  }

  help(): boolean {
    return false;
  }
}
