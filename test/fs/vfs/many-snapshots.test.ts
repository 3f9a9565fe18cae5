import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type MountHost, openVfsHost } from '../../../src/fs/vfs/host.ts';
import { CountingStore } from '../../../src/store/counting.ts';
import { Client } from './client.ts';
import { type Committed, TestRepository } from './repository.ts';

const COUNT = 80;
const folder = mkdtempSync(join(tmpdir(), 'rozen-many-'));
const committed: Committed[] = [];
let made: TestRepository;
let store: CountingStore;
let host: MountHost;
let client: Client;

const textOf = (n: number) => `text of day ${n >> 1}\n`;

beforeAll(async () => {
  made = await TestRepository.create(folder);
  for (let n = 0; n < COUNT; n++) {
    // Half way the machine loses its state: the lineage begins anew, and its history does not know what was before.
    if (n === COUNT / 2) made.forget('diary');
    committed.push(
      await made.commit(
        'diary',
        [
          { path: '', type: 'folder', mtimeSec: 1_700_000_000 + n },
          { path: `of-${String(n).padStart(3, '0')}`, type: 'fifo' },
          { path: 'text', type: 'file', content: [Buffer.from(textOf(n))] },
        ],
        { timeSec: 1_800_000_000 + n * 60 },
      ),
    );
  }
  store = new CountingStore(made.store);
  host = await openVfsHost({ store, repository: await made.reader(), pollMs: 0, log: () => {} });
  client = new Client(host);
});

afterAll(async () => {
  await host.close();
  delete process.env.ROZEN_STATE_DIR;
  rmSync(folder, { recursive: true, force: true });
});

describe('many snapshots', () => {
  it('cost nothing to list: the newest knows the others, or else their records do', async () => {
    const trees = store.calls.filter((call) => call.name.startsWith('tree/'));
    expect(trees.map((call) => call.operation)).toEqual(['getSuffix']);
    expect(host.snapshotsOpen).toBe(1);
    const names = await client.names(await client.walk('snapshots/diary'));
    expect(names.length).toBe(COUNT + 1);
    expect(host.snapshotsOpen).toBe(1);
  });

  it('open one by one, by one read each, also from before the new beginning', async () => {
    for (const n of [0, 17, COUNT / 2 - 1, COUNT / 2, COUNT - 1]) {
      store.reset();
      const file = await client.walk(`by-id/${committed[n]!.id}/text`);
      expect(store.calls.filter((call) => call.name.includes(committed[n]!.tree)).length).toBeLessThanOrEqual(1);
      expect((await client.content(file)).toString()).toBe(textOf(n));
      expect((await client.getxattr(file, 'user.rozen.snapshot'))!.toString()).toBe(committed[n]!.id);
    }
  });

  it('show each distinct content once in versions, and every name that ever was', async () => {
    const contents = await client.list(await client.walk('versions/diary/text'));
    expect(contents.length).toBe(COUNT / 2);
    for (const n of [0, 7, COUNT / 2 - 1]) {
      expect((await client.content(contents[n]!.attr)).toString()).toBe(textOf(2 * n));
    }
    const root = await client.walk('versions/diary');
    const names = await client.names(root);
    expect(names.length).toBe(COUNT + 1);
    expect(new Set(names).size).toBe(COUNT + 1);
    expect((await client.list(root, 7)).map(({ name }) => name)).toEqual(names);
  });
});
