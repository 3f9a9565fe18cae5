import { SNAPSHOTS_PREFIX } from '../repository/names.ts';
import { listAhead } from '../store/list-ahead.ts';
import { isRemote, type ObjectStore } from '../store/object-store.ts';
import { openStore } from '../store/open.ts';
import type { MountRequest } from './mount-request.ts';

/** The store of a mount. A remote one has been asked for its snapshots: the answer takes as long as what is loaded next. */
export async function openMountStore(request: MountRequest): Promise<ObjectStore> {
  const place = await openStore(request.location, request.s3);
  return isRemote(place) ? listAhead(place, SNAPSHOTS_PREFIX) : place;
}

/** As `openMountStore` for a bucket, before anything else is loaded: its first request is on its way afterwards. */
export async function askBucketFirst(request: MountRequest): Promise<ObjectStore> {
  // All of the SDK, which the store would load by its first call.
  await import('../store/s3-client.ts');
  const store = await openMountStore(request);
  // Signed and sent within this turn of the event loop.
  await new Promise((resolve) => setImmediate(resolve));
  return store;
}
