import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { settle } from './photo-set.ts';
import { importPhotos, initWithIdentity, photo } from './photos.ts';
import { mountObstacle, Sandbox } from './rozen.ts';

// Many runs of the program: a machine that is busy must not fail them.
vi.setConfig({ testTimeout: 300_000 });

let box: Sandbox;
afterEach(() => box.remove());

test('two machines feed one set: content is stored once, clashing names are told, nobody loses a row', async () => {
  box = new Sandbox();
  initWithIdentity(box);
  const [here, there] = ['here', 'there'].map((name) => join(box.dir, name)) as [string, string];
  const other = { XDG_STATE_HOME: join(box.dir, 'state-of-another') };
  mkdirSync(here);
  const backup = async (source: string, env: Record<string, string>, ...options: string[]) => {
    await settle();
    return JSON.parse(box.ok(['--json', 'backup', source, '--set', 'photos', ...options], 0, env).stdout);
  };
  const paths = importPhotos(here, 4, 4);
  await backup(here, {}, '--mode', 'worm');
  // The other machine has three of the photos, one of its own, and another picture under the name of the fourth.
  cpSync(here, there, { recursive: true });
  writeFileSync(join(there, paths[0]!), photo(50));
  writeFileSync(join(there, 'album 0/own.jpg'), photo(51));
  utimesSync(join(there, paths[0]!), 1e9, 1e9);
  const second = await backup(there, other, '--mode', 'worm');
  expect(second.worm.conflicts).toMatchObject([{ path: join(there, paths[0]!) }]);
  expect(second.bytesNew).toBe(photo(50).length + photo(51).length);
  expect(second.worm.uncompared).toEqual([]);
  // A machine that can only write cannot look at the other's names, and says so.
  const keyless = { ...other, ROZEN_PASSWORD: '', ROZEN_IDENTITY_FILE: '' };
  writeFileSync(join(there, 'album 0/late.jpg'), photo(52));
  const blind = await backup(there, keyless);
  expect(blind.worm).toMatchObject({ conflicts: [], uncompared: [hostname()] });
  // What the one deletes is no business of the other.
  rmSync(join(there, paths[1]!));
  expect((await backup(there, other)).classes.deleted.files).toBe(1);
  expect(await backup(here, {})).toMatchObject({ unchanged: true });
  expect(box.json(['verify', '--read-data']).findings).toEqual([]);
  if (mountObstacle() !== null) return;
  const worm = join(box.mount(), 'worm/photos');
  try {
    const names = readdirSync(worm).sort();
    expect(names).toHaveLength(6);
    const currents = names.filter((name) => name.startsWith('current-')).map((name) => join(worm, name));
    const contents = currents.map((folder) => readFileSync(join(folder, paths[0]!)));
    expect(contents.some((content) => content.equals(photo(0)))).toBe(true);
    expect(contents.some((content) => content.equals(photo(50)))).toBe(true);
    expect(currents.map((folder) => readdirSync(join(folder, 'album 0')).length).sort()).toEqual([4, 5]);
    expect(readFileSync(join(worm, 'deleted', paths[1]!))).toEqual(photo(1));
  } finally {
    box.unmount();
  }
});

test('a machine that can only write keeps the mode of a set when it loses its state', async () => {
  box = new Sandbox();
  initWithIdentity(box);
  const source = join(box.dir, 'photos');
  mkdirSync(source);
  importPhotos(source, 2, 2);
  await settle();
  const keyless = { ROZEN_PASSWORD: '', ROZEN_IDENTITY_FILE: '' };
  box.ok(['backup', source, '--set', 'photos', '--mode', 'worm'], 0, keyless);
  rmSync(
    join(box.dir, 'state/rozen/repositories', readdirSync(join(box.dir, 'state/rozen/repositories'))[0]!, 'sets'),
    {
      recursive: true,
    },
  );
  const report = JSON.parse(box.ok(['--json', 'backup', source, '--set', 'photos'], 0, keyless).stdout);
  expect(report.worm.uncompared).toEqual([]);
  expect(report).toMatchObject({ mode: 'worm', bytesNew: 0, worm: { policy: { onChange: 'warn' } } });
  expect(report.stateNotice).toContain('without an identity');
});

test('a machine that has no snapshot of a WORM set, or has lost them, goes on with it as one', async () => {
  box = new Sandbox();
  initWithIdentity(box);
  const source = join(box.dir, 'source');
  mkdirSync(source);
  const paths = importPhotos(source, 3);
  const elsewhere = (name: string) => ({ XDG_STATE_HOME: join(box.dir, name) });
  const run = (args: string[], env: Record<string, string> = {}) => box.run(['backup', source, ...args], { env });
  expect(run(['--set', 'photos', '--mode', 'worm']).code).toBe(0);
  // What rotted since must not become the content of the file without a word.
  writeFileSync(join(source, paths[0]!), photo(9));
  await settle();
  const begun = JSON.parse(box.ok(['--json', 'backup', source, '--set', 'photos'], 0, elsewhere('lost')).stdout);
  expect(begun).toMatchObject({ mode: 'worm', worm: { conflicts: [{ path: join(source, paths[0]!) }] } });
  expect(begun.stateNotice).toMatch(/'photos' is a WORM set/);
  const other = run(['--set', 'photos', '--mode', 'snapshot'], elsewhere('mode'));
  expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/is of mode worm/) });

  expect(run(['--set', 'frozen', '--mode', 'worm', '--accept-new', 'no']).code).toBe(0);
  const refused = run(['--set', 'frozen'], elsewhere('lost'));
  expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/'frozen' is frozen.*--accept-new yes/) });
  expect(run(['--set', 'frozen', '--accept-new', 'yes'], elsewhere('lost')).code).toBe(0);
  // A set of snapshots has no such mode, and other sets are nobody's business.
  expect(run(['--set', 'plain'], elsewhere('lost')).code).toBe(0);
});
