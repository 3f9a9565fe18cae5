/** What a server or the network answered, as a RozenError: what, where, what to do next, and whether to try again. */

import { RozenError } from '../errors.ts';
import { objectExists, objectNotFound } from './object-store.ts';
import type { S3Api, S3Head } from './s3-client.ts';

/** As the SDK throws them; every field is optional because anything may be thrown. */
interface Thrown {
  name?: string;
  code?: string;
  message?: string;
  stack?: string;
  $metadata?: { httpStatusCode?: number };
  $response?: { headers?: Record<string, string> };
}

/** Codes of the network layer that a later, equal call may not meet again. */
const NETWORK = new Set([
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETUNREACH',
  'ENOTFOUND',
  'EPIPE',
  'ETIMEDOUT',
  'ERR_STREAM_PREMATURE_CLOSE',
]);

/** Refusals of a server that pass. A body that was damaged on its way is sent again. */
const PASSING = new Set([
  'InternalError',
  'ServiceUnavailable',
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  'RequestLimitExceeded',
  'TooManyRequests',
  'RequestTimeout',
  'OperationAborted',
  'ConditionalRequestConflict',
  'BadDigest',
  'XAmzContentSHA256Mismatch',
  'IncompleteBody',
]);

const CREDENTIALS = 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or `profile` of the repository';

export interface S3Subject {
  location: string;
  bucket: string;
  /** Of the object; empty when the call concerns none. */
  name: string;
}

/** The name of a server's error, such as NoSuchKey; empty for everything else. */
export function s3ErrorName(error: unknown): string {
  const { name = '', $metadata } = (error ?? {}) as Thrown;
  return $metadata?.httpStatusCode === undefined ? '' : name;
}

/** That an upload is not there any more: completed, ended, or aborted. Ceph says at times that there is no such key. */
export function isUploadGone(error: unknown): boolean {
  const name = s3ErrorName(error);
  return name === 'NoSuchUpload' || name === 'NoSuchKey';
}

export function s3Status(error: unknown): number | undefined {
  return ((error ?? {}) as Thrown).$metadata?.httpStatusCode;
}

export function translateS3Error(error: unknown, subject: S3Subject): RozenError {
  if (error instanceof RozenError) return error;
  const thrown = (error ?? {}) as Thrown;
  const cause = slim(thrown);
  const { location, bucket, name } = subject;
  const where = name === '' ? location : `${location}/${name}`;
  const fail = (message: string, hint?: string, retryable = false) =>
    new RozenError('io', message, { hint, cause, retryable });
  const status = s3Status(error);
  switch (isClockWrong(error) ? 'RequestTimeTooSkewed' : thrown.name) {
    case 'NoSuchBucket':
      return new RozenError('not-found', `${location}: there is no bucket ${bucket}`, {
        hint: 'check the name, the endpoint and the region; `rozen init` makes a new repository',
        cause,
      });
    case 'NoSuchKey':
    case 'NotFound':
      return objectNotFound(location, name, cause);
    case 'NoSuchUpload':
      return fail(`${where}: the store does not know this upload any more`, 'run the same command again');
    case 'PreconditionFailed':
      return objectExists(location, name);
    case 'InvalidObjectState':
      return new RozenError('frozen', `${where} lies in cold storage`, {
        hint: 'bring it back with `rozen thaw SNAPSHOT:PATH`',
        cause,
      });
    case 'GlacierExpeditedRetrievalNotAvailable':
      return fail(`${where}: the store has no room for expedited thawing now`, 'use --tier standard, or try later');
    case 'InvalidAccessKeyId':
      return fail(`${location}: the server does not know this access key`, CREDENTIALS);
    case 'SignatureDoesNotMatch':
      return fail(`${location}: the secret access key does not fit the access key`, CREDENTIALS);
    case 'ExpiredToken':
    case 'InvalidToken':
    case 'TokenRefreshRequired':
      return fail(`${location}: the session token has expired or is not valid`, 'get new credentials');
    case 'CredentialsProviderError':
      return fail(`${location}: no credentials for S3 were found`, CREDENTIALS);
    case 'RequestTimeTooSkewed':
      return fail(
        `${location}: the clock of this machine differs too much from the server's${skew(thrown)}`,
        'set the clock',
      );
    case 'AuthorizationHeaderMalformed':
    case 'PermanentRedirect':
      return fail(
        `${location}: the bucket is in another region (${oneLine(thrown.message)})`,
        'set AWS_REGION, or `region` of the repository in the configuration',
      );
    case 'AccessDenied':
    case 'Forbidden':
      return fail(`${where}: access denied`, 'the policy of the user or bucket does not allow this');
    case 'InvalidStorageClass':
      return fail(`${where}: the server does not know this storage class`, 'choose another --storage-class');
    case 'TimeoutError':
    case 'AbortError':
      return fail(`${where}: the server does not answer`, NETWORK_HINT, true);
  }
  if (status !== undefined && thrown.name !== 'SyntaxError') {
    if (status === 404) return objectNotFound(location, name);
    if (status === 403) return fail(`${where}: access denied`, 'the keys are wrong, or may not do this');
    const passing = status >= 500 ? status !== 501 : status === 429 || PASSING.has(thrown.name ?? '');
    const hint = passing ? 'the server is busy or ill: try again later' : undefined;
    return fail(`${where}: the server answers ${status} ${oneLine(thrown.name, thrown.message)}`, hint, passing);
  }
  const code = thrown.code ?? '';
  if (NETWORK.has(code) || /socket hang up|aborted/i.test(thrown.message ?? '')) {
    const reason = code === 'ENOTFOUND' ? 'its host name is unknown' : code || oneLine(thrown.message);
    return fail(`${where}: the server cannot be reached (${reason})`, NETWORK_HINT, true);
  }
  // An answer that is no XML, cut off in the middle: the same call may get a whole one.
  const retryable = thrown.name === 'SyntaxError' || /deserialization|XML/i.test(thrown.message ?? '');
  return fail(`${where}: ${oneLine(thrown.name, thrown.message)}`, undefined, retryable);
}

/** What the SDK throws holds the whole connection, signed headers among it: only what says what happened is kept. */
function slim({ name, code, message, stack, $metadata }: Thrown): Error {
  const kept = new Error(message ?? 'unknown');
  if (stack !== undefined) kept.stack = stack;
  const httpStatusCode = $metadata?.httpStatusCode;
  return Object.assign(kept, {
    name: name ?? 'Error',
    ...(code === undefined ? {} : { code }),
    ...(httpStatusCode === undefined ? {} : { $metadata: { httpStatusCode } }),
  });
}

const NETWORK_HINT = 'check the network and the endpoint';

/** A failure to connect at all, as against one in the middle. */
export function isUnreachable(error: RozenError): boolean {
  const { code } = (error.cause ?? {}) as Thrown;
  return code === 'ECONNREFUSED' || code === 'ENOTFOUND';
}

/** So far apart S3 refuses every request, minus a minute for the way. */
const MAX_SKEW_MS = 14 * 60_000;

/** A refusal whose reason is the clock, also when it has no words: the answer says the server's time. */
export function isClockWrong(error: unknown): boolean {
  return s3Status(error) === 403 && Math.abs(skewMs((error ?? {}) as Thrown) ?? 0) > MAX_SKEW_MS;
}

function skewMs({ $response }: Thrown): number | null {
  const date = Date.parse($response?.headers?.date ?? '');
  return Number.isNaN(date) ? null : Date.now() - date;
}

/** How far the clocks are apart, as far as that is known. */
function skew(thrown: Thrown): string {
  const ms = skewMs(thrown);
  if (ms === null) return '';
  const seconds = Math.round(ms / 1000);
  return ` (${Math.abs(seconds)} s ${seconds > 0 ? 'fast' : 'slow'})`;
}

/** Text of a server: one line, printable, not endless. */
function oneLine(...words: (string | undefined)[]): string {
  return words
    .filter((word) => word !== undefined && word !== '')
    .join(': ')
    .replace(/[^\x20-\x7e]+/g, ' ')
    .slice(0, 200);
}

/** What a HEAD says of an object; null where there is none. */
export async function headIfThere(api: Pick<S3Api, 'head'>, key: string): Promise<S3Head | null> {
  try {
    return await api.head(key);
  } catch (error) {
    if (s3Status(error) !== 404) throw error;
    return null;
  }
}
