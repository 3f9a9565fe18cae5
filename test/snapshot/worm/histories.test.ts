import { lstatSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { keyedBlake3 } from '../../../src/archive/crypto/blake3.ts';
import { INODE, VERSION } from '../../../src/archive/tree/schema.ts';
import type { WormPolicy } from '../../../src/repository/snapshot-record.ts';
import type { BackupReport } from '../../../src/snapshot/backup/backup-types.ts';
import { contentOfVersion, Place, rows, type Snapshot, settle, TREES } from '../machine.ts';
import { change, step } from './life.ts';

const RUNS = Number(process.env.ROZEN_WORM_RUNS ?? 4);
const SEED = process.env.ROZEN_WORM_SEED;
const MINUTE = 60_000;

// Many runs of the program: a machine that is busy must not fail them.
vi.setConfig({ testTimeout: 5 * MINUTE + RUNS * MINUTE });

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

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

/** Inode numbers of all rows: nobody's row is ever lost. */
async function inodes({ reader }: Snapshot): Promise<Set<number>> {
  const all = await reader.archives.retry(() => [
    ...rows({ source: reader.source, schema: TREES.inodes, root: reader.roots.inodes }),
  ]);
  return new Set(all.map((row) => row[INODE.inode] as number));
}

/** One of two machines that feed the set. */
class Machine {
  readonly source: string;
  last: BackupReport | null = null;
  #contents = new Set<string>();
  #inodes = new Set<number>();
  readonly #place: Place;
  readonly #name: 'first' | 'second';
  readonly #contentIdKey: Buffer;

  constructor(place: Place, name: 'first' | 'second', contentIdKey: Buffer) {
    this.#place = place;
    this.#name = name;
    this.#contentIdKey = contentIdKey;
    this.source = name === 'first' ? place.source : join(place.folder, 'source of another');
    mkdirSync(this.source, { recursive: true });
  }

  async backup(policy: Partial<WormPolicy>): Promise<Snapshot> {
    await settle();
    const paths = [Buffer.from(this.source)];
    const options = { machine: this.#name, mode: 'worm', policy, keepDiverged: false, paths } as const;
    this.last = await this.#place.backup(options);
    // What is to be put back is, or it is told why not.
    const { worm, problems } = this.last;
    if (policy.onChange === 'restore') expect(worm!.openCount).toBeLessThanOrEqual(problems.length);
    const id = this.last.snapshotId ?? this.last.parentId;
    const snapshot = await this.#place.read(id);
    const now = await contents(snapshot, this.#contentIdKey);
    for (const it of this.#contents) expect(now.has(it), `content ${it} is lost`).toBe(true);
    this.#contents = now;
    const numbers = await inodes(snapshot);
    for (const it of this.#inodes) expect(numbers.has(it), `the row of inode ${it} is lost`).toBe(true);
    this.#inodes = numbers;
    // Every entry that is there can be read.
    for (const [path, { row }] of snapshot.entries) {
      if (((row[INODE.mode] as number) & S_IFMT) === S_IFREG)
        expect((await snapshot.content(path)).length, path).toBe(row[INODE.size]);
    }
    return snapshot;
  }

  /** When everything that is there is accepted, the set and the folder agree. */
  async finish(): Promise<void> {
    await this.backup({ onChange: 'accept', acceptNew: true });
    const snapshot = await this.backup({ onChange: 'accept', acceptNew: true });
    expect(this.last!.worm!.openCount).toBe(0);
    const local = readdirSync(this.source, { recursive: true })
      .map((name) => `/${name}`)
      // What a restored file had in its way, if that was a folder.
      .filter((path) => !path.includes('.rozen-diverged-'));
    expect([...snapshot.entries.keys()].filter((path) => path !== '').sort()).toEqual(local.sort());
    for (const path of local) {
      const name = join(this.source, path);
      const stat = lstatSync(name);
      if (!stat.isFile()) continue;
      expect((await snapshot.content(path)).equals(readFileSync(name)), path).toBe(true);
      expect(snapshot.entries.get(path)!.row[INODE.nlink], path).toBe(stat.nlink);
    }
    // Names share a row just when they share an inode.
    const files = local.filter((path) => lstatSync(join(this.source, path)).isFile());
    const groups = (key: (path: string) => number): string[][] => {
      const found = new Map<number, string[]>();
      for (const path of files) found.set(key(path), [...(found.get(key(path)) ?? []), path]);
      return [...found.values()];
    };
    expect(groups((path) => snapshot.entries.get(path)!.inode)).toEqual(
      groups((path) => lstatSync(join(this.source, path)).ino),
    );
  }
}

test('a WORM set never loses a content once stored, whatever happens to the files', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 6, maxLength: 24 }), async (steps) => {
      const place = await Place.make();
      const repository = await place.open('read');
      const { contentIdKey } = await repository.loadSecrets();
      const [first, second] = [new Machine(place, 'first', contentIdKey), new Machine(place, 'second', contentIdKey)];
      for (let i = 0; i < 5; i++) change(first.source, { kind: 'write', file: i, salt: i });
      await first.backup({});
      // Changes happen to the files of whichever machine was backed up last.
      let at = first;
      for (const it of steps) {
        if (it.kind === 'backup') {
          at = it.machine === 'first' ? first : second;
          await at.backup(it.policy);
        } else change(at.source, it);
      }
      await first.finish();
      if (second.last !== null) await second.finish();
      repository.close();
    }),
    { numRuns: RUNS, endOnFailure: true, ...(SEED === undefined ? {} : { seed: Number(SEED) }) },
  );
});
