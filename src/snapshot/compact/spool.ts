/**
 * Merged archives on their way to the store. Beside the files of a spool (../data/spool.ts) lies one more:
 *
 *   <id>.merge  what was merged into the archive; written, and synced, when it is sealed
 *
 * Crash states: no .merge: the archive is made anew, what is left is removed. With it: the data object is put if it is not there,
 * then the forward record unless somebody else has merged one of the archives meanwhile, then the hot index. In this order
 * nothing refers to an archive that is not whole, and no backup deduplicates against one whose record may never come. Where the spool is lost
 * after the record, any other machine puts the index (complete.ts).
 */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { asMap, decodeCbor, encodeCbor } from '../../archive/cbor.ts';
import { RozenError } from '../../errors.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { decodeMerge, type Merge, mergeMap } from '../../repository/forward-record.ts';
import { dataName } from '../../repository/names.ts';
import { notOwner, type Repository } from '../../repository/repository.ts';
import { allowExisting } from '../data/deliver.ts';
import { removeSpool, syncFolder, writeNew } from '../data/spool.ts';
import { recorded } from './complete.ts';
import type { Merged } from './merge.ts';

/** A sealed archive in the spool. */
interface Sealed {
  merge: Merge;
  hotIndex: Buffer;
}

/** Puts a merged archive into the store. False when another machine was faster with one of what was merged: then it is dropped. */
export async function deliverMerged(
  repository: Repository,
  folder: string,
  { merged, signal }: { merged: Merged; signal: AbortSignal | undefined },
): Promise<boolean> {
  const { spool, merge, hotIndex } = merged;
  await spool.seal(hotIndex);
  const path = join(folder, `${merge.target.id.toString('hex')}.merge`);
  writeNew(path, encodeCbor(mergeMap(merge)));
  syncFolder(folder);
  return bring(repository, folder, { merge, hotIndex, signal });
}

/** Ends what a killed run left sealed, and removes the rest. Answers the merges that it brought to their end. */
export async function recoverMerges(
  repository: Repository,
  folder: string,
  signal: AbortSignal | undefined,
): Promise<Merge[]> {
  makeFolders(folder);
  const names = new Set(readdirSync(folder).flatMap((entry) => /^([0-9a-f]{32})\./.exec(entry)?.[1] ?? []));
  const ended: Merge[] = [];
  for (const name of [...names].sort()) {
    const sealed = readSealed(folder, name);
    if (sealed === null) drop(folder, name);
    else if (await bring(repository, folder, { ...sealed, signal })) ended.push(sealed.merge);
  }
  return ended;
}

function readSealed(folder: string, name: string): Sealed | null {
  const [mergePath, indexPath] = [join(folder, `${name}.merge`), join(folder, `${name}.rix`)];
  if (!existsSync(mergePath) || !existsSync(indexPath)) return null;
  try {
    const map = asMap(decodeCbor(readFileSync(mergePath), { what: mergePath, maxDepth: 4 }), mergePath);
    const merge = decodeMerge(map);
    return merge.target.id.toString('hex') === name ? { merge, hotIndex: readFileSync(indexPath) } : null;
  } catch (error) {
    // It was not whole before the crash: nothing of it has left this machine.
    if (error instanceof RozenError && error.code === 'corrupt') return null;
    throw error;
  }
}

function drop(folder: string, name: string): void {
  removeSpool(folder, name);
  rmSync(join(folder, `${name}.merge`), { force: true });
}

async function bring(
  repository: Repository,
  folder: string,
  { merge, hotIndex, signal }: Sealed & { signal: AbortSignal | undefined },
): Promise<boolean> {
  const { store, forwards, bundle } = repository;
  if (!bundle?.rootSecret) throw notOwner(store.location);
  const { id, size } = merge.target;
  const name = id.toString('hex');
  const path = join(folder, `${name}.roz`);
  const object = dataName(id);
  if (existsSync(path)) {
    try {
      await store.putFile(object, path, { signal });
    } catch (error) {
      await allowExisting(repository, object, size, error);
    }
  } else if ((await store.stat(object))?.size !== size) {
    // Neither here nor there: somebody removed the spool.
    drop(folder, name);
    return false;
  }
  await forwards.refresh();
  let record = forwards.records.find(({ target }) => target.id.equals(id)) ?? null;
  record ??= await forwards.append(bundle.rootSecret, () =>
    merge.sources.some((source) => forwards.known(source.id) !== null) ? null : merge,
  );
  if (record === null) {
    // No index of it was put and no record names it, so that nobody can refer to it.
    if ((await store.lockedUntil(object)) === null) await store.delete(object);
    drop(folder, name);
    return false;
  }
  await recorded(repository, record, hotIndex);
  drop(folder, name);
  return true;
}
