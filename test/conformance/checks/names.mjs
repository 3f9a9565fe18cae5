// Names and folders: what lookup, readdir and path resolution must give.
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, lstatSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { libc } from '../../../dist/posix/libc.js';
import { codeOf, equal, isFile, isFolder, join, refuses, Skip, show, typeOf } from '../survey.mjs';

const sorted = (folder) =>
  readdirSync(folder, { encoding: 'buffer' })
    .map((name) => name.toString('latin1'))
    .sort();

/** Raw entries of getdents64: {name, ino, type, cookie}. */
function dents(folder, size = 32768) {
  const fd = openSync(folder, 'r');
  const buffer = Buffer.alloc(size);
  const found = [];
  try {
    for (;;) {
      const length = Number(libc().getdents64(fd, buffer, size));
      if (length < 0) throw new Error(`getdents64: errno ${libc().errno()}`);
      if (length === 0) return found;
      for (let at = 0; at < length; ) {
        const next = at + buffer.readUInt16LE(at + 16);
        const end = buffer.indexOf(0, at + 19);
        const name = buffer.toString('latin1', at + 19, end);
        found.push({
          name,
          ino: buffer.readBigUInt64LE(at),
          cookie: buffer.readBigInt64LE(at + 8),
          type: buffer[at + 18],
        });
        at = next;
      }
    }
  } finally {
    closeSync(fd);
  }
}

const largest = (s) =>
  [...s.folders].sort((a, b) => readdirSync(s.here(b)).length - readdirSync(s.here(a)).length)[0] ?? {
    rel: Buffer.alloc(0),
  };

const named = (title, wanted, what) => [
  title,
  (s) => {
    for (const entry of s.some(wanted, what)) s.seen(entry);
  },
];

export default [
  [
    'every folder lists the names of the source, no more and no less',
    (s) => {
      for (const folder of [{ rel: Buffer.alloc(0) }, ...s.folders]) {
        const [here, there] = [sorted(s.here(folder)), sorted(s.there(folder))];
        const missing = here.filter((name) => !there.includes(name));
        const more = there.filter((name) => !here.includes(name));
        if (missing.length + more.length > 0)
          throw new Error(
            `${show(folder.rel)}: ${missing.length} missing (${show(missing[0] ?? '')}), ${more.length} more`,
          );
      }
    },
  ],
  [
    'every listed name can be looked up',
    (s) => {
      for (const entry of s.entries) s.seen(entry);
    },
  ],
  named(
    'names that are not UTF-8',
    (e) => Buffer.compare(Buffer.from(e.name.toString()), e.name) !== 0,
    'name that is not UTF-8',
  ),
  named('names of 255 bytes', (e) => e.name.length === 255, 'name of 255 bytes'),
  named('names with newline, tab, quotes', (e) => /[\n\t"'\\]/.test(e.name.toString('latin1')), 'such name'),
  named(
    'names that begin with a dash or a dot, or end in a blank',
    (e) => /^[-.]| $/.test(e.name.toString('latin1')),
    'such name',
  ),
  named('names outside the basic plane', (e) => /[\u{10000}-\u{10ffff}]/u.test(e.name.toString()), 'such name'),
  [
    'names that differ only in case are two',
    (s) => {
      const lower = new Map();
      for (const e of s.files) {
        const key = e.rel.toString('latin1').toLowerCase();
        if (!lower.has(key)) lower.set(key, e);
        else if (e.stat.size < 1e6) {
          equal(readFileSync(s.there(e)).equals(readFileSync(s.here(e))), true, show(e.rel));
          const other = lower.get(key);
          equal(readFileSync(s.there(other)).equals(readFileSync(s.here(other))), true, show(other.rel));
          return;
        }
      }
      throw new Skip('the source has no such names');
    },
  ],
  [
    'another Unicode form of a name is no name',
    (s) => {
      const entry = s.one(
        (e) => e.name.toString().normalize('NFC') !== e.name.toString().normalize('NFD'),
        'such name',
      );
      const text = entry.rel.toString();
      const other = text.normalize('NFC') === text ? text.normalize('NFD') : text.normalize('NFC');
      if (existsSync(join(s.source, Buffer.from(other)))) throw new Skip('the source has both forms');
      refuses(() => lstatSync(join(s.mount, Buffer.from(other))), 'ENOENT');
    },
  ],
  [
    'paths beyond PATH_MAX are reached folder by folder',
    (s) => {
      const find = (root) =>
        execFileSync('sh', ['-c', 'cd "$1" && find . -name bottom -exec true {} + -printf "%d\\n"', 'sh', root], {
          stdio: ['ignore', 'pipe', 'ignore'],
        })
          .toString()
          .trim();
      const here = find(s.source);
      if (here === '') throw new Skip('the source has no such path');
      equal(find(s.mount), here);
    },
  ],
  [
    'an empty folder is empty',
    (s) => {
      const entry = s.one((e) => isFolder(e) && readdirSync(s.here(e)).length === 0, 'empty folder');
      equal(readdirSync(s.there(entry)).length, 0);
    },
  ],
  [
    'listings have . and ..',
    (s) => {
      for (const folder of [s.mount, s.there(s.folders[0] ?? { rel: Buffer.alloc(0) })]) {
        const names = dents(folder).map((entry) => entry.name);
        equal(names.includes('.') && names.includes('..'), true);
      }
    },
  ],
  [
    '.. leads to the folder above',
    (s) => {
      for (const folder of s.folders.slice(0, 50)) {
        const above = statSync(Buffer.concat([s.there(folder), Buffer.from('/..')]), { bigint: true });
        equal(above.ino, statSync(join(s.mount, folder.parent), { bigint: true }).ino, show(folder.rel));
      }
    },
  ],
  [
    'd_type is the type of each entry',
    (s) => {
      for (const folder of s.folders) {
        for (const entry of dents(s.there(folder))) {
          if (entry.name === '.' || entry.name === '..') continue;
          const path = Buffer.concat([s.there(folder), Buffer.from('/'), Buffer.from(entry.name, 'latin1')]);
          // 0 is allowed: "look yourself".
          if (path.length < 4000 && entry.type !== 0)
            equal(entry.type, (lstatSync(path).mode & 0o170000) >> 12, show(entry.name));
          else if (entry.type === 0) throw new Error('unknown types');
        }
      }
    },
  ],
  [
    'd_ino is the inode number of each entry',
    (s) => {
      for (const folder of s.folders) {
        for (const entry of dents(s.there(folder))) {
          if (entry.name === '.' || entry.name === '..') continue;
          const path = Buffer.concat([s.there(folder), Buffer.from('/'), Buffer.from(entry.name, 'latin1')]);
          if (path.length < 4000)
            equal(BigInt.asUintN(64, lstatSync(path, { bigint: true }).ino), entry.ino, show(entry.name));
        }
      }
    },
  ],
  [
    'a large folder read in small pieces lists each name once',
    (s) => {
      const folder = largest(s);
      const all = dents(s.there(folder), 1024).map((entry) => entry.name);
      const names = all.filter((name) => name !== '.' && name !== '..');
      equal(new Set(names).size, names.length);
      equal(names.length, readdirSync(s.here(folder)).length);
    },
  ],
  [
    'two readers of one folder do not disturb each other',
    (s) => {
      const folder = s.there(largest(s));
      const [a, b] = [dents(folder, 1024), dents(folder)];
      equal(
        a
          .map((e) => e.name)
          .sort()
          .join('/'),
        b
          .map((e) => e.name)
          .sort()
          .join('/'),
      );
    },
  ],
  [
    'a listing is the same the second time',
    (s) => {
      const folder = s.there(largest(s));
      equal(
        dents(folder)
          .map((e) => e.name)
          .join('/'),
        dents(folder)
          .map((e) => e.name)
          .join('/'),
      );
    },
  ],
  [
    'a listing goes on from where telldir was',
    (s) => {
      const folder = s.there(largest(s));
      const all = dents(folder, 4096);
      const from = Math.floor(all.length / 2);
      const fd = openSync(folder, 'r');
      try {
        libc().lseek(fd, all[from].cookie, 0);
        const buffer = Buffer.alloc(1024);
        if (!(libc().getdents64(fd, buffer, 1024) > 0)) throw new Error('nothing follows');
        equal(buffer.toString('latin1', 19, buffer.indexOf(0, 19)), all[from + 1].name);
      } finally {
        closeSync(fd);
      }
    },
  ],
  [
    'a listing begins anew after rewinddir',
    (s) => {
      const fd = openSync(s.there(largest(s)), 'r');
      try {
        const buffers = [Buffer.alloc(4096), Buffer.alloc(4096)];
        const lengths = buffers.map((buffer) => {
          libc().lseek(fd, 0, 0);
          return Number(libc().getdents64(fd, buffer, 4096));
        });
        equal(lengths[0] > 0 && lengths[0] === lengths[1] && buffers[0].equals(buffers[1]), true);
      } finally {
        closeSync(fd);
      }
    },
  ],
  ['a file cannot be listed', (s) => refuses(() => readdirSync(s.there(s.one(isFile, 'file'))), 'ENOTDIR')],
  ['a missing name is ENOENT', (s) => refuses(() => lstatSync(`${s.mount}/no such name`), 'ENOENT')],
  [
    'a missing name stays missing',
    (s) => {
      for (let i = 0; i < 3; i++) refuses(() => lstatSync(`${s.mount}/no such name`), 'ENOENT');
    },
  ],
  [
    'a name below a missing one is ENOENT, below a file ENOTDIR',
    (s) => {
      refuses(() => lstatSync(`${s.mount}/none/none`), 'ENOENT');
      refuses(() => lstatSync(Buffer.concat([s.there(s.one(isFile, 'file')), Buffer.from('/none')])), 'ENOTDIR');
    },
  ],
  [
    'a name of 256 bytes is ENAMETOOLONG',
    (s) => refuses(() => lstatSync(`${s.mount}/${'n'.repeat(256)}`), 'ENAMETOOLONG'),
  ],
  [
    'a slash after a file is ENOTDIR, after a folder it is fine',
    (s) => {
      const slash = (entry) => Buffer.concat([s.there(entry), Buffer.from('/')]);
      refuses(() => lstatSync(slash(s.one(isFile, 'file'))), 'ENOTDIR');
      equal(
        codeOf(() => lstatSync(slash(s.one(isFolder, 'folder')))),
        null,
      );
    },
  ],
  [
    'an open folder can be read after others were',
    (s) => {
      const folder = s.there(largest(s));
      const fd = openSync(folder, 'r');
      for (const other of s.folders.slice(0, 20)) readdirSync(s.there(other));
      const buffer = Buffer.alloc(4096);
      const length = Number(libc().getdents64(fd, buffer, 4096));
      closeSync(fd);
      equal(length > 0, true);
    },
  ],
  [
    'find sees the same tree',
    (s) => {
      const list = (root) =>
        execFileSync('sh', ['-c', 'cd "$1" && find . -printf "%P %y\\n" | LC_ALL=C sort', 'sh', root], {
          maxBuffer: 2 ** 28,
        }).toString('latin1');
      equal(list(s.mount) === list(s.source), true);
    },
  ],
  [
    'types are those of the source',
    (s) => {
      for (const entry of s.entries) equal(typeOf(s.seen(entry)), typeOf(entry.stat), show(entry.rel));
    },
  ],
];
