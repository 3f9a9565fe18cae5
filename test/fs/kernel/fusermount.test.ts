import { describe, expect, it } from 'vitest';
import { hintFor, plainReason } from '../../../src/fs/kernel/fusermount.ts';

describe('what fusermount3 says', () => {
  it.each([
    [
      '/usr/bin/fusermount3: user has no write access to mountpoint /mnt\n',
      'user has no write access to mountpoint /mnt',
      'mount at a folder of yours',
    ],
    [
      'fusermount3: failed to open /dev/fuse: Permission denied\n',
      'failed to open /dev/fuse: Permission denied',
      '/dev/fuse is closed to this user: ask for access to it, or mount as root',
    ],
    ['fusermount: something else\n', 'something else', undefined],
  ])('%j has its path taken off, and a hint', (said, reason, hint) => {
    expect(plainReason(said)).toBe(reason);
    expect(hintFor(reason)).toBe(hint);
  });
});
