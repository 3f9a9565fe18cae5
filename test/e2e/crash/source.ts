/** Real files of this machine, gathered into one folder that nothing else changes. */
import { copyFileSync, lstatSync, mkdirSync, readdirSync, utimesSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Larger files would make up most of a small corpus. */
const LARGEST = 24 * 1024 * 1024;

/** Copies files from below `roots`, one folder of each in turn, until there are `bytes`. Returns what it copied. */
export function gather(target: string, roots: readonly string[], bytes: number): { files: number; bytes: number } {
  const walks = roots.map((root) => regularFiles(root));
  const largest = Math.min(LARGEST, bytes / 4);
  const total = { files: 0, bytes: 0 };
  while (walks.length > 0 && total.bytes < bytes) {
    for (const walk of [...walks]) {
      const next = walk.next();
      if (next.done) {
        walks.splice(walks.indexOf(walk), 1);
        continue;
      }
      for (const { path, size, mtime } of next.value) {
        if (size > largest || total.bytes >= bytes) continue;
        const copy = join(target, path);
        mkdirSync(dirname(copy), { recursive: true });
        copyFileSync(path, copy);
        utimesSync(copy, mtime, mtime);
        total.files++;
        total.bytes += size;
      }
    }
  }
  if (total.bytes < bytes) throw new Error(`${roots.join(', ')} hold only ${total.bytes} bytes, ${bytes} are wanted`);
  return total;
}

interface Found {
  path: string;
  size: number;
  mtime: number;
}

/** The regular files of each folder in turn; what cannot be read is passed over. */
function* regularFiles(folder: string): Generator<Found[]> {
  const folders: string[] = [];
  const files: Found[] = [];
  let names: string[];
  try {
    names = readdirSync(folder).sort();
  } catch {
    return;
  }
  for (const name of names) {
    const path = join(folder, name);
    const info = lstatSync(path, { throwIfNoEntry: false });
    if (info?.isDirectory()) folders.push(path);
    else if (info?.isFile()) files.push({ path, size: info.size, mtime: Math.floor(info.mtimeMs / 1000) });
  }
  yield files;
  for (const inner of folders) yield* regularFiles(inner);
}
