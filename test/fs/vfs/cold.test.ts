import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { RozenError } from '../../../src/errors.ts';
import { type MountHost, openVfsHost } from '../../../src/fs/vfs/host.ts';
import { ENOMEDIUM } from '../../../src/posix/errno.ts';
import { openRepository } from '../../../src/repository/open.ts';
import type { ColdState, Warmth } from '../../../src/store/object-store.ts';
import { RemoteStore } from '../../store/remote.ts';
import { Client, errnoOf } from './client.ts';
import { TestRepository } from './repository.ts';

const folder = mkdtempSync(join(tmpdir(), 'rozen-cold-'));
const content = randomBytes(900_000);
let made: TestRepository;

/** A store whose data archives are all as warm as is said. */
class ColdStore extends RemoteStore {
  state: Warmth = 'frozen';

  override async coldState(name: string): Promise<ColdState | null> {
    const state = await super.coldState(name);
    return state === null
      ? null
      : { ...state, storageClass: 'GLACIER', state: name.startsWith('data/') ? this.state : 'hot' };
  }

  override async getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer> {
    const bytes = await super.getRange(name, offset, length, target);
    if (this.state !== 'hot' && name.startsWith('data/'))
      throw new RozenError('frozen', `${name} lies in cold storage`);
    return bytes;
  }
}

let store: ColdStore;
let host: MountHost;
let client: Client;
let log: string[];

beforeAll(async () => {
  made = await TestRepository.create(join(folder, 'made'));
  await made.commit('cold', [
    { path: '', type: 'folder' },
    { path: 'file', type: 'file', content: [content] },
    { path: 'empty', type: 'file', content: [] },
  ]);
});
beforeEach(async () => {
  process.env.ROZEN_STATE_DIR = join(made.folder, 'state');
  store = new ColdStore(made.store.location);
  const credentials = { identityFile: made.identityFile };
  const repository = await openRepository({ store, credentials, need: 'read' });
  log = [];
  host = await openVfsHost({ store, repository, pollMs: 0, log: (line) => log.push(line) });
  client = new Client(host);
});
afterEach(async () => {
  vi.useRealTimers();
  await host.close();
});
afterAll(() => {
  delete process.env.ROZEN_STATE_DIR;
  rmSync(folder, { recursive: true, force: true });
});

const file = () => client.walk('snapshots/cold/latest/file');
const stateOf = async (path: string) =>
  (await client.getxattr(await client.walk(`snapshots/cold/latest/${path}`), 'user.rozen.state'))?.toString();

it('reads of frozen content fail at once, by one request, and are told once', async () => {
  const node = await file();
  expect(await errnoOf(client.content(node))).toBe(ENOMEDIUM);
  const asked = store.count('getRange');
  for (let i = 0; i < 5; i++) expect(await errnoOf(client.content(node))).toBe(ENOMEDIUM);
  expect(store.count('getRange')).toBe(asked);
  expect(log.filter((line) => line.includes('lies in cold storage'))).toHaveLength(1);
  expect((await client.list(await client.walk('snapshots/cold/latest'))).length).toBe(2);
});

it('what was thawed is read without another mount', async () => {
  const node = await file();
  expect(await errnoOf(client.content(node))).toBe(ENOMEDIUM);
  store.state = 'hot';
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 5001 });
  expect((await client.content(node)).equals(content)).toBe(true);
});

it('the state of a file is asked when somebody wants it, and remembered for a moment', async () => {
  await file();
  expect(store.count('coldState')).toBe(0);
  expect(await stateOf('file')).toBe('frozen');
  expect(await stateOf('file')).toBe('frozen');
  expect(store.count('coldState')).toBe(1);
  expect(await stateOf('empty')).toBe('hot');
  store.state = 'thawing';
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 5001 });
  expect(await stateOf('file')).toBe('thawing');
  expect(store.count('coldState')).toBe(2);
  store.state = 'hot';
  vi.setSystemTime(Date.now() + 5001);
  expect(await stateOf('file')).toBe('hot');
});

it('a store that is away makes the question fail, not the mount', async () => {
  await file();
  store.coldState = () => Promise.reject(new RozenError('io', 'the network is down', { retryable: true }));
  expect(await errnoOf(stateOf('file'))).toBe(5);
  expect(log.join('\n')).toMatch(/network is down/);
});
