import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { keyExport } from '../../src/repository/keys.ts';
import { initRepository, openRepository } from '../../src/repository/repository.ts';
import { LocalStore } from '../../src/store/local.ts';
import { openLabel, readRepository } from '../reference/repository.ts';
import { commitSnapshot, commitUnchanged } from './draft.ts';
import { onMachine, temporaryFolder } from './place.ts';

/**
 * A repository of format 1 as it was written on the day the format was fixed: later versions must read it, for ever. Made by
 * this file with ROZEN_WRITE_VECTORS=1 (never again, unless a new format gets a folder of its own).
 */
const golden = join(import.meta.dirname, '../vectors/repository/format-1');
const passphrase = 'golden Größe';

test.runIf(process.env.ROZEN_WRITE_VECTORS === '1')('write', async () => {
  rmSync(golden, { recursive: true, force: true });
  mkdirSync(golden, { recursive: true });
  const state = mkdtempSync(join(tmpdir(), 'rozen-golden-'));
  await onMachine(state, async () => {
    const store = new LocalStore(join(golden, 'store'));
    const repository = await initRepository({ store, passphrase, label: 'golden key', writerName: 'golden machine' });
    await commitSnapshot(repository, 'golden set', -1);
    await commitUnchanged(repository, 'golden set', 1);
    await repository.updateConfig(() => ({}));
    await commitSnapshot(repository, 'golden set', 2 ** 33);
    await commitSnapshot(repository, 'second set', 3);
    writeFileSync(join(golden, 'identity.txt'), (await keyExport(repository, { owner: true })).replace(/ \(.*\)/, ''));
    const { fingerprint, id } = repository;
    writeFileSync(
      join(golden, 'expected.json'),
      `${JSON.stringify({ passphrase, fingerprint, id: id.toString('hex') }, null, 2)}\n`,
    );
  });
  rmSync(state, { recursive: true });
  rmSync(join(golden, 'store/.tmp'), { recursive: true });
});

const expected = () =>
  JSON.parse(readFileSync(join(golden, 'expected.json'), 'utf8')) as { fingerprint: string; id: string };

const heads = [
  { set: 'golden set', timeSec: 2 ** 33, sequence: 3, seen: 0, config: 2 },
  { set: 'second set', timeSec: 3, sequence: 1, seen: 1, config: 2 },
];

test('the golden repository opens by passphrase and by identity', async () => {
  const store = new LocalStore(join(golden, 'store'));
  const state = temporaryFolder();
  for (const credentials of [
    { passphrase: async () => passphrase.normalize('NFD') },
    { identityFile: join(golden, 'identity.txt') },
  ]) {
    await onMachine(state, async () => {
      const repository = await openRepository({
        store,
        need: 'owner',
        credentials,
        fingerprint: expected().fingerprint,
      });
      expect(repository.id.toString('hex')).toBe(expected().id);
      const found = [];
      for (const head of await repository.heads()) {
        const { set } = await repository.openBody(head);
        found.push({
          set,
          timeSec: head.timeSec,
          sequence: head.sequence,
          seen: head.seen.length,
          config: head.configNumber,
        });
        expect(repository.writerName(head.writerId)).toBe('golden machine');
      }
      expect(found).toEqual(heads);
      expect((await repository.records()).map((record) => record.timeSec)).toEqual([2 ** 33, 3, 1, -1]);
    });
  }
});

test('the reference reader, which knows only the text of the format, reads the same', async () => {
  const store = join(golden, 'store');
  const objects = new Map<string, Uint8Array>();
  for (const entry of readdirSync(store, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) objects.set(path.slice(store.length + 1), new Uint8Array(readFileSync(path)));
  }
  const repository = await readRepository(objects, passphrase);
  expect(repository.fingerprint).toBe(expected().fingerprint);
  expect(repository.config.number).toBe(2);
  const [writer] = repository.config.writers;
  expect(openLabel(repository.secrets.setTag, writer.id, writer.name)).toBe('golden machine');
  const bodies = repository.snapshots.filter(({ body }) => body !== null);
  expect(repository.snapshots).toHaveLength(4);
  expect(bodies.map(({ body }) => body!.set).sort()).toEqual(['golden set', 'golden set', 'second set']);
  expect(bodies[0]!.body!.stats).toEqual({ files: 3, bytes: 2 ** 40 });

  const [name] = [...objects.keys()].filter((one) => one.startsWith('snapshots/'));
  const damaged = new Map(objects);
  const bytes = Uint8Array.from(objects.get(name!)!);
  bytes[60]! ^= 1;
  damaged.set(name!, bytes);
  await expect(readRepository(damaged, passphrase)).rejects.toThrow('hash does not fit');
});
