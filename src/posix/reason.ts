/** What the commonest errors of the operating system mean to a person. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EEXIST: 'exists already',
  ENOTDIR: 'not a folder',
  EISDIR: 'is a folder',
  ENOTEMPTY: 'folder is not empty',
  ENOSPC: 'no space left on the device',
  EDQUOT: 'disk quota exceeded',
  EROFS: 'file system is read-only',
  EMFILE: 'too many open files',
  EIO: 'input/output error',
  ENOTCONN: 'the mount there is dead',
  EBUSY: 'in use by another process',
  ENAMETOOLONG: 'name too long',
  ESTALE: 'stale file handle',
  ELOOP: 'too many symbolic links',
  ETIMEDOUT: 'timed out',
};

/** One clause for a system error: words, or its code when there are none. */
export function reasonOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  return code === undefined ? String(error) : (REASONS[code] ?? code);
}
