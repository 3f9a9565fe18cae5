import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll } from 'vitest';
import type { Field } from '../../src/archive/tree/schema.ts';
import type { SnapshotReader } from '../../src/cache/snapshot-reader.ts';
import type { Repository, SnapshotRecord } from '../../src/repository/repository.ts';
import type { BackupListener, BackupOptions, BackupReport } from '../../src/snapshot/backup/backup.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';

/* Backups start worker threads, so these tests run what was built. */
const built = (path: string) => import(new URL(`../../dist/${path}`, import.meta.url).href);
const { backup } = (await built('snapshot/backup/backup.js')) as typeof import('../../src/snapshot/backup/backup.ts');
const { initRepository, openRepository } = (await built(
  'repository/repository.js',
)) as typeof import('../../src/repository/repository.ts');
const { LocalStore } = (await built('store/local.js')) as typeof import('../../src/store/local.ts');
const { generateIdentity, recipientOf } = (await built(
  'archive/crypto/age.js',
)) as typeof import('../../src/archive/crypto/age.ts');
const { openSnapshot, retrying } = (await built(
  'cache/snapshot-reader.js',
)) as typeof import('../../src/cache/snapshot-reader.ts');
const { rows, childPointer } = (await built('archive/tree/read.js')) as typeof import('../../src/archive/tree/read.ts');
const { TREES, INODE, NAME, XATTR } = (await built(
  'archive/tree/schema.js',
)) as typeof import('../../src/archive/tree/schema.ts');
const { ContentReader } = (await built(
  'snapshot/view/content.js',
)) as typeof import('../../src/snapshot/view/content.ts');

/* Tests must not mix these with what they import from src: schemas are compared by identity. */
export { childPointer, openSnapshot, rows, TREES };

const root = mkdtempSync(join(tmpdir(), 'rozen-backup-'));
// Not rmSync: some sources lie deeper than the longest path.
afterAll(() => execFileSync('rm', ['-rf', root]));
let count = 0;

/** Waits until no change made so far can be of the same tick of the clock as the walk to come: such files are read again. */
export async function settle(): Promise<void> {
  await sleep(30);
}

interface Entry {
  inode: number;
  row: Field[];
  xattrs: Map<string, Buffer>;
}

/** A store with a repository, and machines that back up into it. */
export class Place {
  readonly folder = join(root, String(count++));
  readonly source = join(this.folder, 'source');
  readonly store = new LocalStore(join(this.folder, 'store'));
  readonly identityFile = join(this.folder, 'identity');

  static async make(): Promise<Place> {
    const place = new Place();
    mkdirSync(place.source, { recursive: true });
    const identity = await generateIdentity('x25519');
    writeFileSync(place.identityFile, `${identity}\n`);
    const recipients = [await recipientOf(identity)];
    const repository = await place.#at('first', () => initRepository({ store: place.store, recipients }));
    repository.close();
    return place;
  }

  /** Runs a backup as a machine of that name ('first' is enrolled; others only as clones of its state). */
  async backup(
    options: Partial<BackupOptions> & { machine?: string; identity?: boolean; through?: ObjectStore } = {},
    listener: BackupListener = {},
  ): Promise<BackupReport> {
    const { machine = 'first', identity = true, through, ...rest } = options;
    const repository = await this.open('write', { machine, identity, ...(through === undefined ? {} : { through }) });
    try {
      const paths = [Buffer.from(this.source)];
      const { stateDir } = repository;
      return await backup(
        { repository, stateDir, set: 'test', mode: 'snapshot', paths, threads: 1, ...rest },
        listener,
      );
    } finally {
      repository.close();
    }
  }

  open(
    need: 'read' | 'write' | 'owner',
    options: { machine?: string; identity?: boolean; through?: ObjectStore } = {},
  ): Promise<Repository> {
    const { machine = 'first', identity = true, through } = options;
    const credentials = identity ? { identityFile: this.identityFile } : {};
    return this.#at(machine, () => openRepository({ store: through ?? this.store, need, credentials }));
  }

  stateHome(machine = 'first'): string {
    return join(this.folder, `state-${machine}`);
  }

  /** Object names below a prefix. */
  async objects(prefix: string): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of this.store.list(prefix)) names.push(name);
    return names;
  }

  async records(): Promise<SnapshotRecord[]> {
    const repository = await this.open('read');
    const records = await repository.records();
    return records.filter((record) => record.kind === 'snapshot').sort((a, b) => a.sequence - b.sequence);
  }

  /** Opens a snapshot (default: the newest) and answers what is in it, by byte-string path; `''` is the root. */
  async read(id?: string | null): Promise<Snapshot> {
    const repository = await this.open('read');
    const records = await repository.records();
    const record = records.find((it) => it.kind === 'snapshot' && (id === undefined || it.id.toString('hex') === id));
    if (record?.kind !== 'snapshot') throw new Error('no such snapshot');
    const reader = await openSnapshot({ store: this.store, repository, record });
    const body = await repository.openBody(record);
    const entries = new Map<string, Entry>();
    const tree = (name: 'names' | 'inodes' | 'xattrs') => ({
      source: reader.source,
      schema: TREES[name],
      root: reader.roots[name],
    });
    const all = (name: 'names' | 'inodes' | 'xattrs', inode: number) =>
      retrying(reader, () => [...rows(tree(name), [inode], [inode + 1])]);
    const add = async (inode: number, path: string): Promise<void> => {
      const row = (await all('inodes', inode))[0];
      if (row === undefined) throw new Error(`no inode ${inode} for ${path}`);
      const xattrs = new Map(
        (await all('xattrs', inode)).map((it) => [bytes(it[XATTR.name]).toString('latin1'), bytes(it[XATTR.value])]),
      );
      entries.set(path, { inode, row, xattrs });
      if (((row[INODE.mode] as number) & 0o170000) !== 0o040000) return;
      for (const name of await all('names', inode)) {
        await add(name[NAME.inode] as number, `${path}/${bytes(name[NAME.name]).toString('latin1')}`);
      }
    };
    await add(1, '');
    return { record, reader, body, entries, content: (path) => contentOf(reader, entries.get(path)!) };
  }

  async #at<T>(machine: string, work: () => Promise<T>): Promise<T> {
    const before = process.env.ROZEN_STATE_DIR;
    process.env.ROZEN_STATE_DIR = this.stateHome(machine);
    try {
      return await work();
    } finally {
      if (before === undefined) delete process.env.ROZEN_STATE_DIR;
      else process.env.ROZEN_STATE_DIR = before;
    }
  }
}

export interface Snapshot {
  record: SnapshotRecord;
  reader: SnapshotReader;
  body: Awaited<ReturnType<Repository['openBody']>>;
  entries: Map<string, Entry>;
  content(path: string): Promise<Buffer>;
}

function bytes(field: Field | undefined): Buffer {
  return Buffer.from(field as Uint8Array);
}

async function contentOf(reader: SnapshotReader, { row }: Entry): Promise<Buffer> {
  const file = {
    inode: row[INODE.inode] as number,
    version: row[INODE.version] as number,
    size: row[INODE.size] as number,
  };
  return contentOfVersion(reader, file);
}

/** A content by its number, whether it is current or not. */
export async function contentOfVersion(
  reader: SnapshotReader,
  file: { inode: number; version: number; size: number },
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of new ContentReader(reader).read(file)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}
