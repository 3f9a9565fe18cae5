/**
 * What a bucket holds: versions of objects, parts of uploads. All of it lies in files, written whole or not at all, so that a server
 * that was killed goes on with the same state.
 *
 *   <dir>/buckets/<bucket>.json
 *   <dir>/objects/<hash of bucket and key>.json     all versions; bodies are lists of files below bodies/
 *   <dir>/uploads/<id>.json
 *   <dir>/bodies/<random>
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { S3Error } from './s3-error.mjs';

const MIN_PART = 5 * 1024 * 1024;
export const FROZEN = new Set(['GLACIER', 'DEEP_ARCHIVE']);
const CLASSES = new Set(['STANDARD', 'STANDARD_IA', 'ONEZONE_IA', 'INTELLIGENT_TIERING', 'GLACIER_IR', ...FROZEN]);
const md5 = (bytes) => createHash('md5').update(bytes).digest('hex');

export class Objects {
  constructor(dir, clock = Date.now) {
    this.dir = dir;
    this.clock = clock;
    /** False: what lies in a cold class is read at once, as on servers whose classes only bear those names. */
    this.freezes = true;
    this.buckets = new Map();
    /** What a request for an upload that is gone is told; Ceph says NoSuchKey at times. */
    this.goneUpload = 'NoSuchUpload';
    /** True: uploads stay listed when their parts were joined, as after a death of Ceph's gateway; ending one deletes the object's bytes. */
    this.listsJoined = false;
    /** True: If-None-Match is ignored, as servers do that never heard of it. */
    this.overwrites = false;
    this.uploads = new Map();
    for (const name of ['buckets', 'objects', 'uploads', 'bodies']) mkdirSync(join(dir, name), { recursive: true });
    for (const bucket of this.#load('buckets')) this.buckets.set(bucket.name, { ...bucket, keys: new Map() });
    for (const object of this.#load('objects')) this.buckets.get(object.bucket)?.keys.set(object.key, object);
    for (const upload of this.#load('uploads')) this.uploads.set(upload.id, upload);
  }

  makeBucket(name, { lock = false } = {}) {
    if (this.buckets.has(name))
      throw new S3Error(409, 'BucketAlreadyOwnedByYou', 'Your previous request to create the named bucket succeeded.');
    this.#save('buckets', name, { name, lock });
    this.buckets.set(name, { name, lock, keys: new Map() });
  }

  bucket(name) {
    const bucket = this.buckets.get(name);
    if (bucket === undefined) throw new S3Error(404, 'NoSuchBucket', 'The specified bucket does not exist');
    return bucket;
  }

  /** The version that a read sees, or one by its id. */
  version(bucketName, key, versionId) {
    const object = this.bucket(bucketName).keys.get(key);
    const version =
      versionId === undefined ? object?.versions.at(-1) : object?.versions.find((one) => one.id === versionId);
    if (version === undefined || version.deleted)
      throw new S3Error(404, 'NoSuchKey', 'The specified key does not exist.');
    return version;
  }

  exists(bucketName, key) {
    const last = this.bucket(bucketName).keys.get(key)?.versions.at(-1);
    return last !== undefined && !last.deleted;
  }

  put(bucketName, key, { body, storageClass, lock, onlyNew }) {
    this.#refuseExisting(bucketName, key, onlyNew);
    const file = this.#writeBody(body);
    return this.#add(bucketName, key, { segments: [{ file, size: body.length }], etag: md5(body), storageClass, lock });
  }

  delete(bucketName, key, versionId) {
    const bucket = this.bucket(bucketName);
    const object = bucket.keys.get(key);
    if (versionId === undefined && bucket.lock) {
      this.#add(bucketName, key, { segments: [], etag: '', deleted: true });
      return;
    }
    if (object === undefined) return;
    for (const version of object.versions) {
      const meant = versionId === undefined || version.id === versionId;
      if (meant && version.lock !== undefined && Date.parse(version.lock.until) > this.clock())
        throw new S3Error(403, 'AccessDenied', 'Access Denied because object protected by object lock.');
    }
    const gone = object.versions.filter((version) => versionId === undefined || version.id === versionId);
    object.versions = object.versions.filter((version) => !gone.includes(version));
    this.#saveObject(bucket, object);
    for (const { segments } of gone)
      for (const { file } of segments) rmSync(join(this.dir, 'bodies', file), { force: true });
  }

  /** A retention that would end earlier than the one there is refused, as in COMPLIANCE mode. */
  retain(bucketName, key, { mode, until, versionId }) {
    const bucket = this.bucket(bucketName);
    if (!bucket.lock) throw new S3Error(400, 'InvalidRequest', 'Bucket is missing Object Lock Configuration');
    if (!(Date.parse(until) > this.clock()))
      throw new S3Error(400, 'InvalidArgument', 'The retain until date must be in the future!');
    const version = this.version(bucketName, key, versionId);
    if (version.lock?.mode === 'COMPLIANCE' && Date.parse(version.lock.until) > Date.parse(until))
      throw new S3Error(403, 'AccessDenied', 'Access Denied because object protected by object lock.');
    version.lock = { mode, until };
    this.#saveObject(bucket, bucket.keys.get(key));
  }

  /** Asks for a frozen object; `readyAt` by the server's clock. */
  thaw(bucketName, key, { days, readyAt }) {
    const version = this.version(bucketName, key);
    if (!FROZEN.has(version.storageClass))
      throw new S3Error(403, 'InvalidObjectState', "Restore is not allowed for the object's current storage class");
    const { restore } = version;
    if (restore !== undefined && restore.readyAt > this.clock())
      throw new S3Error(409, 'RestoreAlreadyInProgress', 'Object restore is already in progress');
    const again = restore !== undefined && restore.until > this.clock();
    version.restore = again
      ? { ...restore, until: this.clock() + days * 86_400_000 }
      : { readyAt, until: readyAt + days * 86_400_000 };
    this.#saveObject(this.bucket(bucketName), this.bucket(bucketName).keys.get(key));
    return again;
  }

  isFrozen(version) {
    if (!this.freezes || !FROZEN.has(version.storageClass)) return false;
    const { restore } = version;
    return restore === undefined || restore.readyAt > this.clock() || restore.until <= this.clock();
  }

  list(bucketName, prefix, after) {
    const found = [];
    for (const [key, { versions }] of this.bucket(bucketName).keys) {
      const version = versions.at(-1);
      if (version !== undefined && !version.deleted && key.startsWith(prefix) && key > after)
        found.push({ key, version });
    }
    return found.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
  }

  begin(bucketName, key, { storageClass }) {
    this.bucket(bucketName);
    checkClass(storageClass);
    const upload = {
      id: randomBytes(16).toString('hex'),
      bucket: bucketName,
      key,
      storageClass,
      started: this.clock(),
      parts: [],
    };
    this.#save('uploads', upload.id, upload);
    this.uploads.set(upload.id, upload);
    return upload;
  }

  upload(bucketName, key, id) {
    const upload = this.uploads.get(id);
    if (upload === undefined || upload.bucket !== bucketName || upload.key !== key)
      throw new S3Error(404, this.goneUpload, 'The specified upload does not exist.');
    return upload;
  }

  putPart(upload, number, body) {
    if (!(number >= 1 && number <= 10_000))
      throw new S3Error(400, 'InvalidArgument', 'Part number must be an integer between 1 and 10000');
    const part = { number, size: body.length, etag: md5(body), file: this.#writeBody(body), modified: this.clock() };
    upload.parts = [...upload.parts.filter((one) => one.number !== number), part].sort((a, b) => a.number - b.number);
    this.#save('uploads', upload.id, upload);
    return part;
  }

  complete(upload, wanted, onlyNew) {
    this.#refuseExisting(upload.bucket, upload.key, onlyNew);
    if (wanted.length === 0) throw new S3Error(400, 'MalformedXML', 'The XML you provided was not well-formed');
    const parts = wanted.map(({ number, etag }, i) => {
      const part = upload.parts.find((one) => one.number === number);
      if (part === undefined || part.etag !== etag)
        throw new S3Error(400, 'InvalidPart', `part ${number} could not be found`);
      if (i > 0 && number <= wanted[i - 1].number)
        throw new S3Error(400, 'InvalidPartOrder', 'parts are not in ascending order');
      if (i < wanted.length - 1 && part.size < MIN_PART)
        throw new S3Error(400, 'EntityTooSmall', 'a part is too small');
      return part;
    });
    const etag = `${md5(Buffer.from(parts.map((part) => part.etag).join(''), 'hex'))}-${parts.length}`;
    const segments = parts.map(({ file, size }) => ({ file, size }));
    const version = this.#add(upload.bucket, upload.key, { segments, etag, storageClass: upload.storageClass });
    if (!this.listsJoined) this.#forget(upload);
    return version;
  }

  abort(upload) {
    this.#forget(upload);
    for (const { file } of upload.parts) rmSync(join(this.dir, 'bodies', file), { force: true });
  }

  #forget(upload) {
    this.uploads.delete(upload.id);
    rmSync(join(this.dir, 'uploads', `${upload.id}.json`), { force: true });
  }

  #refuseExisting(bucketName, key, onlyNew) {
    if (onlyNew && !this.overwrites && this.exists(bucketName, key))
      throw new S3Error(412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold');
  }

  #add(bucketName, key, { segments, etag, storageClass, lock, deleted = false }) {
    const bucket = this.bucket(bucketName);
    checkClass(storageClass);
    if (lock !== undefined && !bucket.lock)
      throw new S3Error(400, 'InvalidRequest', 'Bucket is missing Object Lock Configuration');
    const size = segments.reduce((sum, segment) => sum + segment.size, 0);
    const version = {
      id: randomBytes(8).toString('hex'),
      segments,
      size,
      etag,
      storageClass: storageClass ?? 'STANDARD',
      modified: this.clock(),
      deleted,
      lock,
    };
    const object = bucket.keys.get(key) ?? { bucket: bucketName, key, versions: [] };
    object.versions = bucket.lock ? [...object.versions, version] : [version];
    bucket.keys.set(key, object);
    this.#saveObject(bucket, object);
    return version;
  }

  #saveObject(bucket, object) {
    if (object.versions.length > 0) this.#save('objects', objectFile(object), object);
    else {
      bucket.keys.delete(object.key);
      rmSync(join(this.dir, 'objects', `${objectFile(object)}.json`), { force: true });
    }
  }

  #writeBody(body) {
    const name = randomBytes(12).toString('hex');
    writeFileSync(join(this.dir, 'bodies', name), body);
    return name;
  }

  #save(folder, name, value) {
    const draft = join(this.dir, `${folder}-${randomBytes(6).toString('hex')}.tmp`);
    writeFileSync(draft, JSON.stringify(value));
    renameSync(draft, join(this.dir, folder, `${name}.json`));
  }

  *#load(folder) {
    for (const name of readdirSync(join(this.dir, folder)))
      yield JSON.parse(readFileSync(join(this.dir, folder, name), 'utf8'));
  }
}

function objectFile({ bucket, key }) {
  return createHash('sha1').update(`${bucket}\0${key}`).digest('hex');
}

function checkClass(storageClass) {
  if (storageClass !== undefined && !CLASSES.has(storageClass))
    throw new S3Error(400, 'InvalidStorageClass', 'The storage class you specified is not valid');
}
