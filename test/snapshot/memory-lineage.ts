import { lstatSync, readlinkSync } from 'node:fs';
import { decodePage, type Page } from '../../src/archive/tree/page.ts';
import { rows } from '../../src/archive/tree/read.ts';
import { emptyRoots, INODE, NAME, TREES, type TreeRoots, XATTR } from '../../src/archive/tree/schema.ts';
import { updateTree } from '../../src/archive/tree/update.ts';
import type { EntryClass } from '../../src/snapshot/backup/backup-types.ts';
import { Comparison } from '../../src/snapshot/backup/compare.ts';
import { Mutations } from '../../src/snapshot/backup/mutations.ts';
import { FIELD, Plan, STATE } from '../../src/snapshot/backup/plan.ts';
import { selection } from '../../src/snapshot/backup/select.ts';
import { layOutSources } from '../../src/snapshot/backup/sources.ts';
import { walk } from '../../src/snapshot/backup/walk.ts';

export interface Run {
  /** Relative byte-string paths by class. */
  classes: Partial<Record<EntryClass, string[]>>;
  /** Paths of files that would be read. */
  reading: string[];
  problems: string[];
  skipped: string[];
  empty: boolean;
}

export interface RunOptions {
  exclude?: string[];
  excludeCaches?: boolean;
  oneFileSystem?: boolean;
  fromNothing?: boolean;
  /** Does to the plan what the data side would do; default: every file is stored. */
  store?: (plan: Plan, record: number, path: string) => void;
  walkedAt?: number;
  /** Happens when the entries of the top folder are known, and those below are not. */
  meanwhile?: () => void;
}

/** The metadata side alone, its pages in memory: walk, comparison, mutations and trees without any store. */
export class MemoryLineage {
  roots: TreeRoots | null = null;
  nextInode = 2;
  version = 0;
  walkedAt = 0;
  readonly #pages = new Map<string, Buffer>();
  readonly #decoded = new Map<string, Page>();
  readonly source = {
    page: (row: number, offset: number): Page => {
      const key = `${row}:${offset}`;
      let page = this.#decoded.get(key);
      if (page === undefined) {
        page = decodePage(this.#pages.get(key)!);
        this.#decoded.set(key, page);
      }
      return page;
    },
  };

  run(paths: (string | Buffer)[], options: RunOptions = {}): Run {
    const version = ++this.version;
    const plan = new Plan();
    const result: Run = { classes: {}, reading: [], problems: [], skipped: [], empty: false };
    const sources = layOutSources(paths.map((path) => Buffer.from(path as string)));
    const top = sources.top.toString('latin1');
    const walkedAt = options.walkedAt ?? Date.now() + 1000;
    const base = this.roots === null ? null : { source: this.source, roots: this.roots, walkedAt: this.walkedAt };
    const comparison = new Comparison({
      base,
      plan,
      nextInode: this.nextInode,
      version,
      fromNothing: options.fromNothing ?? false,
      events: {
        problem: (kind, path) => result.problems.push(`${kind} ${path.toString('latin1').slice(top.length)}`),
        skipped: (path, reason) => result.skipped.push(`${path.toString('latin1').slice(top.length)}: ${reason}`),
        classified: (folder, name, what) => {
          result.classes[what.class] ??= [];
          result.classes[what.class]!.push(`${folder.text}/${name}`.slice(top.length).replace(/\/$/, '') || '/');
        },
      },
    });
    const selected = selection({ patterns: options.exclude ?? [] });
    let steps = 0;
    for (const _ of walk({ ...options, sources, selection: selected, handler: comparison }))
      if (steps++ === 0) options.meanwhile?.();
    comparison.finish();
    for (const record of plan.reading) {
      const name = plan.names.arena.string(
        plan.records.get(record, FIELD.nameAt),
        plan.records.get(record, FIELD.nameLength),
      );
      const path = `${plan.folders[plan.records.get(record, FIELD.folder)]!.toString('latin1')}/${name}`.slice(
        top.length,
      );
      result.reading.push(path);
      (options.store ?? storeAll)(plan, record, path);
    }
    result.empty = plan.empty;
    for (const list of Object.values(result.classes)) list.sort();
    const old = options.fromNothing ? null : base;
    const mutations = new Mutations(plan, old);
    const roots = { ...(old?.roots ?? emptyRoots()) };
    let offset = 0;
    const sink = {
      write: (_schema: unknown, _level: number, bytes: Buffer) => {
        const pointer = { row: version, offset, length: bytes.length };
        this.#pages.set(`${version}:${offset}`, bytes);
        offset += bytes.length;
        return pointer;
      },
    };
    for (const tree of ['names', 'inodes', 'extents', 'xattrs'] as const) {
      const { root } = updateTree({
        schema: TREES[tree],
        root: roots[tree],
        source: this.source,
        mutations: mutations[tree](),
        sink,
        pageTarget: 2048,
      });
      roots[tree] = root;
    }
    this.roots = roots;
    this.nextInode = comparison.nextInode;
    this.walkedAt = walkedAt;
    return result;
  }

  /** Byte-string path of every entry to its inode number. */
  paths(): Map<string, number> {
    const found = new Map<string, number>();
    const visit = (inode: number, path: string): void => {
      for (const row of rows(
        { source: this.source, schema: TREES.names, root: this.roots!.names },
        [inode],
        [inode + 1],
      )) {
        const child = `${path}/${Buffer.from(row[NAME.name] as Uint8Array).toString('latin1')}`;
        found.set(child, row[NAME.inode] as number);
        if (row[NAME.type] === 4) visit(row[NAME.inode] as number, child);
      }
    };
    visit(1, '');
    return found;
  }

  row(inode: number): (number | Uint8Array)[] | undefined {
    return [...rows({ source: this.source, schema: TREES.inodes, root: this.roots!.inodes }, [inode], [inode + 1])][0];
  }

  xattrs(inode: number): Map<string, Buffer> {
    const all = rows({ source: this.source, schema: TREES.xattrs, root: this.roots!.xattrs }, [inode], [inode + 1]);
    return new Map(
      [...all].map((row) => [
        Buffer.from(row[XATTR.name] as Uint8Array).toString('latin1'),
        Buffer.from(row[XATTR.value] as Uint8Array),
      ]),
    );
  }

  count(tree: 'names' | 'inodes' | 'extents' | 'xattrs'): number {
    return this.roots![tree].count;
  }
}

function storeAll(plan: Plan, record: number): void {
  const { records, extents } = plan;
  records.set(record, FIELD.extents, extents.count);
  records.set(record, FIELD.extentCount, 1);
  extents.add({ offset: 0, length: records.get(record, FIELD.size), row: 1, streamOffset: 4096 * record });
  records.mark(record, STATE.put | STATE.content);
}

/** Holds an inode row against lstat, field by field; answers what differs. */
export function differences(row: (number | Uint8Array)[], path: Buffer): string[] {
  const stat = lstatSync(path, { bigint: true });
  const wrong: string[] = [];
  const same = (what: string, actual: unknown, expected: unknown): void => {
    if (actual !== expected) wrong.push(`${what}: ${String(actual)} instead of ${String(expected)}`);
  };
  const time = (sec: number, ns: number) => BigInt(row[sec] as number) * 1_000_000_000n + BigInt(row[ns] as number);
  same('mode', row[INODE.mode], Number(stat.mode));
  same('uid', row[INODE.uid], Number(stat.uid));
  same('gid', row[INODE.gid], Number(stat.gid));
  same('nlink', row[INODE.nlink], Number(stat.nlink));
  same('size', row[INODE.size], Number(stat.size));
  same('blocks', row[INODE.blocks], Number(stat.blocks));
  same('mtime', time(INODE.mtimeSec, INODE.mtimeNs), stat.mtimeNs);
  same('ctime', time(INODE.ctimeSec, INODE.ctimeNs), stat.ctimeNs);
  same('btime', time(INODE.btimeSec, INODE.btimeNs), stat.birthtimeNs);
  same('rdev', row[INODE.rdev], Number(stat.rdev));
  same('ino', row[INODE.sourceIno], Number(stat.ino));
  const target = stat.isSymbolicLink() ? readlinkSync(path, 'buffer') : Buffer.alloc(0);
  same('target', Buffer.from(row[INODE.target] as Uint8Array).toString('latin1'), target.toString('latin1'));
  return wrong;
}
