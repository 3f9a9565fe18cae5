/** The operations of S3 that Rozen uses, each from a checked request to an answer: {status, headers, body} or {status, headers, version, from, to}. */
import { FROZEN } from './objects.mjs';
import { S3Error } from './s3-error.mjs';

const XML = '<?xml version="1.0" encoding="UTF-8"?>\n';
const NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"';
const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[sign]);
const iso = (ms) => new Date(ms).toISOString();
const tag = (name, body) => new RegExp(`<${name}[^>]*>([^<]*)</${name}>`).exec(body.toString())?.[1];

function xml(root, inner, status = 200) {
  return { status, headers: { 'content-type': 'application/xml' }, body: `${XML}<${root} ${NS}>${inner}</${root}>` };
}

export function errorAnswer({ status, code, message }, resource) {
  const inner = `<Code>${code}</Code><Message>${escaped(message)}</Message><Resource>${escaped(resource)}</Resource>`;
  return { status, headers: { 'content-type': 'application/xml' }, body: `${XML}<Error>${inner}</Error>` };
}

/** Name of the operation that a request asks for, as AWS calls it. */
export function operationOf({ method, key, query }) {
  if (key === '') {
    if (query.has('object-lock')) return method === 'PUT' ? 'PutObjectLockConfiguration' : 'GetObjectLockConfiguration';
    if (method === 'GET') return query.has('uploads') ? 'ListMultipartUploads' : 'ListObjectsV2';
    return { PUT: 'CreateBucket', HEAD: 'HeadBucket' }[method];
  }
  if (query.has('uploads')) return 'CreateMultipartUpload';
  if (query.has('uploadId'))
    return { GET: 'ListParts', PUT: 'UploadPart', POST: 'CompleteMultipartUpload', DELETE: 'AbortMultipartUpload' }[
      method
    ];
  if (query.has('retention')) return method === 'PUT' ? 'PutObjectRetention' : undefined;
  if (query.has('restore')) return 'RestoreObject';
  return { GET: 'GetObject', HEAD: 'HeadObject', PUT: 'PutObject', DELETE: 'DeleteObject' }[method];
}

const OPERATIONS = {
  HeadBucket({ objects, bucket }) {
    objects.bucket(bucket);
    return { status: 200 };
  },

  CreateBucket({ objects, bucket, headers }) {
    objects.makeBucket(bucket, { lock: headers['x-amz-bucket-object-lock-enabled'] === 'true' });
    return { status: 200, headers: { location: `/${bucket}` } };
  },

  GetObjectLockConfiguration({ objects, bucket }) {
    if (!objects.bucket(bucket).lock)
      throw new S3Error(
        404,
        'ObjectLockConfigurationNotFoundError',
        'Object Lock configuration does not exist for this bucket',
      );
    return xml('ObjectLockConfiguration', '<ObjectLockEnabled>Enabled</ObjectLockEnabled>');
  },

  ListObjectsV2({ objects, bucket, query }) {
    const prefix = query.get('prefix') ?? '';
    const max = Math.min(Number(query.get('max-keys') ?? 1000), 1000);
    const token = query.get('continuation-token');
    const after = token === null ? (query.get('start-after') ?? '') : Buffer.from(token, 'base64').toString();
    const all = objects.list(bucket, prefix, after);
    const page = all.slice(0, max);
    const rows = page.map(
      ({ key, version }) =>
        `<Contents><Key>${escaped(key)}</Key><LastModified>${iso(version.modified)}</LastModified><ETag>&quot;${version.etag}&quot;</ETag><Size>${version.size}</Size><StorageClass>${version.storageClass}</StorageClass></Contents>`,
    );
    const more = all.length > page.length;
    const next = more
      ? `<NextContinuationToken>${Buffer.from(page.at(-1).key).toString('base64')}</NextContinuationToken>`
      : '';
    return xml(
      'ListBucketResult',
      `<Name>${bucket}</Name><Prefix>${escaped(prefix)}</Prefix><KeyCount>${page.length}</KeyCount><MaxKeys>${max}</MaxKeys><IsTruncated>${more}</IsTruncated>${next}${rows.join('')}`,
    );
  },

  PutObject({ objects, bucket, key, headers, body }) {
    const until = headers['x-amz-object-lock-retain-until-date'];
    const lock = until === undefined ? undefined : { mode: headers['x-amz-object-lock-mode'], until };
    const version = objects.put(bucket, key, {
      body,
      storageClass: headers['x-amz-storage-class'],
      lock,
      onlyNew: headers['if-none-match'] === '*',
    });
    return { status: 200, headers: { etag: `"${version.etag}"`, ...versionHeader(objects, bucket, version) } };
  },

  HeadObject({ objects, bucket, key, query }) {
    const version = objects.version(bucket, key, query.get('versionId') ?? undefined);
    return { status: 200, headers: { ...describe(objects, bucket, version), 'content-length': version.size } };
  },

  GetObject({ objects, bucket, key, query, headers }) {
    const version = objects.version(bucket, key, query.get('versionId') ?? undefined);
    if (objects.isFrozen(version))
      throw new S3Error(403, 'InvalidObjectState', "The operation is not valid for the object's storage class");
    const { size } = version;
    const facts = describe(objects, bucket, version);
    const range = /^bytes=([0-9]*)-([0-9]*)$/.exec(headers.range ?? '');
    if (range === null || (range[1] === '' && range[2] === ''))
      return { status: 200, headers: { ...facts, 'content-length': size }, version, from: 0, to: size };
    const from = range[1] === '' ? Math.max(0, size - Number(range[2])) : Number(range[1]);
    const to = range[1] === '' || range[2] === '' ? size : Math.min(size, Number(range[2]) + 1);
    if (from >= size || to <= from) throw new S3Error(416, 'InvalidRange', 'The requested range is not satisfiable');
    const about = { ...facts, 'content-length': to - from, 'content-range': `bytes ${from}-${to - 1}/${size}` };
    return { status: 206, headers: about, version, from, to };
  },

  DeleteObject({ objects, bucket, key, query }) {
    objects.delete(bucket, key, query.get('versionId') ?? undefined);
    return { status: 204 };
  },

  PutObjectRetention({ objects, bucket, key, query, body }) {
    const mode = tag('Mode', body);
    const until = tag('RetainUntilDate', body);
    if (!/^(COMPLIANCE|GOVERNANCE)$/.test(mode ?? '') || Number.isNaN(Date.parse(until)))
      throw new S3Error(400, 'MalformedXML', 'The XML you provided was not well-formed');
    objects.retain(bucket, key, { mode, until, versionId: query.get('versionId') ?? undefined });
    return { status: 200 };
  },

  RestoreObject({ objects, bucket, key, body, restoreMs, thawRefusal }) {
    if (thawRefusal !== null)
      throw new S3Error(503, thawRefusal, 'Glacier expedited retrievals are currently not available');
    const days = Number(tag('Days', body));
    const tier = tag('Tier', body) ?? 'Standard';
    if (!['Standard', 'Bulk', 'Expedited'].includes(tier)) throw new S3Error(400, 'MalformedXML', `no tier ${tier}`);
    if (tier === 'Expedited' && objects.version(bucket, key).storageClass === 'DEEP_ARCHIVE')
      throw new S3Error(400, 'InvalidArgument', 'Retrieval option is not supported by this storage class');
    if (!(days >= 1)) throw new S3Error(400, 'MalformedXML', 'Days is missing');
    const again = objects.thaw(bucket, key, { days, readyAt: objects.clock() + restoreMs });
    return { status: again ? 200 : 202 };
  },

  CreateMultipartUpload({ objects, bucket, key, headers }) {
    const { id } = objects.begin(bucket, key, { storageClass: headers['x-amz-storage-class'] });
    return xml(
      'InitiateMultipartUploadResult',
      `<Bucket>${bucket}</Bucket><Key>${escaped(key)}</Key><UploadId>${id}</UploadId>`,
    );
  },

  UploadPart({ objects, bucket, key, query, body }) {
    const upload = objects.upload(bucket, key, query.get('uploadId'));
    const part = objects.putPart(upload, Number(query.get('partNumber')), body);
    return { status: 200, headers: { etag: `"${part.etag}"` } };
  },

  ListParts({ objects, bucket, key, query }) {
    const upload = objects.upload(bucket, key, query.get('uploadId'));
    const max = Math.min(Number(query.get('max-parts') ?? 1000), 1000);
    const all = upload.parts.filter((part) => part.number > Number(query.get('part-number-marker') ?? 0));
    const page = all.slice(0, max);
    const rows = page.map(
      ({ number, size, etag, modified }) =>
        `<Part><PartNumber>${number}</PartNumber><LastModified>${iso(modified)}</LastModified><ETag>&quot;${etag}&quot;</ETag><Size>${size}</Size></Part>`,
    );
    const more = all.length > page.length;
    const next = more ? `<NextPartNumberMarker>${page.at(-1).number}</NextPartNumberMarker>` : '';
    return xml(
      'ListPartsResult',
      `<Bucket>${bucket}</Bucket><Key>${escaped(key)}</Key><UploadId>${upload.id}</UploadId><IsTruncated>${more}</IsTruncated>${next}${rows.join('')}`,
    );
  },

  CompleteMultipartUpload({ objects, bucket, key, query, headers, body }) {
    const upload = objects.upload(bucket, key, query.get('uploadId'));
    const wanted = [...body.toString().matchAll(/<Part>(.*?)<\/Part>/gs)].map(([, part]) => ({
      number: Number(tag('PartNumber', part)),
      etag: (tag('ETag', part) ?? '').replace(/&quot;|"/g, ''),
    }));
    const { etag } = objects.complete(upload, wanted, headers['if-none-match'] === '*');
    return xml(
      'CompleteMultipartUploadResult',
      `<Bucket>${bucket}</Bucket><Key>${escaped(key)}</Key><ETag>&quot;${etag}&quot;</ETag>`,
    );
  },

  AbortMultipartUpload({ objects, bucket, key, query }) {
    objects.abort(objects.upload(bucket, key, query.get('uploadId')));
    return { status: 204 };
  },

  ListMultipartUploads({ objects, bucket, query }) {
    objects.bucket(bucket);
    const prefix = query.get('prefix') ?? '';
    const max = Math.min(Number(query.get('max-uploads') ?? 1000), 1000);
    const order = ({ key, started, id }) => `${key}\0${String(started).padStart(16, '0')}\0${id}`;
    const marker = query.get('upload-id-marker');
    const from =
      marker === null || marker === ''
        ? `${query.get('key-marker') ?? ''}\x01`
        : objects.uploads.has(marker)
          ? order(objects.uploads.get(marker))
          : '';
    const all = [...objects.uploads.values()]
      .filter(
        (upload) =>
          upload.bucket === bucket &&
          upload.key.startsWith(prefix) &&
          ((query.get('key-marker') ?? '') === '' || order(upload) > from),
      )
      .sort((a, b) => (order(a) < order(b) ? -1 : 1));
    const page = all.slice(0, max);
    const rows = page.map(
      ({ key, id, started }) =>
        `<Upload><Key>${escaped(key)}</Key><UploadId>${id}</UploadId><Initiated>${iso(started)}</Initiated></Upload>`,
    );
    const more = all.length > page.length;
    const next = more
      ? `<NextKeyMarker>${escaped(page.at(-1).key)}</NextKeyMarker><NextUploadIdMarker>${page.at(-1).id}</NextUploadIdMarker>`
      : '';
    return xml(
      'ListMultipartUploadsResult',
      `<Bucket>${bucket}</Bucket><IsTruncated>${more}</IsTruncated>${next}${rows.join('')}`,
    );
  },
};

export function answer(request) {
  const work = OPERATIONS[request.operation];
  if (work === undefined)
    throw new S3Error(
      501,
      'NotImplemented',
      `${request.method} ${request.key === '' ? 'of a bucket' : 'of an object'}`,
    );
  return work(request);
}

function versionHeader(objects, bucket, version) {
  return objects.bucket(bucket).lock ? { 'x-amz-version-id': version.id } : {};
}

function describe(objects, bucket, version) {
  const { etag, modified, storageClass, lock, restore } = version;
  const facts = {
    etag: `"${etag}"`,
    'last-modified': new Date(modified).toUTCString(),
    'accept-ranges': 'bytes',
    ...versionHeader(objects, bucket, version),
  };
  if (storageClass !== 'STANDARD') facts['x-amz-storage-class'] = storageClass;
  if (lock !== undefined) {
    facts['x-amz-object-lock-mode'] = lock.mode;
    facts['x-amz-object-lock-retain-until-date'] = lock.until;
  }
  if (
    restore !== undefined &&
    FROZEN.has(storageClass) &&
    (restore.readyAt > objects.clock() || restore.until > objects.clock())
  ) {
    facts['x-amz-restore'] =
      restore.readyAt > objects.clock()
        ? 'ongoing-request="true"'
        : `ongoing-request="false", expiry-date="${new Date(restore.until).toUTCString()}"`;
  }
  return facts;
}
