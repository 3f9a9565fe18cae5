/**
 * A file becomes an object in parts. What the server has acknowledged is never sent again:
 *
 *   1. CreateMultipartUpload, then the journal     a crash in between: the upload is found by its key
 *   2. parts, several at once                      a crash: ListParts says which ones are there
 *   3. CompleteMultipartUpload                     a crash, or an answer that is lost: the object is there, or step 2
 *
 * The size of the parts follows from the size of the file alone, so that every later run cuts it the same way.
 */
import { createHash, webcrypto } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { RozenError } from '../errors.ts';
import { repeat } from './retry.ts';
import type { S3Api, S3Part, S3PutOptions } from './s3-client.ts';
import { headIfThere, isUploadGone, s3Status } from './s3-errors.ts';
import { forgetUpload, recallUpload, rememberUpload } from './s3-journal.ts';
import { MIN_PART, md5OfETag, partSize } from './s3-parts.ts';

/** Parts under way at once, each in memory. */
const PARTS_AT_ONCE = 4;
/** A server that is started anew in the meantime is waited for: about half a minute. */
const ATTEMPTS = 9;
/** An upload that vanishes again and again (a life-cycle rule, somebody's repair) is not begun for ever. */
const UPLOADS = 3;

export interface UploadTask {
  api: S3Api;
  key: string;
  path: string;
  /** Of the file, bytes. */
  size: number;
  options: S3PutOptions;
  signal: AbortSignal | undefined;
  /** The object will be locked. */
  lock: boolean;
  /** What the SDK threw, as a RozenError of this store. */
  translate(error: unknown): RozenError;
  /** A create in one request. */
  put(bytes: Buffer): Promise<void>;
  stat(): Promise<{ size: number } | null>;
}

/**
 * Creates the object; 'exists' when there is one. The caller has looked already: some servers do not when parts are joined.
 * False when it was small and went by `put`.
 */
export async function uploadFile(task: UploadTask): Promise<boolean> {
  const file = await open(task.path, 'r');
  try {
    if (task.size <= MIN_PART) {
      await task.put(await readPart(file, 0, task.size));
      return false;
    }
    for (let round = 1; !(await uploadOnce(task, file)); round++) {
      forgetUpload(task.path);
      if (round === UPLOADS) {
        throw new RozenError('io', `${task.key}: the store has dropped its upload ${UPLOADS} times`, {
          hint: 'does a life-cycle rule of the bucket abort uploads too early?',
        });
      }
    }
    forgetUpload(task.path);
    return true;
  } finally {
    await file.close();
  }
}

/**
 * Ends an upload that nobody goes on with; no error when it is gone. False, and nothing is done, when its object is stored: a server
 * that died while it joined the parts may list the upload still, and its parts are then the object's own. Ceph and SeaweedFS
 * delete them with the upload (seaweedfs issue 11382, ceph pull request 60771): the object is lost.
 */
export async function abortUpload(api: S3Api, key: string, upload: string): Promise<boolean> {
  if ((await headIfThere(api, key)) !== null) return false;
  await api.abortUpload(key, upload).catch((error) => {
    if (!isUploadGone(error)) throw error;
  });
  return true;
}

/** False when the server does not know the upload any more. */
async function uploadOnce(task: UploadTask, file: FileHandle): Promise<boolean> {
  const { api, key } = task;
  const call = <T>(work: () => Promise<T>): Promise<T> => patiently(task, work);
  try {
    const { upload, parts } = await call(() => findOrBegin(task, file));
    await sendMissing({ ...task, upload, parts, file });
    const all = [...parts.values()].sort((a, b) => a.number - b.number);
    let uncertain = false;
    await call(async () => {
      try {
        await api.completeUpload(key, upload, all);
      } catch (error) {
        if (s3Status(error) === 412) {
          // An answer that was lost, of this process or one before: the object is there, and the server refuses to make it again.
          const same = (await task.stat())?.size === task.size;
          if (uncertain && same) return;
          if (!same) await api.abortUpload(key, upload).catch(() => {});
        }
        uncertain = true;
        throw error;
      }
    });
  } catch (error) {
    if (!isUploadGone((error as RozenError).cause)) throw error;
    return (await task.stat())?.size === task.size;
  }
  const stored = await call(() => task.stat());
  if (stored?.size !== task.size) {
    throw new RozenError('io', `${key}: ${stored?.size ?? 0} bytes are in the store, ${task.size} were sent`, {
      hint: 'run the same command again; if it comes back, do not trust this server',
    });
  }
  return true;
}

/** Repeats what may be repeated; a part that fails must not bring all the others down. */
function patiently<T>(task: UploadTask, work: () => Promise<T>): Promise<T> {
  return repeat(
    async () => {
      try {
        return await work();
      } catch (error) {
        if (task.signal?.aborted === true) throw new RozenError('interrupted', `${task.key}: the upload was stopped`);
        throw task.translate(error);
      }
    },
    task.key,
    { attempts: ATTEMPTS },
  );
}

interface Begun {
  upload: string;
  /** What the server has, by number. */
  parts: Map<number, S3Part>;
}

async function findOrBegin(task: UploadTask, file: FileHandle): Promise<Begun> {
  const { api, key, path, size } = task;
  const known = recallUpload(path);
  if (known !== null && known.key !== key) {
    // The file before this one under the same path never got there, and never will.
    await abortUpload(api, known.key, known.upload).catch(() => {});
    forgetUpload(path);
  }
  if (known?.key === key && known.size === size) {
    const parts = await keptParts(task, known.upload, file);
    if (parts !== null) return { upload: known.upload, parts };
  }
  // The newest one: with an equal key they are all of this file, as keys hold random ids.
  let newest: { id: string; started: number } | null = null;
  for await (const { key: of, id, started } of api.uploads(key)) {
    if (of === key && id !== known?.upload && (newest === null || started >= newest.started)) newest = { id, started };
  }
  if (newest !== null) {
    const parts = await keptParts(task, newest.id, file);
    if (parts !== null) {
      rememberUpload(path, { key, upload: newest.id, size });
      return { upload: newest.id, parts };
    }
  }
  const upload = await api.beginUpload(key, task.options);
  rememberUpload(path, { key, upload, size });
  return { upload, parts: new Map() };
}

/** The parts of an upload that hold what the file holds there; null when there is no such upload. */
async function keptParts(task: UploadTask, upload: string, file: FileHandle): Promise<Map<number, S3Part> | null> {
  const kept = new Map<number, S3Part>();
  const length = partSize(task.size);
  try {
    for await (const part of task.api.parts(task.key, upload)) {
      const offset = (part.number - 1) * length;
      const wanted = Math.min(length, task.size - offset);
      if (part.number < 1 || part.size !== wanted || wanted <= 0) continue;
      // The ETag is the MD5 of the part, unless the server encrypts with keys of its own: then the size must do, as a
      // sealed archive never changes.
      const md5 = md5OfETag(part.etag);
      const holds = async () =>
        createHash('md5')
          .update(await readPart(file, offset, wanted))
          .digest('hex');
      if (md5 === null || md5 === (await holds())) kept.set(part.number, part);
    }
    return kept;
  } catch (error) {
    if (isUploadGone(error)) return null;
    throw error;
  }
}

async function sendMissing(task: UploadTask & Begun & { file: FileHandle }): Promise<void> {
  const { api, key, size, upload, parts, file, signal } = task;
  const length = partSize(size);
  const missing: number[] = [];
  for (let number = 1; (number - 1) * length < size; number++) if (!parts.has(number)) missing.push(number);
  let failed = false;
  const send = async (): Promise<void> => {
    for (let number = missing.shift(); number !== undefined && !failed; number = missing.shift()) {
      const offset = (number - 1) * length;
      const body = await readPart(file, offset, Math.min(length, size - offset));
      const sha256 = Buffer.from(await webcrypto.subtle.digest('SHA-256', body)).toString('hex');
      const md5 = task.lock ? createHash('md5').update(body).digest('base64') : undefined;
      const at = number;
      try {
        const etag = await patiently(task, () => api.putPart({ key, upload, number: at, body, sha256, md5, signal }));
        parts.set(at, { number: at, size: body.length, etag, modified: Date.now() });
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: PARTS_AT_ONCE }, send));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

async function readPart(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new RozenError('io', `a file ends at ${offset + done} while it is being stored`);
    done += bytesRead;
  }
  return bytes;
}
