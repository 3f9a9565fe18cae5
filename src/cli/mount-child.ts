/**
 * The process behind a mount. Started by `rozen mount` in a session of its own: the request, with the key, comes on
 * stdin; the answer goes out on descriptor 3, once; stderr is the log.
 */
import { closeSync, readFileSync, writeSync } from 'node:fs';
import module from 'node:module';
import { entryUrl } from '../entries.ts';
import { prepareReader } from '../fs/kernel/prepare.ts';
import { logEvent } from '../fs/log-line.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { asRozenError, errorStack } from './failure.ts';
import { BUCKET, type MountAnswer, type MountRequest, REQUEST_END } from './mount-request.ts';

// Before all else is loaded: a thread takes longer to start than the rest.
const isBucket = process.argv.includes(BUCKET);
const ahead = [prepareReader(entryUrl('vfs'), isBucket)];

const REQUEST_FD = 0;
const ANSWER_FD = 3;

/** Blocks until the parent has sent all: there is nothing else to do, and a stream would have to be loaded first. */
function readRequest(): MountRequest {
  const bytes = readFileSync(REQUEST_FD);
  const text = bytes.toString('utf8');
  bytes.fill(0);
  // The parent was stopped before it had asked: there is nothing to serve.
  if (!text.endsWith(REQUEST_END)) process.exit(1);
  return JSON.parse(text) as MountRequest;
}

function answer(message: MountAnswer): void {
  try {
    writeSync(ANSWER_FD, JSON.stringify(message));
    closeSync(ANSWER_FD);
  } catch {
    // The parent has gone: the mount stands all the same, or its failure has nobody to hear it.
  }
}

(module as { enableCompileCache?: () => void }).enableCompileCache?.();

process.on('uncaughtException', (error) => {
  logEvent(errorStack(error));
  // The server's own exit hook takes the mount away first.
  process.exit(1);
});

try {
  let request: MountRequest | undefined;
  let store: ObjectStore | undefined;
  if (isBucket) {
    request = readRequest();
    // Measured with 50 ms for each request: 40 ms less from the command to the first `ls`.
    store = await (await import('./mount-store.ts')).askBucketFirst(request);
  }
  // While the parent may still be asking for a passphrase, everything is loaded.
  const { startMount } = await import('./mount-server.ts');
  request ??= readRequest();
  const server = await startMount(request, { ahead, store });
  process.title = `rozen mount ${server.mountpoint}`;
  process.chdir('/');
  const stop = (): void => {
    void server.stop().then((holders) => {
      if (holders !== null) logEvent(`unmounted while in use by ${holders}`);
    });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop);
  process.on('SIGHUP', () => {});
  // Only now: a signal that came before its listener would leave a dead mount.
  answer({ kind: 'mounted', mountpoint: server.mountpoint, source: request.location });
  await server.closed;
  process.exit(0);
} catch (thrown) {
  const error = asRozenError(thrown);
  logEvent(errorStack(thrown));
  answer({ kind: 'failed', code: error.code, message: error.message, hint: error.hint, stack: errorStack(thrown) });
  process.exit(1);
}
