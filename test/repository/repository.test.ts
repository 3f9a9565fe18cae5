import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { configName, GENESIS_NAME, snapshotName } from '../../src/repository/names.ts';
import { readPin, writePin } from '../../src/repository/pin.ts';
import { initRepository, openRepository, type Repository } from '../../src/repository/repository.ts';
import { encodeRecord, sealBody } from '../../src/repository/snapshot-record.ts';
import { CountingStore } from '../../src/store/counting.ts';
import { LocalStore } from '../../src/store/local.ts';
import { expectCode, names } from '../contract/store.ts';
import { RemoteStore } from '../store/remote.ts';
import { commitSnapshot, commitUnchanged } from './draft.ts';
import { onMachine, place, quickRepository, replaceObject } from './place.ts';

const here = place();
const passphrase = async () => 'correct horse';
const openToRead = (identityFile: string) =>
  openRepository({ store: here.store, need: 'read', credentials: { identityFile } });

test('init, commit, open again, read: with a passphrase', async () => {
  const made = await initRepository({ store: here.store, passphrase: await passphrase() });
  expect(made.fingerprint).toMatch(/^([0-9a-f]{4}-){7}[0-9a-f]{4}$/);
  const first = await commitSnapshot(made, 'documents');
  expect(first.sequence).toBe(1);
  await commitUnchanged(made, 'documents');

  const writer = await openRepository({ store: here.store, need: 'write' });
  expect(writer.identities).toBeNull();
  const slot = await writer.nextSlot('documents');
  expect(slot.sequence).toBe(3);
  expect(slot.base?.id).toEqual(first.id);
  expect(slot.newest?.kind).toBe('unchanged');

  const reader = await openRepository({ store: here.store, need: 'read', credentials: { passphrase } });
  const heads = await reader.heads();
  expect(heads).toHaveLength(1);
  expect(heads[0]!.confirmed).toEqual({ timeSec: 1_000_000_100, timeNs: 0 });
  const body = await reader.openBody(heads[0]!);
  expect(body.set).toBe('documents');
  expect(body.paths).toEqual([Buffer.from('/home/\xff', 'latin1')]);
  expect(body.stats).toEqual({ files: 3, bytes: 2 ** 40 });
  expect(await reader.records()).toHaveLength(2);
  expect(reader.writerName(heads[0]!.writerId)).toBe(made.writer!.name);
});

test('a machine made for recipients backs up and cannot read; the identity reads and owns', async () => {
  for (const kind of ['x25519', 'hybrid'] as const) {
    const folder = join(here.folder, kind);
    mkdirSync(folder, { recursive: true });
    const store = new LocalStore(join(folder, 'store'));
    const { repository, identityFile } = await quickRepository({ folder, store }, kind);
    expect(repository.identities).toBeNull();
    const record = await commitSnapshot(repository, 'photos');
    await expectCode(repository.openBody(record), 'no-key');
    await expectCode(
      repository.updateConfig(() => ({})),
      'no-key',
    );
    const again = await openRepository({ store, need: 'write' });
    await commitSnapshot(again, 'photos');
    await expectCode(again.openBody(record), 'no-key');

    const reader = await openRepository({ store, need: 'read', credentials: { identityFile } });
    expect((await reader.openBody(record)).set).toBe('photos');
    const newcomer = await onMachine(join(folder, 'newcomer'), () =>
      openRepository({ store, need: 'read', credentials: { identityFile } }),
    );
    expect(newcomer.secrets).toBeNull();
    expect(await newcomer.loadSecrets()).toEqual(repository.secrets);
    const owner = await openRepository({ store, need: 'owner', credentials: { identityFile } });
    expect((await owner.updateConfig(() => ({}))).number).toBe(2);
  }
});

test('identities can be handed over instead of a file', async () => {
  const { repository, identity } = await quickRepository(here);
  const record = await commitSnapshot(repository, 'photos');
  const reader = await openRepository({ store: here.store, need: 'read', credentials: { identities: [identity] } });
  expect((await reader.openBody(record)).tags).toEqual(['a tag']);
});

test('a second machine of the owner is enrolled on the fly, with a lineage of its own', async () => {
  const { repository, identityFile } = await quickRepository(here);
  await commitSnapshot(repository, 'photos');
  await onMachine(join(here.folder, 'second'), async () => {
    const second = await openRepository({ store: here.store, need: 'write', credentials: { identityFile } });
    expect(second.config.number).toBe(2);
    expect(second.writer!.id.equals(repository.writer!.id)).toBe(false);
    expect(second.secrets).toEqual(repository.secrets);
    const record = await commitSnapshot(second, 'photos');
    expect(record.sequence).toBe(1);
    expect(record.seen.map((seen) => seen.tag)).toEqual([repository.lineageTag('photos')]);
    // From now on the writer file is enough.
    const again = await openRepository({ store: here.store, need: 'write' });
    expect(again.writer!.id).toEqual(second.writer!.id);
  });
  // The first machine's open repository knows nothing of config 2 until it meets its records.
  expect(repository.config.number).toBe(1);
  expect(await repository.heads()).toHaveLength(2);
  expect(repository.config.number).toBe(2);
});

test('unlock gets the identities later, and asks once', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const record = await commitSnapshot(repository, 'photos');
  const writer = await openRepository({ store: here.store, need: 'write', credentials: { identityFile } });
  expect(writer.identities).toBeNull();
  expect(await writer.unlock()).toBe(true);
  expect((await writer.openBody(record)).set).toBe('photos');
  expect(await (await openRepository({ store: here.store, need: 'write' })).unlock()).toBe(false);

  let asked = 0;
  const other = await initRepository({
    store: new LocalStore(join(here.folder, 'p')),
    passphrase: 'p',
  });
  const second = await commitSnapshot(other, 'photos');
  const ask = async () => {
    asked++;
    return 'p';
  };
  const lazy = await openRepository({ store: other.store, need: 'write', credentials: { passphrase: ask } });
  expect(asked).toBe(0);
  await Promise.all([lazy.openBody(second), lazy.openBody(second)]);
  expect(asked).toBe(1);
});

test('two runs with one writer: the slower is told, both snapshots stay, the lineage goes on', async () => {
  const { repository, identityFile } = await quickRepository(here);
  await commitSnapshot(repository, 'photos');
  const clone = await openRepository({ store: here.store, need: 'write' });
  const stale = await clone.nextSlot('photos');
  const winner = await commitSnapshot(repository, 'photos');
  const { tree } = winner;
  const body = { set: 'photos', mode: 'snapshot' as const, host: '', user: '', paths: [], tags: [], stats: {} };
  await expectCode(
    clone.commit({ kind: 'snapshot', slot: stale, timeSec: 1, timeNs: 0, tree, key: randomBytes(32), body }),
    'exists',
  );
  expect(await names(here.store, 'snapshots/')).toHaveLength(2);

  // Both passed the check at the same moment: two records of one sequence.
  const { key: archiveKey, envelope } = await repository.newArchiveKey();
  const id = randomBytes(16);
  const sealedBody = sealBody(body, { archiveKey, repositoryId: repository.id, id });
  const fork = encodeRecord(
    { ...winner, id, tree: { ...tree, envelope }, sealedBody },
    { repositoryId: repository.id, signingSecret: repository.writer!.signingSecret },
  );
  await here.store.put(fork.name, fork.bytes);
  const heads = await (await openToRead(identityFile)).heads();
  expect(heads).toHaveLength(1);
  const next = await commitSnapshot(repository, 'photos');
  expect(next.sequence).toBe(3);
  expect(next.previous!.id).toEqual(heads[0]!.id);
  expect(await (await openToRead(identityFile)).records()).toHaveLength(4);
});

test('a generation begins a lineage of its own for the same set', async () => {
  const { repository } = await quickRepository(here);
  await commitSnapshot(repository, 'photos');
  const slot = await repository.nextSlot('photos', 1);
  expect(slot.base).toBeNull();
  expect(slot.sequence).toBe(1);
  expect(slot.tag).not.toBe(repository.lineageTag('photos'));
  for (const bad of ['', 'x'.repeat(256), 'a\0b']) await expectCode(repository.nextSlot(bad), 'usage');
});

test('"unchanged" records stay below 1 KB, with many lineages and high numbers', async () => {
  const { repository } = await quickRepository(here);
  for (let i = 0; i < 12; i++) await commitSnapshot(repository, `set ${i}`);
  const record = await commitUnchanged(repository, 'set 3');
  expect(record.seen).toHaveLength(8);
  expect((await here.store.stat(record.name))!.size).toBeLessThan(1024);
  const late = encodeRecord(
    {
      ...record,
      sequence: 2 ** 50,
      configNumber: 99_999_999,
      timeSec: 2 ** 40,
      previous: { ...record.previous!, sequence: 2 ** 49 },
    },
    { repositoryId: repository.id, signingSecret: repository.writer!.signingSecret },
  );
  expect(late.bytes.length).toBeLessThan(1024);
  await expectCode(commitUnchanged(repository, 'never seen'), 'internal');
});

test('looking for new snapshots costs listings alone when there are none', async () => {
  const { repository, identityFile } = await quickRepository(here);
  for (let i = 0; i < 5; i++) await commitSnapshot(repository, 'photos', 1000 + i);
  await commitSnapshot(repository, 'papers', 2000);
  const store = new CountingStore(here.store);
  const reader = await openRepository({ store, need: 'read', credentials: { identityFile } });
  store.reset();
  const heads = await reader.heads();
  expect(heads.map((head) => head.timeSec)).toEqual([2000, 1004]);
  expect(store.count('get')).toBe(2);
  expect(store.count('list')).toBe(1);
  store.reset();
  await reader.heads();
  expect(store.reads).toBe(0);
  await commitSnapshot(repository, 'photos', 3000);
  store.reset();
  expect((await reader.heads())[0]!.timeSec).toBe(3000);
  expect(store.reads).toBe(1);
});

test('opening with an identity reads the genesis and one config', async () => {
  const { identityFile } = await quickRepository(here);
  const store = new CountingStore(here.store);
  await openRepository({ store, need: 'read', credentials: { identityFile } });
  expect(store.calls.map((call) => `${call.operation} ${call.name}`)).toEqual([
    'get rozen.cbor',
    'list config/',
    'get config/00000001.cbor',
  ]);
});

test('every flipped bit and every cut of every object is refused, named, and never crashes', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const record = await commitSnapshot(repository, 'photos');
  await commitUnchanged(repository, 'photos');
  const look = async () => {
    const owner = await openRepository({ store: here.store, need: 'owner', credentials: { identityFile } });
    await owner.heads();
  };
  let tried = 0;
  for (const name of await names(here.store, '')) {
    const genuine = await here.store.get(name);
    const damaged: Buffer[] = [];
    for (let at = 0; at < genuine.length; at += 7) {
      const copy = Buffer.from(genuine);
      copy[at]! ^= 1 << (at % 8);
      damaged.push(copy);
    }
    for (let end = 0; end < genuine.length; end += 61) damaged.push(genuine.subarray(0, end));
    damaged.push(Buffer.concat([genuine, Buffer.of(0)]));
    for (const bytes of damaged) {
      await replaceObject(here.store, name, bytes);
      // A repository whose one key object is damaged has none that opens; a genesis without its first bytes is no genesis.
      const error = await expectCode(
        look(),
        name === GENESIS_NAME && !bytes.subarray(0, 16).includes('rozen') ? 'not-repository' : 'corrupt',
      );
      expect(error.message).toContain(
        name === GENESIS_NAME && error.code === 'not-repository' ? here.store.location : name,
      );
      expect(error.hint).toBeTruthy();
      tried++;
    }
    await replaceObject(here.store, name, genuine);
  }
  await look();
  expect(tried).toBeGreaterThan(300);
  expect((await (await openToRead(identityFile)).openBody(record)).set).toBe('photos');
});

test('a damaged record is told, and the snapshot before it stands in; backups go on', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const first = await commitSnapshot(repository, 'photos');
  const second = await commitSnapshot(repository, 'photos');
  await commitSnapshot(repository, 'papers');
  await damage(second.name);
  const problems: string[] = [];
  const reader = await openToRead(identityFile);
  await expectCode(reader.heads(), 'corrupt');
  const heads = await reader.heads((error, name) => problems.push(`${error.code} ${name}`));
  expect(problems).toEqual([`corrupt ${second.name}`]);
  expect(heads.map((head) => head.id)).toContainEqual(first.id);
  const listed: string[] = [];
  expect(await (await openToRead(identityFile)).records((_error, name) => listed.push(name))).toHaveLength(2);
  expect(listed).toEqual([second.name]);

  const writer = await openRepository({ store: here.store, need: 'write' });
  const third = await commitSnapshot(writer, 'photos');
  expect(third.sequence).toBe(3);
  expect(third.previous!.id).toEqual(first.id);

  // An "unchanged" record whose snapshot is damaged.
  await commitUnchanged(writer, 'photos');
  await damage(third.name);
  const told: string[] = [];
  const after = await (await openToRead(identityFile)).heads((_error, name) => told.push(name));
  expect(new Set(told)).toEqual(new Set([third.name]));
  expect(after.map((head) => head.id)).toContainEqual(first.id);
});

async function damage(name: string): Promise<void> {
  const bytes = await here.store.get(name);
  bytes[100]! ^= 0x10;
  await replaceObject(here.store, name, bytes);
}

test('the store sees no set, host, user, path, tag or label', async () => {
  const words = ['SETNAME', 'HOSTNAME', 'USERNAME', 'PATHNAME', 'TAGNAME', 'LABELNAME', 'WRITERNAME'];
  const repository = await initRepository({
    store: here.store,
    passphrase: 'p',
    label: 'LABELNAME',
    writerName: 'WRITERNAME',
  });
  const slot = await repository.nextSlot('SETNAME');
  const { key, envelope } = await repository.newArchiveKey();
  const tree = {
    id: randomBytes(16),
    size: 1,
    row: 1,
    headerHash: randomBytes(32),
    merkleRoot: randomBytes(32),
    envelope,
  };
  const body = {
    set: 'SETNAME',
    mode: 'worm' as const,
    policy: { onChange: 'accept' as const, onDelete: 'restore' as const, acceptNew: false },
    host: 'HOSTNAME',
    user: 'USERNAME',
    paths: [Buffer.from('PATHNAME')],
    tags: ['TAGNAME'],
    stats: {},
  };
  const record = await repository.commit({ kind: 'snapshot', slot, timeSec: 1, timeNs: 0, tree, key, body });
  expect(await repository.openBody(record)).toEqual(body);
  for (const name of await names(here.store, '')) {
    const bytes = await here.store.get(name);
    for (const word of words) expect(name + bytes.toString('latin1')).not.toContain(word);
  }
});

test('state files are private, and pins of two processes merge', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const { stateDir } = repository;
  for (const file of readdirSync(stateDir)) expect(statSync(join(stateDir, file)).mode & 0o777, file).toBe(0o600);
  expect(statSync(stateDir).mode & 0o777).toBe(0o700);
  expect(readdirSync(stateDir).sort()).toEqual(['config.cbor', 'genesis.cbor', 'pin.cbor', 'writer.cbor']);
  expect(readFileSync(join(stateDir, 'config.cbor'))).toEqual(await here.store.get(configName(1)));

  const early = readPin(stateDir)!;
  await commitSnapshot(repository, 'photos');
  await commitSnapshot(repository, 'photos');
  writePin(stateDir, early);
  expect([...readPin(stateDir)!.lineages.values()].map((lineage) => lineage.sequence)).toEqual([2]);
  expect(await (await openToRead(identityFile)).heads()).toHaveLength(1);
});

test('reading works where state cannot be written; a writer must be able to', async () => {
  if (process.getuid?.() !== 0) return;
  const { repository, identityFile } = await quickRepository(here);
  await commitSnapshot(repository, 'photos');
  const locked = join(here.folder, 'locked');
  mkdirSync(locked, { mode: 0o555 });
  for (let folder = here.folder; folder !== '/tmp'; folder = join(folder, '..')) chmodSync(folder, 0o755);
  chmodSync(identityFile, 0o644);
  chmodSync(here.store.location, 0o755);
  const { execFileSync } = await import('node:child_process');
  execFileSync('chmod', ['-R', 'a+rX', here.store.location]);
  const dist = join(import.meta.dirname, '../../dist');
  const script = `
    const { openRepository } = await import('${dist}/repository/repository.js');
    const { openStore } = await import('${dist}/store/open.js');
    const store = await openStore('${here.store.location}');
    const reader = await openRepository({ store, need: 'read', credentials: { identityFile: '${identityFile}' } });
    console.log((await reader.heads()).length);
    await openRepository({ store, need: 'write', credentials: { identityFile: '${identityFile}' } }).catch((error) => console.log(error.code));`;
  const env = { ...process.env, ROZEN_STATE_DIR: join(locked, 'state') };
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    uid: 65_534,
    gid: 65_534,
    env,
    encoding: 'utf8',
  });
  expect(output).toBe('1\nio\n');
});

test('an interrupted init can be run again', async () => {
  const { recipient } = await quickRepository(here);
  await here.store.delete(GENESIS_NAME);
  delete process.env.ROZEN_STATE_DIR;
  process.env.ROZEN_STATE_DIR = join(here.folder, 'fresh');
  // What was made this minute may be of an init that goes on.
  await expectCode(initRepository({ store: here.store, recipients: [recipient] }), 'exists');
  const ago = new Date(Date.now() - 120_000);
  utimesSync(here.store.localPath('config/00000001.cbor'), ago, ago);
  const again: Repository = await initRepository({ store: here.store, recipients: [recipient] });
  await commitSnapshot(again, 'photos');
  const opened = await openRepository({ store: here.store, need: 'write' });
  expect(opened.fingerprint).toBe(again.fingerprint);
});

test('of several inits at once one makes the repository, and only that one says so', async () => {
  const { recipient } = await quickRepository(here);
  for (let round = 0; round < 10; round++) {
    const folder = join(here.folder, `race ${round}`);
    const made = await Promise.allSettled(
      Array.from({ length: 4 }, () => initRepository({ store: new RemoteStore(folder, 2), recipients: [recipient] })),
    );
    const winners = made.filter((one) => one.status === 'fulfilled');
    expect(winners).toHaveLength(1);
    for (const one of made) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'exists' });
    const opened = await openRepository({ store: new LocalStore(folder), need: 'write' });
    expect(opened.fingerprint).toBe(winners[0]!.value.fingerprint);
  }
});

test('an init whose config was removed by another one says that it made nothing', async () => {
  const { recipient } = await quickRepository(here);
  class Removed extends LocalStore {
    override async put(name: string, bytes: Uint8Array): Promise<void> {
      if (name === GENESIS_NAME) await this.delete('config/00000001.cbor');
      await super.put(name, bytes);
    }
  }
  const store = new Removed(join(here.folder, 'removed'));
  await expectCode(initRepository({ store, recipients: [recipient] }), 'exists');
  // Another one came first with its genesis.
  class Late extends LocalStore {
    override async put(name: string, bytes: Uint8Array): Promise<void> {
      if (name === GENESIS_NAME) await super.put(name, Buffer.from('of another one'));
      await super.put(name, bytes);
    }
  }
  const late = new Late(join(here.folder, 'late'));
  expect((await expectCode(initRepository({ store: late, recipients: [recipient] }), 'exists')).message).toMatch(
    /another init/,
  );
});

test('close wipes the keys', async () => {
  const { repository } = await quickRepository(here);
  const { contentIdKey } = repository.secrets!;
  const { signingSecret } = repository.writer!;
  repository.close();
  expect(contentIdKey.equals(Buffer.alloc(32))).toBe(true);
  expect(signingSecret.equals(Buffer.alloc(32))).toBe(true);
  expect(repository.secrets).toBeNull();
});

test('a foreign file among the records is passed over', async () => {
  const { repository, identityFile } = await quickRepository(here);
  const record = await commitSnapshot(repository, 'photos');
  await here.store.put(`snapshots/${record.tag}/0000-note.txt`, Buffer.from('x'));
  await here.store.put('snapshots/readme', Buffer.from('x'));
  writeFileSync(join(here.store.location, 'snapshots', '.DS_Store'), 'x');
  const reader = await openToRead(identityFile);
  expect(await reader.heads()).toHaveLength(1);
  expect(await reader.records()).toHaveLength(1);
  expect(snapshotName(record.tag, 1, record.id)).toBe(record.name);
});
