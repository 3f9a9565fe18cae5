/** After a comparison of a snapshot with local files: puts back here what decayed. */
import { Cursor } from '../../archive/tree/read.ts';
import { TREES, VERSION } from '../../archive/tree/schema.ts';
import { lstat } from '../../posix/stat.ts';
import type { Repository } from '../../repository/repository.ts';
import { XattrReader } from '../backup/xattr-reader.ts';
import type { Divergence } from '../verify/against-types.ts';
import type { OpenPlace } from '../view/place.ts';
import { otherNames, putBack } from './put-back.ts';
import { allNames, localPath } from './set-trees.ts';

export interface LocalRepair {
  path: Buffer;
  /** What was there; null when it was not kept, or not repaired. */
  keptAs: Buffer | null;
  /** Null when it was repaired. */
  problem: string | null;
}

/** Puts back what decayed here: files that nobody meant to change. */
export async function repairLocal(options: {
  repository: Repository;
  place: OpenPlace;
  folder: Buffer;
  divergences: readonly Divergence[];
  keep: boolean;
}): Promise<LocalRepair[]> {
  const { place, folder, divergences, keep } = options;
  const { contentIdKey } = await options.repository.loadSecrets();
  const { reader } = place;
  const versions = new Cursor(reader.source, TREES.versions, reader.roots.versions);
  const xattrs = new XattrReader(() => {});
  const repairs: LocalRepair[] = [];
  const names = await linkedNames(place, folder, divergences);
  const done = new Set<number>();
  for (const { file, decayed, path } of divergences) {
    if (decayed !== true || file === undefined) continue;
    const local = path.length === 0 ? folder : Buffer.concat([folder, Buffer.from('/'), path]);
    try {
      // Another name of it was repaired, and this one with it.
      if (done.has(file.inode)) {
        repairs.push({ path, keptAs: null, problem: null });
        continue;
      }
      const stat = lstat(local);
      const others = otherNames(local, stat, names.get(file.inode) ?? []);
      const contentId = await reader.archives.retry(() =>
        versions.find(file.inode, file.version)
          ? Buffer.from(versions.page!.slice(VERSION.contentId, versions.index))
          : null,
      );
      const { mode, uid, gid } = stat;
      const { mtimeSec, mtimeNs } = file;
      const wanted = { mode, uid, gid, mtimeSec, mtimeNs, xattrs: xattrs.read(local).attributes };
      const keptAs = await putBack({ reader, file, contentId, contentIdKey, path: local, others, wanted, keep });
      if (stat.nlink > 1) done.add(file.inode);
      repairs.push({ path, keptAs, problem: null });
    } catch (error) {
      repairs.push({ path, keptAs: null, problem: (error as Error).message });
    }
  }
  return repairs;
}

/** Local names of files to be repaired that have several, as far as they lie in what is compared. */
async function linkedNames(
  place: OpenPlace,
  folder: Buffer,
  divergences: readonly Divergence[],
): Promise<Map<number, Buffer[]>> {
  const linked = new Set<number>();
  for (const { file, decayed } of divergences)
    if (decayed && file !== undefined && file.nlink > 1) linked.add(file.inode);
  const found = new Map<number, Buffer[]>();
  if (linked.size === 0) return found;
  const { path: above } = place;
  for (const [inode, names] of await allNames(place.reader, linked)) {
    const inside = names.filter((name) => above.every((part, i) => name[i]?.equals(part)));
    found.set(
      inode,
      inside.map((name) => localPath(folder, name.slice(above.length))),
    );
  }
  return found;
}
