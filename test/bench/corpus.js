import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const project = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** Where the real files come from, in this order, until there are enough of them. */
const SOURCES = [
  '/usr/share',
  join(project, 'node_modules'),
  '/usr/include',
  '/usr/lib/python3',
  '/usr/lib/node_modules',
  '/usr/local/lib',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib',
];

/**
 * Copies real files of this machine into `dir` until `goal.files` files or `goal.bytes` bytes are there; files over
 * `goal.largest` bytes are passed over, so that the corpus is one of small files. Returns what was copied.
 */
export function makeSmallFiles(dir, goal) {
  let files = 0;
  let bytes = 0;
  const enough = () => files >= goal.files || bytes >= goal.bytes;
  const visit = (from, to) => {
    let entries;
    try {
      entries = readdirSync(from, { withFileTypes: true });
    } catch {
      return;
    }
    mkdirSync(to, { recursive: true });
    for (const entry of entries) {
      if (enough()) return;
      const path = join(from, entry.name);
      if (entry.isDirectory()) visit(path, join(to, entry.name));
      else if (entry.isFile()) {
        const { size } = statSync(path);
        if (size > goal.largest) continue;
        copyFileSync(path, join(to, entry.name));
        files++;
        bytes += size;
      }
    }
  };
  for (const source of SOURCES)
    if (!enough() && existsSync(source)) visit(source, join(dir, source.replaceAll('/', '_')));
  return { files, bytes };
}

/** One file of about `size` bytes out of this machine's programs and libraries: compressible by about half. */
export function makeLargeFile(path, size) {
  const out = openSync(path, 'w');
  const buffer = Buffer.alloc(1 << 20);
  let written = 0;
  const list = execFileSync('find', ['/usr/lib', '/usr/bin', '/usr/local', '-xdev', '-type', 'f', '-size', '+256k'], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  for (const name of list.split('\n').filter(Boolean).sort()) {
    if (written >= size) break;
    const fd = openSync(name, 'r');
    if (fstatSync(fd).isFile()) {
      for (let n = readSync(fd, buffer); n > 0 && written < size; n = readSync(fd, buffer))
        written += writeSync(out, buffer, 0, Math.min(n, size - written));
    }
    closeSync(fd);
  }
  closeSync(out);
  return written;
}

/** One file of `size` bytes that no codec makes shorter, as photos and films are. */
export function makeDenseFile(path, size) {
  const out = openSync(path, 'w');
  for (let written = 0; written < size; written += 1 << 20) writeSync(out, randomBytes(1 << 20));
  closeSync(out);
}

/** `count` tiny files, 100 to a folder: for what must not depend on the number of files. */
export function makeTinyFiles(dir, count) {
  for (let i = 0; i < count; i += 100) {
    const folder = join(dir, `g${Math.floor(i / 10_000)}`, `f${i / 100}`);
    mkdirSync(folder, { recursive: true });
    for (let k = i; k < Math.min(i + 100, count); k++) writeFileSync(join(folder, `file-${k}.txt`), `${k}\n`);
  }
}

export function removeTree(dir) {
  rmSync(dir, { recursive: true, force: true });
}
