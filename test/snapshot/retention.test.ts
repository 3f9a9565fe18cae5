/** Object Lock of snapshot records, as time passes. */
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { lineagePrefix, snapshotName } from '../../src/repository/names.ts';
import { retainRecords } from '../../src/snapshot/backup/retention.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { accessEnvironment } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Server, startS3 } from '../s3/server.mjs';

const DAY = 86_400_000;
const DAYS = 10;
const TAGS = ['0a', 'ff'].map((digits) => digits.repeat(16));
let server: S3Server;
const born = Date.now();
const at = (days: number) => vi.setSystemTime(born + days * DAY);

beforeAll(async () => {
  server = await startS3({ clock: () => Date.now() });
  Object.assign(process.env, accessEnvironment({ endpoint: server.endpoint, ...CREDENTIALS }));
});
afterAll(() => server.close());
afterEach(() => vi.useRealTimers());

async function lineages(bucket: string) {
  vi.useFakeTimers({ toFake: ['Date'] });
  const store = new S3Store(parseS3Place(`s3:${server.endpoint}/${bucket}/p`));
  store.keep({ lockDays: DAYS });
  await store.prepare();
  const names: string[] = [];
  const write = async (tag: string, sequence: number): Promise<void> => {
    const name = snapshotName(tag, sequence, Buffer.alloc(16, sequence));
    await store.put(name, Buffer.from(name));
    names.push(name);
  };
  const leastDays = async (): Promise<number> =>
    Math.min(...(await Promise.all(names.map((name) => store.lockedUntil(name)))).map((until) => until ?? 0)) / DAY -
    Date.now() / DAY;
  const asked = async (): Promise<number> => {
    server.reset();
    await retainRecords(store, DAYS);
    return server.requests.length;
  };
  return { store, names, write, leastDays, asked };
}

test('records of all lineages stay locked for half of the days at least, for a few requests each time', async () => {
  const { write, leastDays, asked } = await lineages('life');
  at(0);
  for (const tag of TAGS) for (let sequence = 1; sequence <= 12; sequence++) await write(tag, sequence);
  let sweeps = 0;
  for (let day = 1; day <= 30; day += 1.5) {
    at(day);
    const requests = await asked();
    expect(await leastDays(), `day ${day}`).toBeGreaterThanOrEqual(DAYS / 2);
    if (server.count('PutObjectRetention') > 0) sweeps++;
    // The tags, and of each lineage its oldest record.
    else expect(requests, `day ${day}`).toBeLessThanOrEqual(3 + 2 * 2);
    await write(TAGS[0]!, 13 + Math.floor(day));
  }
  expect(sweeps).toBeGreaterThanOrEqual(5);
  expect(sweeps).toBeLessThanOrEqual(6);
});

test('what was ended in the middle is done again', async () => {
  const { names, store, write, leastDays, asked } = await lineages('stopped');
  at(0);
  for (let sequence = 1; sequence <= 20; sequence++) await write(TAGS[0]!, sequence);
  at(6);
  server.faults = [{ kind: '403', operation: 'PutObjectRetention', match: ({ key }) => key === `p/${names[5]}` }];
  await expect(retainRecords(store, DAYS)).rejects.toMatchObject({ code: 'io' });
  expect(await leastDays()).toBeLessThan(DAYS / 2);
  server.faults = [];
  await asked();
  expect(await leastDays()).toBeGreaterThan(DAYS * 0.85);
  expect(await asked()).toBeLessThanOrEqual(4);
});

test('the first record may be gone, and a legal hold is no lock of the others', async () => {
  const { names, store, write, leastDays, asked } = await lineages('lost');
  at(0);
  for (let sequence = 3; sequence <= 6; sequence++) await write(TAGS[1]!, sequence);
  await store.put(`${lineagePrefix(TAGS[1]!)}note`, Buffer.from('x'));
  at(7);
  const held = vi.spyOn(store, 'lockedUntil').mockResolvedValueOnce(Number.POSITIVE_INFINITY);
  await asked();
  held.mockRestore();
  expect(names).toHaveLength(4);
  expect(await leastDays()).toBeGreaterThan(DAYS * 0.85);
});
