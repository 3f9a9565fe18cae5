// node test/conformance/make.mjs FOLDER [--small]: makes a folder with an example for every check of the conformance
// program. --small leaves out the hole of more than a tebibyte, which most tools read from end to end.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  ftruncateSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { resolve } from 'node:path';

const root = resolve(process.argv[2] ?? '');
const small = process.argv.includes('--small');
const privileged = process.getuid() === 0;
mkdirSync(root, { recursive: true });
process.chdir(root);
const run = (command, ...args) => execFileSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));

mkdirSync('names');
for (const name of [
  bytes('names/latin', [0xe9, 0xff, 0xfe]),
  bytes('names/', Buffer.alloc(255, 'n')),
  bytes('names/', Buffer.alloc(255, 0xf8)),
  ...[
    'new\nline',
    'tab\tand "quotes" \'and\' \\ back*slash?',
    ' blanks ',
    '-rf',
    '...',
    '.hidden',
    'case',
    'CASE',
    '🦊',
    'composed-é',
  ].map((name) => bytes(`names/${name}`)),
  bytes('names/decomposed-e\u0301'),
])
  writeFileSync(name, bytes('content of ', name));
mkdirSync('empty');
mkdirSync('many');
for (let i = 0; i < 3000; i++) writeFileSync(`many/file-${i}`, `${i}\n`);
mkdirSync('deep');
process.chdir('deep');
for (let i = 0; i < 70; i++) {
  const name = `level-${i}-${'d'.repeat(60)}`;
  mkdirSync(name);
  process.chdir(name);
}
writeFileSync('bottom', 'the bottom\n');
process.chdir(root);

mkdirSync('links');
writeFileSync('links/first', randomBytes(5000));
linkSync('links/first', 'links/second');
linkSync('links/first', 'names/third');
run('mkfifo', 'links/fifo');
linkSync('links/fifo', 'links/fifo too');
symlinkSync('first', 'links/symlink');
symlinkSync('/nowhere/at/all', 'links/dangling');
symlinkSync(Buffer.from([0x74, 0xff, 0xfe]), 'links/not UTF-8');
symlinkSync('x'.repeat(4000), 'links/long');
symlinkSync('.', 'links/loop');
lutimesSync('links/dangling', 1_000_000_000, 1_000_000_000);
if (privileged) {
  run('mknod', 'links/char device', 'c', '1', '3');
  run('mknod', 'links/block device', 'b', '259', '1048575');
}

mkdirSync('sizes');
for (const size of [
  0, 1, 4095, 4096, 4097, 131071, 131072, 131073, 262143, 262144, 262145, 1048577, 9_437_184, 5_000_001,
])
  writeFileSync(`sizes/${size}`, randomBytes(size));
writeFileSync('sizes/compressible', 'All work and no play makes Jack a dull boy.\n'.repeat(200_000));
writeFileSync('sizes/zeros', Buffer.alloc(1_500_000));
function sparse(name, size, pieces) {
  const fd = openSync(`sizes/${name}`, 'w');
  ftruncateSync(fd, size);
  for (const [offset, length] of pieces) writeSync(fd, randomBytes(length), 0, length, offset);
  closeSync(fd);
}
sparse('hole', 10_000_000, []);
sparse('holes', 50_000_000, [
  [1_048_576, 65536],
  [20_971_520, 4096],
  [49_999_872, 128],
]);
sparse('hole at the end', 3_000_000, [[0, 8192]]);
// tar and diff leave files named huge… out. Not in a folder: diff reads folders only.
writeFileSync('huge', randomBytes(100_000));
truncateSync('huge', small ? 2 ** 32 + 2 ** 26 : 2 ** 40 + 2 ** 33);
const fd = openSync('huge', 'r+');
writeSync(fd, randomBytes(10_000), 0, 10_000, 2 ** 32 - 5000);
if (!small) writeSync(fd, randomBytes(10_000), 0, 10_000, 2 ** 40 - 5000);
closeSync(fd);
copyFileSync('/bin/true', 'sizes/program');
chmodSync('sizes/program', 0o755);

mkdirSync('modes');
for (const mode of [0o400, 0o444, 0o600, 0o755, 0o777]) {
  writeFileSync(`modes/${mode.toString(8)}`, 'content\n');
  chmodSync(`modes/${mode.toString(8)}`, mode);
}
mkdirSync('modes/sticky');
chmodSync('modes/sticky', 0o1777);
if (privileged) {
  writeFileSync('modes/set-user-id', 'x');
  chmodSync('modes/set-user-id', 0o6755);
  for (const [name, owner] of [
    ['another', 12345],
    ['large', 4_000_000_000],
  ]) {
    writeFileSync(`modes/${name}`, 'x');
    chownSync(`modes/${name}`, owner, owner + 1);
  }
}

mkdirSync('attributes');
writeFileSync('attributes/plain', 'content\n');
run('setfattr', '-n', 'user.comment', '-v', 'a comment', 'attributes/plain');
run('setfattr', '-n', 'user.binary', '-v', `0x${randomBytes(200).toString('hex')}`, 'attributes/plain');
run('setfattr', '-n', 'user.empty', 'attributes/plain');
run('setfattr', '-n', 'user.folder', '-v', 'yes', 'attributes');
writeFileSync('attributes/acl', 'content\n');
chmodSync('attributes/acl', 0o600);
run('setfacl', '-m', 'u:1234:rw,g:4321:r', 'attributes/acl');
mkdirSync('attributes/default acl');
run('setfacl', '-d', '-m', 'u:1234:rwx', 'attributes/default acl');
if (privileged) {
  writeFileSync('attributes/capability', 'x');
  run(
    'setfattr',
    '-n',
    'security.capability',
    '-v',
    '0x0100000200200000000000000000000000000000',
    'attributes/capability',
  );
  run('setfattr', '-n', 'trusted.mark', '-v', 'by root', 'attributes/capability');
}

mkdirSync('times');
for (const [name, when] of [
  ['nanoseconds', '2001-09-09 01:46:40.123456789 UTC'],
  ['before the epoch', '1955-11-05 06:15:00.000000001 UTC'],
  ['epoch', '1970-01-01 00:00:00 UTC'],
  ['after 2038', '2040-01-01 00:00:00.999999999 UTC'],
  ['far away', '2400-02-29 12:00:00 UTC'],
]) {
  writeFileSync(`times/${name}`, 'content\n');
  run('touch', '-d', when, `times/${name}`);
}
utimesSync('many', 1_234_567_890, 1_234_567_890);
