/** Every page of the trees of snapshots: sound in itself, and what its ancestors promise. */
import { KIND_DATA, KIND_TREE } from '../../archive/format.ts';
import { readOuterHeader } from '../../archive/frame.ts';
import { checkPage, type PageTask, rootTask } from '../../archive/tree/check.ts';
import type { Page } from '../../archive/tree/page.ts';
import { loadPage } from '../../archive/tree/read.ts';
import { ARCHIVE, EXTENT, type Field, TREE_NAMES, TREES, type TreeName } from '../../archive/tree/schema.ts';
import type { ArchiveFacts } from '../../cache/archives.ts';
import { type ArchiveAccess, readFrame } from '../../cache/frames.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { RozenError } from '../../errors.ts';
import { treeName } from '../../repository/names.ts';
import type { FindingDraft, Findings } from './findings.ts';
import type { Finding } from './types.ts';

/** Rows of a snapshot's tree that cannot be read: keys from (inclusive) … to (exclusive). */
export interface LostRows {
  finding: Finding;
  tree: TreeName;
  from: readonly Field[] | null;
  to: readonly Field[] | null;
}

interface Visit {
  reader: SnapshotReader;
  tree: TreeName;
  lost: LostRows[];
  ids: RowIds;
}

/** Visits each page once, however many snapshots share it; damaged ones again for each snapshot, to tell whom they concern. */
export class TreeCheck {
  /** Every archive that a snapshot refers to, by id. */
  readonly archives = new Map<string, ArchiveFacts>();
  /** Ids of the data archives that content lies in. */
  readonly used = new Set<string>();
  readonly #findings: Findings;
  readonly #clean = new Set<string>();

  constructor(findings: Findings) {
    this.#findings = findings;
  }

  /** Remembers an archive; two snapshots that say different things of one id are told. */
  refer(facts: ArchiveFacts, snapshot: string): void {
    const id = facts.id.toString('hex');
    const known = this.archives.get(id);
    if (known === undefined) {
      this.archives.set(id, facts);
      return;
    }
    const same =
      known.kind === facts.kind &&
      known.size === facts.size &&
      known.headerHash.equals(facts.headerHash) &&
      known.merkleRoot.equals(facts.merkleRoot) &&
      known.envelope.equals(facts.envelope);
    if (same) return;
    this.#findings.add({
      kind: 'inconsistent',
      object: treeName(facts.id),
      message: `two snapshots describe archive ${id} differently`,
      snapshots: [snapshot],
    });
  }

  /** All pages of a snapshot. Answers what of it cannot be read. */
  async snapshot(reader: SnapshotReader): Promise<LostRows[]> {
    const lost: LostRows[] = [];
    const ids = new RowIds(reader);
    this.refer({ ...reader.record.tree, kind: KIND_TREE }, reader.scope);
    for (const facts of reader.root.archives) this.refer({ ...facts, kind: KIND_TREE }, reader.scope);
    for (const tree of TREE_NAMES) {
      const task = rootTask(TREES[tree], reader.roots[tree]);
      if (task !== null) await this.#visit({ reader, tree, lost, ids }, task);
    }
    return lost;
  }

  async #visit(visit: Visit, task: PageTask): Promise<boolean> {
    const { reader } = visit;
    let access: ArchiveAccess;
    try {
      access = reader.archives.get(task.row) ?? (await reader.archives.open(task.row));
    } catch (error) {
      const facts = reader.root.archives.find((it) => it.row === task.row);
      const object = treeName((facts ?? reader.record.tree).id);
      const damaged = error instanceof RozenError && error.code === 'corrupt';
      this.#lose(visit, task, error, { object, offset: damaged ? 0 : null });
      return false;
    }
    const key = `${access.handle}:${task.offset}:${task.length}:${task.level}:${task.count}:${text(task.from)}:${text(task.to)}`;
    if (this.#clean.has(key)) return true;
    let page: Page;
    let below: PageTask[];
    try {
      page = await retrying(reader, () => loadPage(reader.source, task, task));
      below = checkPage(task, page);
    } catch (error) {
      const { offset, length } = task;
      this.#lose(visit, task, error, { object: access.object, offset, length, frame: pageFrame(access, task) });
      return false;
    }
    this.#findings.counts.pages++;
    this.#findings.advance(task.length);
    let clean = true;
    for (const child of below) clean = (await this.#visit(visit, child)) && clean;
    if (task.level === 0) clean = await this.#leaf(visit, page);
    if (clean) this.#clean.add(key);
    return clean;
  }

  #lose(visit: Visit, task: PageTask, error: unknown, place: Omit<FindingDraft, 'kind' | 'message'>): void {
    const finding = this.#findings.caught(error, { ...place, snapshots: [visit.reader.scope] });
    visit.lost.push({ finding, tree: visit.tree, from: task.from, to: task.to });
  }

  /** What the leaves of `archives` and `extents` refer to. */
  async #leaf({ reader, tree, ids }: Visit, page: Page): Promise<boolean> {
    if (tree === 'archives') {
      for (let i = 0; i < page.count; i++) {
        const kind = page.num(ARCHIVE.kind, i);
        const id = page.slice(ARCHIVE.id, i);
        if ((kind !== KIND_DATA && kind !== KIND_TREE) || id.length !== 16) {
          const message = `row ${page.num(ARCHIVE.row, i)} of the archives tree is of kind ${kind}`;
          const object = treeName(reader.record.tree.id);
          this.#findings.add({ kind: 'inconsistent', object, message, snapshots: [reader.scope] });
          return false;
        }
        this.refer(
          {
            kind,
            id: Buffer.from(id),
            size: page.num(ARCHIVE.size, i),
            headerHash: Buffer.from(page.slice(ARCHIVE.headerHash, i)),
            merkleRoot: Buffer.from(page.slice(ARCHIVE.merkleRoot, i)),
            envelope: Buffer.from(page.slice(ARCHIVE.envelope, i)),
          },
          reader.scope,
        );
      }
    }
    if (tree === 'extents') {
      const rows = new Set<number>();
      for (let i = 0; i < page.count; i++) rows.add(page.num(EXTENT.row, i));
      for (const row of rows) {
        const id = row === 0 ? null : await ids.get(row);
        if (id !== null) this.used.add(id);
      }
    }
    return true;
  }
}

/** Which archive a row of a snapshot is. */
export class RowIds {
  readonly #reader: SnapshotReader;
  readonly #ids = new Map<number, string | null>();

  constructor(reader: SnapshotReader) {
    this.#reader = reader;
  }

  /** Null when the snapshot names none, or cannot tell for damage. */
  async get(row: number): Promise<string | null> {
    let id = this.#ids.get(row);
    if (id !== undefined) return id;
    try {
      id = (await this.#reader.archives.facts(row)).id.toString('hex');
    } catch (error) {
      if (!(error instanceof RozenError) || error.code === 'no-key') throw error;
      id = null;
    }
    this.#ids.set(row, id);
    return id;
  }
}

/** The leaves of a tree that can be read, in key order; the others were told by `TreeCheck`. */
export async function* soundLeaves(reader: SnapshotReader, tree: TreeName): AsyncGenerator<Page, void, undefined> {
  const root = rootTask(TREES[tree], reader.roots[tree]);
  const stack: PageTask[] = root === null ? [] : [root];
  for (let task = stack.pop(); task !== undefined; task = stack.pop()) {
    let page: Page;
    const at = task;
    try {
      page = await retrying(reader, () => loadPage(reader.source, at, at));
      stack.push(...checkPage(task, page).reverse());
    } catch (error) {
      if (!(error instanceof RozenError) || error.code === 'no-key' || error.code === 'internal') throw error;
      continue;
    }
    if (page.level === 0) yield page;
  }
}

function text(key: readonly Field[] | null): string {
  if (key === null) return '';
  return key.map((part) => (typeof part === 'number' ? part : Buffer.from(part).toString('hex'))).join(',');
}

/** The frame that should be a page, if its header can still be read. */
function pageFrame(access: ArchiveAccess, task: PageTask): { type: string; sequence: number } | null {
  try {
    const header = readOuterHeader(readFrame(access, task.offset, task.length));
    return typeof header === 'string' ? null : { type: header.type, sequence: header.sequence };
  } catch {
    return null;
  }
}
