import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { RozenError } from '../errors.ts';
import { fileSize } from './file-size.ts';
import {
  type ColdState,
  checkObjectName,
  DEFAULT_GET_LIMIT,
  frontOf,
  isObjectName,
  type Keeping,
  type ObjectInfo,
  type ObjectStore,
  objectExists,
  objectNotFound,
  objectTooLarge,
  objectTooShort,
  type PutFileOptions,
  type ThawTier,
  type Unfinished,
} from './object-store.ts';
import type { S3Answer, S3Api, S3Head, S3PutOptions } from './s3-client.ts';
import { coldStateOf, TIER_NAMES } from './s3-cold.ts';
import {
  headIfThere,
  isClockWrong,
  isUnreachable,
  isUploadGone,
  s3ErrorName,
  s3Status,
  translateS3Error,
} from './s3-errors.ts';
import { forgetUpload } from './s3-journal.ts';
import { lockObject, lockObjects } from './s3-lock.ts';
import { md5OfETag } from './s3-parts.ts';
import type { S3Place } from './s3-place.ts';
import { abortUpload, uploadFile } from './s3-upload.ts';

/** How often an object that does not hold its hash is asked for. */
const WHOLE_TRIES = 5;

export interface S3StoreOptions {
  /** A connection that says nothing for so long is given up (tests). */
  idleMs?: number | undefined;
}

/** How often a create is tried again at once when another create of the same name was under way. */
const CONFLICTS = 8;

/**
 * Objects below a prefix of a bucket. A create is conditional (`If-None-Match: *`), so that the server decides between writers.
 * Nothing is repeated in here but parts of an upload: wrap it in a RetryStore. Every length that a server gives is checked
 * against what was asked for before memory is taken, and against what then comes.
 */
export class S3Store implements ObjectStore {
  readonly location: string;
  readonly #place: S3Place;
  readonly #idleMs: number | undefined;
  #api: Promise<S3Api> | null = null;
  /** Something has answered: from now on a refused connection is a hiccup, not a wrong address. */
  #reached = false;
  /** The bucket was seen, so a 404 that does not say of what is of an object. */
  #bucketSeen = false;
  #etagIsHash = true;
  #keeping: Keeping = {};
  /** By class: whether it freezes what lies in it. */
  readonly #freezing = new Map<string, Promise<boolean>>();

  constructor(place: S3Place, options: S3StoreOptions = {}) {
    this.#place = place;
    this.#idleMs = options.idleMs;
    this.location = place.location;
  }

  async prepare(): Promise<void> {
    try {
      await this.#call('', (api) => api.headBucket());
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'not-found') throw error;
      await this.#call('', async (api) => {
        await api.createBucket({ lock: this.#keeping.lockDays !== undefined }).catch((failure) => {
          if (s3ErrorName(failure) !== 'BucketAlreadyOwnedByYou') throw failure;
        });
      });
    }
    this.#bucketSeen = true;
  }

  localPath(name: string): null {
    checkObjectName(name);
    return null;
  }

  /**
   * What was damaged on its way is asked for again. The ETag of an object that was put in one request is its MD5, but with some kinds of the
   * server's encryption: there the same bytes come twice, and it is not looked at any more.
   */
  async get(name: string, limit = DEFAULT_GET_LIMIT): Promise<Buffer> {
    const damaged: Buffer[] = [];
    while (damaged.length < WHOLE_TRIES) {
      const { bytes, etag } = await this.#whole(name, limit);
      const md5 = this.#etagIsHash ? md5OfETag(etag) : null;
      if (md5 === null || createHash('md5').update(bytes).digest('hex') === md5) return bytes;
      if (damaged.some((before) => before.equals(bytes))) {
        this.#etagIsHash = false;
        return bytes;
      }
      damaged.push(bytes);
    }
    throw this.#nonsense(name, `sends other bytes each time, ${WHOLE_TRIES} times`);
  }

  #whole(name: string, limit: number): Promise<{ bytes: Buffer; etag: string }> {
    return this.#read(name, async (api, key) => {
      const answer = await api.get(key, { bytes: limit });
      const { length: size, etag } = answer;
      if (size === undefined) throw drop(answer, this.#nonsense(name, 'does not say how long the object is'));
      if (size > limit) throw drop(answer, objectTooLarge({ location: this.location, name, size, limit }));
      return { bytes: await this.#body(answer, name, size), etag };
    });
  }

  async getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer> {
    checkObjectName(name);
    const expected = offset + length;
    const isSane = offset >= 0 && length >= 0 && Number.isSafeInteger(expected);
    if (!isSane || length === 0) {
      const { size } = await this.#statExisting(name);
      if (!isSane || expected > size) throw this.#short(name, expected, size);
      return Buffer.alloc(0);
    }
    return this.#read(name, async (api, key) => {
      let answer: S3Answer;
      try {
        answer = await api.get(key, { range: `bytes=${offset}-${expected - 1}`, bytes: length });
      } catch (error) {
        if (s3Status(error) !== 416) throw error;
        throw this.#short(name, expected, (await this.#statExisting(name)).size);
      }
      const range = parseContentRange(answer.range);
      if (range === null || range.from !== offset) throw drop(answer, this.#wrongRange(name));
      if (range.to !== expected - 1) throw drop(answer, this.#short(name, expected, range.size));
      return this.#body(answer, name, length, target);
    });
  }

  async getSuffix(name: string, length: number): Promise<{ bytes: Buffer; size: number }> {
    checkObjectName(name);
    if (length <= 0) return { bytes: Buffer.alloc(0), size: (await this.#statExisting(name)).size };
    return this.#read(name, async (api, key) => {
      let answer: S3Answer;
      try {
        answer = await api.get(key, { range: `bytes=-${length}`, bytes: length });
      } catch (error) {
        if (s3Status(error) !== 416) throw error;
        // Of an empty object there is no last byte.
        const { size } = await this.#statExisting(name);
        if (size !== 0) throw this.#wrongRange(name);
        return { bytes: Buffer.alloc(0), size };
      }
      // A server may answer with the whole object, and then without a range, when it is not longer.
      const range = parseContentRange(answer.range) ?? {
        from: 0,
        to: (answer.length ?? -1) - 1,
        size: answer.length ?? -1,
      };
      const wanted = Math.min(length, range.size);
      if (range.size < 0 || range.to !== range.size - 1 || range.from !== range.size - wanted)
        throw drop(answer, this.#wrongRange(name));
      return { bytes: await this.#body(answer, name, wanted), size: range.size };
    });
  }

  async stat(name: string): Promise<{ size: number; modified: number } | null> {
    return this.#head(name);
  }

  async coldState(name: string): Promise<ColdState | null> {
    const head = await this.#head(name);
    if (head === null) return null;
    const cold = coldStateOf(head, Date.now());
    if (cold.state !== 'frozen' || (await this.#freezes(cold.storageClass ?? '', name))) return cold;
    return { ...cold, state: 'hot' };
  }

  /**
   * Whether what lies in a class cannot be read at once, as on AWS: other servers use the same names for what is read like anything
   * else. Tried on the first object of the class.
   */
  #freezes(storageClass: string, name: string): Promise<boolean> {
    let known = this.#freezing.get(storageClass);
    if (known === undefined) {
      known = this.getRange(name, 0, 1).then(
        () => false,
        (error) => {
          if (error instanceof RozenError && error.code === 'frozen') return true;
          throw error;
        },
      );
      this.#freezing.set(storageClass, known);
      known.catch(() => this.#freezing.delete(storageClass));
    }
    return known;
  }

  async thaw(name: string, { tier, days }: { tier: ThawTier; days: number }): Promise<void> {
    checkObjectName(name);
    await this.#call(name, (api, key) =>
      api.restore(key, { tier: TIER_NAMES[tier], days }).catch((error) => {
        if (s3ErrorName(error) === 'RestoreAlreadyInProgress') return;
        if (s3ErrorName(error) !== 'InvalidObjectState') throw error;
        throw new RozenError('unsupported', `${this.location}/${name}: it is not frozen`);
      }),
    );
  }

  async #head(name: string): Promise<S3Head | null> {
    checkObjectName(name);
    return this.#call(name, async (api, key) => {
      try {
        const head = await api.head(key);
        this.#bucketSeen = true;
        if (!Number.isSafeInteger(head.size)) throw this.#nonsense(name, 'gives no size');
        return head;
      } catch (error) {
        if (s3Status(error) === 400 || (s3Status(error) === 403 && !isClockWrong(error))) await this.#explain(api, key);
        if (s3Status(error) !== 404) throw error;
        if (!this.#bucketSeen) await this.#requireBucket(api);
        return null;
      }
    });
  }

  put(name: string, bytes: Uint8Array): Promise<void> {
    return this.#put(name, bytes, this.#optionsOf(name, bytes.length));
  }

  async #put(name: string, bytes: Uint8Array, options: S3PutOptions): Promise<void> {
    checkObjectName(name);
    await this.#call(name, async (api, key) => {
      for (let attempt = 1; ; attempt++) {
        try {
          await api.put(key, bytes, options);
          break;
        } catch (error) {
          // Two creates at once: this one was refused, and the next try shows whether the other one won.
          if (s3Status(error) !== 409 || attempt >= CONFLICTS) throw error;
        }
      }
      await this.#lock(api, key);
    });
  }

  /** In parts when it is large; goes on with an upload that a killed process has left. The file stays. */
  async putFile(name: string, path: string, { signal, hot = false }: PutFileOptions = {}): Promise<void> {
    checkObjectName(name);
    const size = await fileSize(path);
    if ((await this.stat(name)) !== null) {
      forgetUpload(path);
      throw objectExists(this.location, name);
    }
    await this.#call(name, async (api, key) => {
      const inParts = await uploadFile({
        api,
        key,
        path,
        size,
        options: hot ? {} : this.#optionsOf(name, size),
        signal,
        lock: this.#keeping.lockDays !== undefined,
        translate: (error) => this.#translate(error, name),
        put: (bytes) => this.#put(name, bytes, hot ? {} : this.#optionsOf(name, size)),
        stat: () => this.stat(name),
      });
      if (inParts) await this.#lock(api, key);
    });
  }

  async *list(prefix: string, options: { after?: string } = {}): AsyncIterable<ObjectInfo> {
    if (prefix !== '' && !isObjectName(prefix.endsWith('/') ? prefix.slice(0, -1) : prefix)) checkObjectName(prefix);
    const root = this.#place.prefix;
    let last = options.after ?? '';
    let token: string | undefined;
    do {
      const after = token === undefined && last !== '' ? root + last : undefined;
      const page = await this.#call('', (api) => api.list({ prefix: root + prefix, after, token }));
      this.#bucketSeen = true;
      for (const { key, size, modified, storageClass } of page.objects) {
        const name = key.slice(root.length);
        if (!key.startsWith(root + prefix) || !Number.isSafeInteger(size))
          throw this.#nonsense(prefix, 'lists nonsense');
        if (!isObjectName(name)) continue;
        // What goes back would be listed for ever.
        if (name <= last) {
          if (name <= (options.after ?? '')) continue;
          throw this.#nonsense(prefix, 'lists out of order');
        }
        last = name;
        yield { name, size, modified, ...(storageClass === undefined ? {} : { storageClass }) };
      }
      if (page.next === '' || (page.next !== undefined && page.next === token))
        throw this.#nonsense(prefix, 'breaks a list off');
      token = page.next;
    } while (token !== undefined);
  }

  async delete(name: string): Promise<void> {
    checkObjectName(name);
    await this.#call(name, async (api, key) => {
      await api.delete(key).catch((error) => {
        if (s3ErrorName(error) !== 'NoSuchKey') throw error;
      });
    });
  }

  keep(keeping: Keeping): void {
    this.#keeping = keeping;
  }

  async cannotKeep({ lockDays }: Keeping): Promise<RozenError | null> {
    if (lockDays === undefined) return null;
    const can = await this.#call('', (api) =>
      api.hasLock().catch((error) => {
        if (s3ErrorName(error) !== 'ObjectLockConfigurationNotFoundError') throw error;
        return false;
      }),
    );
    if (can) return null;
    return new RozenError('unsupported', `${this.location}: the bucket has no Object Lock`, {
      hint: 'it is switched on when a bucket is made: name one that does not exist yet, or leave --object-lock out',
    });
  }

  async retain(names: readonly string[]): Promise<void> {
    const { lockDays: days } = this.#keeping;
    if (days === undefined || names.length === 0) return;
    names.forEach(checkObjectName);
    const keys = names.map((name) => this.#place.prefix + name);
    await this.#call('', (api) => lockObjects({ api, days, translate: this.#ofKey }, keys));
  }

  async lockedUntil(name: string): Promise<number | null> {
    checkObjectName(name);
    return this.#call(name, async (api, key) => {
      return (await headIfThere(api, key))?.keptUntil ?? null;
    });
  }

  async *unfinished(): AsyncIterable<Unfinished> {
    const root = this.#place.prefix;
    const uploads = await this.#call('', async (api) => {
      const found: Unfinished[] = [];
      for await (const { key, id, started } of api.uploads(root)) {
        if (!key.startsWith(root) || !isObjectName(key.slice(root.length))) continue;
        const upload: Unfinished = { name: key.slice(root.length), id, bytes: 0, active: started, stored: false };
        try {
          for await (const part of api.parts(key, id)) {
            upload.bytes += part.size;
            upload.active = Math.max(upload.active, part.modified);
          }
        } catch (error) {
          // It was completed or ended since it was listed.
          if (isUploadGone(error)) continue;
          throw error;
        }
        found.push(upload);
      }
      for (const upload of found) upload.stored = (await this.#head(upload.name)) !== null;
      return found;
    });
    yield* uploads;
  }

  abandon({ name, id }: Unfinished): Promise<boolean> {
    return this.#call(name, (api, key) => abortUpload(api, key, id));
  }

  /** Only content goes to a class of its own: everything else is read by every command. */
  #optionsOf(name: string, size: number): S3PutOptions {
    const { storageClass, classFrom = 0 } = this.#keeping;
    return name.startsWith('data/') && size >= classFrom ? { storageClass } : {};
  }

  async #lock(api: S3Api, key: string): Promise<void> {
    const { lockDays: days } = this.#keeping;
    if (days !== undefined) await lockObject({ api, days, translate: this.#ofKey }, key, true);
  }

  readonly #ofKey = (error: unknown, key: string): RozenError =>
    this.#translate(error, key.slice(this.#place.prefix.length));

  async #read<T>(name: string, work: (api: S3Api, key: string) => Promise<T>): Promise<T> {
    checkObjectName(name);
    return this.#call(name, work);
  }

  async #call<T>(name: string, work: (api: S3Api, key: string) => Promise<T>): Promise<T> {
    this.#api ??= import('./s3-client.ts').then(({ connectS3 }) => connectS3(this.#place, this.#idleMs));
    const api = await this.#api;
    try {
      const result = await work(api, this.#place.prefix + name);
      this.#reached = true;
      return result;
    } catch (error) {
      throw this.#translate(error, name);
    }
  }

  #translate(error: unknown, name: string): RozenError {
    const { location, bucket } = this.#place;
    const translated = translateS3Error(error, { location, bucket, name });
    if (s3Status(error) !== undefined) this.#reached = true;
    if (this.#reached || !isUnreachable(translated)) return translated;
    const { message, hint, cause } = translated;
    return new RozenError('io', message, { hint, cause });
  }

  async #requireBucket(api: S3Api): Promise<void> {
    try {
      await api.headBucket();
      this.#bucketSeen = true;
    } catch (error) {
      if (s3Status(error) === 404)
        throw Object.assign(new Error('no bucket', { cause: error }), { name: 'NoSuchBucket' });
      // A user who may not look at the bucket itself may still see its objects.
      if (s3Status(error) !== 403) throw error;
    }
  }

  /** The answer to a HEAD has no body, so that a refusal says nothing. The same refusal of a GET does: this throws it. */
  async #explain(api: S3Api, key: string): Promise<void> {
    const answer = await api.get(key, { range: 'bytes=0-0', bytes: 1 }).catch((error) => {
      if (s3Status(error) === 403 || s3Status(error) === 400) throw error;
      return null;
    });
    answer?.body.destroy();
  }

  async #statExisting(name: string): Promise<{ size: number }> {
    const info = await this.stat(name);
    if (info === null) throw objectNotFound(this.location, name);
    return info;
  }

  /** Exactly `length` bytes of a body, or an error that says how many came. */
  async #body(answer: S3Answer, name: string, length: number, target?: Buffer): Promise<Buffer> {
    if (answer.length !== length) throw drop(answer, this.#wrongRange(name));
    const bytes = frontOf(target, length);
    let done = 0;
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      if (done + piece.length > length) throw drop(answer, this.#nonsense(name, 'sends more than it announced'));
      piece.copy(bytes, done);
      done += piece.length;
    }
    if (done === length) return bytes;
    throw new RozenError('io', `${this.location}/${name}: the answer ends after ${done} of ${length} bytes`, {
      retryable: true,
      hint: 'check the network',
    });
  }

  #short(name: string, expected: number, size: number): RozenError {
    return objectTooShort({ location: this.location, name, size, expected });
  }

  #wrongRange(name: string): RozenError {
    return this.#nonsense(name, 'answers with another range than was asked for');
  }

  #nonsense(name: string, what: string): RozenError {
    return new RozenError('io', `${this.location}/${name}: the server ${what}`, {
      hint: 'it, or something on the way, does not speak S3 well',
      retryable: true,
    });
  }
}

/** Ends a response whose body nobody wants: reading a gigabyte to throw it away would take as long as it takes. */
function drop(answer: S3Answer, error: RozenError): RozenError {
  (answer.body as Readable | undefined)?.destroy();
  return error;
}

function parseContentRange(text: string | undefined): { from: number; to: number; size: number } | null {
  const match = /^bytes ([0-9]+)-([0-9]+)\/([0-9]+)$/.exec(text ?? '');
  if (match === null) return null;
  const [from, to, size] = match.slice(1).map(Number) as [number, number, number];
  return Number.isSafeInteger(size) && from <= to && to < size ? { from, to, size } : null;
}
