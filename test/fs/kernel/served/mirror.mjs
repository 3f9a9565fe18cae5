// A Vfs over a real folder, for tests of the kernel driver: scanned once by every thread, in the same order.
import { closeSync, openSync, readlinkSync, readSync } from 'node:fs';
import { missArchive } from '../../../../dist/cache/miss.js';
import { FsError } from '../../../../dist/fs/vfs.js';
import { descriptorPath, joinName, listFolder, openFolder, stringBytes } from '../../../../dist/posix/folder.js';
import { dataRanges } from '../../../../dist/posix/holes.js';
import { lstat } from '../../../../dist/posix/stat.js';
import { getXattr, listXattrs } from '../../../../dist/posix/xattr.js';

const ENOENT = 2;
const EIO = 5;
const ENXIO = 6;
const ENOTDIR = 20;
const EINVAL = 22;
const ESTALE = 116;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
/** Slots of all nodes but the root: beyond 31 bits together with the inode. */
const SLOT = 0x800005;

/** `init`: {root, missing?: Int32Array}. Reading a file whose name begins with `missing-N` misses until missing[N] is 1. */
export function createVfs(init) {
  const nodes = [null];
  const byInode = new Map();

  function add(path, name, parent) {
    const stat = lstat(path);
    const key = stat.nlink > 1 && (stat.mode & S_IFMT) !== S_IFDIR ? `${stat.dev}:${stat.ino}` : null;
    const known = key === null ? undefined : byInode.get(key);
    const ino = known ?? nodes.length;
    if (known === undefined) {
      const node = { ino, path, name, parent, stat, names: null, index: null };
      nodes.push(node);
      if (key !== null) byInode.set(key, ino);
      if ((stat.mode & S_IFMT) === S_IFDIR) {
        const fd = openFolder(path);
        const names = listFolder(fd, path);
        const folder = path.length > 3000 ? descriptorPath(fd).subarray(0, -1) : path;
        node.names = [];
        node.index = new Map();
        for (const child of names) {
          const childIno = add(joinName(folder, child), stringBytes(child), ino);
          node.names.push({ name: stringBytes(child), ino: childIno });
          node.index.set(child, childIno);
        }
        if (folder === path) closeSync(fd);
      }
    }
    return ino;
  }
  add(Buffer.from(init.root), Buffer.alloc(0), 1);

  function find(slot, ino) {
    const node = nodes[ino];
    if (node === undefined || slot !== (ino === 1 ? 0 : SLOT)) throw new FsError(ESTALE);
    return node;
  }

  function fill(node, attr) {
    const { stat } = node;
    attr.slot = node.ino === 1 ? 0 : SLOT;
    attr.ino = node.ino;
    attr.generation = 7;
    attr.mode = stat.mode;
    attr.nlink = stat.nlink;
    attr.uid = stat.uid;
    attr.gid = stat.gid;
    attr.rdev = stat.rdev;
    attr.size = stat.size;
    attr.blocks = stat.blocks;
    attr.mtimeSec = stat.mtimeSec;
    attr.mtimeNs = stat.mtimeNs;
    attr.ctimeSec = stat.ctimeSec;
    attr.ctimeNs = stat.ctimeNs;
    attr.btimeSec = stat.btimeSec;
    attr.btimeNs = stat.btimeNs;
    attr.volatile = false;
    attr.complete = true;
  }

  function open(node, then) {
    const fd = openSync(node.path, 'r');
    try {
      return then(fd);
    } finally {
      closeSync(fd);
    }
  }

  function needed(node) {
    const found = /^(missing|never|broken|dying|hungry)-(\d+)/.exec(node.name.toString('latin1'));
    if (found === null) return;
    // In a worker this ends the thread alone.
    if (found[1] === 'dying') process.exit(1);
    if (found[1] === 'hungry') {
      const all = [];
      for (;;) all.push(Array.from({ length: 10_000 }, (_, i) => ({ i })));
    }
    if (found[1] === 'broken') throw new Error('made-up failure');
    if (found[1] === 'never' || Atomics.load(init.missing, Number(found[2])) === 0) {
      throw missArchive(found[1], Number(found[2]));
    }
  }

  const entry = { source: null, start: 0, end: 0, attr: null, cookie: 0 };
  return {
    lookup(slot, ino, name, attr) {
      const node = find(slot, ino);
      attr.volatile = false;
      const text = Buffer.from(name).toString('latin1');
      if (node.names === null && text !== '.') throw new FsError(ENOTDIR);
      const child = text === '.' ? ino : text === '..' ? node.parent : node.index.get(text);
      if (child === undefined) return false;
      fill(nodes[child], attr);
      return true;
    },
    getattr(slot, ino, attr) {
      fill(find(slot, ino), attr);
    },
    readdir(slot, ino, { cookie, sink }) {
      const node = find(slot, ino);
      if (node.names === null) throw new FsError(ENOTDIR);
      entry.attr ??= { volatile: false, complete: true };
      for (let at = cookie; at < node.names.length + 2; at++) {
        const child =
          at === 0
            ? { name: Buffer.from('.'), ino }
            : at === 1
              ? { name: Buffer.from('..'), ino: node.parent }
              : node.names[at - 2];
        fill(nodes[child.ino], entry.attr);
        entry.source = child.name;
        entry.start = 0;
        entry.end = child.name.length;
        entry.cookie = at + 1;
        if (!sink.add(entry)) return;
      }
    },
    readlink(slot, ino) {
      const node = find(slot, ino);
      if ((node.stat.mode & S_IFMT) !== S_IFLNK) throw new FsError(EINVAL);
      return readlinkSync(node.path, 'buffer');
    },
    read(slot, ino, { offset, size, sink }) {
      const node = find(slot, ino);
      const bytes = Buffer.allocUnsafe(size);
      let released = false;
      sink.onRelease(() => {
        if (released) throw new Error('released twice');
        released = true;
      });
      // Half of it first: an attempt that meets a miss after it has pushed something must leave nothing behind.
      const half = open(node, (fd) => readSync(fd, bytes, 0, size >> 1, offset));
      sink.push(bytes.subarray(0, half));
      needed(node);
      const rest = open(node, (fd) => readSync(fd, bytes, half, size - half, offset + half));
      sink.push(bytes.subarray(half, half + rest));
    },
    getxattr(slot, ino, name) {
      return getXattr(find(slot, ino).path, Buffer.from(name));
    },
    listxattr(slot, ino) {
      return Buffer.concat(listXattrs(find(slot, ino).path).map((name) => Buffer.concat([name, Buffer.of(0)])));
    },
    lseek(slot, ino, offset, whence) {
      const node = find(slot, ino);
      if (offset >= node.stat.size) throw new FsError(ENXIO);
      const ranges = open(node, (fd) => dataRanges(fd, node.stat.size));
      for (const range of ranges) {
        const end = range.offset + range.length;
        if (whence === 3 && offset < end) return Math.max(offset, range.offset);
        if (whence === 4 && offset < range.offset) return offset;
        if (whence === 4 && offset < end) return end;
      }
      if (whence === 3) throw new FsError(ENXIO);
      return offset;
    },
    statfs() {
      return { blocks: 1000, blockSize: 4096, files: nodes.length - 1 };
    },
    pump() {},
    idle: () => false,
    help: () => false,
  };
}

/**
 * The main thread's side: a miss is resolved after `delay` ms, of `held` hosts by `release`; `never-N` is refused with EIO by
 * then. Held ones are counted on stdout: `waiting N`.
 */
export function createHost(init) {
  const waiting = new Set();
  let release = () => {};
  const released = new Promise((resolve) => {
    release = resolve;
  });
  const missing = new Int32Array(new SharedArrayBuffer(64 * 4));
  const data = { ...init, missing };
  const reports = [];
  let listener = () => {};
  return {
    reports,
    vfs: createVfs(data),
    module: new URL(import.meta.url),
    readAhead: 1024,
    workerInit: () => ({ init: data, transfer: [] }),
    async resolve(miss) {
      if (init.held) {
        waiting.add(miss.target.row);
        process.stdout.write(`waiting ${waiting.size}\n`);
        await released;
      } else await new Promise((resolve) => setTimeout(resolve, init.delay ?? 20));
      if (miss.target.scope === 'never') throw new FsError(EIO);
      Atomics.store(missing, miss.target.row, 1);
    },
    onInvalidate(to) {
      listener = to;
    },
    invalidate: (change) => listener(change),
    release,
    report(message) {
      reports.push(message);
      process.stderr.write(`report: ${message}\n`);
    },
    async close() {
      process.stderr.write('closed\n');
    },
    ENOENT,
  };
}
