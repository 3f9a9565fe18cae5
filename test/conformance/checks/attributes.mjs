// What stat tells, and links.
import { execFileSync } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  statSync,
} from 'node:fs';
import { equal, isFile, isFolder, isLink, refuses, Skip, show, TYPE, typeOf } from '../survey.mjs';

const notFolder = (e) => !isFolder(e);
const special = (e) => [TYPE.fifo, TYPE.char, TYPE.block].includes(typeOf(e.stat));
const device = (e) => [TYPE.char, TYPE.block].includes(typeOf(e.stat));
const seconds = (stat) => stat.mtimeSec;
const exact = (stat) => `${stat.mtimeSec}.${stat.mtimeNs}`;

/** [title, which entries, what they are, what of their attributes must be alike] */
const alike = (title, wanted, what, value) => [title, (s) => s.each(s.some(wanted, what), value)];

export default [
  alike('permissions of files', isFile, 'file', (t) => t.mode & 0o777),
  alike('permissions of folders', isFolder, 'folder', (t) => t.mode & 0o777),
  alike(
    'set-user-id, set-group-id and sticky bits',
    (e) => (e.stat.mode & 0o7000) !== 0,
    'such bits',
    (t) => t.mode & 0o7000,
  ),
  alike(
    'owners',
    () => true,
    'entry',
    (t) => t.uid,
  ),
  alike(
    'groups',
    () => true,
    'entry',
    (t) => t.gid,
  ),
  alike(
    'owners above 2^31',
    (e) => e.stat.uid > 2 ** 31,
    'such owner',
    (t) => `${t.uid}:${t.gid}`,
  ),
  alike('sizes of files', isFile, 'file', (t) => t.size),
  alike(
    'sizes above 4 GiB',
    (e) => isFile(e) && e.stat.size > 2 ** 32,
    'such file',
    (t) => t.size,
  ),
  alike('sizes of symlinks', isLink, 'symlink', (t) => t.size),
  alike('numbers of links of files', notFolder, 'file', (t) => t.nlink),
  alike('numbers of links of folders', isFolder, 'folder', (t) => t.nlink),
  alike('mtimes of files, seconds', isFile, 'file', seconds),
  alike('mtimes of files, nanoseconds', isFile, 'file', exact),
  alike('mtimes of folders', isFolder, 'folder', exact),
  alike('mtimes of symlinks', isLink, 'symlink', exact),
  alike('mtimes of special files', special, 'special file', exact),
  alike('mtimes before 1970', (e) => e.stat.mtimeSec < 0, 'such time', exact),
  alike('mtimes after 2038', (e) => e.stat.mtimeSec > 2 ** 31, 'such time', seconds),
  alike('mtimes after 2106', (e) => e.stat.mtimeSec > 2 ** 32, 'such time', seconds),
  alike(
    'ctimes',
    () => true,
    'entry',
    (t) => `${t.ctimeSec}.${t.ctimeNs}`,
  ),
  alike(
    'birth times',
    (e) => e.stat.btimeSec !== 0,
    'birth time',
    (t) => `${t.btimeSec}.${t.btimeNs}`,
  ),
  alike(
    'blocks of files without holes',
    (e) => isFile(e) && e.stat.blocks * 512 >= e.stat.size && e.stat.size > 1e6,
    'such file',
    (t) => t.blocks,
  ),
  alike(
    'blocks of sparse files',
    (e) => isFile(e) && e.stat.blocks * 512 < e.stat.size,
    'sparse file',
    (t) => t.blocks,
  ),
  alike('device numbers', device, 'device node', (t) => t.rdev),
  alike(
    'large device numbers',
    (e) => device(e) && e.stat.rdev > 0xffff,
    'such device',
    (t) => t.rdev,
  ),
  [
    'du counts the same',
    (s) => {
      const du = (root) => execFileSync('sh', ['-c', 'cd "$1" && du -s .', 'sh', root]).toString();
      equal(du(s.mount), du(s.source));
    },
  ],
  [
    'two files have two inode numbers',
    (s) => {
      const seen = new Map();
      for (const entry of s.entries) {
        const { ino } = s.seenBig(entry);
        const other = seen.get(ino);
        if (other !== undefined && (other.stat.ino !== entry.stat.ino || other.stat.dev !== entry.stat.dev))
          throw new Error(`${show(other.rel)} and ${show(entry.rel)} have ${ino}`);
        seen.set(ino, entry);
      }
    },
  ],
  [
    'hard links share an inode',
    (s) => {
      const groups = new Map();
      for (const entry of s.some((e) => isFile(e) && e.stat.nlink > 1, 'hard link')) {
        const { ino } = s.seenBig(entry);
        const key = `${entry.stat.dev}:${entry.stat.ino}`;
        equal(ino, groups.get(key) ?? ino, show(entry.rel));
        groups.set(key, ino);
      }
    },
  ],
  [
    'hard links of special files share an inode',
    (s) => {
      const groups = new Map();
      for (const entry of s.some((e) => special(e) && e.stat.nlink > 1, 'such link')) {
        const { ino } = s.seenBig(entry);
        equal(ino, groups.get(entry.stat.ino) ?? ino, show(entry.rel));
        groups.set(entry.stat.ino, ino);
      }
    },
  ],
  [
    'all is on one device',
    (s) => {
      const { dev } = lstatSync(s.mount);
      for (const entry of s.entries) equal(lstatSync(s.there(entry)).dev, dev, show(entry.rel));
    },
  ],
  [
    'stat, fstat and lstat agree',
    (s) => {
      for (const entry of s.files.slice(0, 200)) {
        if ((entry.stat.mode & 0o400) === 0) continue;
        const fd = openSync(s.there(entry), 'r');
        const all = [fstatSync(fd), statSync(s.there(entry)), lstatSync(s.there(entry))];
        closeSync(fd);
        equal(new Set(all.map((t) => `${t.ino} ${t.size} ${t.mtimeMs} ${t.mode}`)).size, 1, show(entry.rel));
      }
    },
  ],
  [
    'attributes are the same the second time',
    (s) => {
      for (const entry of s.entries.slice(0, 500)) {
        const [a, b] = [lstatSync(s.there(entry)), lstatSync(s.there(entry))];
        equal(`${a.ino} ${a.size} ${a.mtimeMs}`, `${b.ino} ${b.size} ${b.mtimeMs}`, show(entry.rel));
      }
    },
  ],
  [
    'access(2) says readable, and not writable',
    (s) => {
      const entry = s.one((e) => isFile(e) && (e.stat.mode & 0o444) === 0o444, 'readable file');
      accessSync(s.there(entry), constants.R_OK);
      refuses(() => accessSync(s.there(entry), constants.W_OK), 'EROFS', 'EACCES');
    },
  ],
  [
    'modes keep others out',
    (s) => {
      if (process.getuid() !== 0) throw new Skip('needs root');
      const other = (path) => {
        try {
          execFileSync('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', 'cat', path], {
            stdio: 'ignore',
          });
          return true;
        } catch {
          return false;
        }
      };
      const open = s.one((e) => isFile(e) && (e.stat.mode & 0o777) === 0o444, 'file of mode 444');
      if (!other(s.there(open).toString())) throw new Skip('this mount is for its owner only');
      const closed = s.one((e) => isFile(e) && (e.stat.mode & 0o777) === 0o400, 'file of mode 400');
      equal(other(s.there(closed).toString()), false);
    },
  ],
  [
    'targets of symlinks',
    (s) => {
      for (const entry of s.some(isLink, 'symlink')) {
        const [here, there] = [s.here(entry), s.there(entry)].map((p) => readlinkSync(p, { encoding: 'latin1' }));
        if (Buffer.from(here, 'latin1').toString().includes('\ufffd') || here.length > 1000) continue;
        equal(there, here, show(entry.rel));
      }
    },
  ],
  [
    'targets that are not UTF-8',
    (s) => {
      const target = (e) => readlinkSync(s.here(e), { encoding: 'latin1' });
      const entry = s.one(
        (e) => isLink(e) && Buffer.from(target(e), 'latin1').toString().includes('\ufffd'),
        'such link',
      );
      equal(readlinkSync(s.there(entry), { encoding: 'latin1' }), target(entry));
    },
  ],
  [
    'targets of 4,000 bytes',
    (s) => {
      const entry = s.one((e) => isLink(e) && e.stat.size >= 4000, 'such link');
      equal(readlinkSync(s.there(entry), { encoding: 'latin1' }), readlinkSync(s.here(entry), { encoding: 'latin1' }));
    },
  ],
  [
    'a symlink leads on',
    (s) => {
      const leads = (e) => {
        try {
          return isLink(e) && statSync(s.here(e)).isFile() && !readlinkSync(s.here(e)).startsWith('/');
        } catch {
          return false;
        }
      };
      const entry = s.one(leads, 'symlink to a file');
      equal(readFileSync(s.there(entry)).equals(readFileSync(s.here(entry))), true);
    },
  ],
  [
    'a loop of symlinks is ELOOP or ends',
    (s) => {
      const entry = s.one((e) => isLink(e) && readlinkSync(s.here(e)) === '.', 'loop');
      refuses(() => statSync(Buffer.concat([s.there(entry), Buffer.from(`/${entry.name}`.repeat(60))])), 'ELOOP');
    },
  ],
  ['readlink of a file is EINVAL', (s) => refuses(() => readlinkSync(s.there(s.one(isFile, 'file'))), 'EINVAL')],
  [
    'O_NOFOLLOW on a symlink is ELOOP',
    (s) =>
      refuses(() => openSync(s.there(s.one(isLink, 'symlink')), constants.O_RDONLY | constants.O_NOFOLLOW), 'ELOOP'),
  ],
];
