import { resolve } from 'node:path';
import { RozenError } from '../errors.ts';
import { LocalStore } from './local.ts';
import type { ObjectStore } from './object-store.ts';

/** A store for a path or URL as given by the user. Touches nothing: a place that does not exist is noticed by the first read. */
export function openStore(location: string): ObjectStore {
  if (location === '')
    throw new RozenError('usage', 'the repository location is empty', { hint: 'give -r REPO or set ROZEN_REPOSITORY' });
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(location)?.[1]?.toLowerCase();
  if (scheme === 's3') {
    throw new RozenError('unsupported', `${location}: S3 stores are not in this version`, {
      hint: 'use a local folder; it can be copied to a bucket later, object by object',
    });
  }
  if (scheme === 'file') return new LocalStore(fileUrlPath(location));
  if (scheme !== undefined) {
    throw new RozenError('usage', `${location}: unknown kind of store ${scheme}://`, {
      hint: 'give the path of a folder',
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
