// A Vfs of made-up entries whose inode numbers are arithmetic: nothing but the protocol is measured.
// root: `top` folders, each with `sub` folders, each with `files` files; plus `flat` files in `/flat` and `/big` of `size` bytes.
import { FsError } from '../../../../dist/fs/vfs.js';

const PATTERN = 1 << 20;

export function createVfs(init) {
  const { top = 0, sub = 0, files = 0, flat = 0, size = 0 } = init;
  const folders = top * sub;
  // 1 root, 2 flat, 3 big, then the top folders, the sub folders, the files, the flat files.
  const TOP = 4;
  const SUB = TOP + top;
  const FILE = SUB + folders;
  const FLAT = FILE + folders * files;
  const END = FLAT + flat;
  const pattern = Buffer.from(new SharedArrayBuffer(PATTERN));
  for (let i = 0; i < PATTERN; i += 4) pattern.writeUInt32LE(Math.imul(i + 1, 0x9e3779b1) >>> 0, i);

  function fill(ino, attr) {
    const isFolder = ino < FILE && ino !== 3;
    attr.slot = ino === 1 ? 0 : 1;
    attr.ino = ino;
    attr.generation = 1;
    attr.mode = isFolder ? 0o040755 : 0o100644;
    attr.nlink = isFolder ? 2 : 1;
    attr.uid = 0;
    attr.gid = 0;
    attr.rdev = 0;
    attr.size = isFolder ? 0 : ino === 3 ? size : 1000;
    attr.blocks = isFolder ? 0 : ino === 3 ? size / 512 : 8;
    attr.mtimeSec = 1_700_000_000 + ino;
    attr.mtimeNs = 123;
    attr.ctimeSec = 1_700_000_000;
    attr.ctimeNs = 456;
    attr.btimeSec = 0;
    attr.btimeNs = 0;
    attr.volatile = false;
    attr.complete = true;
  }

  const number = Buffer.alloc(16);
  /** Writes prefix and a fixed width decimal; returns the length. */
  function writeName(prefix, n) {
    number[0] = prefix;
    for (let i = 7; i >= 1; i--) {
      number[i] = 48 + (n % 10);
      n = Math.floor(n / 10);
    }
    return 8;
  }
  function parse(name) {
    let n = 0;
    for (let i = 1; i < 8; i++) n = n * 10 + name[i] - 48;
    return n;
  }

  const entry = { source: number, start: 0, end: 0, attr: null, cookie: 0 };
  const attrOf = { complete: true, volatile: false };
  entry.attr = attrOf;

  function give(sink, ino, length, cookie) {
    fill(ino, attrOf);
    entry.end = length;
    entry.cookie = cookie;
    return sink.add(entry);
  }

  return {
    lookup(_slot, ino, name, attr) {
      attr.volatile = false;
      if (name.length === 1 && name[0] === 46) {
        fill(ino, attr);
        return true;
      }
      let child = 0;
      if (ino === 1) {
        const text = Buffer.from(name).toString('latin1');
        if (text === 'flat') child = 2;
        else if (text === 'big') child = 3;
        else if (name[0] === 116 && name.length === 8 && parse(name) < top) child = TOP + parse(name);
      } else if (name.length === 8) {
        const n = parse(name);
        if (ino === 2 && n < flat) child = FLAT + n;
        else if (ino >= TOP && ino < SUB && n < sub) child = SUB + (ino - TOP) * sub + n;
        else if (ino >= SUB && ino < FILE && n < files) child = FILE + (ino - SUB) * files + n;
      }
      if (!(child > 0)) return false;
      fill(child, attr);
      return true;
    },
    getattr(_slot, ino, attr) {
      if (ino < 1 || ino >= END) throw new FsError(116);
      fill(ino, attr);
    },
    readdir(_slot, ino, { cookie, sink }) {
      let first = 0;
      let count = 0;
      let prefix = 116;
      if (ino === 1) {
        first = TOP;
        count = top;
      } else if (ino === 2) {
        first = FLAT;
        count = flat;
        prefix = 102;
      } else if (ino < SUB) {
        first = SUB + (ino - TOP) * sub;
        count = sub;
        prefix = 115;
      } else if (ino < FILE) {
        first = FILE + (ino - SUB) * files;
        count = files;
        prefix = 102;
      } else throw new FsError(20);
      const extra = ino === 1 ? 4 : 2;
      for (let at = cookie; at < count + extra; at++) {
        let length;
        let child;
        if (at < extra) {
          const text = ['.', '..', 'flat', 'big'][at];
          length = number.write(text, 'latin1');
          child = at < 2 ? ino : at;
        } else {
          length = writeName(prefix, at - extra);
          child = first + at - extra;
        }
        if (!give(sink, child, length, at + 1)) return;
      }
    },
    readlink() {
      throw new FsError(22);
    },
    read(_slot, ino, { offset, size: wanted, sink }) {
      const end = Math.min(offset + wanted, ino === 3 ? size : 1000);
      for (let at = offset; at < end; ) {
        const start = at % PATTERN;
        const length = Math.min(end - at, PATTERN - start);
        sink.push(pattern.subarray(start, start + length));
        at += length;
      }
    },
    getxattr: () => null,
    listxattr: () => Buffer.alloc(0),
    lseek: (_slot, _ino, offset, whence) => (whence === 4 ? size : offset),
    statfs: () => ({ blocks: 1000, blockSize: 4096, files: END }),
    pump() {},
    idle: () => false,
    help: () => false,
  };
}

export function createHost(init) {
  return {
    vfs: createVfs(init),
    module: new URL(import.meta.url),
    readAhead: 1024,
    workerInit: () => ({ init, transfer: [] }),
    async resolve() {},
    onInvalidate() {},
    report: (message) => process.stderr.write(`report: ${message}\n`),
    async close() {},
  };
}
