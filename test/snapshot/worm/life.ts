import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import type { WormPolicy } from '../../../src/repository/snapshot-record.ts';

/** What can happen to a file that is there. */
interface FileStep {
  kind: 'append' | 'truncate' | 'rot' | 'delete' | 'symlink' | 'touch' | 'into';
  file: number;
  salt: number;
  /** Of 'into': what is put into the folder that takes the name of the file: that file, a known folder. */
  keeps?: boolean;
  brings?: number | null;
}

/** 'carry': as onto another file system and back. 'flatten': it is a file now. */
type FolderStep =
  | { kind: 'folder' | 'carry'; from: number; to: number }
  | { kind: 'flatten'; from: number; salt: number };

/** What can happen to a folder of files, and that it is backed up. */
export type Step =
  | FileStep
  | { kind: 'write'; file: number; salt: number }
  | { kind: 'rename' | 'copy' | 'link'; file: number; to: number }
  | FolderStep
  | { kind: 'backup'; policy: Partial<WormPolicy>; machine: 'first' | 'second' };

const FILES = 8;
const FOLDERS = 4;
const file = fc.nat(FILES - 1);
const folder = fc.nat(FOLDERS - 1);
const salt = fc.nat(1000);
const constant = <T>(value: T) => fc.constant(value);

export const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 7,
    arbitrary: fc.record({
      kind: fc.constantFrom('write', 'append', 'truncate', 'rot', 'delete', 'symlink', 'touch' as const),
      file,
      salt,
    }) as fc.Arbitrary<Step>,
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('rename', 'copy', 'link' as const), file, to: file }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('folder', 'carry' as const), from: folder, to: folder }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: constant('into' as const),
      file,
      salt,
      keeps: fc.boolean(),
      brings: fc.option(folder, { freq: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: constant('flatten' as const), from: folder, salt }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: constant('backup' as const),
      policy: fc.record({
        onChange: fc.constantFrom('warn', 'accept', 'restore' as const),
        onDelete: fc.constantFrom('record', 'restore' as const),
        acceptNew: fc.oneof({ weight: 3, arbitrary: constant(true) }, { weight: 1, arbitrary: constant(false) }),
      }),
      machine: fc.constantFrom('first', 'first', 'second' as const),
    }) as fc.Arbitrary<Step>,
  },
);

const nameOf = (number: number): string => join(`f${number % FOLDERS}`, `file ${number}`);

function isFile(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** False when something that is no folder is in the way. */
function makeRoom(path: string): boolean {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false) return false;
  mkdirSync(path, { recursive: true });
  return true;
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Changes the folder; what makes no sense as things stand changes nothing. */
export function change(source: string, it: Exclude<Step, { kind: 'backup' }>): void {
  if ('from' in it) return changeFolder(source, it);
  const path = join(source, nameOf(it.file));
  if (!makeRoom(dirname(path))) return;
  if ('to' in it) {
    const to = join(source, nameOf(it.to));
    if (!isFile(path) || !makeRoom(dirname(to)) || exists(to)) return;
    if (it.kind === 'rename') renameSync(path, to);
    else if (it.kind === 'link') linkSync(path, to);
    else writeFileSync(to, readFileSync(path));
  } else if (it.kind === 'write') {
    rmSync(path, { recursive: true, force: true });
    writeFileSync(path, `content ${it.file} ${it.salt}\n`.repeat(1 + (it.salt % 50)));
  } else if (isFile(path)) changeFile(path, it);
}

function changeFolder(source: string, it: FolderStep): void {
  const from = join(source, `f${it.from}`);
  if (!('to' in it)) {
    rmSync(from, { recursive: true, force: true });
    writeFileSync(from, `a file instead ${it.salt}\n`);
    return;
  }
  const to = join(source, `f${it.to}`);
  if (!existsSync(from) || (from !== to && exists(to))) return;
  if (it.kind === 'folder') renameSync(from, to);
  else carry(from, to);
}

/** As onto another file system and back: all is copied, with its times. */
function carry(from: string, to: string): void {
  const beside = `${from} (carried)`;
  cpSync(from, beside, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
  rmSync(from, { recursive: true });
  renameSync(beside, to);
}

function changeFile(path: string, it: FileStep): void {
  if (it.kind === 'append') appendFileSync(path, `more ${it.salt}\n`);
  else if (it.kind === 'truncate') writeFileSync(path, readFileSync(path).subarray(0, it.salt % 40));
  else if (it.kind === 'delete') unlinkSync(path);
  else if (it.kind === 'touch') chmodSync(path, 0o600 + (it.salt % 8));
  else if (it.kind === 'symlink') {
    unlinkSync(path);
    symlinkSync('nowhere', path);
  } else if (it.kind === 'into') {
    // A folder takes the name of the file, which may be in it.
    renameSync(path, `${path} aside`);
    mkdirSync(path);
    writeFileSync(join(path, 'inside'), `inside ${it.salt}\n`);
    if (it.keeps === true) renameSync(`${path} aside`, join(path, 'kept'));
    else unlinkSync(`${path} aside`);
    const known = join(dirname(dirname(path)), `f${it.brings ?? 0}`);
    if (it.brings != null && known !== dirname(path) && exists(known)) renameSync(known, join(path, 'brought'));
  } else rot(path, it.salt);
}

/** Another byte, and no trace of it in size and mtime. */
function rot(path: string, salt: number): void {
  const bytes = readFileSync(path);
  if (bytes.length === 0) return;
  const { atime, mtime } = statSync(path);
  bytes[salt % bytes.length]! ^= 1;
  writeFileSync(path, bytes);
  utimesSync(path, atime, mtime);
}
