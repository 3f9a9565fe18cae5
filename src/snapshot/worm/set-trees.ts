/** The trees of a set's newest snapshot: from this machine's own state, which takes no key, else from the store. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from '../../archive/tree/page.ts';
import { Cursor } from '../../archive/tree/read.ts';
import { INODE, NAME, TREES, type TreeName } from '../../archive/tree/schema.ts';
import { RozenError } from '../../errors.ts';
import type { Repository, SnapshotBody, SnapshotRecord } from '../../repository/repository.ts';
import { localPages } from '../backup/local-pages.ts';
import { LocalState, StateDamaged } from '../backup/local-state.ts';
import { layOutSources } from '../backup/sources.ts';
import type { ContentTrees } from '../view/content.ts';
import { findSnapshot } from '../view/listing.ts';
import { SnapshotOpener } from '../view/place.ts';
import { localTrees } from './archived.ts';
import { oldestProof, Proofs } from './proofs.ts';
import { setInfo } from './set-info.ts';

export interface SetTrees {
  trees: ContentTrees;
  record: SnapshotRecord;
  body: SnapshotBody;
  /** Null when they are not this machine's own. */
  proofs: Proofs | null;
  close(): Promise<void>;
}

/** True when this machine has backed up into the repository: then its state may tell without a key. */
export function isEnrolled(stateDir: string): boolean {
  return existsSync(join(stateDir, 'writer.cbor'));
}

/** Throws 'not-found' without such a set, 'no-key' when only the store can tell. */
export async function openSetTrees(repository: Repository, set: string): Promise<SetTrees> {
  return (await ownTrees(repository, set)) ?? (await storedTrees(repository, set));
}

async function ownTrees(repository: Repository, set: string): Promise<SetTrees | null> {
  if (repository.writer === null) return null;
  const path = join(repository.stateDir, 'sets', repository.lineageTag(set), 'state');
  if (!existsSync(path)) return null;
  const local = LocalState.open(path);
  try {
    const state = local.read();
    const { base } = await repository.nextSlot(set, state?.generation ?? 0);
    if (state !== null && base?.id.equals(state.snapshotId)) {
      const trees = localTrees({ source: localPages(local), roots: state.roots });
      return { trees, record: base, body: setInfo(trees), proofs: new Proofs(local), close: () => local.close() };
    }
  } catch (error) {
    if (!(error instanceof StateDamaged)) {
      await local.close();
      throw error;
    }
  }
  await local.close();
  return null;
}

/** Epoch seconds; null when another machine backs the set up, or it holds no files. */
export async function ownOldestProof(repository: Repository, set: string): Promise<number | null> {
  const own = await ownTrees(repository, set);
  if (own === null) return null;
  try {
    return oldestProof(own.trees, own.proofs);
  } finally {
    await own.close();
  }
}

async function storedTrees(repository: Repository, set: string): Promise<SetTrees> {
  const { record } = await findSnapshot(repository, {
    kind: 'latest',
    prefix: '',
    set,
    moment: null,
    path: null,
    text: `${set}@latest`,
  });
  const opener = new SnapshotOpener(repository);
  const reader = await opener.open({ record });
  return {
    trees: reader,
    record,
    body: await repository.openBody(record),
    proofs: null,
    close: async () => opener.close(),
  };
}

/** Refuses what holds for WORM sets only. */
export function checkWorm(set: string, { mode }: Pick<SnapshotBody, 'mode'>): void {
  if (mode === 'worm') return;
  throw new RozenError('usage', `set '${set}' is no WORM set`, { hint: 'see rozen snapshots --set, or rozen diff' });
}

/** Rows of a tree in key order. */
export async function eachRow(
  trees: ContentTrees,
  name: TreeName,
  visit: (page: Page, index: number) => void,
): Promise<void> {
  const cursor = new Cursor(trees.source, TREES[name], trees.roots[name]);
  const { retry } = boundRetry(trees);
  let on = await retry(() => cursor.seek(0));
  while (on) {
    const page = cursor.page!;
    visit(page, cursor.index);
    // Within a page nothing can be missing, and a promise for each row would be most of the work.
    on = cursor.index + 1 < page.count ? cursor.next() : await retry(() => cursor.next());
  }
}

function boundRetry({ archives }: ContentTrees): { retry: ContentTrees['archives']['retry'] } {
  return { retry: (work) => archives.retry(work) };
}

/** Paths of inodes by their folders' numbers. */
export class InodePaths {
  readonly #trees: ContentTrees;
  readonly #inodes: Cursor;
  readonly #names: Cursor;
  readonly #folders = new Map<number, Map<number, Buffer>>();

  constructor(trees: ContentTrees) {
    this.#trees = trees;
    this.#inodes = new Cursor(trees.source, TREES.inodes, trees.roots.inodes);
    this.#names = new Cursor(trees.source, TREES.names, trees.roots.names);
  }

  /** Names from the root; null for what no name leads to any more. */
  async find(inode: number): Promise<Buffer[] | null> {
    const path: Buffer[] = [];
    for (let at = inode; at !== 1; ) {
      const parent = await this.#parent(at);
      const name = parent === null ? undefined : (await this.#namesIn(parent)).get(at);
      if (parent === null || name === undefined || path.length > 4096) return null;
      path.unshift(name);
      at = parent;
    }
    return path;
  }

  #parent(inode: number): Promise<number | null> {
    return this.#trees.archives.retry(() =>
      this.#inodes.find(inode) ? this.#inodes.page!.num(INODE.parent, this.#inodes.index) : null,
    );
  }

  async #namesIn(folder: number): Promise<Map<number, Buffer>> {
    let names = this.#folders.get(folder);
    if (names !== undefined) return names;
    names = await this.#trees.archives.retry(() => {
      const found = new Map<number, Buffer>();
      const cursor = this.#names;
      for (let on = cursor.seek(folder); on; on = cursor.next()) {
        const page = cursor.page!;
        if (page.num(NAME.parent, cursor.index) !== folder) break;
        found.set(page.num(NAME.inode, cursor.index), Buffer.from(page.slice(NAME.name, cursor.index)));
      }
      return found;
    });
    if (this.#folders.size >= 1000) this.#folders.clear();
    this.#folders.set(folder, names);
    return names;
  }
}

/** All names that lead to these inodes, each from the root. Reads the whole tree of names. */
export async function allNames(trees: ContentTrees, inodes: ReadonlySet<number>): Promise<Map<number, Buffer[][]>> {
  const rows: { inode: number; parent: number; name: Buffer }[] = [];
  await eachRow(trees, 'names', (page, i) => {
    const inode = page.num(NAME.inode, i);
    if (inodes.has(inode))
      rows.push({ inode, parent: page.num(NAME.parent, i), name: Buffer.from(page.slice(NAME.name, i)) });
  });
  const paths = new InodePaths(trees);
  const found = new Map<number, Buffer[][]>();
  for (const { inode, parent, name } of rows) {
    const folder = await paths.find(parent);
    if (folder === null) continue;
    const names = found.get(inode) ?? [];
    names.push([...folder, name]);
    found.set(inode, names);
  }
  return found;
}

/** Where on this machine the root folder of the set lies. */
export function topOf({ paths }: Pick<SnapshotBody, 'paths'>): Buffer {
  return layOutSources(paths).top;
}

/** A path in the set, as it is called on this machine. */
export function localPath(top: Buffer, names: readonly Buffer[]): Buffer {
  const parts: Buffer[] = top.length === 1 ? [Buffer.alloc(0)] : [top];
  for (const name of names) parts.push(Buffer.from('/'), name);
  return Buffer.concat(parts);
}
