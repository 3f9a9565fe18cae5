/** What the drivers have in common: how a mount is asked for, and what serves it. */
import type { OwnerMap } from './protocol/abi.ts';
import type { VfsHost } from './vfs.ts';

/**
 * kernel       the FUSE protocol of Linux, spoken by Rozen itself
 * fuse-native  libfuse 2 through the package fuse-native: path by path, for hosts where the other one does not run
 */
export type Driver = 'kernel' | 'fuse-native';

export interface MountOrder {
  mountpoint: string;
  host: VfsHost;
  /** What `mount` and `df` show; usually the repository's location. */
  source: string;
  allowOther?: boolean;
  /** Default true: the kernel checks permissions and ACLs as they were backed up. */
  enforcePermissions?: boolean;
  map?: OwnerMap;
  /** One line per request on stderr. */
  trace?: boolean;
  /** Folders that the mount must not cover: repository, cache, state. */
  keepClearOf?: readonly string[];
}

export interface MountServer {
  readonly mountpoint: string;
  /** Resolves when the mount is gone and nothing serves it any more. */
  readonly closed: Promise<void>;
  /** Takes the mount away; answers who held it, if it had to be detached while it was in use. */
  stop(): Promise<string | null>;
}
