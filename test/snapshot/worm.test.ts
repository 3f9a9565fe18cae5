import {
  appendFileSync,
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { keyedBlake3 } from '../../src/archive/crypto/blake3.ts';
import { INODE, VERSION } from '../../src/archive/tree/schema.ts';
import type { BackupReport } from '../../src/snapshot/backup/backup-types.ts';
import { contentOfVersion, Place, rows, type Snapshot, settle, TREES } from './machine.ts';

// Many runs of the program: a machine that is busy must not fail them.
vi.setConfig({ testTimeout: 300_000 });

const RUNS = Number(process.env.ROZEN_WORM_RUNS ?? 4);

type Step =
  | { kind: 'write' | 'append' | 'truncate' | 'rot' | 'delete' | 'link' | 'touch'; file: number; salt: number }
  | { kind: 'rename'; file: number; to: number }
  | { kind: 'folder'; from: number; to: number }
  | { kind: 'copy'; file: number; to: number }
  | { kind: 'backup'; onChange: 'warn' | 'accept' | 'restore'; onDelete: 'record' | 'restore' };

const file = fc.nat(7);
const folder = fc.nat(3);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('write', 'append', 'truncate', 'rot', 'delete', 'link', 'touch' as const),
    file,
    salt: fc.nat(1000),
  }) as fc.Arbitrary<Step>,
  fc.record({ kind: fc.constant('rename' as const), file, to: file }),
  fc.record({ kind: fc.constant('copy' as const), file, to: file }),
  fc.record({ kind: fc.constant('folder' as const), from: folder, to: folder }),
  fc.record({
    kind: fc.constant('backup' as const),
    onChange: fc.constantFrom('warn', 'accept', 'restore' as const),
    onDelete: fc.constantFrom('record', 'restore' as const),
  }) as fc.Arbitrary<Step>,
);

/** Eight names in four folders. */
const nameOf = (number: number): string => join(`f${number % 4}`, `file ${number}`);

function change(source: string, it: Exclude<Step, { kind: 'backup' }>): void {
  if (it.kind === 'folder') {
    const [from, to] = [join(source, `f${it.from}`), join(source, `f${it.to}`)];
    if (from !== to && existsSync(from) && !existsSync(to)) renameSync(from, to);
    return;
  }
  const path = join(source, nameOf(it.file));
  mkdirSync(join(path, '..'), { recursive: true });
  const isFile = existsSync(path) && lstatSync(path).isFile();
  if (it.kind === 'rename' || it.kind === 'copy') {
    const to = join(source, nameOf(it.to));
    mkdirSync(join(to, '..'), { recursive: true });
    if (!isFile || to === path || existsSync(to)) return;
    if (it.kind === 'rename') renameSync(path, to);
    else writeFileSync(to, readFileSync(path));
    return;
  }
  if (it.kind === 'write') {
    rmSync(path, { force: true });
    writeFileSync(path, `content ${it.file} ${it.salt}\n`.repeat(1 + (it.salt % 50)));
    return;
  }
  if (!isFile) return;
  if (it.kind === 'append') appendFileSync(path, `more ${it.salt}\n`);
  else if (it.kind === 'truncate') writeFileSync(path, readFileSync(path).subarray(0, it.salt % 40));
  else if (it.kind === 'delete') unlinkSync(path);
  else if (it.kind === 'touch') chmodSync(path, 0o600 + (it.salt % 8));
  else if (it.kind === 'link') {
    unlinkSync(path);
    symlinkSync('nowhere', path);
  } else {
    const bytes = readFileSync(path);
    if (bytes.length === 0) return;
    const { atime, mtime } = statSync(path);
    bytes[it.salt % bytes.length]! ^= 1;
    writeFileSync(path, bytes);
    utimesSync(path, atime, mtime);
  }
}

/** Every content that the trees of a snapshot hold, by its id in hex. */
async function contents(snapshot: Snapshot, key: Buffer): Promise<Set<string>> {
  const { reader } = snapshot;
  const all = await reader.archives.retry(() => [
    ...rows({ source: reader.source, schema: TREES.versions, root: reader.roots.versions }),
  ]);
  const found = new Set<string>();
  for (const row of all) {
    const id = Buffer.from(row[VERSION.contentId] as Uint8Array);
    if (id.length !== 32) continue;
    const [inode, version, size] = [VERSION.inode, VERSION.version, VERSION.size].map((it) => row[it] as number);
    const bytes = await contentOfVersion(reader, { inode: inode!, version: version!, size: size! });
    expect(keyedBlake3(key, bytes).equals(id)).toBe(true);
    found.add(id.toString('hex'));
  }
  return found;
}

describe('a WORM set', () => {
  test('never loses a content once stored, whatever happens to the files', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 6, maxLength: 24 }), async (steps) => {
        const place = await Place.make();
        const repository = await place.open('read');
        const { contentIdKey } = await repository.loadSecrets();
        for (let i = 0; i < 5; i++) change(place.source, { kind: 'write', file: i, salt: i });
        let known = new Set<string>();
        let last: BackupReport | null = null;
        const backup = async (policy: {
          onChange?: 'warn' | 'accept' | 'restore';
          onDelete?: 'record' | 'restore';
        }) => {
          await settle();
          last = await place.backup({ mode: 'worm', policy, keepDiverged: false });
          const snapshot = await place.read();
          const now = await contents(snapshot, contentIdKey);
          for (const id of known) expect(now.has(id), `content ${id} is lost`).toBe(true);
          known = now;
          // Every entry that is there can be read, and no two names of different folders share a row by accident.
          for (const [path, { row }] of snapshot.entries) {
            if (((row[INODE.mode] as number) & 0o170000) === 0o100000)
              expect((await snapshot.content(path)).length).toBe(row[INODE.size]);
          }
          return snapshot;
        };
        await backup({});
        for (const it of steps) {
          if (it.kind === 'backup') await backup({ onChange: it.onChange, onDelete: it.onDelete });
          else change(place.source, it);
        }
        // In the end, everything that is there is accepted: the set and the folder agree.
        await backup({ onChange: 'accept' });
        const snapshot = await backup({ onChange: 'accept' });
        expect(last!.worm!.openCount).toBe(0);
        const local = readdirSync(place.source, { recursive: true }).map((name) => `/${name}`);
        expect([...snapshot.entries.keys()].filter((path) => path !== '').sort()).toEqual(local.sort());
        for (const path of local) {
          const name = join(place.source, path);
          if (!lstatSync(name).isFile()) continue;
          expect((await snapshot.content(path)).equals(readFileSync(name)), path).toBe(true);
        }
        repository.close();
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
  });
});
