import { resolve } from 'node:path';
import { RozenError } from '../errors.ts';
import { LocalStore } from './local.ts';
import type { ObjectStore } from './object-store.ts';
import { RetryStore } from './retry.ts';
import { S3Store } from './s3.ts';
import { isS3Location, parseS3Place, type S3Options } from './s3-place.ts';

/** A restart of a server, or a short hole in the network, is waited for: about half a minute. */
const S3_ATTEMPTS = 9;

/**
 * A store for a path or URL as given by the user; `s3` says what the URL of a bucket does not. Touches nothing: a place
 * that does not exist is noticed by the first read.
 */
export function openStore(location: string, s3: S3Options = {}): ObjectStore {
  if (location === '')
    throw new RozenError('usage', 'the repository location is empty', { hint: 'give -r REPO or set ROZEN_REPOSITORY' });
  if (isS3Location(location)) {
    return new RetryStore(new S3Store(parseS3Place(location, s3)), { attempts: S3_ATTEMPTS });
  }
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(location)?.[1]?.toLowerCase();
  if (scheme === 'file') return new LocalStore(fileUrlPath(location));
  if (scheme !== undefined) {
    throw new RozenError('usage', `${location}: unknown kind of store ${scheme}://`, {
      hint: 'give the path of a folder, or s3://bucket/prefix',
    });
  }
  return new LocalStore(resolve(location));
}

function fileUrlPath(location: string): string {
  try {
    const url = new URL(location);
    if (url.host !== '') throw new Error('a host is not allowed');
    return decodeURIComponent(url.pathname);
  } catch (cause) {
    throw new RozenError('usage', `${location} is not the URL of a local folder`, {
      cause,
      hint: 'write file:///path/to/folder',
    });
  }
}
