import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Repository, SnapshotRecord } from '../../src/repository/repository.ts';
import type { Finding, VerifyReport } from '../../src/snapshot/verify/types.ts';

/* Backups start worker threads, so this runs what was built. */
const built = (path: string) => import(new URL(`../../dist/${path}`, import.meta.url).href);
const { backup } = (await built('snapshot/backup/backup.js')) as typeof import('../../src/snapshot/backup/backup.ts');
const { initRepository, openRepository } = (await built(
  'repository/repository.js',
)) as typeof import('../../src/repository/repository.ts');
const { LocalStore } = (await built('store/local.js')) as typeof import('../../src/store/local.ts');
const { openSnapshot } = (await built(
  'cache/snapshot-reader.js',
)) as typeof import('../../src/cache/snapshot-reader.ts');
const { OpenArchives } = (await built('cache/archives.js')) as typeof import('../../src/cache/archives.ts');
const { EntryWalk, entryPath, forEachStep } = (await built(
  'snapshot/view/entry-walk.js',
)) as typeof import('../../src/snapshot/view/entry-walk.ts');
const { InodeLookup } = (await built(
  'snapshot/view/attributes.js',
)) as typeof import('../../src/snapshot/view/attributes.ts');
const { ContentReader } = (await built(
  'snapshot/view/content.js',
)) as typeof import('../../src/snapshot/view/content.ts');
const { retrying } = (await built('cache/snapshot-reader.js')) as typeof import('../../src/cache/snapshot-reader.ts');
const { verify } = (await built('snapshot/verify/verify.js')) as typeof import('../../src/snapshot/verify/verify.ts');
const { scrub } = (await built('snapshot/verify/scrub.js')) as typeof import('../../src/snapshot/verify/scrub.ts');
const records = (await built('snapshot/verify/records.js')) as typeof import('../../src/snapshot/verify/records.ts');
const { Findings } = (await built(
  'snapshot/verify/findings.js',
)) as typeof import('../../src/snapshot/verify/findings.ts');
export const { RozenError } = (await built('errors.js')) as typeof import('../../src/errors.ts');

/** What reading a snapshot gave: a hash of attributes and content by path, or why not. */
export type ReadResult = Map<string, Buffer | Error>;

/** Reproducible bytes that do not compress. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

type Secrets = NonNullable<Repository['secrets']>;

function copyOf(secrets: Secrets): Secrets {
  return Object.fromEntries(
    Object.entries(secrets).map(([name, key]) => [name, Buffer.from(key)]),
  ) as unknown as Secrets;
}

/** A repository of two snapshots whose objects can be damaged and healed. */
export class DamagedRepository {
  readonly folder = mkdtempSync(join(tmpdir(), 'rozen-damage-'));
  readonly store = new LocalStore(join(this.folder, 'store'));
  readonly #state = join(this.folder, 'state');
  #identities: string[] = [];
  readonly #keys = new Map<string, Buffer>();
  readonly #secrets = new Map<string, Secrets>();
  #records: SnapshotRecord[] = [];
  /** By snapshot id. */
  readonly expected = new Map<string, ReadResult>();
  /** Objects and their bytes while nothing is damaged. */
  readonly objects = new Map<string, Buffer>();

  static async make(): Promise<DamagedRepository> {
    const made = new DamagedRepository();
    process.env.ROZEN_STATE_DIR = made.#state;
    const source = join(made.folder, 'source');
    mkdirSync(join(source, 'folder/deep'), { recursive: true });
    writeFileSync(join(source, 'empty'), '');
    writeFileSync(join(source, 'small.txt'), 'a few words\n'.repeat(20));
    writeFileSync(join(source, 'folder/text'), 'many more words than that\n'.repeat(4000));
    writeFileSync(join(source, 'folder/blocks.bin'), noise(300 * 1024, 7));
    writeFileSync(join(source, 'folder/deep/other.bin'), noise(10 * 1024, 8));
    linkSync(join(source, 'folder/text'), join(source, 'folder/deep/text again'));
    symlinkSync('../small.txt', join(source, 'folder/link'));
    const hole = openSync(join(source, 'sparse'), 'w');
    writeSync(hole, 'x', 100_000);
    ftruncateSync(hole, 150_000);
    closeSync(hole);
    const first = await initRepository({ store: made.store, passphrase: 'open sesame' });
    const passphrase = async () => 'open sesame';
    const write = async (): Promise<void> => {
      await sleep(30);
      const repository = await openRepository({ store: made.store, need: 'write', credentials: { passphrase } });
      const { stateDir } = repository;
      const paths = [Buffer.from(source)];
      await backup({ repository, stateDir, set: 'test', mode: 'snapshot', paths, threads: 1 });
      repository.close();
    };
    made.#identities = [...(first.identities ?? [])];
    first.close();
    await write();
    writeFileSync(join(source, 'small.txt'), 'other words\n'.repeat(30));
    writeFileSync(join(source, 'folder/new.bin'), noise(10 * 1024, 9));
    await write();
    // Nothing changed: an "unchanged" record.
    await write();
    await made.#learn();
    return made;
  }

  async #learn(): Promise<void> {
    for await (const { name } of this.store.list('')) {
      const path = this.store.localPath(name);
      chmodSync(path, 0o600);
      this.objects.set(name, readFileSync(path));
    }
    const repository = await this.open();
    const records = await repository.records();
    this.#records = records.filter((record) => record.kind === 'snapshot');
    for (const record of this.#records)
      this.expected.set(record.id.toString('hex'), await this.#readSnapshot(repository, record));
    repository.close();
  }

  async open(): Promise<Repository> {
    const credentials = { identities: this.#identities };
    const repository = await openRepository({ store: this.store, need: 'read', credentials });
    // The same few envelopes thousands of times: the curve arithmetic would be most of the test's time.
    const unwrap = repository.unwrap.bind(repository);
    repository.unwrap = async (envelope) => {
      const id = Buffer.from(envelope).toString('latin1');
      let key = this.#keys.get(id);
      if (key === undefined) {
        key = Buffer.from(await unwrap(envelope));
        this.#keys.set(id, key);
      }
      return Buffer.from(key);
    };
    const { sealedSecrets } = repository.config;
    const id = Buffer.from(sealedSecrets).toString('latin1');
    const known = this.#secrets.get(id);
    if (known !== undefined) repository.secrets = copyOf(known);
    else this.#secrets.set(id, copyOf(await repository.loadSecrets()));
    return repository;
  }

  flip(name: string, at: number, bit: number): void {
    this.#write(name, at, Buffer.from([this.objects.get(name)![at]! ^ (1 << bit)]));
  }

  cut(name: string, length: number): void {
    truncateSync(this.store.localPath(name), length);
  }

  append(name: string, bytes: Buffer): void {
    this.#write(name, this.objects.get(name)!.length, bytes);
  }

  remove(name: string): void {
    renameSync(this.store.localPath(name), join(this.folder, 'removed'));
  }

  bringBack(name: string): void {
    renameSync(join(this.folder, 'removed'), this.store.localPath(name));
  }

  replace(name: string, bytes: Buffer): void {
    this.cut(name, 0);
    this.#write(name, 0, bytes);
  }

  heal(name: string): void {
    this.replace(name, this.objects.get(name)!);
  }

  #write(name: string, at: number, bytes: Buffer): void {
    const fd = openSync(this.store.localPath(name), 'r+');
    writeSync(fd, bytes, 0, bytes.length, at);
    closeSync(fd);
  }

  /** What `rozen verify --read-data` does, in this process. */
  async verify(): Promise<VerifyReport> {
    let repository: Repository;
    try {
      repository = await this.open();
    } catch (error) {
      if (!(error instanceof RozenError)) throw error;
      return scrub({ store: this.store, cause: error });
    }
    try {
      return await verify({ repository, readData: 100, threads: 0 });
    } finally {
      repository.close();
    }
  }

  /** The part of a scrub that looks at an object other than an archive. */
  async checkRecord(name: string): Promise<Finding[]> {
    const findings = new Findings({});
    const names = [...this.objects.keys()].filter((it) => it === name || it.startsWith('config/'));
    const check = { store: this.store, findings, names };
    const genesis = await records.checkGenesis(check);
    if (genesis === null) return findings.all;
    const config = await records.checkConfigs(check, genesis);
    await records.checkKeyObjects(check, genesis);
    await records.checkRecords(check, genesis, config);
    return findings.all;
  }

  scrub(): Promise<VerifyReport> {
    return scrub({ store: this.store });
  }

  /** Reads everything of all snapshots through the same door as the command line. */
  async readAll(): Promise<Map<string, ReadResult>> {
    const results = new Map<string, ReadResult>();
    let repository: Repository;
    try {
      repository = await this.open();
    } catch (error) {
      for (const id of this.expected.keys()) results.set(id, new Map([['', error as Error]]));
      return results;
    }
    for (const record of this.#records)
      results.set(record.id.toString('hex'), await this.#readSnapshot(repository, record));
    repository.close();
    return results;
  }

  async #readSnapshot(repository: Repository, record: SnapshotRecord): Promise<ReadResult> {
    const result: ReadResult = new Map();
    const archives = new OpenArchives({ store: this.store, keys: repository });
    try {
      const reader = await openSnapshot({ store: this.store, repository, record, archives });
      const walk = new EntryWalk(reader, 1, { recursive: true });
      const found: { path: string; inode: number }[] = [];
      try {
        await forEachStep(
          reader,
          () => walk.next(),
          (entry) => {
            found.push({ path: entryPath(entry).toString(), inode: entry.inode });
          },
        );
      } catch (error) {
        // Folders that could be listed before count; the rest is missing, and says so here.
        result.set('', error as Error);
      }
      const inodes = new InodeLookup(reader);
      const content = new ContentReader(reader);
      for (const { path, inode } of found) {
        try {
          const attributes = await retrying(reader, () => inodes.get(inode));
          const hash = createHash('md5').update(`${attributes.mode} ${attributes.size} ${attributes.mtimeSec}\n`);
          if ((attributes.mode & 0o170000) === 0o100000)
            for await (const piece of content.read(attributes)) hash.update(piece);
          else hash.update(attributes.target);
          result.set(path, hash.digest());
        } catch (error) {
          result.set(path, error as Error);
        }
      }
    } catch (error) {
      result.set('', error as Error);
    } finally {
      archives.close();
    }
    return result;
  }

  clean(): void {
    delete process.env.ROZEN_STATE_DIR;
    execFileSync('rm', ['-rf', this.folder]);
  }
}
