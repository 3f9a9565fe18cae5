/** Looks at the single files and folders that a person has decided on, instead of a walk. */
import { closeSync } from 'node:fs';
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { INODE, TREES, type TreeRoots } from '../../archive/tree/schema.ts';
import { FOLDER_FLAGS, openBeneath, statName } from '../../posix/folder.ts';
import { PosixError } from '../../posix/libc.ts';
import { emptyStat, lstat, type Stat } from '../../posix/stat.ts';
import type { BackupOptions } from '../backup/backup-types.ts';
import type { Comparison } from '../backup/compare.ts';
import type { Displaced } from '../backup/comparison-types.ts';
import { FIELD, type Plan } from '../backup/plan.ts';
import { layOutSources, sourceLength } from '../backup/sources.ts';
import { type Tally, describe as words } from '../backup/tally.ts';
import type { Folder } from '../backup/walk.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';
import { localTrees } from './archived.ts';
import type { Divergences } from './divergences.ts';
import { allNames, localPath } from './set-trees.ts';

export interface DecidedOptions {
  options: BackupOptions;
  base: { source: PageSource; roots: TreeRoots };
  plan: Plan;
  tally: Tally;
  comparison: Comparison;
  divergences: Divergences;
  /** What stands there is to make room for the archived one. */
  puts: (it: Displaced) => void;
}

/** Answers folders that were accepted and are to be walked. */
export async function lookAtDecided(decided: DecidedOptions): Promise<Folder[]> {
  const { options, base, plan, tally, comparison, divergences, puts } = decided;
  const inodes = new Cursor(base.source, TREES.inodes, base.roots.inodes);
  const accepted: Displaced[] = [];
  const linked = new Map<number, number>();
  for (const [inode, { path }] of options.decisions ?? []) {
    if (!inodes.find(inode)) continue;
    const slash = path.lastIndexOf(0x2f);
    const parent = path.subarray(0, Math.max(1, slash));
    const name = path.toString('latin1', slash + 1);
    const number = inodes.page!.num(INODE.parent, inodes.index);
    const isFile = (inodes.page!.num(INODE.mode, inodes.index) & S_IFMT) === S_IFREG;
    const folder: Folder = { path: parent, text: parent.toString('latin1'), inode: number, dev: 0, ino: 0, fd: -1 };
    try {
      folder.fd = openBeneath(parent, sourceLength(plan.sources, parent), FOLDER_FLAGS);
      const stat = statIn(folder, name);
      const it: Displaced = { inode, folder, name, stat };
      if (isFile && (stat.mode & S_IFMT) === S_IFREG) {
        const record = comparison.again(folder, { name, stat, inode });
        if (plan.otherNames.has(record)) linked.set(inode, record);
      } else if (!divergences.replaced(it, path)) accepted.push(it);
      else puts(it);
    } catch (error) {
      tally.problem({ kind: 'unreadable', path, message: words(error) });
    } finally {
      if (folder.fd >= 0) closeSync(folder.fd);
      folder.fd = -1;
    }
  }
  planRepairs(decided);
  await findNames(decided, linked);
  return comparison.accept(accepted);
}

function statIn({ fd, path }: Folder, name: string): Stat {
  const stat = emptyStat();
  const errno = statName(fd, path, name, stat);
  if (errno !== 0) throw new PosixError(errno, 'lstat', path);
  return stat;
}

/** Files to be read for contents that are stored once more. Their rows stay as they are. */
function planRepairs({ options, plan, tally }: DecidedOptions): void {
  const { records, folders, names, reading, rewritten } = plan;
  for (const { inode, version, contentId, path } of options.repairs?.contents ?? []) {
    try {
      const stat = lstat(path);
      const record = records.add(stat, inode, 0);
      const slash = path.lastIndexOf(0x2f);
      const name = path.toString('latin1', slash + 1);
      records.set(record, FIELD.version, version);
      records.set(record, FIELD.folder, folders.push(path.subarray(0, Math.max(1, slash))) - 1);
      records.set(record, FIELD.nameAt, names.arena.add(name));
      records.set(record, FIELD.nameLength, name.length);
      reading.push(record);
      rewritten.set(record, contentId);
    } catch (error) {
      tally.problem({ kind: 'vanished', path, message: words(error) });
    }
  }
}

/** Of files with several names, which no walk has met: those that the trees have. */
async function findNames({ base, plan, options }: DecidedOptions, linked: ReadonlyMap<number, number>): Promise<void> {
  if (linked.size === 0) return;
  const { top } = layOutSources(options.paths);
  for (const [inode, names] of await allNames(localTrees(base), new Set(linked.keys()))) {
    const record = linked.get(inode)!;
    const own = plan.pathOf(record);
    const paths = names.map((it) => localPath(top, it)).filter((path) => !path.equals(own));
    plan.otherNames.set(record, paths);
  }
}
