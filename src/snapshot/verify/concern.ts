/** From damage to the files that it concerns, snapshot by snapshot. Reads only what can still be read. */
import { ROOT_INODE } from '../../archive/format.ts';
import { EXTENT, NAME } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import { D_TYPE_FOLDER } from '../view/entry-walk.ts';
import type { LostRange } from './archive-check.ts';
import type { Findings } from './findings.ts';
import { type LostRows, RowIds, soundLeaves } from './pages.ts';
import type { Finding } from './types.ts';

/** A chain of folders that is deeper is a loop. */
const MAX_DEPTH = 4096;
const SLASH = Buffer.from('/');

export interface Damage {
  rows: readonly LostRows[];
  ranges: ReadonlyMap<string, readonly LostRange[]>;
}

/** Adds to each finding the files of this snapshot that it concerns. */
export async function nameConcerned(findings: Findings, reader: SnapshotReader, damage: Damage): Promise<void> {
  const concerned = new Concerned();
  const archiveRows = damage.rows.filter(({ tree }) => tree === 'archives');
  for (const { finding, tree, from, to } of damage.rows) {
    if (tree === 'archives' || tree === 'history' || tree === 'deleted') continue;
    // In a tree with a longer key the last inode may lie on both sides of the boundary.
    const last = to === null ? Number.POSITIVE_INFINITY : tree === 'inodes' ? (to[0] as number) - 1 : (to[0] as number);
    concerned.addRange(finding, from === null ? 0 : (from[0] as number), last);
  }
  if (damage.ranges.size > 0 || archiveRows.length > 0) await throughExtents(reader, damage, archiveRows, concerned);
  if (concerned.isEmpty) return;
  await throughNames(findings, reader, concerned);
}

/** Inodes and ranges of inodes, each with its findings. */
class Concerned {
  readonly single = new Map<number, Set<Finding>>();
  readonly #ranges: { finding: Finding; from: number; to: number }[] = [];

  get isEmpty(): boolean {
    return this.single.size === 0 && this.#ranges.length === 0;
  }

  add(inode: number, finding: Finding): void {
    const known = this.single.get(inode);
    if (known === undefined) this.single.set(inode, new Set([finding]));
    else known.add(finding);
  }

  addRange(finding: Finding, from: number, to: number): void {
    this.#ranges.push({ finding, from, to });
  }

  of(inode: number): Set<Finding> {
    const found = new Set(this.single.get(inode));
    for (const { finding, from, to } of this.#ranges) if (inode >= from && inode <= to) found.add(finding);
    return found;
  }
}

async function throughExtents(
  reader: SnapshotReader,
  { ranges }: Damage,
  archiveRows: readonly LostRows[],
  concerned: Concerned,
): Promise<void> {
  const ids = new RowIds(reader);
  for await (const page of soundLeaves(reader, 'extents')) {
    for (let i = 0; i < page.count; i++) {
      const row = page.num(EXTENT.row, i);
      if (row === 0) continue;
      const inode = page.num(EXTENT.inode, i);
      for (const { finding, from, to } of archiveRows) {
        if (row >= ((from?.[0] as number) ?? 0) && row < ((to?.[0] as number) ?? Number.POSITIVE_INFINITY))
          concerned.add(inode, finding);
      }
      const id = await ids.get(row);
      const lost = id === null ? undefined : ranges.get(id);
      if (lost === undefined) continue;
      const start = page.num(EXTENT.streamOffset, i);
      const end = start + page.num(EXTENT.length, i);
      for (const { finding, from, to } of lost) if (start < to && end > from) concerned.add(inode, finding);
    }
  }
}

async function throughNames(findings: Findings, reader: SnapshotReader, concerned: Concerned): Promise<void> {
  const folders = new Map<number, { parent: number; name: Buffer }>();
  const named: { parent: number; name: Buffer; found: Set<Finding> }[] = [];
  const unnamed = new Map(concerned.single);
  for await (const page of soundLeaves(reader, 'names')) {
    for (let i = 0; i < page.count; i++) {
      const parent = page.num(NAME.parent, i);
      const inode = page.num(NAME.inode, i);
      const found = concerned.of(inode);
      const isFolder = page.num(NAME.type, i) === D_TYPE_FOLDER;
      if (!isFolder && found.size === 0) continue;
      const name = Buffer.from(page.slice(NAME.name, i));
      if (isFolder) folders.set(inode, { parent, name });
      if (found.size > 0) named.push({ parent, name, found });
      unnamed.delete(inode);
    }
  }
  const lines = named.map(({ parent, name, found }) => ({ path: pathOf(folders, parent, name), found }));
  const top = concerned.of(ROOT_INODE);
  if (top.size > 0) lines.push({ path: SLASH, found: top });
  for (const [inode, found] of unnamed) {
    if (inode !== ROOT_INODE) lines.push({ path: Buffer.from(`(inode ${inode}, whose name is lost)`), found });
  }
  lines.sort((a, b) => a.path.compare(b.path));
  for (const { path, found } of lines) for (const finding of found) findings.concern(finding, reader.scope, path);
}

/** Path from the root of the snapshot, as far as the folders' names are known. */
function pathOf(folders: ReadonlyMap<number, { parent: number; name: Buffer }>, parent: number, name: Buffer): Buffer {
  const parts = [name];
  let at = parent;
  for (let depth = 0; at !== ROOT_INODE; depth++) {
    const folder = folders.get(at);
    if (folder === undefined || depth > MAX_DEPTH) {
      parts.push(Buffer.from('(a lost folder)'));
      break;
    }
    parts.push(folder.name);
    at = folder.parent;
  }
  return Buffer.concat(parts.reverse().flatMap((part) => [SLASH, part]));
}
