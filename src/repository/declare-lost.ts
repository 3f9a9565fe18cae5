import { RozenError } from '../errors.ts';
import type { Config } from './config.ts';
import { MAX_LOST } from './format.ts';
import { isLost, Losses } from './losses.ts';
import { parseSnapshotName, type SnapshotNameParts } from './names.ts';
import type { Repository } from './repository.ts';

/**
 * Names of the snapshot records that are gone or damaged, though this machine has seen them or another record refers to
 * them, and that are not declared lost yet.
 */
export async function findLost(repository: Repository): Promise<string[]> {
  const declared = new Losses(repository.config.lost);
  const found = new Set<string>();
  const note = (name: string): true => {
    if (!declared.has(name)) found.add(name);
    return true;
  };
  const lineages = repository.lineagesWith(() => ({ has: note, highest: (tag) => declared.highest(tag) }));
  await lineages.tops();
  await lineages.all();
  return [...found].sort();
}

/** Declares snapshot records lost, for everybody and for good. Needs the root key; 'usage' for one that can be read. */
export async function declareLost(repository: Repository, names: readonly string[]): Promise<Config> {
  const parts: SnapshotNameParts[] = [];
  for (const name of new Set(names)) parts.push(await lostParts(repository, name));
  return repository.updateConfig(({ lost = [] }) => {
    const before = new Losses(lost);
    const all = [...lost, ...parts.filter((part) => !isLost(before, part.tag, part))];
    if (all.length > MAX_LOST) throw new RozenError('usage', `at most ${MAX_LOST} records can be declared lost`);
    return { lost: all };
  });
}

async function lostParts(repository: Repository, name: string): Promise<SnapshotNameParts> {
  const parts = parseSnapshotName(name);
  if (parts === null) {
    throw new RozenError('usage', `'${name}' is not the name of a snapshot record`, {
      hint: 'give it as the error shows it: snapshots/….cbor',
    });
  }
  try {
    await repository.lineagesWith(() => new Losses()).read(name);
  } catch (error) {
    if (error instanceof RozenError && (error.code === 'not-found' || error.code === 'corrupt')) return parts;
    throw error;
  }
  throw new RozenError('usage', `${repository.store.location}/${name} is there and whole: it is not lost`);
}
