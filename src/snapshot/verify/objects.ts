/** What lies in a store: all objects, strangers among them, and what interrupted writers left. */
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  GENESIS_NAME,
  parseArchiveName,
  parseConfigName,
  parseForwardName,
  parseKeyName,
  parseSnapshotName,
} from '../../repository/names.ts';
import { TMP_FOLDER } from '../../store/local-staging.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import { isFrozenClass } from '../../store/storage-class.ts';
import type { Findings } from './findings.ts';

interface Listed {
  names: string[];
  /** Of what is an archive or a hot index. */
  archiveBytes: number;
  /** Names of what lies in a class that must be thawed before it can be read. */
  cold: ReadonlySet<string>;
}

export async function listObjects(store: ObjectStore, findings: Findings): Promise<Listed> {
  const names: string[] = [];
  const cold = new Set<string>();
  let archiveBytes = 0;
  for await (const { name, size, storageClass } of store.list('')) {
    names.push(name);
    if (isFrozenClass(storageClass)) cold.add(name);
    if (parseArchiveName(name) !== null) archiveBytes += size;
    if (names.length % 1000 === 0) findings.advance(0);
  }
  return { names, archiveBytes, cold };
}

/** Whether an object cannot be read now. Of a class that is read at once, nothing is asked. */
export async function isFrozen(store: ObjectStore, cold: ReadonlySet<string>, name: string): Promise<boolean> {
  if (!cold.has(name)) return false;
  const state = await store.coldState(name);
  return state !== null && state.state !== 'hot';
}

function isKnown(name: string): boolean {
  return (
    name === GENESIS_NAME ||
    parseConfigName(name) !== null ||
    parseKeyName(name) !== null ||
    parseForwardName(name) !== null ||
    parseSnapshotName(name) !== null ||
    parseArchiveName(name) !== null
  );
}

/** Objects that are none of a repository's. */
export function noteStrangers(findings: Findings, names: readonly string[]): void {
  for (const name of names) if (!isKnown(name)) findings.note(`${name}: not an object of a repository`);
}

/** Staging files that killed writers left in a local store; the next writer sweeps them. */
export async function noteTemporaryFiles(findings: Findings, store: ObjectStore): Promise<void> {
  const genesis = store.localPath(GENESIS_NAME);
  if (genesis === null) return;
  let names: string[];
  try {
    names = readdirSync(join(dirname(genesis), TMP_FOLDER));
  } catch {
    return;
  }
  for (const name of names)
    findings.note(`${TMP_FOLDER}/${name}: a temporary file (a backup is running, or was killed)`);
}
