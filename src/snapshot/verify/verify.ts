import { KIND_DATA, KIND_TREE } from '../../archive/format.ts';
import { type ArchiveFacts, OpenArchives } from '../../cache/archives.ts';
import { PageCache } from '../../cache/pages.ts';
import { openSnapshot, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import { archiveName, indexName, keyName, parseArchiveName, snapshotName, treeName } from '../../repository/names.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import { isRemote } from '../../store/object-store.ts';
import { inParallel } from '../cold/parallel.ts';
import { checkDataArchive, checkTreeArchive, type DataArchive, type LostRange, settleBlocks } from './archive-check.ts';
import { BlockPool } from './block-pool.ts';
import { nameConcerned } from './concern.ts';
import { checkBlocks } from './data-check.ts';
import { Findings } from './findings.ts';
import { checkForwards, MergedArchives } from './forwards.ts';
import { checkFrozenArchive } from './frozen-archive.ts';
import { KeptKeys } from './kept-keys.ts';
import { OBJECTS_AT_ONCE } from './object-file.ts';
import { isFrozen, listObjects, noteStrangers, noteTemporaryFiles } from './objects.ts';
import { type LostRows, TreeCheck } from './pages.ts';
import { checkConfigs, checkKeyObjects, checkRecords, isSnapshot } from './records.ts';
import { RowCheck } from './rows.ts';
import type { VerifyListener, VerifyReport } from './types.ts';

export interface VerifyOptions {
  /** Opened to read. */
  repository: Repository;
  /** Ids (32 hexadecimal digits) of the snapshots to check; all of them by default. */
  snapshots?: ReadonlySet<string>;
  /** Percentage of the blocks to open; 100 for all, 0 (the default) for none. */
  readData?: number;
  /** Worker threads; by default all cores, and none for little work. */
  threads?: number;
  signal?: AbortSignal;
}

const PAGE_BYTES = 96 * 1024 * 1024;
/** Starting threads takes longer than reading this much. */
const INLINE_BYTES = 24 * 1024 * 1024;
/** Checks of an archive in a remote store before what is found counts. */
const TRIALS = 2;

/**
 * Checks a repository from its genesis to its blocks. Whatever is wrong with it is in the report; thrown are only 'no-key',
 * 'interrupted', 'frozen' (blocks were to be read that cannot be now) and faults of Rozen itself.
 */
export async function verify(options: VerifyOptions, listener: VerifyListener = {}): Promise<VerifyReport> {
  const { signal, readData = 0 } = options;
  const findings = new Findings(listener, signal);
  await new Verification(options, findings).run();
  return findings.report(readData > 0 ? 'data' : 'structure', readData);
}

interface OpenedSnapshot {
  reader: SnapshotReader;
  lost: LostRows[];
}

class Verification {
  readonly #options: VerifyOptions;
  readonly #repository: Repository;
  readonly #findings: Findings;
  readonly #keys: KeptKeys;
  readonly #trees: TreeCheck;
  readonly #opened: OpenedSnapshot[] = [];
  readonly #unopened: { record: SnapshotRecord; error: unknown }[] = [];
  readonly #ranges = new Map<string, LostRange[]>();
  readonly #data = new Map<string, DataArchive | null>();
  /** Names of objects in cold classes. */
  #cold: ReadonlySet<string> = new Set();
  #merged!: MergedArchives;

  constructor(options: VerifyOptions, findings: Findings) {
    this.#options = options;
    this.#repository = options.repository;
    this.#findings = findings;
    this.#keys = new KeptKeys(options.repository);
    this.#trees = new TreeCheck(findings);
  }

  async run(): Promise<void> {
    const findings = this.#findings;
    const repository = this.#repository;
    const { store } = repository;
    findings.phase('records');
    const { names, cold } = await listObjects(store, findings);
    this.#cold = cold;
    const check = { store, findings, names };
    const config = await checkConfigs(check, repository.genesis);
    await checkKeyObjects(check, repository.genesis);
    const { lastKey } = repository;
    if (lastKey !== null && !names.includes(keyName(lastKey)))
      findings.note(
        `${keyName(lastKey)}: the key that this machine used last is gone; was it removed by \`rozen key remove\`?`,
      );
    const records = await checkRecords(check, repository.genesis, config);
    const map = await checkForwards(check, repository.genesis);
    this.#merged = new MergedArchives(findings, { map, names: new Set(names) });
    try {
      await repository.heads(() => {});
      await repository.forwards.refresh();
    } catch (error) {
      // Only what this machine remembers is new here; the rest was told record by record.
      if (findings.all.length === 0) findings.caught(error, { object: objectIn(error) });
    }
    findings.counts.objects = names.filter((name) => !/^(?:data|index|tree)\//.test(name)).length;
    const wanted = this.#options.snapshots;
    const snapshots = records.filter(isSnapshot);
    const chosen = snapshots.filter((record) => wanted === undefined || wanted.has(record.id.toString('hex')));
    findings.counts.snapshots = chosen.length;

    const archives = new OpenArchives({ store, keys: this.#keys });
    try {
      findings.phase('trees');
      await this.#walkTrees(chosen, archives);
      await this.#checkArchives();
      findings.phase('files');
      await this.#checkRows();
    } finally {
      archives.close();
      this.#keys.close();
    }
    noteStrangers(findings, names);
    if (wanted === undefined && this.#unopened.length === 0 && records.length === countRecords(names))
      this.#noteUnreferenced(names);
    await noteTemporaryFiles(findings, store);
  }

  async #walkTrees(records: readonly SnapshotRecord[], archives: OpenArchives): Promise<void> {
    const repository = this.#repository;
    const pages = new PageCache(PAGE_BYTES);
    for (const record of records) {
      const scope = record.id.toString('hex');
      try {
        const reader = await openSnapshot({
          store: repository.store,
          repository: this.#keys,
          record,
          archives,
          pages,
        });
        this.#opened.push({ reader, lost: await this.#trees.snapshot(reader) });
      } catch (error) {
        this.#unopened.push({ record, error });
        this.#trees.refer({ ...record.tree, kind: KIND_TREE }, scope);
      }
      try {
        await repository.openBody(record);
      } catch (error) {
        const object = snapshotName(record.tag, record.sequence, record.id);
        if (!this.#findings.has(object)) this.#findings.caught(error, { object, snapshots: [scope] });
      }
    }
  }

  async #checkArchives(): Promise<void> {
    const findings = this.#findings;
    const { repository, readData = 0, snapshots } = this.#options;
    const { store } = repository;
    const remote = isRemote(store);
    const readsAll = readData >= 100;
    const check = (into: Findings) => ({ store, repository, keys: this.#keys, findings: into, readsAll });
    const all = [...this.#trees.archives.values()];
    // With chosen snapshots: only what their content lies in.
    const data = this.#merged.resolve(
      all.filter(
        ({ kind, id }) => kind === KIND_DATA && (snapshots === undefined || this.#trees.used.has(id.toString('hex'))),
      ),
    );
    const trees = all.filter(({ kind }) => kind === KIND_TREE);
    const frozen = await this.#frozen(data);
    if (readData > 0 && frozen.size > 0) {
      throw new RozenError('frozen', `${frozen.size} of ${data.length} data archives to be read lie in cold storage`, {
        hint: 'thaw them, or leave their content out',
      });
    }
    const bytes = (list: readonly ArchiveFacts[]) => list.reduce((sum, { size }) => sum + size, 0);
    // What is not read whole is skimmed in a folder.
    const passes = (remote || readsAll ? 0 : 1) + readData / 100;
    findings.phase('archives', bytes(trees) + bytes(data) * passes);
    const atOnce = remote ? OBJECTS_AT_ONCE : 1;
    await forEach(trees, atOnce, (facts) => this.#surely((into) => checkTreeArchive(check(into), facts)));
    for (const { record, error } of this.#unopened) this.#tellUnopened(record, error);
    let pool: BlockPool | null = null;
    try {
      await forEach(data, atOnce, async (facts) => {
        const archive = await this.#surely(async (into, lost) => {
          const opened = frozen.has(facts)
            ? await checkFrozenArchive(check(into), facts)
            : await checkDataArchive(check(into), facts, lost);
          if (readData > 0 && opened !== null) {
            const threads = this.#options.threads ?? (bytes(data) < INLINE_BYTES ? 0 : undefined);
            pool ??= new BlockPool(store, threads);
            const { contentIdKey } = await repository.loadSecrets();
            const hashes = await checkBlocks({ pool, findings: into, contentIdKey, sample: readData, lost }, opened);
            await settleBlocks(check(into), opened, { hashes, lost });
          }
          return opened;
        });
        // Ids are needed no more, and they are most of a chunk table.
        if (archive?.chunks) archive.chunks = { ...archive.chunks, ids: Buffer.alloc(0) };
        this.#data.set(facts.id.toString('hex'), archive);
      });
    } finally {
      await (pool as BlockPool | null)?.close();
    }
    this.#merged.spread(this.#ranges);
    findings.counts.archives = trees.length + data.length;
  }

  /**
   * Bytes of a remote store may be damaged on their way: what a check of an archive finds is told when it is found each time.
   */
  async #surely<T>(check: (into: Findings, lost: (range: LostRange) => void) => Promise<T>): Promise<T> {
    const findings = this.#findings;
    const lost = (range: LostRange): void => {
      const known = this.#ranges.get(range.archive);
      if (known === undefined) this.#ranges.set(range.archive, [range]);
      else known.push(range);
    };
    if (!isRemote(this.#repository.store)) return check(findings, lost);
    for (let trials = 0; trials < TRIALS; trials++) {
      const trial = findings.trial();
      const seen: LostRange[] = [];
      const result = await check(trial, (range) => seen.push(range));
      if (trial.all.length === 0 && seen.length === 0) {
        findings.join(trial);
        return result;
      }
      findings.drop(trial);
    }
    return check(findings, lost);
  }

  /** Those that cannot be read now. */
  async #frozen(data: readonly ArchiveFacts[]): Promise<ReadonlySet<ArchiveFacts>> {
    const { store } = this.#repository;
    const found = new Set<ArchiveFacts>();
    await inParallel(data, async (facts) => {
      const object = archiveName(KIND_DATA, facts.id);
      try {
        if (await isFrozen(store, this.#cold, object)) found.add(facts);
      } catch (error) {
        this.#findings.caught(error, { object });
      }
    });
    this.#findings.counts.frozen = found.size;
    if (found.size > 0)
      this.#findings.note(
        `${found.size} of ${data.length} data archives lie in cold storage: their indexes were checked, not their blocks`,
      );
    return found;
  }

  /** A snapshot that cannot be opened: the damage in its tree archive is known by now. */
  #tellUnopened(record: SnapshotRecord, error: unknown): void {
    const findings = this.#findings;
    const object = treeName(record.tree.id);
    const id = record.id.toString('hex');
    if (!findings.has(object)) findings.caught(error, { object });
    for (const finding of findings.all) {
      if (finding.object !== object) continue;
      finding.whole = true;
      if (!finding.snapshots.includes(id)) finding.snapshots.push(id);
    }
  }

  async #checkRows(): Promise<void> {
    const rows = new RowCheck(this.#findings, { archives: this.#data, moved: this.#merged.moved });
    for (const { reader, lost } of this.#opened) {
      if (lost.length === 0) await rows.snapshot(reader);
      if (lost.length > 0 || this.#ranges.size > 0)
        await nameConcerned(this.#findings, reader, { rows: lost, ranges: this.#ranges });
    }
  }

  #noteUnreferenced(names: readonly string[]): void {
    const referenced = new Set<string>();
    for (const { kind, id } of this.#trees.archives.values()) {
      referenced.add(archiveName(kind, id));
      if (kind === KIND_DATA) referenced.add(indexName(id));
    }
    for (const name of names) {
      const parts = parseArchiveName(name);
      if (parts !== null && !referenced.has(name) && !this.#merged.knows(parts.id))
        this.#findings.note(`${name}: no snapshot refers to it (an interrupted backup leaves such objects)`);
    }
  }
}

/** Works on several at once. The first failure ends it, after what is under way has ended. */
async function forEach<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  let failed = false;
  const worker = async (): Promise<void> => {
    for (const item of left) {
      if (failed) return;
      try {
        await work(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: atOnce }, worker));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** The record that an error is about. */
function objectIn(error: unknown): string {
  return /(?:snapshots\/[0-9a-f]{32}|forward)\/[0-9a-f-]+\.cbor/.exec(String(error))?.[0] ?? 'snapshots';
}

function countRecords(names: readonly string[]): number {
  return names.filter((name) => name.startsWith('snapshots/')).length;
}
