import type { Worker } from 'node:worker_threads';
import { cachedObjects } from '../cache/cached-objects.ts';
import { openCache } from '../cache/open-cache.ts';
import { RozenError } from '../errors.ts';
import { serve } from '../fs/kernel/server.ts';
import { logEvent } from '../fs/log-line.ts';
import type { MountOrder, MountServer } from '../fs/serving.ts';
import type { SnapshotFacts } from '../fs/vfs/catalogue.ts';
import { type MountHost, openVfsHost, type VfsHostOptions } from '../fs/vfs/host.ts';
import { stopThread } from '../posix/thread.ts';
import { checkFingerprints, parseIdentityFile } from '../repository/identity-file.ts';
import { type Credentials, type EarlyOpening, openRepositoryEarly } from '../repository/open.ts';
import { cacheHome, stateHome } from '../repository/paths.ts';
import type { Repository } from '../repository/repository.ts';
import type { ObjectStore } from '../store/object-store.ts';
import type { MountRequest } from './mount-request.ts';
import { openMountStore } from './mount-store.ts';

/** Opens the repository and serves it; resolves when the folder is there. Both the foreground command and the background process run this. */
export async function startMount(
  request: MountRequest,
  { store: opened, ahead = [] }: { store?: ObjectStore | undefined; ahead?: Worker[] } = {},
): Promise<MountServer> {
  const store = opened ?? (await openMountStore(request));
  const { key } = request;
  const file = key?.kind === 'identity' ? parseIdentityFile(Buffer.from(key.text), key.path) : null;
  const cache = await openCache(store, {
    folder: request.cacheDir ?? cacheHome(),
    budget: request.cacheBytes ?? undefined,
    report: logEvent,
  });
  const opening = await openRepositoryEarly({
    store,
    credentials: credentialsOf(key, file?.identities ?? []),
    need: 'read',
    objects: cache === null ? null : cachedObjects(cache),
  });
  if (file !== null && key?.kind === 'identity') checkFingerprints(file, opening.repository.genesis, key.path);
  const { snapshot } = request;
  const choose = snapshot === null ? undefined : await chooser(snapshot);
  const host = await openHost(opening, { store, choose, cache });
  try {
    const order: MountOrder = {
      mountpoint: request.mountpoint,
      host,
      source: store.location,
      allowOther: request.allowOther,
      map: request.map,
      trace: request.trace,
      keepClearOf: [store.location, request.cacheDir ?? cacheHome(), stateHome()],
    };
    if (request.driver === 'kernel') return await serve({ ...order, ahead });
    const { serveNative } = await import('../fs/native/server.ts');
    await Promise.all(ahead.map(stopThread));
    return await serveNative(order);
  } catch (error) {
    await host.close();
    throw error;
  }
}

/** What is opened by an older config than the newest one is opened anew. */
async function openHost(opening: EarlyOpening, options: Omit<VfsHostOptions, 'repository'>): Promise<MountHost> {
  const early = openVfsHost({ ...options, repository: opening.repository });
  const settled = early.then(
    (host) => host,
    () => null,
  );
  let repository: Repository;
  try {
    repository = await opening.certain;
  } catch (error) {
    await (await settled)?.close();
    throw error;
  }
  if (repository === opening.repository) return early;
  await (await settled)?.close();
  return openVfsHost({ ...options, repository });
}

/** Finds the snapshot that is named as on the command line. */
async function chooser(text: string): Promise<(snapshots: readonly SnapshotFacts[]) => SnapshotFacts> {
  const { chooseSnapshot, parseSnapshotName } = await import('../snapshot/view/naming.ts');
  const name = parseSnapshotName(text);
  if (name.path !== null) {
    throw new RozenError('usage', `--snapshot: '${text}' names a place in a snapshot`, { hint: 'leave the :PATH out' });
  }
  return (snapshots) => chooseSnapshot(name, snapshots);
}

function credentialsOf(key: MountRequest['key'], identities: string[]): Credentials {
  if (key === null) return {};
  if (key.kind === 'passphrase') return { passphrase: async () => key.text };
  // A file that holds only an owner's bundle is opened by its path.
  return identities.length > 0 ? { identities } : { identityFile: key.path };
}
