/** The one file that knows the AWS SDK: requests of a store as plain functions over keys of one bucket. Loaded when it is needed (140 ms). */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  GetObjectLockConfigurationCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  PutObjectRetentionCommand,
  RestoreObjectCommand,
  S3Client,
  type S3ClientConfig,
  type StorageClass,
  type Tier,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { S3Place } from './s3-place.ts';

/** A connection that says nothing for so long is given up. */
const IDLE_MS = 30_000;
const CONNECT_MS = 10_000;
/** However slowly bytes trickle, a request ends: this, and its bytes at 8 KiB a second. */
const LONGEST_MS = 300_000;
const SLOWEST = 8 * 1024;
const MOST_BYTES = 1024 ** 3;

export interface S3Answer {
  /** Bytes that the body will have; undefined when the server does not say. */
  length: number | undefined;
  /** As the server gave it: `bytes 0-9/100`. */
  range: string | undefined;
  /** Of the whole object; see `md5OfETag`. */
  etag: string;
  body: Readable;
}

export interface S3Part {
  number: number;
  size: number;
  etag: string;
  modified: number;
}

interface S3Upload {
  key: string;
  id: string;
  /** Milliseconds since 1970. */
  started: number;
}

export interface S3Head {
  size: number;
  modified: number;
  /** Until when nobody can delete it, milliseconds since 1970; null without such a lock. */
  lockedUntil: number | null;
  /** Undefined: the bucket's standard one. */
  storageClass: string | undefined;
  /** What the server says of a thawed copy, in its words. */
  restore: string | undefined;
  /** As `lockedUntil`, with what a privileged user could lift (governance mode) and legal holds, which have no end. */
  keptUntil: number | null;
}

/** Options of an object when it is made. */
export interface S3PutOptions {
  storageClass?: string | undefined;
}

/** Every function rejects with what the SDK throws; see s3-errors.ts. */
export interface S3Api {
  headBucket(): Promise<void>;
  createBucket(options: { lock: boolean }): Promise<void>;
  /** Whether objects of the bucket can be locked. */
  hasLock(): Promise<boolean>;
  get(key: string, options: { range?: string; bytes: number }): Promise<S3Answer>;
  head(key: string): Promise<S3Head>;
  /** Creates; PreconditionFailed when there is one. */
  put(key: string, body: Uint8Array, options?: S3PutOptions): Promise<void>;
  /** Nobody can delete the object until then, whatever he may do otherwise (COMPLIANCE). */
  lock(key: string, until: Date): Promise<void>;
  /** Asks for a copy of an archived object. */
  restore(key: string, request: { days: number; tier: string }): Promise<void>;
  delete(key: string): Promise<void>;
  list(options: { prefix: string; after?: string | undefined; token?: string | undefined }): Promise<{
    objects: { key: string; size: number; modified: number; storageClass: string | undefined }[];
    next: string | undefined;
  }>;
  beginUpload(key: string, options?: S3PutOptions): Promise<string>;
  /** `sha256`: of the body in hex; the signature covers it, so that every server checks what arrived. */
  putPart(part: {
    key: string;
    upload: string;
    number: number;
    body: Uint8Array;
    sha256: string;
    /** In base64; AWS wants it of each part of what will be locked. */
    md5?: string | undefined;
    signal?: AbortSignal | undefined;
  }): Promise<string>;
  /** In order of their numbers. */
  parts(key: string, upload: string): AsyncIterable<S3Part>;
  /** PreconditionFailed when there is such an object, on servers that look. */
  completeUpload(key: string, upload: string, parts: readonly S3Part[]): Promise<void>;
  abortUpload(key: string, upload: string): Promise<void>;
  uploads(prefix: string): AsyncIterable<S3Upload>;
  close(): void;
}

export function connectS3(place: S3Place, idleMs = IDLE_MS): S3Api {
  const { bucket: Bucket } = place;
  // What Node runs here is not the business of somebody who reads a file.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
  const client = new S3Client(clientConfig(place, idleMs));
  return {
    async headBucket() {
      await client.send(new HeadBucketCommand({ Bucket }), limit());
    },
    async hasLock() {
      const { ObjectLockConfiguration } = await client.send(new GetObjectLockConfigurationCommand({ Bucket }), limit());
      return ObjectLockConfiguration?.ObjectLockEnabled === 'Enabled';
    },
    async lock(Key, RetainUntilDate) {
      const Retention = { Mode: 'COMPLIANCE', RetainUntilDate } as const;
      await client.send(new PutObjectRetentionCommand({ Bucket, Key, Retention }), limit());
    },
    async createBucket({ lock }) {
      const { region, endpoint } = place;
      const constraint =
        endpoint !== undefined || region === 'us-east-1'
          ? {}
          : { CreateBucketConfiguration: { LocationConstraint: region as never } };
      await client.send(new CreateBucketCommand({ Bucket, ObjectLockEnabledForBucket: lock, ...constraint }), limit());
    },
    async get(Key, { range, bytes }) {
      const input = range === undefined ? {} : { Range: range };
      const answer = await client.send(new GetObjectCommand({ Bucket, Key, ...input }), limit(bytes));
      const { ContentLength, ContentRange, ETag = '', Body } = answer;
      return { length: ContentLength, range: ContentRange, etag: ETag, body: Body as Readable };
    },
    async head(Key) {
      const answer = await client.send(new HeadObjectCommand({ Bucket, Key }), limit());
      const { ContentLength = Number.NaN, LastModified, ObjectLockMode, ObjectLockRetainUntilDate } = answer;
      const { StorageClass, Restore } = answer;
      return {
        size: ContentLength,
        modified: LastModified?.getTime() ?? Number.NaN,
        lockedUntil: ObjectLockMode === 'COMPLIANCE' ? (ObjectLockRetainUntilDate?.getTime() ?? null) : null,
        storageClass: StorageClass,
        restore: Restore,
        keptUntil:
          answer.ObjectLockLegalHoldStatus === 'ON'
            ? Number.POSITIVE_INFINITY
            : (ObjectLockRetainUntilDate?.getTime() ?? null),
      };
    },
    async put(Key, Body, options) {
      // AWS refuses what comes into a bucket with locks without it.
      const ContentMD5 = createHash('md5').update(Body).digest('base64');
      const input = { Bucket, Key, Body, ContentMD5, IfNoneMatch: '*', ...classOf(options) };
      await client.send(new PutObjectCommand(input), limit(Body.length));
    },
    async restore(Key, { days: Days, tier }) {
      const RestoreRequest = { Days, GlacierJobParameters: { Tier: tier as Tier } };
      await client.send(new RestoreObjectCommand({ Bucket, Key, RestoreRequest }), limit());
    },
    async delete(Key) {
      await client.send(new DeleteObjectCommand({ Bucket, Key }), limit());
    },
    async list({ prefix, after, token }) {
      const input = { Bucket, Prefix: prefix, StartAfter: after, ContinuationToken: token };
      const page = await client.send(new ListObjectsV2Command(input), limit());
      const objects = (page.Contents ?? []).map(({ Key = '', Size, LastModified, StorageClass }) => ({
        key: Key,
        size: Size ?? Number.NaN,
        modified: LastModified?.getTime() ?? Number.NaN,
        storageClass: StorageClass,
      }));
      return { objects, next: page.IsTruncated ? (page.NextContinuationToken ?? '') : undefined };
    },
    async beginUpload(Key, options) {
      const input = { Bucket, Key, ...classOf(options) };
      const { UploadId } = await client.send(new CreateMultipartUploadCommand(input), limit());
      return UploadId ?? '';
    },
    async putPart({ key: Key, upload: UploadId, number: PartNumber, body: Body, sha256, md5, signal }) {
      const command = new UploadPartCommand({
        Bucket,
        Key,
        UploadId,
        PartNumber,
        Body,
        ContentLength: Body.length,
        ...(md5 === undefined ? {} : { ContentMD5: md5 }),
      });
      // The signer takes over what it finds; by itself it would hash 16 MiB and more in the way of everything else.
      command.middlewareStack.add(
        (next) => (args) => {
          (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = sha256;
          return next(args);
        },
        { step: 'build' },
      );
      const { abortSignal } = limit(Body.length);
      const either = signal === undefined ? abortSignal : AbortSignal.any([abortSignal, signal]);
      const { ETag } = await client.send(command, { abortSignal: either });
      return ETag ?? '';
    },
    async *parts(Key, UploadId) {
      let marker: string | undefined;
      do {
        const input = { Bucket, Key, UploadId, PartNumberMarker: marker };
        const page = await client.send(new ListPartsCommand(input), limit());
        for (const { PartNumber, Size, ETag, LastModified } of page.Parts ?? []) {
          const modified = LastModified?.getTime() ?? 0;
          yield { number: PartNumber ?? 0, size: Size ?? Number.NaN, etag: ETag ?? '', modified };
        }
        const next: string | undefined = page.IsTruncated ? page.NextPartNumberMarker : undefined;
        marker = next === marker ? undefined : next;
      } while (marker !== undefined);
    },
    async completeUpload(Key, UploadId, parts) {
      const Parts = parts.map(({ number, etag }) => ({ PartNumber: number, ETag: etag }));
      const input = { Bucket, Key, UploadId, MultipartUpload: { Parts }, IfNoneMatch: '*' };
      await client.send(new CompleteMultipartUploadCommand(input), limit());
    },
    async abortUpload(Key, UploadId) {
      await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }), limit());
    },
    async *uploads(Prefix) {
      let more = true;
      let key: string | undefined;
      let upload: string | undefined;
      while (more) {
        const input = { Bucket, Prefix, KeyMarker: key, UploadIdMarker: upload };
        const page: ListMultipartUploadsCommandOutput = await client.send(
          new ListMultipartUploadsCommand(input),
          limit(),
        );
        for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
          if (Key !== undefined && UploadId !== undefined)
            yield { key: Key, id: UploadId, started: Initiated?.getTime() ?? 0 };
        }
        more = page.IsTruncated === true && (page.NextKeyMarker !== key || page.NextUploadIdMarker !== upload);
        key = page.NextKeyMarker;
        upload = page.NextUploadIdMarker;
      }
    },
    close: () => client.destroy(),
  };
}

/** The deadline of a request that carries so many bytes, one way or the other. */
function limit(bytes = 0): { abortSignal: AbortSignal } {
  const ms = LONGEST_MS + (Math.min(bytes, MOST_BYTES) / SLOWEST) * 1000;
  return { abortSignal: AbortSignal.timeout(Math.ceil(ms)) };
}

function classOf(options: S3PutOptions | undefined): { StorageClass?: StorageClass } {
  return options?.storageClass === undefined ? {} : { StorageClass: options.storageClass as StorageClass };
}

function clientConfig({ endpoint, region, pathStyle, profile }: S3Place, idleMs: number): S3ClientConfig {
  return {
    region,
    forcePathStyle: pathStyle,
    ...(endpoint === undefined ? { followRegionRedirects: true } : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    // Repeating is the business of RetryStore and of the upload, which know what may be repeated and how long.
    maxAttempts: 1,
    // Archives carry their own hashes, and some servers refuse the trailers that a checksum of the SDK's travels in.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    expectContinueHeader: false,
    requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: idleMs },
  };
}
