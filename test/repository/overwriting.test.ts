/** Stores that overwrite what is there although they must not. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { enroll } from '../../src/repository/enroll.ts';
import { initRepository, openRepository, type Repository } from '../../src/repository/repository.ts';
import { LocalStore } from '../../src/store/local.ts';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { expectCode } from '../contract/store.ts';
import { accessEnvironment } from '../s3/bucket.ts';
import { CREDENTIALS, type S3Server, startS3 } from '../s3/server.mjs';
import { place, quickRepository } from './place.ts';

const here = place();
let server: S3Server;

beforeAll(async () => {
  server = await startS3();
  Object.assign(process.env, accessEnvironment({ endpoint: server.endpoint, ...CREDENTIALS }));
});
afterAll(() => server.close());

const bucket = (name: string) => new RetryStore(new S3Store(parseS3Place(`s3:${server.endpoint}/${name}/p`)));

test('init refuses a server that ignores the condition, and leaves nothing there', async () => {
  const { recipient } = await quickRepository(here);
  server.objects.overwrites = true;
  const error = await expectCode(initRepository({ store: bucket('ignores'), recipients: [recipient] }), 'unsupported');
  expect(error.hint).toMatch(/If-None-Match/);
  expect([...server.objects.buckets.get('ignores')!.keys]).toEqual([]);
  server.objects.overwrites = false;
  // An answer that was lost is no reason to refuse one that does.
  server.faults = [{ kind: 'lost', operation: 'PutObject', times: 2 }];
  await initRepository({ store: bucket('ignores'), recipients: [recipient] });
  server.faults = [{ kind: 'lost', operation: 'PutObject', match: ({ key }) => isSecondPut(key) }];
  await initRepository({ store: bucket('lost'), recipients: [recipient] });
});

test('init takes a bucket with Object Lock that keeps each write as a version, with the right key on top', async () => {
  const { recipient, identityFile } = await quickRepository(here);
  server.objects.overwrites = true;
  const store = bucket('versions');
  try {
    await initRepository({ store, recipients: [recipient], keeping: { lockDays: 1 } });
  } finally {
    server.objects.overwrites = false;
  }
  const owner = await openRepository({ store, need: 'owner', credentials: { identityFile } });
  expect(owner.bundle!.rootSecret).not.toBeNull();
});

const seen = new Set<string>();
function isSecondPut(key: string): boolean {
  if (seen.has(key)) return true;
  seen.add(key);
  return false;
}

/** Another machine is in the middle of the same change: its object comes right after the one that is made here. */
class Overwritten extends LocalStore {
  prefix = 'nothing';
  override async put(name: string, bytes: Uint8Array): Promise<void> {
    await super.put(name, bytes);
    if (!name.startsWith(this.prefix)) return;
    await this.delete(name);
    await super.put(name, randomBytes(bytes.length));
  }
}

async function owned(): Promise<{ repository: Repository; store: Overwritten }> {
  const { identityFile } = await quickRepository(here);
  const store = new Overwritten(here.store.location);
  return { repository: await openRepository({ store, need: 'owner', credentials: { identityFile } }), store };
}

test('who was overwritten is not told that all went well', async () => {
  const { repository, store } = await owned();
  await enroll(repository, { name: 'one' });
  store.prefix = 'config/';
  const error = await expectCode(enroll(repository, { name: 'two' }), 'io');
  expect(error.message).toMatch(/config\/00000003.cbor is not what was just written/);
});

test('nor is who records a merge', async () => {
  const { repository, store } = await owned();
  store.prefix = 'forward/';
  const archive = { id: randomBytes(16), size: 1000, headerHash: randomBytes(32), merkleRoot: randomBytes(32) };
  const target = { ...archive, id: randomBytes(16), envelope: Buffer.from('an envelope') };
  const merge = { target, sources: [{ ...archive, block: 0, blocks: 1 }] };
  const error = await expectCode(
    repository.forwards.append(repository.bundle!.rootSecret!, () => merge),
    'io',
  );
  expect(error.message).toMatch(/forward\/00000001.cbor is not what/);
});
