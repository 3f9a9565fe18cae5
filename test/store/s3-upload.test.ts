import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { expectCode } from '../contract/store.ts';
import { noise } from '../e2e/odd-tree.ts';
import { accessEnvironment } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Server, startS3 } from '../s3/server.mjs';

const MIB = 1024 * 1024;
const scratch = mkdtempSync(join(tmpdir(), 'rozen-upload-'));
const content = noise(33 * MIB + 12_345);
const PARTS = [1, 2, 3];
let server: S3Server;
let store: S3Store;
let path: string;
let count = 0;

beforeAll(async () => {
  server = await startS3({ buckets: ['bucket'] });
  Object.assign(process.env, accessEnvironment({ endpoint: server.endpoint, ...CREDENTIALS }));
});
afterAll(async () => {
  await server.close();
  rmSync(scratch, { recursive: true, force: true });
});
beforeEach(() => {
  store = new S3Store(parseS3Place(`s3:${server.endpoint}/bucket/p${count}`));
  path = join(scratch, `file ${count++}`);
  writeFileSync(path, content);
  server.faults = [];
  server.objects.goneUpload = 'NoSuchUpload';
  server.objects.listsJoined = false;
  server.objects.uploads.clear();
  server.reset();
});

const upload = () => [...server.objects.uploads.values()][0]!;
const sent = () =>
  server.requests
    .filter(({ operation, status }) => operation === 'UploadPart' && status === 200)
    .map(({ part }) => part)
    .sort();
const partIs = (...numbers: string[]) => ({
  operation: 'UploadPart',
  match: ({ query }: { query: URLSearchParams }) => numbers.includes(query.get('partNumber') ?? ''),
});

async function expectStored(): Promise<void> {
  expect((await store.get('a')).equals(content)).toBe(true);
  expect(server.objects.uploads.size).toBe(0);
  expect(existsSync(`${path}.upload`)).toBe(false);
}

/** An upload that ends in the middle: part 2 is refused. */
async function begin(): Promise<void> {
  server.faults = [{ kind: '403', ...partIs('2') }];
  await expectCode(store.putFile('a', path), 'io');
  server.faults = [];
  expect(upload().parts.map(({ number }) => number)).not.toContain(2);
  expect(existsSync(`${path}.upload`)).toBe(true);
}

test('a large file travels in parts, each once', async () => {
  await store.putFile('a', path);
  expect(sent()).toEqual(PARTS);
  expect(server.count('PutObject')).toBe(0);
  await expectStored();
  await expectCode(store.putFile('a', path), 'exists');
  expect(sent()).toEqual(PARTS);
});

describe('goes on with', () => {
  test('what the journal names, without asking for uploads', async () => {
    await begin();
    const there = upload().parts.map(({ number }) => number);
    server.reset();
    await store.putFile('a', path);
    expect(sent()).toEqual(PARTS.filter((number) => !there.includes(number)));
    expect(server.count('ListMultipartUploads', 'CreateMultipartUpload')).toBe(0);
    await expectStored();
  });

  test('what the server has, when the journal is lost or damaged', async () => {
    await begin();
    const there = upload().parts.map(({ number }) => number);
    writeFileSync(`${path}.upload`, '{"key": "torn');
    server.reset();
    await store.putFile('a', path);
    expect(sent()).toEqual(PARTS.filter((number) => !there.includes(number)));
    expect(server.count('CreateMultipartUpload')).toBe(0);
    await expectStored();
  });

  test.each(['NoSuchUpload', 'NoSuchKey'])('nothing that another server has dropped and calls %s', async (name) => {
    server.objects.goneUpload = name;
    await begin();
    server.objects.uploads.clear();
    server.reset();
    await store.putFile('a', path);
    expect(sent()).toEqual(PARTS);
    await expectStored();
  });

  test('no part that holds something else', async () => {
    await begin();
    const there = upload().parts.map(({ number }) => number);
    const [first] = upload().parts as unknown as { etag: string; number: number }[];
    first!.etag = '0'.repeat(32);
    server.reset();
    await store.putFile('a', path);
    expect(sent()).toEqual(PARTS.filter((number) => number === first!.number || !there.includes(number)));
    await expectStored();
  });

  test('another file under the same path: the upload of the one before is ended', async () => {
    await begin();
    const before = upload().id;
    await store.putFile('b', path);
    expect(server.objects.uploads.has(before)).toBe(false);
    expect((await store.get('b')).equals(content)).toBe(true);
  });
});

describe('in the end', () => {
  test.each(['NoSuchUpload', 'NoSuchKey'])(
    'an answer that is lost when parts are joined is no error (then %s)',
    async (name) => {
      server.objects.goneUpload = name;
      server.faults = [{ kind: 'lost', operation: 'CompleteMultipartUpload' }];
      await store.putFile('a', path);
      expect(sent()).toEqual(PARTS);
      await expectStored();
    },
  );

  test('an upload that is listed although its parts were joined is never ended: they are the object', async () => {
    server.objects.listsJoined = true;
    await begin();
    const journal = readFileSync(`${path}.upload`);
    await store.putFile('a', path);
    const [{ id }] = [upload()];
    const unfinished = [];
    for await (const one of store.unfinished()) unfinished.push(one);
    expect(unfinished).toMatchObject([{ name: 'a', id, stored: true }]);
    expect(await store.abandon(unfinished[0]!)).toBe(false);
    // The one that joined them died before it could forget the upload, and another file came under the same path.
    writeFileSync(`${path}.upload`, journal);
    await store.putFile('b', path);
    expect(server.count('AbortMultipartUpload')).toBe(0);
    expect((await store.get('a')).equals(content)).toBe(true);
    expect((await store.get('b')).equals(content)).toBe(true);
  });

  test('an object that came first stays', async () => {
    const match = ({ key }: { key: string }) => {
      server.objects.put('bucket', key, { body: Buffer.from('theirs') });
      return true;
    };
    server.faults = [{ kind: '503', operation: 'UploadPart', match }];
    const error = await expectCode(store.putFile('a', path), 'exists');
    expect(error.message).toContain('a exists already');
    expect((await store.get('a')).toString()).toBe('theirs');
    expect(server.objects.uploads.size).toBe(0);
  });
});

test.each(['NoSuchUpload', 'NoSuchKey'])('an upload that ends while uploads are listed (%s) is none', async (name) => {
  server.objects.goneUpload = name;
  await begin();
  const [{ id }] = [upload()];
  const ends = () => {
    server.objects.uploads.clear();
    return false;
  };
  server.faults = [{ kind: '500', operation: 'ListParts', match: ends }];
  const found = [];
  for await (const unfinished of store.unfinished()) found.push(unfinished);
  expect(found).toEqual([]);
  expect(server.count('ListParts')).toBe(1);
  await store.abandon({ name: 'a', id, bytes: 0, active: 0, stored: false });
});

test('parts that fail for a while hold nothing up', async () => {
  server.faults = [
    { kind: '503', ...partIs('1'), times: 2 },
    { kind: 'reset', ...partIs('3') },
    { kind: 'lost', ...partIs('2') },
  ];
  await store.putFile('a', path);
  expect(server.faults).toEqual([]);
  await expectStored();
});
