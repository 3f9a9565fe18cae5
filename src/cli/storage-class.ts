import type { Repository } from '../repository/repository.ts';

/** What this process makes of data archives goes to this class; refused where the store has none. */
export async function useStorageClass(repository: Repository, storageClass: string): Promise<void> {
  const obstacle = await repository.store.cannotKeep({ storageClass });
  if (obstacle !== null) throw obstacle;
  repository.keepDataAs(storageClass);
}
