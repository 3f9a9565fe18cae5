// Extended attributes and ACLs.
import { execFileSync } from 'node:child_process';
import { libc } from '../../../dist/posix/libc.js';
import { getXattr, listXattrs } from '../../../dist/posix/xattr.js';
import { equal, isFile, isFolder, Skip, show } from '../survey.mjs';

const names = (path) =>
  listXattrs(path)
    .map((name) => name.toString('latin1'))
    .sort();
const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';

const has = (s, wanted) => (entry) => names(s.here(entry)).some((name) => wanted(name, entry));
const value = (path, name) => getXattr(path, name)?.toString('hex') ?? 'none';

/** All attributes of a kind have the value that they have in the source. */
const values = (title, wanted, what) => [
  title,
  (s) => {
    for (const entry of s.some(has(s, wanted), what)) {
      for (const name of names(s.here(entry)).filter((each) => wanted(each, entry)))
        equal(value(s.there(entry), name), value(s.here(entry), name), `${show(entry.rel)} ${name}`);
    }
  },
];

/** A call with a buffer of this size: its result, or minus errno. */
function raw(call, path, name, size) {
  const zero = (text) => Buffer.concat([Buffer.from(text), Buffer.alloc(1)]);
  const buffer = size === 0 ? null : Buffer.alloc(size);
  const result = Number(
    name === null ? libc().llistxattr(zero(path), buffer, size) : libc()[call](zero(path), zero(name), buffer, size),
  );
  return result < 0 ? -libc().errno() : result;
}

const one = (s) =>
  s.one(
    has(s, (name) => name.startsWith('user.')),
    'user attribute',
  );
const firstName = (s, entry) => names(s.here(entry)).find((name) => name.startsWith('user.'));

export default [
  [
    'names of user attributes are listed',
    (s) => {
      const user = (path) =>
        names(path)
          .filter((name) => name.startsWith('user.'))
          .join(' ');
      one(s);
      for (const entry of s.entries.filter((e) => isFile(e) || isFolder(e)))
        equal(user(s.there(entry)), user(s.here(entry)), show(entry.rel));
    },
  ],
  values('values of user attributes of files', (name, e) => name.startsWith('user.') && isFile(e), 'user attribute'),
  values(
    'values of user attributes of folders',
    (name, e) => name.startsWith('user.') && isFolder(e),
    'user attribute of a folder',
  ),
  values('capabilities of programs', (name) => name === 'security.capability', 'capability'),
  values('trusted attributes', (name) => name.startsWith('trusted.'), 'trusted attribute'),
  values('access ACLs are shown', (name) => name === ACCESS, 'access ACL'),
  values('default ACLs are shown', (name) => name === DEFAULT, 'default ACL'),
  ['a missing attribute is ENODATA', (s) => equal(raw('lgetxattr', s.there(one(s)), 'user.none', 100), -61)],
  [
    'the size of a value can be asked for',
    (s) => {
      const entry = one(s);
      const name = firstName(s, entry);
      equal(raw('lgetxattr', s.there(entry), name, 0), getXattr(s.here(entry), name).length);
    },
  ],
  [
    'too little room for a value is ERANGE',
    (s) => {
      const entry = s.one(
        has(s, (name, e) => name.startsWith('user.') && getXattr(s.here(e), name).length > 1),
        'such attribute',
      );
      const name = names(s.here(entry)).find(
        (each) => each.startsWith('user.') && getXattr(s.here(entry), each).length > 1,
      );
      equal(raw('lgetxattr', s.there(entry), name, 1), -34);
    },
  ],
  ['too little room for the list is ERANGE', (s) => equal(raw('llistxattr', s.there(one(s)), null, 2), -34)],
  [
    'an empty value is empty',
    (s) => {
      const empty = (name, e) => name.startsWith('user.') && getXattr(s.here(e), name).length === 0;
      const entry = s.one(has(s, empty), 'empty attribute');
      equal(
        getXattr(
          s.there(entry),
          names(s.here(entry)).find((name) => empty(name, entry)),
        )?.length,
        0,
      );
    },
  ],
  [
    'getfacl prints the same',
    (s) => {
      const entry = s.one(
        has(s, (name) => name === ACCESS || name === DEFAULT),
        'ACL',
      );
      const acl = (path) => execFileSync('getfacl', ['-npE', '--omit-header', path.toString()]).toString();
      equal(acl(s.there(entry)), acl(s.here(entry)));
    },
  ],
  [
    'ACLs let their users in',
    (s) => {
      if (process.getuid() !== 0) throw new Skip('needs root');
      const readableBy = (user, path) => {
        try {
          execFileSync('setpriv', [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', 'cat', path.toString()], {
            stdio: 'ignore',
          });
          return true;
        } catch {
          return false;
        }
      };
      const open = s.one((e) => isFile(e) && (e.stat.mode & 0o777) === 0o444, 'file of mode 444');
      if (!readableBy(65534, s.there(open))) throw new Skip('this mount is for its owner only');
      // u:1234:rw, and nothing for others.
      const entry = s.one(
        (e) => isFile(e) && (e.stat.mode & 7) === 0 && names(s.here(e)).includes(ACCESS),
        'such file',
      );
      equal(readableBy(1234, s.there(entry)), true, 'the user of the ACL');
      equal(readableBy(65534, s.there(entry)), false, 'another');
    },
  ],
];
