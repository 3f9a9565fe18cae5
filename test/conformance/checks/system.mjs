// Nothing can be changed, and what else the kernel and programs ask for.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  fdatasyncSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { libc } from '../../../dist/posix/libc.js';
import { setXattr } from '../../../dist/posix/xattr.js';
import { equal, isFile, isFolder, refuses, Skip } from '../survey.mjs';

const NEW = 'a new name';
const refused = (title, call) => [
  `${title} is EROFS`,
  (s) => refuses(() => call(s, s.there(s.one((e) => isFile(e) && (e.stat.mode & 0o600) === 0o600, 'file'))), 'EROFS'),
];
const root = () => {
  if (process.getuid() !== 0) throw new Skip('needs root');
};

export default [
  refused('making a file', (s) => writeFileSync(`${s.mount}/${NEW}`, '')),
  refused('opening for writing', (_s, path) => closeSync(openSync(path, 'r+'))),
  refused('appending', (_s, path) => closeSync(openSync(path, 'a'))),
  refused('truncating', (_s, path) => truncateSync(path, 0)),
  refused('making a folder', (s) => mkdirSync(`${s.mount}/${NEW}`)),
  refused('removing a file', (_s, path) => unlinkSync(path)),
  refused('removing a folder', (s) => rmdirSync(s.there(s.one(isFolder, 'folder')))),
  refused('renaming', (s, path) => renameSync(path, `${s.mount}/${NEW}`)),
  refused('a hard link', (s, path) => linkSync(path, `${s.mount}/${NEW}`)),
  refused('a symlink', (s) => symlinkSync('x', `${s.mount}/${NEW}`)),
  refused('chmod', (_s, path) => chmodSync(path, 0o600)),
  refused('chown', (_s, path) => chownSync(path, 0, 0)),
  refused('setting times', (_s, path) => lutimesSync(path, 1, 1)),
  refused('setting an attribute', (_s, path) => setXattr(path, 'user.new', Buffer.from('x'))),
  refused('a device node', (s) => {
    root();
    execFileSync('true');
    if (libc().mknod(Buffer.from(`${s.mount}/${NEW}\0`), 0o010644, 0) !== 0)
      throw Object.assign(new Error('mknod'), { code: libc().errno() === 30 ? 'EROFS' : `errno ${libc().errno()}` });
  }),
  [
    'statfs says that nothing is free',
    (s) => {
      const { bfree, bavail, blocks } = statfsSync(s.mount);
      equal(`${bfree} ${bavail}`, '0 0');
      equal(blocks > 0, true, 'size');
    },
  ],
  ['statfs counts files', (s) => equal(statfsSync(s.mount).files >= 1, true, `${statfsSync(s.mount).files}`)],
  [
    'it is mounted read-only',
    (s) => {
      const options = execFileSync('findmnt', ['-n', '-o', 'OPTIONS', '-T', s.mount]).toString();
      equal(options.split(',').includes('ro'), true, options.trim());
    },
  ],
  [
    'a shared lock can be taken',
    (s) => {
      const fd = openSync(s.there(s.one((e) => isFile(e) && (e.stat.mode & 0o400) !== 0, 'file')), 'r');
      const result = libc().flock(fd, 1 | 4);
      closeSync(fd);
      equal(result, 0);
    },
  ],
  [
    'fdatasync of an open file is harmless',
    (s) => {
      const fd = openSync(s.there(s.one((e) => isFile(e) && (e.stat.mode & 0o400) !== 0, 'file')), 'r');
      try {
        fdatasyncSync(fd);
      } finally {
        closeSync(fd);
      }
    },
  ],
  [
    'poll says that a file can be read',
    (s) => {
      const fd = openSync(s.there(s.one((e) => isFile(e) && (e.stat.mode & 0o400) !== 0, 'file')), 'r');
      const asked = Buffer.alloc(8);
      asked.writeInt32LE(fd, 0);
      asked.writeInt16LE(1, 4);
      const ready = libc().poll(asked, 1, 1000);
      closeSync(fd);
      equal(ready, 1);
    },
  ],
  [
    'an unknown ioctl is ENOTTY',
    (s) => {
      const code =
        'import fcntl,sys\ntry: fcntl.ioctl(open(sys.argv[1]), 0x5401, b"0"*64)\nexcept OSError as e: print(e.errno)';
      const file = s.there(s.one((e) => isFile(e) && (e.stat.mode & 0o400) !== 0, 'file'));
      equal(execFileSync('python3', ['-c', code, file]).toString().trim(), '25');
    },
  ],
  [
    'a file can be opened by its handle',
    (s) => {
      root();
      const koffi = createRequire(import.meta.url)('koffi');
      const c = koffi.load(null);
      const nameToHandle = c.func(
        'int name_to_handle_at(int dir, const void *path, void *handle, void *mount, int flags)',
      );
      const openHandle = c.func('int open_by_handle_at(int mount, void *handle, int flags)');
      const entry = s.one((e) => isFile(e) && e.stat.size > 0 && e.stat.size < 1e6, 'file');
      const handle = Buffer.alloc(136);
      handle.writeUInt32LE(128, 0);
      equal(
        nameToHandle(-100, Buffer.concat([s.there(entry), Buffer.alloc(1)]), handle, Buffer.alloc(4), 0),
        0,
        'name_to_handle_at',
      );
      const mount = openSync(s.mount, 'r');
      const fd = openHandle(mount, handle, 0);
      closeSync(mount);
      equal(fd > 0, true, 'open_by_handle_at');
      const bytes = readFileSync(fd);
      closeSync(fd);
      equal(bytes.equals(readFileSync(s.here(entry))), true);
    },
  ],
  [
    'inotify can watch',
    (s) => {
      const code =
        'import ctypes,sys\nc=ctypes.CDLL(None)\nprint(c.inotify_add_watch(c.inotify_init(), sys.argv[1].encode(), 0xfff))';
      equal(Number(execFileSync('python3', ['-c', code, s.mount])) > 0, true);
    },
  ],
  [
    'find -ls and du -a end well',
    (s) => {
      for (const command of ['find . -ls', 'du -a'])
        execFileSync('sh', ['-c', `cd "$1" && ${command} > /dev/null`, 'sh', s.mount], {
          stdio: ['ignore', 'ignore', 'pipe'],
        });
    },
  ],
];
