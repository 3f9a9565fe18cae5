import { join } from 'node:path';
import { asMap, type CborMap, field } from '../archive/cbor.ts';
import { RozenError } from '../errors.ts';
import { swappedGenesis } from './bundle.ts';
import type { Config } from './config.ts';
import { HASH_SIZE, ID_SIZE, TYPE } from './format.ts';
import { fingerprintOf, type Genesis } from './genesis.ts';
import { isLost, Losses } from './losses.ts';
import { decodeOuter, encodeOuter, named } from './signed.ts';
import { readStateFile, writeStateFile } from './state-file.ts';

/** One record of a lineage, named and bound: what a pin remembers and what a later record refers to. */
export interface RecordReference {
  sequence: number;
  id: Buffer;
  hash: Buffer;
}

/** What this machine has seen of a repository, and what the store may never show less of. */
export interface Pin {
  genesisHash: Buffer;
  config: { number: number; hash: Buffer };
  /** The newest forward record; null before there was one. */
  forward: { number: number; hash: Buffer } | null;
  /** Newest record of each lineage, by tag. */
  lineages: Map<string, RecordReference>;
  /** The key object that was opened last: tried first, as each try costs a second. */
  lastKey: Buffer | null;
}

export function readPin(stateDir: string): Pin | null {
  const path = join(stateDir, 'pin.cbor');
  const bytes = readStateFile(path);
  if (bytes === null) return null;
  const map = decodeOuter(bytes, TYPE.pin, path);
  return named(path, () => {
    const config = field.map(map, 'config');
    const lineages = new Map<string, RecordReference>();
    for (const item of field.list(map, 'lineages')) {
      const lineage = asMap(item, 'lineage');
      lineages.set(field.bytes(lineage, 'tag', ID_SIZE).toString('hex'), {
        sequence: field.uint(lineage, 'sequence', undefined, 1),
        id: field.bytes(lineage, 'id', ID_SIZE),
        hash: field.bytes(lineage, 'hash', HASH_SIZE),
      });
    }
    return {
      genesisHash: field.bytes(map, 'genesis', HASH_SIZE),
      config: { number: field.uint(config, 'number', undefined, 1), hash: field.bytes(config, 'hash', HASH_SIZE) },
      forward: field.has(map, 'forward') ? decodeForwardPin(field.map(map, 'forward')) : null,
      lineages,
      lastKey: field.has(map, 'lastKey') ? field.bytes(map, 'lastKey', ID_SIZE) : null,
    };
  });
}

function decodeForwardPin(map: CborMap): NonNullable<Pin['forward']> {
  return { number: field.uint(map, 'number', undefined, 1), hash: field.bytes(map, 'hash', HASH_SIZE) };
}

/** Writes the pin; what another process pinned in the meantime is kept where it is newer, unless it is lost. */
export function writePin(stateDir: string, pin: Pin, losses = new Losses()): void {
  const other = readPin(stateDir);
  if (other?.genesisHash.equals(pin.genesisHash)) {
    if (other.config.number > pin.config.number) pin.config = other.config;
    if ((other.forward?.number ?? 0) > (pin.forward?.number ?? 0)) pin.forward = other.forward;
    for (const [tag, reference] of other.lineages) {
      if (isLost(losses, tag, reference)) continue;
      if (reference.sequence > (pin.lineages.get(tag)?.sequence ?? 0)) pin.lineages.set(tag, reference);
    }
  }
  const lineages = [...pin.lineages].map(([tag, reference]) => ({ tag: Buffer.from(tag, 'hex'), ...reference }));
  const { genesisHash: genesis, config, forward, lastKey } = pin;
  const members = {
    genesis,
    config,
    lineages,
    ...(forward === null ? {} : { forward }),
    ...(lastKey === null ? {} : { lastKey }),
  };
  writeStateFile(join(stateDir, 'pin.cbor'), encodeOuter(TYPE.pin, members));
}

/** Copies of genesis and config: what `rozen.cbor` and `config/` can be restored from, and whoever only has a cache needs. */
export function writeCopies(stateDir: string, genesis: Genesis, config: Config): void {
  writeStateFile(join(stateDir, 'genesis.cbor'), genesis.bytes);
  writeStateFile(join(stateDir, 'config.cbor'), config.bytes);
}

/** Which genesis lay at a location. Without it, a store could show a wholly other repository to a machine that knows this one. */
export function readLocationPin(path: string): { genesisHash: Buffer; repositoryId: Buffer } | null {
  const bytes = readStateFile(path);
  if (bytes === null) return null;
  const map = decodeOuter(bytes, TYPE.location, path);
  return named(path, () => ({
    genesisHash: field.bytes(map, 'genesis', HASH_SIZE),
    repositoryId: field.bytes(map, 'repository', ID_SIZE),
  }));
}

export function writeLocationPin(path: string, location: string, genesis: Genesis): void {
  const members = { genesis: genesis.hash, repository: genesis.repositoryId, location };
  writeStateFile(path, encodeOuter(TYPE.location, members));
}

/** Refuses a genesis that is not the pinned one, wherever the pin comes from. */
export function checkGenesis(genesis: Genesis, pinned: { genesisHash: Buffer } | null, source: string): void {
  if (pinned === null || pinned.genesisHash.equals(genesis.hash)) return;
  throw swappedGenesis(
    `its fingerprint is ${fingerprintOf(genesis.hash)}, ${source} says ${fingerprintOf(pinned.genesisHash)}`,
    `if you replaced the repository on purpose, remove ${source}; otherwise restore rozen.cbor from a copy`,
  );
}

/** State that cannot be written (a read-only home, a live system) must not keep anybody from reading. */
export function isReadOnlyState(error: unknown): boolean {
  if (!(error instanceof RozenError) || error.code !== 'io') return false;
  const code = (error.cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  return ['EROFS', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT'].includes(code);
}
