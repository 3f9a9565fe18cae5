// What the bytes of files are, whichever way they are read.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  readvSync,
  rmSync,
  statSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dataRanges } from '../../../dist/posix/holes.js';
import { libc } from '../../../dist/posix/libc.js';
import { equal, isFile, isFolder, refuses, Skip, show } from '../survey.mjs';

const KIB = 1024;
const SMALL = 2 ** 28;
const readable = (e) => isFile(e) && (e.stat.mode & 0o400) !== 0;
const plain = (e) => readable(e) && e.stat.size < SMALL;
const digest = (path) => createHash('sha256').update(readFileSync(path)).digest('hex');
const big = (s) =>
  s.one((e) => plain(e) && e.stat.size > 4 * KIB * KIB && e.stat.blocks * 512 >= e.stat.size, 'file above 4 MiB');

function reading(path, then, flags = constants.O_RDONLY) {
  const fd = openSync(path, flags);
  try {
    return then(fd);
  } finally {
    closeSync(fd);
  }
}

function piece(path, offset, length) {
  return reading(path, (fd) => {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
  });
}

const samePiece = (s, entry, offset, length) =>
  equal(
    piece(s.there(entry), offset, length).equals(piece(s.here(entry), offset, length)),
    true,
    `${show(entry.rel)} at ${offset}`,
  );

/** mmap through koffi: {bytes, done}. */
function mapped(path, length, flags) {
  const koffi = createRequire(import.meta.url)('koffi');
  const c = koffi.load(null);
  const mmap = c.func('void *mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)');
  const munmap = c.func('int munmap(void *at, size_t length)');
  return reading(path, (fd) => {
    const at = mmap(null, length, 1, flags, fd, 0);
    const bytes = Buffer.copyBytesFrom(new Uint8Array(koffi.view(at, length)));
    munmap(at, length);
    return bytes;
  });
}

const COPY = fileURLToPath(new URL('../../contract/copy.py', import.meta.url));

const copied = (call) => [
  `${call}(2) gives the same bytes`,
  (s) => {
    const entry = big(s);
    const folder = mkdtempSync(join(tmpdir(), 'conformance-'));
    try {
      const target = join(folder, 'copy');
      if (call === 'cp') execFileSync('cp', [s.there(entry).toString(), target]);
      else execFileSync('python3', [COPY, call, s.there(entry).toString(), target]);
      equal(digest(target), digest(s.here(entry)));
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
];

const sparse = (s) => s.one((e) => plain(e) && e.stat.blocks * 512 < e.stat.size && e.stat.size > 1e6, 'sparse file');
const beyond = (limit, what) => [
  `reads beyond ${what}`,
  (s) => {
    const entry = s.one((e) => readable(e) && e.stat.size > limit, `file above ${what}`);
    for (const offset of [limit - 5, limit + 4096, entry.stat.size - 3]) samePiece(s, entry, offset, 10);
  },
];

export default [
  [
    'every file has the bytes of the source',
    (s) => {
      for (const entry of s.some(plain, 'file')) equal(digest(s.there(entry)), digest(s.here(entry)), show(entry.rel));
    },
  ],
  [
    'an empty file is empty',
    (s) => equal(readFileSync(s.there(s.one((e) => readable(e) && e.stat.size === 0, 'empty file'))).length, 0),
  ],
  [
    'pieces at random places',
    (s) => {
      let state = 7;
      for (const entry of s.some((e) => plain(e) && e.stat.size > 0, 'file').slice(0, 60)) {
        for (let i = 0; i < 10; i++) {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
          samePiece(s, entry, state % entry.stat.size, 1 + ((state >>> 7) % 300_000));
        }
      }
    },
  ],
  [
    'single bytes around each multiple of 4 KiB and 128 KiB',
    (s) => {
      const entry = big(s);
      for (const unit of [4 * KIB, 128 * KIB, 256 * KIB, KIB * KIB])
        for (const at of [unit - 1, unit, unit + 1, 2 * unit - 1]) samePiece(s, entry, at, 1);
    },
  ],
  [
    'a read over the end is short, one beyond it is nothing',
    (s) => {
      for (const entry of s.some(plain, 'file').slice(0, 30)) {
        equal(piece(s.there(entry), Math.max(0, entry.stat.size - 10), 1000).length, Math.min(10, entry.stat.size));
        equal(piece(s.there(entry), entry.stat.size, 10).length, 0);
        equal(piece(s.there(entry), entry.stat.size + 100_000, 10).length, 0);
      }
    },
  ],
  ['a read of 4 MiB at once', (s) => samePiece(s, big(s), 12345, 4 * KIB * KIB)],
  [
    'readv into many buffers',
    (s) => {
      const entry = big(s);
      const read = (path) =>
        reading(path, (fd) => {
          const parts = [1, 100, 4096, 70_000, 3].map((size) => Buffer.alloc(size));
          readvSync(fd, parts, 4000);
          return Buffer.concat(parts);
        });
      equal(read(s.there(entry)).equals(read(s.here(entry))), true);
    },
  ],
  [
    'a private mapping',
    (s) => {
      const entry = big(s);
      equal(mapped(s.there(entry), entry.stat.size, 2).equals(readFileSync(s.here(entry))), true);
    },
  ],
  [
    'a shared mapping',
    (s) => {
      const entry = big(s);
      equal(mapped(s.there(entry), entry.stat.size, 1).equals(readFileSync(s.here(entry))), true);
    },
  ],
  [
    'the rest of the last mapped page is zero',
    (s) => {
      const entry = s.one((e) => plain(e) && e.stat.size > 0 && e.stat.size % 4096 !== 0, 'such file');
      const whole = Math.ceil(entry.stat.size / 4096) * 4096;
      equal(
        mapped(s.there(entry), whole, 2)
          .subarray(entry.stat.size)
          .every((byte) => byte === 0),
        true,
      );
    },
  ],
  [
    'O_DIRECT',
    (s) => {
      const entry = big(s);
      const bytes = reading(
        s.there(entry),
        (fd) => {
          // Aligned memory, as O_DIRECT may ask for.
          const memory = Buffer.from(new ArrayBuffer(KIB * KIB + 4096));
          const from = Number((4096n - (libc().address(memory) % 4096n)) % 4096n);
          return Buffer.from(memory.subarray(from, from + readSync(fd, memory, from, KIB * KIB, KIB * KIB)));
        },
        constants.O_RDONLY | constants.O_DIRECT,
      );
      equal(bytes.equals(piece(s.here(entry), KIB * KIB, KIB * KIB)), true);
    },
  ],
  copied('sendfile'),
  copied('splice'),
  copied('cp'),
  ['a folder cannot be read', (s) => refuses(() => readFileSync(s.there(s.one(isFolder, 'folder'))), 'EISDIR')],
  [
    'sixteen readers at once',
    async (s) => {
      const entry = big(s);
      const expected = readFileSync(s.here(entry));
      const file = await open(s.there(entry));
      try {
        await Promise.all(
          Array.from({ length: 16 }, async (_, index) => {
            let state = index + 1;
            for (let i = 0; i < 40; i++) {
              state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
              const offset = state % expected.length;
              const { bytesRead, buffer } = await file.read(Buffer.alloc(200_000), 0, 200_000, offset);
              const wanted = expected.subarray(offset, offset + 200_000);
              equal(bytesRead === wanted.length && wanted.equals(buffer.subarray(0, bytesRead)), true, `at ${offset}`);
            }
          }),
        );
      } finally {
        await file.close();
      }
    },
  ],
  [
    'an open file is read after others were opened and closed',
    (s) => {
      const entry = big(s);
      reading(s.there(entry), (fd) => {
        for (const other of s.some(plain, 'file').slice(0, 50)) piece(s.there(other), 0, 10);
        const bytes = Buffer.alloc(1000);
        equal(readSync(fd, bytes, 0, 1000, 5000), 1000);
        equal(bytes.equals(piece(s.here(entry), 5000, 1000)), true);
      });
    },
  ],
  beyond(2 ** 32, '4 GiB'),
  beyond(2 ** 40, '1 TiB'),
  [
    'holes read as zeros',
    (s) => {
      const entry = sparse(s);
      equal(digest(s.there(entry)), digest(s.here(entry)));
    },
  ],
  [
    'SEEK_DATA and SEEK_HOLE find the holes',
    (s) => {
      const ranges = (path) => reading(path, (fd) => JSON.stringify(dataRanges(fd, fstatSync(fd).size)));
      for (const entry of s.some((e) => readable(e) && e.stat.blocks * 512 < e.stat.size, 'sparse file'))
        equal(ranges(s.there(entry)), ranges(s.here(entry)), show(entry.rel));
    },
  ],
  [
    'SEEK_DATA beyond the end is ENXIO',
    (s) => {
      const entry = big(s);
      reading(s.there(entry), (fd) => {
        equal(Number(libc().lseek(fd, entry.stat.size + 10, 3)), -1);
        equal(libc().errno(), 6);
      });
    },
  ],
  [
    'SEEK_END gives the size',
    (s) => {
      const entry = big(s);
      reading(s.there(entry), (fd) => equal(Number(libc().lseek(fd, 0, 2)), entry.stat.size));
    },
  ],
  [
    'cp keeps files sparse',
    (s) => {
      const entry = sparse(s);
      const folder = mkdtempSync(join(tmpdir(), 'conformance-'));
      try {
        execFileSync('cp', ['--sparse=auto', s.there(entry).toString(), join(folder, 'copy')]);
        equal(
          statSync(join(folder, 'copy')).blocks <= entry.stat.blocks + 16,
          true,
          `${statSync(join(folder, 'copy')).blocks} blocks, ${entry.stat.blocks} in the source`,
        );
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  ],
  [
    'a program can be run',
    (s) => {
      const entry = s.one(
        (e) => plain(e) && (e.stat.mode & 0o111) !== 0 && piece(s.here(e), 0, 4).toString('latin1') === '\x7fELF',
        'program',
      );
      execFileSync(s.there(entry).toString(), [], { stdio: 'ignore' });
    },
  ],
  [
    'grep, through a mapping or not, finds a text',
    (s) => {
      const grep = (root) =>
        execFileSync(
          'sh',
          [
            '-c',
            'cd "$1" && { LC_ALL=C grep -rl --devices=skip --exclude="huge*" content . 2>/dev/null || true; } | LC_ALL=C sort',
            'sh',
            root,
          ],
          { maxBuffer: 2 ** 26 },
        ).toString('latin1');
      if (grep(s.source) === '') throw new Skip('the source has no such text');
      equal(grep(s.mount) === grep(s.source), true);
    },
  ],
  [
    'diff -r finds no difference',
    (s) => {
      // Without what diff cannot read in minutes: holes of terabytes, paths beyond PATH_MAX.
      for (const name of readdirSync(s.source, { withFileTypes: true })) {
        if (!name.isDirectory() || name.name === 'deep') continue;
        const folders = [join(s.source, name.name), join(s.mount, name.name)];
        const { stdout, stderr } = spawnSync('diff', ['-r', '--no-dereference', ...folders], {
          encoding: 'latin1',
          env: { ...process.env, LC_ALL: 'C' },
        });
        // diff knows no way to compare special files.
        const lines = `${stdout}${stderr}`.split('\n').filter((line) => line !== '');
        const differs = lines.find(
          (line) => !/ is a (fifo|(?:character|block) special file) while file .* is a \1$/.test(line),
        );
        if (differs !== undefined) throw new Error(differs);
      }
    },
  ],
  [
    'tar makes the same archive',
    (s) => {
      const tar = (root) =>
        execFileSync(
          'sh',
          ['-c', `cd "$1" && tar --sort=name --numeric-owner --exclude=huge* -c . | sha256sum`, 'sh', root],
          { stdio: ['ignore', 'pipe', 'ignore'] },
        ).toString();
      equal(tar(s.mount), tar(s.source));
    },
  ],
];
