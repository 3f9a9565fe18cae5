import { RozenError } from '../errors.ts';

/** What a location does not say; from the configuration of a repository. The environment stands in for what is missing. */
export interface S3Options {
  /** URL of a server other than AWS. */
  endpoint?: string | undefined;
  region?: string | undefined;
  /** Bucket in the path instead of the host name; by default for every server but AWS. */
  pathStyle?: boolean | undefined;
  /** Profile of the AWS configuration files. */
  profile?: string | undefined;
}

/** A bucket and a prefix in it, and how to get there. */
export interface S3Place {
  /** `s3://bucket/prefix` at AWS, `s3:http://host:port/bucket/prefix` elsewhere: names the place whole, and opens it again. */
  location: string;
  bucket: string;
  /** Empty, or ends with a slash. */
  prefix: string;
  endpoint: string | undefined;
  region: string;
  pathStyle: boolean;
  profile: string | undefined;
}

const PREFIX_PART = /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/;
/** Names that S3 allows, and the underscores and capitals of other servers. */
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$/;

/** Throws 'usage' for what is no place in a bucket. */
export function parseS3Place(location: string, options: S3Options = {}, env: NodeJS.ProcessEnv = process.env): S3Place {
  const server = /^s3:(https?:\/\/[^/]+)(\/.*)?$/i.exec(location);
  const path = (server === null ? location.replace(/^s3:\/\//i, '') : (server[2] ?? '').slice(1)).replace(/\/+$/, '');
  const [bucket = '', ...parts] = path.split('/');
  if (!BUCKET.test(bucket)) throw wrong(location, `'${bucket}' is not the name of a bucket`);
  const bad = parts.find((part) => !PREFIX_PART.test(part));
  if (bad !== undefined) throw wrong(location, `'${bad}' cannot be a part of a prefix`);
  const prefix = parts.length === 0 ? '' : `${parts.join('/')}/`;
  if (prefix.length > 400) throw wrong(location, 'the prefix is too long');
  const endpoint = cleanEndpoint(
    server?.[1] ?? options.endpoint ?? (env.AWS_ENDPOINT_URL_S3 || env.AWS_ENDPOINT_URL || undefined),
  );
  return {
    location: endpoint === undefined ? `s3://${path}` : `s3:${endpoint}/${path}`,
    bucket,
    prefix,
    endpoint,
    region: options.region ?? (env.AWS_REGION || env.AWS_DEFAULT_REGION || 'us-east-1'),
    // A dot in the name breaks the certificate of a host name.
    pathStyle: options.pathStyle ?? (endpoint !== undefined || bucket.includes('.')),
    profile: options.profile,
  };
}

function cleanEndpoint(endpoint: string | undefined): string | undefined {
  if (endpoint === undefined) return undefined;
  let url: URL;
  try {
    url = new URL(endpoint);
  } catch (cause) {
    throw wrongEndpoint(endpoint, cause);
  }
  const plain = (url.pathname === '/' || url.pathname === '') && url.search === '' && url.username === '';
  if (!/^https?:$/.test(url.protocol) || !plain) throw wrongEndpoint(endpoint);
  return url.origin;
}

function wrongEndpoint(endpoint: string, cause?: unknown): RozenError {
  return new RozenError('usage', `${endpoint} is not the URL of an S3 server`, {
    hint: 'write https://host or http://host:port',
    cause,
  });
}

function wrong(location: string, why: string): RozenError {
  return new RozenError('usage', `${location}: ${why}`, { hint: 'write s3://bucket or s3://bucket/prefix' });
}
