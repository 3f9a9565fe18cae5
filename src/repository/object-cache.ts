/**
 * Small immutable objects of a remote repository, kept on this machine: signed records, key objects. What comes from here is
 * checked like what comes from the store; what turns out wrong is removed and read from the store.
 */
export interface ObjectCache {
  get(repositoryId: Uint8Array, name: string): Buffer | null;
  put(repositoryId: Uint8Array, name: string, bytes: Uint8Array): void;
  remove(repositoryId: Uint8Array, name: string): void;
}
