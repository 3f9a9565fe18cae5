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
import type { Findings } from './findings.ts';

/** Names of all objects, and the bytes of those that are archives or hot indexes. */
export async function listObjects(
  store: ObjectStore,
  findings: Findings,
): Promise<{ names: string[]; archiveBytes: number }> {
  const names: string[] = [];
  let archiveBytes = 0;
  for await (const { name, size } of store.list('')) {
    names.push(name);
    if (parseArchiveName(name) !== null) archiveBytes += size;
    if (names.length % 1000 === 0) findings.advance(0);
  }
  return { names, archiveBytes };
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
