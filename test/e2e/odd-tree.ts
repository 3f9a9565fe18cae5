import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';

/** Deterministic bytes that do not compress, so that a failing comparison can be repeated. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state & 0xff;
  }
  return bytes;
}

/** `dir` and a name that need not be UTF-8. */
function at(dir: string | Buffer, ...names: (string | Buffer)[]): Buffer {
  const parts: Buffer[] = [Buffer.from(dir as string)];
  for (const name of names) parts.push(Buffer.from('/'), Buffer.from(name as string));
  return Buffer.concat(parts);
}

/**
 * A folder with every odd case that POSIX allows: names, kinds, links, holes, times, permissions, attributes.
 * Device nodes, foreign owners and privileged attributes are made only by root, when told so.
 */
export function makeOddTree(dir: string, options: { privileged: boolean }): void {
  const root = options.privileged;
  mkdirSync(dir, { recursive: true });
  const file = (name: string | Buffer, content: string | Buffer = 'content\n') => {
    const path = at(dir, name);
    writeFileSync(path, content);
    return path;
  };

  // Names.
  file(Buffer.from([0x6c, 0x61, 0x74, 0x69, 0x6e, 0xe9, 0xff, 0xfe]), 'not UTF-8\n');
  file(Buffer.alloc(255, 'n'), 'a name of 255 bytes\n');
  file(Buffer.alloc(255, 0xf8), 'a name of 255 bytes that are not UTF-8\n');
  file('new\nline');
  file('tab\tand "quotes" \'and\' $(shell) `ticks` \\ back*slash?');
  file(' leading and trailing ');
  file('-rf');
  file('ünïcödé-NFC-é');
  file('unicode-NFD-e\u0301');
  file('case');
  file('CASE', 'another\n');
  file('🦊');
  file('...');
  file('.hidden');

  // Deep paths: far over PATH_MAX when seen from the root of a mount.
  let deep = at(dir, 'deep');
  mkdirSync(deep);
  for (let i = 0; i < 40; i++) {
    deep = at(deep, `level-${String(i).padStart(2, '0')}-${'d'.repeat(60)}`);
    mkdirSync(deep);
  }
  writeFileSync(at(deep, 'bottom'), 'the bottom\n');

  // Kinds and links.
  mkdirSync(at(dir, 'empty folder'));
  file('empty file', '');
  symlinkSync('case', at(dir, 'symlink'));
  symlinkSync('/nowhere/at/all', at(dir, 'dangling'));
  symlinkSync(Buffer.from([0x74, 0xff, 0xfe]), at(dir, 'symlink to a name that is not UTF-8'));
  symlinkSync('x'.repeat(4000), at(dir, 'long symlink'));
  symlinkSync('.', at(dir, 'loop'));
  mkdirSync(at(dir, 'links'));
  const hard = at(dir, 'links', 'first');
  writeFileSync(hard, noise(5000, 7));
  linkSync(hard, at(dir, 'links', 'second'));
  linkSync(hard, at(dir, 'a third name elsewhere'));
  execFileSync('mkfifo', [`${dir}/fifo`]);
  linkSync(`${dir}/fifo`, `${dir}/links/fifo too`);
  if (root) {
    execFileSync('mknod', [`${dir}/char device`, 'c', '1', '3']);
    execFileSync('mknod', [`${dir}/block device`, 'b', '259', '1048575']);
  }

  // Sizes around every boundary, and holes.
  mkdirSync(at(dir, 'sizes'));
  for (const size of [
    1, 127, 4095, 4096, 4097, 131071, 131072, 262143, 262144, 262145, 524288, 1048577, 4194304, 5000001,
  ]) {
    writeFileSync(at(dir, 'sizes', String(size)), noise(size, size));
  }
  writeFileSync(at(dir, 'sizes', 'compressible'), 'All work and no play makes Jack a dull boy.\n'.repeat(100_000));
  const sparse = (name: string, size: number, pieces: [number, Buffer][]) => {
    const fd = openSync(at(dir, 'sizes', name), 'w');
    ftruncateSync(fd, size);
    for (const [offset, bytes] of pieces) writeSync(fd, bytes, 0, bytes.length, offset);
    closeSync(fd);
  };
  sparse('all hole', 10_000_000, []);
  sparse('hole at the end', 3_000_000, [[0, noise(8192, 3)]]);
  sparse('hole at the start', 3_000_000, [[2_990_080, noise(9920, 4)]]);
  sparse('holes between', 50_000_000, [
    [1_048_576, noise(65536, 5)],
    [20_971_520, noise(4096, 6)],
    [49_999_872, noise(128, 8)],
  ]);
  writeFileSync(at(dir, 'sizes', 'zeros that are not holes'), Buffer.alloc(1_000_000));

  // Permissions and owners.
  mkdirSync(at(dir, 'modes'));
  for (const mode of [0o000, 0o400, 0o444, 0o600, 0o755, 0o777]) {
    const path = at(dir, 'modes', mode.toString(8));
    writeFileSync(path, `${mode.toString(8)}\n`);
    // An unprivileged reader cannot read these two: they belong to another test.
    chmodSync(path, root || (mode & 0o400) !== 0 ? mode : 0o600);
  }
  mkdirSync(at(dir, 'modes', 'sticky'));
  chmodSync(at(dir, 'modes', 'sticky'), 0o1777);
  if (root) {
    const owned = at(dir, 'modes', 'owned by another');
    writeFileSync(owned, 'x');
    chownSync(owned, 12345, 54321);
    const setuid = at(dir, 'modes', 'setuid');
    writeFileSync(setuid, 'x');
    chmodSync(setuid, 0o6755);
    const large = at(dir, 'modes', 'large ids');
    writeFileSync(large, 'x');
    chownSync(large, 4_000_000_000, 4_000_000_001);
  }

  // Attributes and ACLs.
  mkdirSync(at(dir, 'attributes'));
  file('attributes/plain');
  execFileSync('setfattr', ['-n', 'user.comment', '-v', 'a comment', `${dir}/attributes/plain`]);
  execFileSync('setfattr', [
    '-n',
    'user.binary',
    '-v',
    `0x${noise(200, 11).toString('hex')}`,
    `${dir}/attributes/plain`,
  ]);
  execFileSync('setfattr', ['-n', 'user.empty', `${dir}/attributes/plain`]);
  execFileSync('setfattr', ['-n', 'user.on.folder', '-v', 'yes', `${dir}/attributes`]);
  file('attributes/with acl');
  execFileSync('setfacl', ['-m', 'u:1234:rw,g:4321:r', `${dir}/attributes/with acl`]);
  mkdirSync(at(dir, 'attributes', 'default acl'));
  execFileSync('setfacl', ['-d', '-m', 'u:1234:rwx', `${dir}/attributes/default acl`]);
  if (root) {
    file('attributes/capability');
    execFileSync('setfattr', [
      '-n',
      'security.capability',
      '-v',
      '0x0100000200200000000000000000000000000000',
      `${dir}/attributes/capability`,
    ]);
    execFileSync('setfattr', ['-n', 'trusted.mark', '-v', 'by root', `${dir}/attributes/capability`]);
  }

  // Times: nanoseconds, long ago, far ahead, on links too.
  mkdirSync(at(dir, 'times'));
  const touch = (name: string, when: string) => {
    file(`times/${name}`);
    execFileSync('touch', ['-d', when, `${dir}/times/${name}`]);
  };
  touch('nanoseconds', '2001-09-09 01:46:40.123456789 UTC');
  touch('before the epoch', '1955-11-05 06:15:00.000000001 UTC');
  touch('epoch', '1970-01-01 00:00:00 UTC');
  touch('after 2038', '2040-01-01 00:00:00.999999999 UTC');
  touch('far away', '2400-02-29 12:00:00 UTC');
  symlinkSync('nowhere', at(dir, 'times', 'link'));
  lutimesSync(at(dir, 'times', 'link'), 1_000_000_000, 1_000_000_000);

  // Folders.
  mkdirSync(at(dir, 'many'));
  for (let i = 0; i < 3000; i++) writeFileSync(at(dir, 'many', `file-${i}`), `${i}\n`);
  utimesSync(at(dir, 'many'), 1_234_567_890, 1_234_567_890);
}
