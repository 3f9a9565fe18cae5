import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { type ErrorCode, RozenError } from '../../errors.ts';
import type { OwnerMap } from '../../fs/protocol/abi.ts';
import type { Driver } from '../../fs/serving.ts';
import { reasonOf } from '../../posix/reason.ts';
import type { Context } from '../context.ts';
import { EXIT } from '../exit.ts';
import { type Launched, launch } from '../mount-launch.ts';
import { type MountAnswer, type MountRequest, REQUEST_END } from '../mount-request.ts';
import { parseCacheSize, parseId, parseUmask } from '../values.ts';

interface Options {
  foreground?: boolean;
  allowOther?: boolean;
  driver?: Driver;
  uid?: string;
  gid?: string;
  umask?: string;
  snapshot?: string;
  cacheDir?: string;
  cacheSize?: string;
  trace?: boolean;
}

export async function run(context: Context, args: string[], options: Options): Promise<number> {
  // Usually started already, before this was loaded.
  const launched = options.foreground ? null : launch();
  try {
    const { location, endpoint, region, pathStyle, profile } = await context.repository();
    const request: MountRequest = {
      location,
      s3: { endpoint, region, pathStyle, profile },
      mountpoint: resolve(args[0] as string),
      driver: options.driver ?? 'kernel',
      allowOther: options.allowOther ?? false,
      map: ownerMap(options),
      snapshot: options.snapshot ?? null,
      key: await readKey(context),
      cacheDir: options.cacheDir === undefined ? null : resolve(options.cacheDir),
      cacheBytes: options.cacheSize === undefined ? null : parseCacheSize(options.cacheSize),
      trace: options.trace ?? false,
    };
    return launched === null ? await serveHere(context, request) : await serveBehind(context, launched, request);
  } catch (error) {
    launched?.child.kill('SIGTERM');
    throw error;
  }
}

function ownerMap({ uid, gid, umask }: Options): OwnerMap {
  return {
    ...(uid === undefined ? {} : { uid: parseId(uid, '--uid') }),
    ...(gid === undefined ? {} : { gid: parseId(gid, '--gid') }),
    ...(umask === undefined ? {} : { umask: parseUmask(umask, '--umask') }),
  };
}

/** The key in a form that can travel through a pipe: an identity file may itself be a pipe that only this process can read. */
async function readKey(context: Context): Promise<MountRequest['key']> {
  const { identityFile, passphrase } = await context.credentials();
  if (identityFile === undefined)
    return passphrase === undefined ? null : { kind: 'passphrase', text: await passphrase() };
  try {
    return { kind: 'identity', path: identityFile, text: readFileSync(identityFile, 'utf8') };
  } catch (cause) {
    throw new RozenError('no-key', `${identityFile}: the identity file cannot be read: ${reasonOf(cause)}`, {
      hint: 'check --identity and ROZEN_IDENTITY_FILE',
      cause,
    });
  }
}

/** Hands the request to the process in the background and waits for its answer. */
async function serveBehind(context: Context, { child, logPath }: Launched, request: MountRequest): Promise<number> {
  const ended = new Promise<string>((done) => {
    child.on('error', (error) => done(error.message));
    child.on('exit', (code, signal) => done(signal === null ? `exit code ${code}` : `ended by ${signal}`));
  });
  const giveUp = (): void => {
    child.kill('SIGTERM');
  };
  context.signal.addEventListener('abort', giveUp);
  (child.stdin as Writable).end(`${JSON.stringify(request)}${REQUEST_END}`);
  let text = '';
  for await (const piece of child.stdio[3] as Readable) text += piece;
  context.signal.removeEventListener('abort', giveUp);
  context.signal.throwIfAborted();
  if (text === '') {
    throw new RozenError('internal', `the process behind the mount failed (${await ended})`, {
      hint: `see ${logPath}`,
    });
  }
  const answer = JSON.parse(text) as MountAnswer;
  if (answer.kind === 'failed') {
    const cause = new Error('in the process behind the mount');
    if (answer.stack !== undefined) cause.stack = answer.stack;
    throw new RozenError(answer.code as ErrorCode, answer.message, { hint: answer.hint, cause });
  }
  child.unref();
  tell(context, answer, child.pid);
  return EXIT.done;
}

async function serveHere(context: Context, request: MountRequest): Promise<number> {
  const { startMount } = await import('../mount-server.ts');
  const server = await startMount(request);
  const stop = async (): Promise<void> => {
    const holders = await server.stop();
    if (holders !== null) context.out.warning(`unmounted while in use by ${holders}`);
  };
  const stopped = new Promise<void>((done, failed) => {
    if (context.signal.aborted) stop().then(done, failed);
    context.signal.addEventListener('abort', () => stop().then(done, failed));
  });
  tell(context, { kind: 'mounted', mountpoint: server.mountpoint, source: request.location }, process.pid);
  await context.out.flush();
  await server.closed;
  if (!context.signal.aborted) return EXIT.done;
  await stopped;
  // Ctrl-C is how a foreground mount ends: nothing has failed.
  return EXIT.done;
}

function tell(context: Context, mounted: MountAnswer & { kind: 'mounted' }, pid: number | undefined): void {
  const { out } = context;
  if (out.json) out.object({ mountpoint: mounted.mountpoint, repository: mounted.source, pid });
  else if (!out.quiet)
    out.line(`${mounted.source} is mounted at ${mounted.mountpoint}; end it with: rozen umount ${mounted.mountpoint}`);
}
