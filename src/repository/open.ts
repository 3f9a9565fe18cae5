import { hostname } from 'node:os';
import { RozenError } from '../errors.ts';
import { isRemote, type ObjectStore } from '../store/object-store.ts';
import { type Bundle, swappedGenesis } from './bundle.ts';
import { type Config, decodeConfig, readNewestConfig } from './config.ts';
import { checkEnrolled, enrollHere } from './enroll.ts';
import { decodeGenesis, fingerprintOf, type Genesis, isSameFingerprint, readGenesis } from './genesis.ts';
import { checkFingerprints, ownerBundle, readIdentityFile } from './identity-file.ts';
import { openWithAge, openWithPassphrases } from './key-ring.ts';
import { configName } from './names.ts';
import type { ObjectCache } from './object-cache.ts';
import { locationPinPath, repositoryStateDir } from './paths.ts';
import {
  checkGenesis,
  isReadOnlyState,
  type Pin,
  readLocationPin,
  readPin,
  writeCopies,
  writeLocationPin,
} from './pin.ts';
import { noIdentity, notOwner, Repository, type RepositoryParts } from './repository.ts';
import { readStateFile } from './state-file.ts';
import { readWriterFile, type WriterFile } from './writer.ts';

export interface Credentials {
  /** Asked at most once, and only when a passphrase is needed. */
  passphrase?: (() => Promise<string>) | undefined;
  /** An age identity file. */
  identityFile?: string | undefined;
  /** Identities in hand: from the parent of a detached mount. */
  identities?: string[] | undefined;
}

/**
 * none   what needs no key: list, scrub
 * write  back up: writer.cbor of this machine, or else an owner's key, which enrolls it
 * read   open archives: an identity
 * owner  change configs and keys: the root key
 */
type Need = 'none' | 'write' | 'read' | 'owner';

export interface OpenOptions {
  store: ObjectStore;
  credentials?: Credentials;
  need: Need;
  /** Refuse any other repository ('untrusted'): for the first visit from a machine. */
  fingerprint?: string | undefined;
  /** Of a remote store: what was read before. */
  objects?: ObjectCache | null | undefined;
}

/**
 * Opens the repository of a store. RozenError: 'not-repository', 'unsupported' (newer format), 'untrusted' (swapped genesis or
 * config, rolled back), 'no-key' (wrong or missing passphrase or identity), 'corrupt', 'io'.
 */
export async function openRepository(options: OpenOptions): Promise<Repository> {
  return (await openRepositoryEarly(options)).certain;
}

export interface EarlyOpening {
  /** By the config that this machine saw last. */
  repository: Repository;
  /** The same, once the store has said that this is its newest config; otherwise the repository by the newer one. */
  certain: Promise<Repository>;
}

/**
 * As `openRepository`, without waiting for the store's word that there is no newer config: another request may be under
 * way meanwhile. What comes of it must not be shown, and its errors mean nothing, before `certain` is the same repository.
 */
export async function openRepositoryEarly(options: OpenOptions): Promise<EarlyOpening> {
  const { store, need } = options;
  const locationPath = locationPinPath(store.location);
  const locationPin = readLocationPin(locationPath);
  const copies = need === 'read' && isRemote(store) && locationPin !== null ? readCopies(locationPin) : null;
  const genesis =
    copies?.genesis ??
    (await readPinnedGenesis(store, locationPin === null ? null : { ...locationPin, path: locationPath }));
  if (options.fingerprint !== undefined && !isSameFingerprint(options.fingerprint, fingerprintOf(genesis.hash))) {
    throw swappedGenesis(`its fingerprint is ${fingerprintOf(genesis.hash)}, expected ${options.fingerprint}`);
  }
  const here = readHere(genesis);
  const byNewest = async () =>
    openWith(options, here, await readNewestConfig(store, genesis, here.known?.config ?? null));
  if (copies === null) {
    const repository = await byNewest();
    if (locationPin === null) tolerate(() => writeLocationPin(locationPath, store.location, genesis));
    return { repository, certain: Promise.resolve(repository) };
  }
  const newer = hasNewerConfig(store, copies.config);
  newer.catch(() => {});
  let repository: Repository;
  try {
    repository = await openWith(options, here, copies.config);
  } catch (error) {
    // A key may have been added since.
    if (!(await newer)) throw error;
    repository = await byNewest();
    return { repository, certain: Promise.resolve(repository) };
  }
  const certain = newer.then((is) => (is ? byNewest() : repository));
  // Whoever gives up before has an error of their own.
  certain.catch(() => {});
  return { repository, certain };
}

/** What this machine knows of a repository. */
interface Here {
  genesis: Genesis;
  stateDir: string;
  known: Pin | null;
  writerFile: WriterFile | null;
}

function readHere(genesis: Genesis): Here {
  const stateDir = repositoryStateDir(genesis.repositoryId);
  const known = readPin(stateDir);
  checkGenesis(genesis, known, `${stateDir}/pin.cbor`);
  const writerFile = readWriterFile(stateDir);
  checkGenesis(genesis, writerFile, `${stateDir}/writer.cbor`);
  return { genesis, stateDir, known, writerFile };
}

async function openWith(options: OpenOptions, here: Here, config: Config): Promise<Repository> {
  const { store, credentials = {}, need, objects = null } = options;
  const { genesis, stateDir, known, writerFile } = here;
  const pin: Pin = {
    genesisHash: genesis.hash,
    config: { number: config.number, hash: config.hash },
    forward: known?.forward ?? null,
    lineages: known?.lineages ?? new Map(),
    lastKey: known?.lastKey ?? null,
  };
  const finder = new KeyFinder({ store, genesis, config, pin, credentials, objects });
  const parts = await findParts(finder, need, { stateDir, writerFile });
  const repository = new Repository(parts);
  if (known === null || known.config.number !== config.number || finder.learnt) {
    saveState(repository, { fresh: known?.config.number !== config.number });
  }
  if (need === 'write') {
    if (repository.writer === null) return enrollHere(repository, hostname());
    checkEnrolled(repository, repository.writer);
  }
  return repository;
}

/**
 * The copies of genesis and config that this machine keeps, when they are the pinned ones: as good as the objects of a
 * remote store, which never change, and no request. Null otherwise.
 */
function readCopies(pinned: {
  genesisHash: Buffer;
  repositoryId: Buffer;
}): { genesis: Genesis; config: Config } | null {
  const stateDir = repositoryStateDir(pinned.repositoryId);
  try {
    const known = readPin(stateDir);
    const [genesisBytes, configBytes] = ['genesis.cbor', 'config.cbor'].map((name) =>
      readStateFile(`${stateDir}/${name}`),
    );
    if (known === null || !genesisBytes || !configBytes) return null;
    const genesis = decodeGenesis(genesisBytes, `${stateDir}/genesis.cbor`);
    const config = decodeConfig(configBytes, genesis, `${stateDir}/config.cbor`);
    const same = genesis.hash.equals(pinned.genesisHash) && config.hash.equals(known.config.hash);
    return same ? { genesis, config } : null;
  } catch (error) {
    // What is wrong with them does not matter: the store has them.
    if (error instanceof RozenError) return null;
    throw error;
  }
}

/** So long the store may take to say that there is a newer config, before the one at hand does. */
const PATIENCE_MS = 3_000;

/** Asks for the one name that a newer config would have. A store that cannot be reached has none to show. */
async function hasNewerConfig(store: ObjectStore, config: Config): Promise<boolean> {
  const asked = store.stat(configName(config.number + 1)).then((info) => info !== null);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, PATIENCE_MS, false);
  });
  try {
    return await Promise.race([asked, late]);
  } catch (error) {
    if (error instanceof RozenError && error.code === 'io') return false;
    throw error;
  } finally {
    clearTimeout(timer);
    asked.catch(() => {});
  }
}

async function readPinnedGenesis(
  store: ObjectStore,
  pinned: { genesisHash: Buffer; repositoryId: Buffer; path: string } | null,
): Promise<Genesis> {
  let genesis: Genesis;
  try {
    genesis = await readGenesis(store);
  } catch (error) {
    if (pinned === null || !(error instanceof RozenError) || error.code !== 'not-repository') throw error;
    throw new RozenError('not-repository', error.message, {
      cause: error,
      hint: `this machine knows a repository here: is the disk mounted? A copy of rozen.cbor is ${repositoryStateDir(pinned.repositoryId)}/genesis.cbor`,
    });
  }
  checkGenesis(genesis, pinned, pinned?.path ?? '');
  return genesis;
}

interface State {
  stateDir: string;
  writerFile: WriterFile | null;
}

async function findParts(finder: KeyFinder, need: Need, { stateDir, writerFile }: State): Promise<RepositoryParts> {
  const { store, genesis, config, pin, objects } = finder.context;
  const parts: RepositoryParts = {
    store,
    objects,
    genesis,
    config,
    pin,
    stateDir,
    bundle: null,
    identities: null,
    writer: writerFile?.writer ?? null,
    secrets: writerFile?.secrets ?? null,
    findIdentities: finder.isEmpty ? null : () => finder.find(),
  };
  if (need === 'none' || (need === 'write' && writerFile !== null)) return parts;
  if (need === 'read') {
    parts.identities = await finder.quickIdentities();
    if (parts.identities !== null) return parts;
  }
  if (finder.isEmpty && need === 'write') throw notEnrolled(store.location);
  if (finder.isEmpty) throw need === 'read' ? noIdentity(store.location) : notOwner(store.location);
  const { identities, bundle } = await finder.find();
  if (need === 'read' && identities.length === 0) throw noIdentity(store.location);
  if (need !== 'read' && (bundle === null || bundle.rootSecret === null)) throw notOwner(store.location);
  parts.identities = identities;
  parts.bundle = bundle;
  parts.openedBy = finder.keyId;
  parts.secrets ??= bundle?.secrets ?? null;
  return parts;
}

function notEnrolled(location: string): RozenError {
  return new RozenError('no-key', `this machine is not enrolled in ${location}`, {
    hint: 'import a writer file (rozen enroll --import FILE), or give the passphrase with ROZEN_PASSWORD or --password-file',
  });
}

interface FinderContext {
  store: ObjectStore;
  genesis: Genesis;
  config: Config;
  pin: Pin;
  credentials: Credentials;
  objects: ObjectCache | null;
}

/** Turns credentials into identities and bundles, each only when it is needed: a passphrase costs a second and a question. */
class KeyFinder {
  readonly context: FinderContext;
  /** True when a key object was opened that the pin did not name as the last one. */
  learnt = false;
  /** The key object that gave the bundle. */
  keyId: Buffer | null = null;

  constructor(context: FinderContext) {
    this.context = context;
  }

  get isEmpty(): boolean {
    const { passphrase, identityFile, identities } = this.context.credentials;
    return passphrase === undefined && identityFile === undefined && (identities ?? []).length === 0;
  }

  /** Identities that are simply there, without opening anything; null when a passphrase or a key object is needed. */
  async quickIdentities(): Promise<string[] | null> {
    const { identities = [], identityFile } = this.context.credentials;
    const found = [...identities];
    if (identityFile !== undefined) found.push(...(await this.#readFile(identityFile)).identities);
    return found.length === 0 ? null : found;
  }

  /** Everything that the credentials open. 'no-key' for a wrong passphrase. */
  async find(): Promise<{ identities: string[]; bundle: Bundle | null }> {
    const { store, genesis, pin, credentials, objects } = this.context;
    const { identityFile, passphrase } = credentials;
    const identities = [...(credentials.identities ?? [])];
    let bundle: Bundle | null = null;
    if (identityFile !== undefined) {
      const file = await this.#readFile(identityFile);
      identities.push(...file.identities);
      bundle = ownerBundle(file, genesis);
    }
    if (bundle === null && identities.length > 0) {
      const opened = await openWithAge({ store, genesis }, identities);
      if (opened !== null) ({ bundle, id: this.keyId } = opened);
    }
    if (bundle === null && identities.length === 0 && passphrase !== undefined) {
      const opened = await openWithPassphrases({ store, genesis, objects }, await passphrase(), pin.lastKey);
      ({ bundle, id: this.keyId } = opened);
      this.learnt = pin.lastKey === null || !pin.lastKey.equals(opened.id);
      pin.lastKey = opened.id;
    }
    return { identities: [...new Set([...identities, ...(bundle?.identities ?? [])])], bundle };
  }

  async #readFile(path: string) {
    const file = await readIdentityFile(path);
    checkFingerprints(file, this.context.genesis, path);
    return file;
  }
}

function saveState(repository: Repository, { fresh }: { fresh: boolean }): void {
  if (fresh) tolerate(() => writeCopies(repository.stateDir, repository.genesis, repository.config));
  repository.savePin();
}

/** Reading must work on machines whose state folder cannot be written. */
function tolerate(write: () => void): void {
  try {
    write();
  } catch (error) {
    if (!isReadOnlyState(error)) throw error;
  }
}
