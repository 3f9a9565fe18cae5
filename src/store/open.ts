import { resolve } from 'node:path';
import { RozenError } from '../errors.ts';
import { LocalStore } from './local.ts';
import { isS3Location } from './location.ts';
import type { ObjectStore } from './object-store.ts';
import type { S3Options } from './s3-place.ts';

/**
 * A store for a path or URL as given by the user; `s3` says what the URL of a bucket does not. Touches nothing: a place
 * that does not exist is noticed by the first read. What a bucket needs is loaded for buckets alone: it would cost each mount of
 * a folder some 10 ms.
 */
export async function openStore(location: string, s3: S3Options = {}): Promise<ObjectStore> {
  if (location === '')
    throw new RozenError('usage', 'the repository location is empty', { hint: 'give -r REPO or set ROZEN_REPOSITORY' });
  if (isS3Location(location)) {
    const { openS3Store } = await import('./open-s3.ts');
    return openS3Store(location, s3);
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
