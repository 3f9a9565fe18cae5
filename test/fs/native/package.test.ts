import { expect, test } from 'vitest';
import { foldNode } from '../../../src/fs/native/operations.ts';
import { loadFuseNative } from '../../../src/fs/native/package.ts';

function failing(code: string, message: string): () => never {
  return () => {
    throw Object.assign(new Error(message), { code });
  };
}

test('says what is missing, and what to do', () => {
  const told = (code: string, message: string) => {
    try {
      loadFuseNative(failing(code, message));
    } catch (error) {
      return `${(error as Error).message}; ${(error as { hint?: string }).hint}`;
    }
    return 'loaded';
  };
  expect(told('MODULE_NOT_FOUND', "Cannot find module 'fuse-native'\nRequire stack:\n- x")).toBe(
    '--driver fuse-native: the package fuse-native is not installed; npm install fuse-native, or leave --driver out',
  );
  const library = 'libfuse.so.2: cannot open shared object file: No such file or directory';
  expect(told('ERR_DLOPEN_FAILED', library)).toMatch(
    /libfuse 2 is missing .*; install libfuse 2 .*apt install libfuse2/,
  );
  expect(told('ERR_DLOPEN_FAILED', 'wrong ELF class')).toContain('npm rebuild fuse-native');
});

test('numbers of 32 bits differ within a snapshot, and of one inode from snapshot to snapshot', () => {
  const within = new Set(Array.from({ length: 10_000 }, (_, ino) => foldNode(0x3fffff, ino + 1)));
  expect(within.size).toBe(10_000);
  const across = new Set(Array.from({ length: 10_000 }, (_, slot) => foldNode(slot, 77)));
  expect(across.size).toBe(10_000);
  for (const number of [...within, ...across, foldNode(1, 2 ** 39 + 5)]) {
    expect(number > 0 && number < 2 ** 32 && Number.isInteger(number)).toBe(true);
  }
});
