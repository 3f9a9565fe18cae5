/** Other machines that back up into the same WORM set: each has a lineage of its own, and names may clash. */
import { Cursor } from '../../archive/tree/read.ts';
import { INODE, NAME, TREES, VERSION } from '../../archive/tree/schema.ts';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { Repository } from '../../repository/repository.ts';
import { canRead, wormHeads } from '../backup/lineage.ts';
import { splitPath } from '../view/naming.ts';
import { SnapshotOpener } from '../view/place.ts';

export interface NewFile {
  /** On this machine. */
  path: Buffer;
  /** From the root of the set. */
  inside: Buffer;
  contentId: Buffer;
}

export interface NameConflict {
  path: Buffer;
  /** The machine whose file of this name has another content. */
  host: string;
  snapshotId: string;
}

const MAX_LISTED = 10_000;

/** New files whose path another machine has in the set too, with another content. Needs an identity. */
export async function nameConflicts(options: {
  repository: Repository;
  set: string;
  /** Tag of this machine's own lineage. */
  own: string;
  files: () => Iterable<NewFile>;
}): Promise<NameConflict[]> {
  const { repository, set, own, files } = options;
  const others = (await repository.heads(() => {})).filter((head) => head.worm === true && head.tag !== own);
  const conflicts: NameConflict[] = [];
  if (others.length === 0) return conflicts;
  const opener = new SnapshotOpener(repository);
  try {
    for (const record of others) {
      const body = await repository.openBody(record);
      if (body.set !== set) continue;
      const there = new FilesThere(await opener.open({ record }));
      for (const { path, inside, contentId } of files()) {
        if (conflicts.length >= MAX_LISTED) break;
        const other = await there.contentId(splitPath(inside));
        if (other === null || other.equals(contentId)) continue;
        conflicts.push({ path, host: body.host, snapshotId: record.id.toString('hex') });
      }
    }
  } finally {
    opener.close();
  }
  return conflicts;
}

/**
 * Machines that feed the set too, by name: all that one which can only write knows of them. Which names their files have is
 * sealed for those who can read.
 */
export async function otherMachines(options: { repository: Repository; set: string; own: string }): Promise<string[]> {
  const { repository, set, own } = options;
  await repository.loadSecrets();
  const names = new Set<string>();
  for (const head of await wormHeads(repository, set)) {
    if (head.tag === own) continue;
    if (repository.writer?.id.equals(head.writerId) === true) continue;
    names.add(repository.writerName(head.writerId) ?? head.writerId.toString('hex').slice(0, 8));
  }
  return [...names].sort();
}

/**
 * The name of a machine that has frozen the set; null when none has, or nobody here can read their policies. Frozen means that
 * nothing new is taken, and to a machine that has no snapshot of it everything would be new.
 */
export async function frozenBy({ repository, set }: { repository: Repository; set: string }): Promise<string | null> {
  if (!(await canRead(repository))) return null;
  for (const head of await wormHeads(repository, set)) {
    const { host, policy } = await repository.openBody(head);
    if (policy?.acceptNew === false) return host;
  }
  return null;
}

class FilesThere {
  readonly #reader: SnapshotReader;
  readonly #names: Cursor;
  readonly #inodes: Cursor;
  readonly #versions: Cursor;

  constructor(reader: SnapshotReader) {
    this.#reader = reader;
    this.#names = new Cursor(reader.source, TREES.names, reader.roots.names);
    this.#inodes = new Cursor(reader.source, TREES.inodes, reader.roots.inodes);
    this.#versions = new Cursor(reader.source, TREES.versions, reader.roots.versions);
  }

  /** Null when there is no such file. */
  contentId(names: readonly Buffer[]): Promise<Buffer | null> {
    return this.#reader.archives.retry(() => {
      let inode = 1;
      for (const name of names) {
        if (!this.#names.find(inode, name)) return null;
        inode = this.#names.page!.num(NAME.inode, this.#names.index);
      }
      if (!this.#inodes.find(inode)) return null;
      const version = this.#inodes.page!.num(INODE.version, this.#inodes.index);
      if (!this.#versions.find(inode, version)) return null;
      return this.#versions.page!.slice(VERSION.contentId, this.#versions.index);
    });
  }
}
