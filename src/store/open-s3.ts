import type { ObjectStore } from './object-store.ts';
import { RetryStore } from './retry.ts';
import { S3Store } from './s3.ts';
import { parseS3Place, type S3Options } from './s3-place.ts';

/** A restart of a server, or a short hole in the network, is waited for: about half a minute. */
const S3_ATTEMPTS = 9;

/** The store of a bucket. Throws 'usage' for what is no place in one. */
export function openS3Store(location: string, options: S3Options): ObjectStore {
  return new RetryStore(new S3Store(parseS3Place(location, options)), { attempts: S3_ATTEMPTS });
}
