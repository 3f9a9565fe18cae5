import { randomBytes } from 'node:crypto';
import { unwrapKey, wrapKey } from '../archive/crypto/age.ts';
import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import type { Bundle } from './bundle.ts';
import { type Config, type ConfigDraft, encodeConfig, readNewestConfig } from './config.ts';
import { type CommitDraft, recordDraft, type SnapshotSlot } from './draft.ts';
import { ID_SIZE, KEY_SIZE, TYPE } from './format.ts';
import { Forwards } from './forwards.ts';
import { fingerprintOf, type Genesis } from './genesis.ts';
import { Lineages, type LineagesOptions, type LineageTop, type OnProblem, once } from './lineages.ts';
import { Losses } from './losses.ts';
import { configName, snapshotName } from './names.ts';
import type { ObjectCache } from './object-cache.ts';
import { isReadOnlyState, type Pin, type RecordReference, writeCopies, writePin } from './pin.ts';
import { putProven } from './put-proven.ts';
import { decodeSecrets, isLineageOf, lineageTag, openLabel, type Secrets, wipeSecrets } from './secrets.ts';
import { isSignedBy } from './signed.ts';
import {
  type AnyRecord,
  encodeRecord,
  openBody,
  type SnapshotBody,
  type SnapshotRecord,
  type UnchangedRecord,
} from './snapshot-record.ts';
import { Strangers } from './strangers.ts';
import type { Writer, WriterFile } from './writer.ts';

export type { CommitDraft, SnapshotSlot } from './draft.ts';
export { initRepository } from './init.ts';
export type { OnProblem } from './lineages.ts';
export { openRepository } from './open.ts';
export type {
  AnyRecord,
  SnapshotBody,
  SnapshotRecord,
  SnapshotTree,
  UnchangedRecord,
  WormPolicy,
} from './snapshot-record.ts';
export { DEFAULT_POLICY } from './snapshot-record.ts';

/** What `open` and `init` found out. */
export interface RepositoryParts {
  store: ObjectStore;
  genesis: Genesis;
  config: Config;
  pin: Pin;
  /** This machine's folder for this repository: pin, writer, and what backup keeps. */
  stateDir: string;
  bundle: Bundle | null;
  identities: string[] | null;
  writer: Writer | null;
  secrets: Secrets | null;
  /** Id of the key object that gave the bundle; null when it came another way. */
  openedBy?: Buffer | null;
  /** Of a remote store: records that were read before. */
  objects?: ObjectCache | null;
  /** Tries the credentials that were given; for `unlock`. Null when there are none. */
  findIdentities: (() => Promise<{ identities: string[]; bundle: Bundle | null }>) | null;
}

/** An open repository. Holds keys: `close` wipes those that lie in buffers. */
export class Repository {
  readonly store: ObjectStore;
  readonly id: Buffer;
  readonly genesis: Genesis;
  /** For people, to compare: eight groups of four hex digits. */
  readonly fingerprint: string;
  readonly stateDir: string;
  writer: Writer | null;
  config: Config;
  /** age identities that open archives; null until `unlock` on a repository opened to write. */
  identities: string[] | null;
  secrets: Secrets | null;
  /** The owner's bundle (root secret); null for everybody else. */
  bundle: Bundle | null;
  readonly openedBy: Buffer | null;
  /** Where archives were merged into. */
  readonly forwards: Forwards;
  readonly #pin: Pin;
  readonly #lineages: Lineages;
  #losses: Losses;
  readonly #strangers: Strangers;
  readonly #objects: ObjectCache | null;
  readonly #findIdentities: RepositoryParts['findIdentities'];
  #unlocking: Promise<boolean> | null = null;
  #storageClass: string | undefined;
  #classFrom = 0;

  constructor(parts: RepositoryParts) {
    this.store = parts.store;
    this.genesis = parts.genesis;
    this.id = parts.genesis.repositoryId;
    this.fingerprint = fingerprintOf(parts.genesis.hash);
    this.stateDir = parts.stateDir;
    this.writer = parts.writer;
    this.config = parts.config;
    this.identities = parts.identities;
    this.secrets = parts.secrets;
    this.bundle = parts.bundle;
    this.openedBy = parts.openedBy ?? null;
    this.#pin = parts.pin;
    this.#losses = new Losses(parts.config.lost);
    this.#keep();
    this.#strangers = new Strangers(this);
    this.#findIdentities = parts.findIdentities;
    this.#objects = parts.objects ?? null;
    this.forwards = new Forwards({
      store: parts.store,
      objects: this.#objects,
      genesis: parts.genesis,
      pin: parts.pin,
      savePin: () => this.savePin(),
    });
    this.#lineages = this.lineagesWith(() => this.#losses);
  }

  /** The records of this repository, read as if these were declared lost. */
  lineagesWith(losses: LineagesOptions['losses']): Lineages {
    return new Lineages({
      store: this.store,
      objects: this.#objects,
      repositoryId: this.id,
      pinned: this.#pin.lineages,
      checkWriter: (outer, what) => this.#checkWriter(outer, what),
      losses,
      unfit: (record) => this.#strangers.unfit(record),
      refresh: () => this.refresh(),
    });
  }

  /** A new random archive key and the age file that wraps it for every recipient. The caller wipes the key. */
  async newArchiveKey(): Promise<{ key: Buffer; envelope: Buffer }> {
    const key = randomBytes(KEY_SIZE);
    return { key, envelope: await wrapKey(this.config.recipients, key) };
  }

  /** The archive key in an envelope. 'no-key' without an identity that fits. */
  async unwrap(envelope: Uint8Array): Promise<Buffer> {
    if (this.identities === null && !(await this.unlock())) throw noIdentity(this.store.location);
    const key = await this.#unwrapWithMore(envelope);
    if (key.length !== KEY_SIZE)
      throw new RozenError('corrupt', `a key envelope holds ${key.length} bytes, expected ${KEY_SIZE}`);
    return key;
  }

  /** The identity at hand may open a key object rather than the archives themselves. */
  async #unwrapWithMore(envelope: Uint8Array): Promise<Buffer> {
    const tried = this.identities;
    let key = await this.#tryUnwrap(envelope);
    if (key === null) {
      await this.#loadMoreOnce();
      // Another call may have loaded them in the meantime.
      if (this.identities !== tried) key = await this.#tryUnwrap(envelope);
    }
    if (key === null) throw wrongIdentity(this.store.location);
    return key;
  }

  /** Null when no identity at hand fits. */
  async #tryUnwrap(envelope: Uint8Array): Promise<Buffer | null> {
    try {
      return await unwrapKey(this.identities!, envelope);
    } catch (error) {
      if (isCode(error, 'no-key')) return null;
      throw error;
    }
  }

  /** Gets the identities from the credentials that were given at open; false when there are none. May ask for a passphrase. */
  unlock(): Promise<boolean> {
    return this.identities === null ? this.#loadMoreOnce() : Promise.resolve(true);
  }

  /** However many calls wait for it at the same time. */
  #loadMoreOnce(): Promise<boolean> {
    this.#unlocking ??= this.#loadMore().finally(() => {
      this.#unlocking = null;
    });
    return this.#unlocking;
  }

  async #loadMore(): Promise<boolean> {
    if (this.#findIdentities === null || (this.bundle !== null && this.identities !== null)) return false;
    const { identities, bundle } = await this.#findIdentities();
    const before = this.identities?.length ?? 0;
    this.identities = [...new Set([...(this.identities ?? []), ...identities])];
    this.bundle ??= bundle;
    this.secrets ??= bundle?.secrets ?? null;
    return this.identities.length > before;
  }

  /** The repository secrets, for content ids, chunk tables and names: at hand, or unwrapped with the identity. */
  async loadSecrets(): Promise<Secrets> {
    if (this.secrets === null) {
      if (this.identities === null && !(await this.unlock())) throw noIdentity(this.store.location);
      if (this.secrets === null) {
        const plain = await this.#unwrapWithMore(this.config.sealedSecrets);
        this.secrets ??= decodeSecrets(plain);
        plain.fill(0);
      }
    }
    return this.secrets;
  }

  /** Ed25519 public key of an enrolled writer; 'untrusted' for everybody else. After a miss, `refresh` and ask again. */
  writerPublicKey(id: Uint8Array): Buffer {
    const writer = this.config.writers.find((candidate) => candidate.id.equals(id));
    if (writer === undefined || writer.role !== 'writer') {
      throw new RozenError(
        'untrusted',
        `writer ${Buffer.from(id).toString('hex')} is not enrolled in ${this.store.location}`,
        {
          hint: 'somebody without the right to write has added to the repository, or its newest config was removed',
        },
      );
    }
    return writer.publicKey;
  }

  /** The machine's name of a writer, null when the secrets are not at hand or the writer is unknown. */
  writerName(id: Uint8Array): string | null {
    const writer = this.config.writers.find((candidate) => candidate.id.equals(id));
    return writer === undefined || this.secrets === null ? null : openLabel(this.secrets, writer.id, writer.sealedName);
  }

  /** From now on this machine is the writer of the file, which is saved already. */
  becomeWriter({ writer, secrets }: WriterFile): this {
    this.writer = writer;
    this.secrets = secrets;
    return this;
  }

  /** Takes in configs written since this repository was opened. */
  async refresh(): Promise<void> {
    this.#setConfig(await readNewestConfig(this.store, this.genesis, this.config));
  }

  /** Writes the next config; `change` is called again when another owner was faster. Needs the root key. */
  async updateConfig(change: (config: Config) => Partial<ConfigDraft>): Promise<Config> {
    const root = this.bundle?.rootSecret;
    if (root === undefined || root === null) throw notOwner(this.store.location);
    for (;;) {
      const number = this.config.number + 1;
      const created = Math.floor(Date.now() / 1000);
      const draft = { ...this.config, ...change(this.config), number, previous: this.config.hash, created };
      try {
        await putProven(this.store, configName(number), encodeConfig(draft, this.genesis, root));
      } catch (error) {
        if (!isCode(error, 'exists')) throw error;
        await this.refresh();
        continue;
      }
      await this.refresh();
      return this.config;
    }
  }

  /** The tag of this machine's lineage of a set. */
  lineageTag(set: string, generation = 0): string {
    const { writer, secrets } = this.#asWriter();
    const tag = lineageTag(secrets, { set, writerId: writer.id, generation });
    this.#strangers.own(tag, writer.id);
    return tag;
  }

  /** Whether a record is of this set, told by its tag: so also on a machine that cannot open its body. */
  isOfSet(record: Pick<SnapshotRecord, 'tag' | 'writerId'>, set: string): boolean {
    return isLineageOf(this.#asWriter().secrets, record, set);
  }

  /**
   * The newest snapshot of each lineage, newest first, after all checks: signatures, enrolment, nothing missing that this machine
   * or another head has seen. What was seen is pinned. With `onProblem`, a damaged record is reported and the one before it
   * stands in; 'untrusted' is always thrown.
   */
  async heads(onProblem?: OnProblem): Promise<SnapshotRecord[]> {
    const { tops, heads } = await this.#strangers.genuineHeads(this.#lineages, once(onProblem));
    await this.#accept(tops);
    return heads.sort((a, b) => b.timeSec - a.timeSec || b.timeNs - a.timeNs);
  }

  /** The heads that this machine saw last: for a store that cannot be reached. What was read before costs no request. */
  async rememberedHeads(): Promise<SnapshotRecord[]> {
    const heads: SnapshotRecord[] = [];
    for (const record of await this.#lineages.remembered()) {
      const head = await this.#lineages.headOf(record);
      if (head !== null) heads.push(head);
    }
    return heads;
  }

  /** All records of all lineages, newest first, with every chain checked from end to end. */
  async records(onProblem?: OnProblem): Promise<AnyRecord[]> {
    const tell = once(onProblem);
    await this.#strangers.genuineHeads(this.#lineages, tell);
    const records = await this.#lineages.all(tell);
    return records.sort((a, b) => b.timeSec - a.timeSec || b.timeNs - a.timeNs || b.sequence - a.sequence);
  }

  /** The part of a snapshot record that only readers can open. 'untrusted' when the lineage is not the writer's. */
  async openBody(record: SnapshotRecord): Promise<SnapshotBody> {
    const opened = this.#strangers.opened(record);
    if (opened !== null) return opened;
    const archiveKey = await this.unwrap(record.tree.envelope);
    try {
      const body = openBody(record.sealedBody, {
        archiveKey,
        repositoryId: this.id,
        id: record.id,
        what: `${this.store.location}/${record.name}`,
      });
      await this.#strangers.check(record, body.set);
      return body;
    } finally {
      archiveKey.fill(0);
    }
  }

  /** The next free place in this machine's lineage of a set, after the checks of `heads` for it. */
  async nextSlot(set: string, generation = 0): Promise<SnapshotSlot> {
    const tag = this.lineageTag(set, generation);
    const tops = await this.#lineages.tops(skipDamaged);
    await this.#accept(tops);
    const top = tops.find((candidate) => candidate.tag === tag);
    const newest = top?.records[0] ?? null;
    const base = newest === null ? null : await this.#lineages.headOf(newest, skipDamaged);
    return { set, tag, sequence: (top?.sequence ?? 0) + 1, id: randomBytes(ID_SIZE), base, newest };
  }

  /**
   * Writes the record of a slot: the commit. Everything that it names must be in the store already. Returns once the store
   * shows it. 'exists' when the lineage has moved on since the slot was taken (this writer's state is in use twice).
   */
  async commit(draft: Extract<CommitDraft, { kind: 'snapshot' }>): Promise<SnapshotRecord>;
  async commit(draft: Extract<CommitDraft, { kind: 'unchanged' }>): Promise<UnchangedRecord>;
  async commit(draft: CommitDraft): Promise<AnyRecord>;
  async commit(draft: CommitDraft): Promise<AnyRecord> {
    const { writer } = this.#asWriter();
    const { slot } = draft;
    const tops = await this.#lineages.tops(skipDamaged);
    const newest = tops.find((top) => top.tag === slot.tag)?.records[0] ?? null;
    if ((newest?.id.toString('hex') ?? '') !== (slot.newest?.id.toString('hex') ?? '')) throw this.#overtaken(slot);
    const context = { repositoryId: this.id, writerId: writer.id, configNumber: this.config.number, tops };
    const { name, bytes } = encodeRecord(recordDraft(draft, context), {
      repositoryId: this.id,
      signingSecret: writer.signingSecret,
    });
    await this.store.put(name, bytes);
    const written = await this.#lineages.read(name);
    await this.#accept([
      ...tops.filter((top) => top.tag !== slot.tag),
      { tag: slot.tag, records: [written], sequence: written.sequence },
    ]);
    return written;
  }

  /** The key object that this machine opened last, in whatever run; null when it knows of none. */
  get lastKey(): Buffer | null {
    return this.#pin.lastKey;
  }

  /** Forgets that key object: it was removed on purpose. */
  forgetLastKey(): void {
    this.#pin.lastKey = null;
    this.savePin();
  }

  /** Remembers key material of the last successful open (which key object), pins and copies of genesis and config. */
  savePin(): void {
    try {
      writePin(this.stateDir, this.#pin, this.#losses);
    } catch (error) {
      if (this.writer !== null || !isReadOnlyState(error)) throw error;
    }
  }

  /** Wipes the keys that lie in buffers. age identities are strings and go with the garbage collector. */
  close(): void {
    if (this.secrets !== null) wipeSecrets(this.secrets);
    this.bundle?.rootSecret?.fill(0);
    this.writer?.signingSecret.fill(0);
    this.identities = null;
    this.bundle = null;
    this.secrets = null;
  }

  #asWriter(): { writer: Writer; secrets: Secrets } {
    if (this.writer === null || this.secrets === null) {
      throw new RozenError('no-key', `this machine is not enrolled as a writer of ${this.store.location}`, {
        hint: 'run `rozen enroll` here with the passphrase, or import a writer file',
      });
    }
    return { writer: this.writer, secrets: this.secrets };
  }

  async #checkWriter(outer: { writerId: Buffer; body: Buffer; signature: Buffer }, what: string): Promise<void> {
    if (!this.config.writers.some((writer) => writer.id.equals(outer.writerId))) await this.refresh();
    let publicKey: Buffer;
    try {
      publicKey = this.writerPublicKey(outer.writerId);
    } catch (error) {
      if (!isCode(error, 'untrusted')) throw error;
      throw new RozenError('untrusted', `${what}: ${error.message}`, { hint: error.hint });
    }
    if (isSignedBy(publicKey, TYPE.snapshot, { repositoryId: this.id, body: outer.body, signature: outer.signature }))
      return;
    throw new RozenError('untrusted', `${what} is forged: the signature is not by the writer it names`, {
      hint: 'remove the object, or restore it from a copy of the repository',
    });
  }

  /** Data archives that this process makes go to a storage class of their own, whatever the config says. */
  keepDataAs(storageClass: string): void {
    this.#storageClass = storageClass;
    this.#keep();
  }

  /** Where new data archives go; undefined: the store's own class. */
  get storageClass(): string | undefined {
    return this.#storageClass ?? this.config.keeping?.storageClass;
  }

  /** Of archives that are to have `goal` bytes, those that have less than an eighth of it stay out of that class until they are merged. */
  keepSmall(goal: number): void {
    this.#classFrom = goal / 8;
    this.#keep();
  }

  #keep(): void {
    const { keeping = {} } = this.config;
    this.store.keep({ ...keeping, storageClass: this.storageClass, classFrom: this.#classFrom });
  }

  #setConfig(config: Config): void {
    if (config.number === this.config.number) return;
    this.config = config;
    this.#losses = new Losses(config.lost);
    this.#keep();
    this.#pin.config = { number: config.number, hash: config.hash };
    try {
      writeCopies(this.stateDir, this.genesis, config);
    } catch (error) {
      if (!isReadOnlyState(error)) throw error;
    }
    this.savePin();
  }

  /** Pins what was seen, once no record knows a config that the store does not show. */
  async #accept(tops: LineageTop[]): Promise<void> {
    const configNumber = Math.max(0, ...tops.map((top) => top.records[0]!.configNumber));
    if (configNumber > this.config.number) await this.refresh();
    if (configNumber > this.config.number) throw this.#hiddenConfig(configNumber);
    let changed = false;
    for (const { tag, records } of tops) {
      const { sequence, id, hash } = records[0]!;
      const pinned = this.#pin.lineages.get(tag);
      if (pinned !== undefined && pinned.sequence >= sequence && this.#counts(tag, pinned)) continue;
      this.#pin.lineages.set(tag, { sequence, id, hash });
      changed = true;
    }
    if (changed) this.savePin();
  }

  /** Whether a record that was pinned is neither lost nor a stranger's. */
  #counts(tag: string, { sequence, id }: RecordReference): boolean {
    const name = snapshotName(tag, sequence, id);
    return !this.#losses.has(name) && !this.#lineages.passesOver(name);
  }

  #hiddenConfig(number: number): RozenError {
    return new RozenError(
      'untrusted',
      `${this.store.location} was rolled back: a snapshot was made under config ${number}, which is gone`,
      {
        hint: 'restore the folder config/ from a copy of the repository',
      },
    );
  }

  #overtaken(slot: SnapshotSlot): RozenError {
    return new RozenError(
      'exists',
      `another run has added to this machine's lineage of set ${JSON.stringify(slot.set)}`,
      {
        hint: 'if the state folder of this machine was copied to another one, enroll that one anew; then run the backup again',
        retryable: true,
      },
    );
  }
}

/** A damaged record, of whatever lineage, must not stop backups; `heads` and `verify` tell of it. */
const skipDamaged: OnProblem = () => {};

function isCode(error: unknown, code: string): error is RozenError {
  return error instanceof RozenError && error.code === code;
}

export function noIdentity(location: string): RozenError {
  return new RozenError('no-key', `no identity is at hand to read ${location}`, {
    hint: 'give the passphrase (ROZEN_PASSWORD, --password-file) or an identity file (--identity FILE)',
  });
}

function wrongIdentity(location: string): RozenError {
  return new RozenError('no-key', `the identity at hand is none of ${location}`, {
    hint: 'give another identity file, or the passphrase; an owner can add yours with `rozen key add --recipient`',
  });
}

export function notOwner(location: string): RozenError {
  return new RozenError('no-key', `this needs an owner's key of ${location}`, {
    hint: 'give the passphrase, or an identity file exported with the owner key',
  });
}
