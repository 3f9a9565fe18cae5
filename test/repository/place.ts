import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach } from 'vitest';
import { generateIdentity, recipientOf } from '../../src/archive/crypto/age.ts';
import { initRepository, type Repository } from '../../src/repository/repository.ts';
import { LocalStore } from '../../src/store/local.ts';

/** A folder that is gone when the tests of this file are over. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'rozen-test-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Each test gets its own store and machine; `onMachine` runs with the state folder of another one. */
export function place() {
  const root = temporaryFolder();
  let count = 0;
  const here = { folder: '', store: null as unknown as LocalStore };
  beforeEach(() => {
    here.folder = join(root, String(count++));
    here.store = new LocalStore(join(here.folder, 'store'));
    process.env.ROZEN_STATE_DIR = join(here.folder, 'state');
  });
  afterEach(() => {
    delete process.env.ROZEN_STATE_DIR;
  });
  return here;
}

export async function onMachine<T>(stateDir: string, work: () => Promise<T>): Promise<T> {
  const before = process.env.ROZEN_STATE_DIR;
  process.env.ROZEN_STATE_DIR = stateDir;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env.ROZEN_STATE_DIR;
    else process.env.ROZEN_STATE_DIR = before;
  }
}

/** A repository for a fresh age identity (no argon2id: quick), its first machine enrolled. */
export async function quickRepository(
  here: { folder: string; store: LocalStore },
  kind: 'x25519' | 'hybrid' = 'x25519',
): Promise<{ repository: Repository; identity: string; identityFile: string; recipient: string }> {
  const identity = await generateIdentity(kind);
  const recipient = await recipientOf(identity);
  const identityFile = join(here.folder, 'identity.txt');
  const repository = await initRepository({ store: here.store, recipients: [recipient] });
  writeFileSync(identityFile, `# a comment\n${identity}\n`);
  return { repository, identity, identityFile, recipient };
}

/** What an attacker does to a store: objects replaced and removed as files. */
export async function replaceObject(store: LocalStore, name: string, bytes: Uint8Array): Promise<void> {
  await store.delete(name);
  await store.put(name, bytes);
}

/** The store as it is now, to bring back later. */
export function copyStore(store: LocalStore, to: string): () => void {
  cpSync(store.location, to, { recursive: true, preserveTimestamps: true });
  return () => {
    rmSync(store.location, { recursive: true });
    cpSync(to, store.location, { recursive: true, preserveTimestamps: true });
  };
}
