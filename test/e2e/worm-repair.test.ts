import { execFileSync } from 'node:child_process';
import { appendFileSync, chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test, vi } from 'vitest';
import { importPhotos, initWithIdentity, photo, rot } from './photos.ts';
import { Sandbox } from './rozen.ts';

// Many runs of the program: a machine that is busy must not fail them.
vi.setConfig({ testTimeout: 300_000 });

let box: Sandbox;
afterEach(() => box.remove());

async function backup(source: string, code = 0, ...options: string[]) {
  await sleep(60);
  return box.json(['backup', source, '--set', 'photos', ...options], code);
}

function begin(): { source: string; at: (path: string) => string } {
  box = new Sandbox();
  const source = join(box.dir, 'photos');
  mkdirSync(source);
  initWithIdentity(box);
  return { source, at: (path) => join(source, path) };
}

/** Overwrites bytes of every data archive where the first blocks lie. */
function damageArchives(): void {
  const files = execFileSync('find', [join(box.repo, 'data'), '-name', '*.roz'])
    .toString()
    .trim()
    .split('\n');
  for (const file of files) {
    const bytes = readFileSync(file);
    bytes.fill(0x55, Math.floor(bytes.length / 3), Math.floor(bytes.length / 3) + 64);
    chmodSync(file, 0o600);
    writeFileSync(file, bytes);
  }
}

test('what decayed here comes back from the archive, what was edited stays', async () => {
  const { source, at } = begin();
  const paths = importPhotos(source, 4, 4);
  await backup(source, 0, '--mode', 'worm');
  rot(at(paths[0]!), 700);
  appendFileSync(at(paths[1]!), 'edited');
  const look = box.json(['verify', '--against', source, 'photos@latest'], 4);
  expect(look.divergences.filter((it: { kind: string }) => it.kind === 'content')).toMatchObject([
    { path: paths[0], decayed: true },
    { path: paths[1] },
  ]);
  const { mtime } = statSync(at(paths[0]!));
  const repaired = box.json(['verify', '--against', source, 'photos@latest', '--repair', 'local'], 4);
  expect(repaired.repairedLocal).toMatchObject([{ path: paths[0], problem: null }]);
  expect(readFileSync(at(paths[0]!))).toEqual(photo(0));
  expect(statSync(at(paths[0]!)).mtime).toEqual(mtime);
  expect(readdirSync(at('album 0')).filter((name) => name.includes('.rozen-diverged-'))).toHaveLength(1);
  expect(readFileSync(at(paths[1]!)).subarray(-6).toString()).toBe('edited');
});

test('what is damaged in the archive is stored once more from what is sound here', async () => {
  const { source, at } = begin();
  const paths = importPhotos(source, 12, 12);
  await backup(source, 0, '--mode', 'worm');
  // A second version, whose first one must stay what it is.
  appendFileSync(at(paths[3]!), 'retouched');
  await backup(source, 0, '--on-change', 'accept');
  expect(box.json(['verify', '--against', source, 'photos@latest', '--read-data']).findings).toEqual([]);
  damageArchives();
  const found = box.json(['verify', '--against', source, 'photos@latest', '--read-data'], 5);
  expect(found.findings.length).toBeGreaterThan(0);
  expect(box.run(['restore', 'photos@latest', '--target', join(box.dir, 'broken')]).code).not.toBe(0);
  const repaired = box.json(['verify', '--against', source, 'photos@latest', '--repair', 'archive']);
  expect(repaired.repairedArchive.damaged).toBeGreaterThan(0);
  expect(repaired.repairedArchive).toMatchObject({ repaired: repaired.repairedArchive.damaged, problems: [] });
  box.ok(['restore', 'photos@latest', '--target', join(box.dir, 'whole'), '--verify']);
  for (const [number, path] of paths.entries()) {
    const expected = number === 3 ? Buffer.concat([photo(3), Buffer.from('retouched')]) : photo(number);
    expect(readFileSync(join(box.dir, 'whole', path)).equals(expected), path).toBe(true);
  }
  expect(await backup(source)).toMatchObject({ bytesNew: 0 });
  expect(box.json(['status', 'photos']).diverged).toEqual([]);
  expect(box.run(['verify', 'photos@latest']).code).toBe(0);
});
