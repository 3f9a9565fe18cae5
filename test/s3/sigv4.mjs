/** AWS Signature Version 4, as a server checks it: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { S3Error } from './s3-error.mjs';

const SKEW_MS = 15 * 60 * 1000;
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const hmac = (key, text) => createHmac('sha256', key).update(text).digest();

/**
 * Throws what S3 answers to a request whose signature, clock, region or payload hash is wrong.
 * `keys`: secret by access key. `now`: the server's clock.
 */
export function checkSignature({ method, url, headers, keys, region, now = Date.now() }) {
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/([0-9]{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      headers.authorization ?? '',
    );
  if (match === null) throw new S3Error(403, 'AccessDenied', 'Access Denied');
  const [, accessKey, day, signedRegion, signedNames, signature] = match;
  const secret = keys[accessKey];
  if (secret === undefined)
    throw new S3Error(403, 'InvalidAccessKeyId', 'The AWS Access Key Id you provided does not exist in our records.');
  const date = headers['x-amz-date'] ?? '';
  const time = Date.parse(
    date.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, (_, y, mo, d, h, mi, s) => `${y}-${mo}-${d}T${h}:${mi}:${s}Z`),
  );
  if (!(Math.abs(time - now) < SKEW_MS)) {
    throw new S3Error(
      403,
      'RequestTimeTooSkewed',
      'The difference between the request time and the current time is too large.',
    );
  }
  if (signedRegion !== region) {
    throw new S3Error(
      400,
      'AuthorizationHeaderMalformed',
      `the region '${signedRegion}' is wrong; expecting '${region}'`,
    );
  }
  const names = signedNames.split(';');
  // What is not signed, anybody on the way could add.
  for (const name of Object.keys(headers)) {
    if ((name.startsWith('x-amz-') || name === 'host') && !names.includes(name))
      throw new S3Error(
        403,
        'AccessDenied',
        `There were headers present in the request which were not signed: ${name}`,
      );
  }
  const { pathname, search } = new URL(url, 'http://host');
  const query = search
    .slice(1)
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => (pair.includes('=') ? pair : `${pair}=`))
    .sort()
    .join('&');
  const canonical = [
    method,
    pathname,
    query,
    ...names.map(
      (name) =>
        `${name}:${String(headers[name] ?? '')
          .trim()
          .replace(/ +/g, ' ')}`,
    ),
    '',
    signedNames,
    headers['x-amz-content-sha256'] ?? '',
  ].join('\n');
  const scope = `${day}/${signedRegion}/s3/aws4_request`;
  const text = ['AWS4-HMAC-SHA256', date, scope, sha256(canonical)].join('\n');
  const key = hmac(hmac(hmac(hmac(`AWS4${secret}`, day), signedRegion), 's3'), 'aws4_request');
  const expected = hmac(key, text);
  if (!timingSafeEqual(expected, Buffer.from(signature, 'hex')))
    throw new S3Error(
      403,
      'SignatureDoesNotMatch',
      'The request signature we calculated does not match the signature you provided.',
    );
}

/** Every checksum that came with a body must be its own. */
export function checkPayload(headers, body) {
  const declared = headers['x-amz-content-sha256'] ?? '';
  if (/^STREAMING-/.test(declared))
    throw new S3Error(411, 'MissingContentLength', 'chunked signatures are not spoken here');
  if (declared !== 'UNSIGNED-PAYLOAD' && declared !== sha256(body))
    throw new S3Error(
      400,
      'XAmzContentSHA256Mismatch',
      'The provided x-amz-content-sha256 header does not match what was computed.',
    );
  const md5 = headers['content-md5'];
  if (md5 !== undefined && md5 !== createHash('md5').update(body).digest('base64'))
    throw new S3Error(400, 'BadDigest', 'The Content-MD5 you specified did not match what we received.');
}
