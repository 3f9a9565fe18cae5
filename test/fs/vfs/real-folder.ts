/** A folder of this machine as model entries: every attribute as lstat gives it. */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { ModelEntry } from './model.ts';

export function entriesOf(folder: string): ModelEntry[] {
  const entries: ModelEntry[] = [];
  const links = new Map<string, string>();
  const visit = (path: string): void => {
    const place = Buffer.from(path === '' ? folder : `${folder}/${path}`, 'latin1');
    const stat = lstatSync(place, { bigint: true });
    const type = stat.isDirectory() ? 'folder' : stat.isFile() ? 'file' : stat.isSymbolicLink() ? 'symlink' : null;
    if (type === null) return;
    const entry: ModelEntry = {
      path,
      type,
      mode: Number(stat.mode) & 0o7777,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtimeSec: Number(stat.mtimeNs / 1_000_000_000n),
      mtimeNs: Number(stat.mtimeNs % 1_000_000_000n),
    };
    const known = links.get(`${stat.dev}:${stat.ino}`);
    if (type === 'file' && known !== undefined) entry.linkTo = known;
    else if (type === 'file') {
      entry.content = stat.size === 0n ? [] : [readFileSync(place)];
      if (stat.nlink > 1n) links.set(`${stat.dev}:${stat.ino}`, path);
    } else if (type === 'symlink') entry.target = readlinkSync(place, 'latin1');
    entries.push(entry);
    if (type !== 'folder') return;
    for (const name of readdirSync(place, 'latin1').sort()) visit(path === '' ? name : `${path}/${name}`);
  };
  visit('');
  return entries;
}
