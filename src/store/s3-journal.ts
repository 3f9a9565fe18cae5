/**
 * Which upload a file on its way to a bucket belongs to: `<file>.upload` beside it. The parts that the server has are asked of the
 * server, so that this is written once. Without it the upload is found by its key; a damaged one counts as none.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';

export interface JournalEntry {
  key: string;
  upload: string;
  /** Of the file, bytes. */
  size: number;
}

function journalPath(path: string): string {
  return `${path}.upload`;
}

export function rememberUpload(path: string, entry: JournalEntry): void {
  const draft = `${journalPath(path)}.new`;
  const fd = openSync(draft, 'w', 0o600);
  try {
    writeSync(fd, JSON.stringify(entry));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(draft, journalPath(path));
}

export function recallUpload(path: string): JournalEntry | null {
  try {
    const { key, upload, size } = JSON.parse(readFileSync(journalPath(path), 'utf8')) as Partial<JournalEntry>;
    if (typeof key !== 'string' || typeof upload !== 'string' || typeof size !== 'number') return null;
    return { key, upload, size };
  } catch {
    return null;
  }
}

export function forgetUpload(path: string): void {
  rmSync(`${journalPath(path)}.new`, { force: true });
  rmSync(journalPath(path), { force: true });
}
