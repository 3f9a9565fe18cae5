/**
 * Retention of objects. It is set after an object is there, as some servers drop the headers that would set it before (Ceph, for
 * uploads in parts), and then read back: a lock that the server only says it has set protects nothing.
 */
import { RozenError } from '../errors.ts';
import { repeat } from './retry.ts';
import type { S3Api } from './s3-client.ts';
import { s3Status } from './s3-errors.ts';

const DAY_MS = 86_400_000;
/** Requests under way at once. */
const AT_ONCE = 8;
const ATTEMPTS = 9;

export interface LockTask {
  api: S3Api;
  days: number;
  translate(error: unknown, key: string): RozenError;
}

/**
 * The object is locked for `days` from now when this returns. `fresh`: it was just made, and has no lock that could do. A lock
 * of an older object that ends at most a tenth of the days, or one day, earlier is left as it is: one request instead of three.
 */
export async function lockObject(task: LockTask, key: string, fresh: boolean): Promise<void> {
  const { api, days, translate } = task;
  const until = Math.ceil((Date.now() + days * DAY_MS) / 1000) * 1000;
  const enough = until - Math.min(DAY_MS, (days * DAY_MS) / 10);
  const call = <T>(work: () => Promise<T>): Promise<T> =>
    repeat(
      () =>
        work().catch((error) => {
          throw translate(error, key);
        }),
      key,
      { attempts: ATTEMPTS },
    );
  const lockedUntil = async () => (await call(() => api.head(key))).lockedUntil ?? 0;
  if (!fresh && (await lockedUntil()) >= enough) return;
  await call(() =>
    api.lock(key, new Date(until)).catch((error) => {
      // A longer lock cannot be made shorter; the look below sees it.
      if (s3Status(error) !== 403) throw error;
    }),
  );
  if ((await lockedUntil()) >= until) return;
  throw new RozenError('io', `${key}: the store did not lock it for ${days} days`, {
    hint: 'the keys need s3:PutObjectRetention and s3:GetObjectRetention, and the bucket Object Lock',
  });
}

export async function lockObjects(task: LockTask, keys: readonly string[]): Promise<void> {
  const left = [...keys];
  const work = async (): Promise<void> => {
    for (let key = left.pop(); key !== undefined; key = left.pop()) await lockObject(task, key, false);
  };
  const outcomes = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
