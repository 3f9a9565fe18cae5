import type { OwnerMap } from '../fs/protocol/abi.ts';
import type { Driver } from '../fs/serving.ts';
import type { S3Options } from '../store/s3-place.ts';

/** What the command hands to the process that serves a mount, and what that process answers. */

export interface MountRequest {
  /** Of the repository, as the user gave it. */
  location: string;
  /** What the location of a bucket does not say. */
  s3: S3Options;
  mountpoint: string;
  driver: Driver;
  allowOther: boolean;
  /** Owners and permissions that are shown instead of those that were backed up. */
  map: OwnerMap;
  /** Only this snapshot, named as on the command line; null for all. */
  snapshot: string | null;
  /** Key material: travels through a pipe, never through argv or the environment. Null when there is none to be had. */
  key: { kind: 'identity'; path: string; text: string } | { kind: 'passphrase'; text: string } | null;
  /** Where what is fetched is kept, and how many bytes of it; null for the default. Only for remote stores. */
  cacheDir: string | null;
  cacheBytes: number | null;
  /** One line per request of the kernel into the log. */
  trace: boolean;
}

export type MountAnswer =
  | { kind: 'mounted'; mountpoint: string; source: string }
  | { kind: 'failed'; code: string; message: string; hint?: string | undefined; stack?: string | undefined };

/** The request came whole: a parent that died in between must not leave a child that guesses. */
export const REQUEST_END = '\n';

/** The first argument of that process when its request will come at once and be for a bucket. */
export const BUCKET = 'bucket';
