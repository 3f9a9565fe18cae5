/** Fetching what a snapshot needs to be browsed, or also the content of files, before anybody asks for it. */
import { Cursor } from '../../archive/tree/read.ts';
import { TREES } from '../../archive/tree/schema.ts';
import { blocksOf } from '../../cache/blocks.ts';
import type { Fetcher } from '../../cache/fetcher.ts';
import type { ArchiveAccess } from '../../cache/frames.ts';
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { Attributes } from './attributes.ts';
import { forEachContent } from './file-contents.ts';

/** What names, attributes and places of content are read from. */
const BROWSED = ['names', 'inodes', 'extents', 'xattrs'] as const;
/** Blocks asked for together: some GETs of 8 MiB on their way at once. */
const TOGETHER = 192;

/** Every page of the trees that are browsed, and every archive that content lies in opened. Answers the number of pages. */
export async function warmPages(reader: SnapshotReader, progress: (pages: number) => void): Promise<number> {
  let pages = 0;
  for (const tree of BROWSED) {
    const cursor = new Cursor(reader.source, TREES[tree], reader.roots[tree]);
    for (let on = await retrying(reader, () => cursor.seek(Number.NEGATIVE_INFINITY)); on; ) {
      progress(++pages);
      cursor.index = cursor.page!.count - 1;
      on = await retrying(reader, () => cursor.next());
    }
  }
  return pages;
}

/** The content of a file, or of all files below a folder. Answers the number of blocks. */
export async function warmContent(
  { reader, fetcher }: { reader: SnapshotReader; fetcher: Fetcher },
  place: { inode: number; attributes: Attributes },
  progress: (blocks: number) => void,
): Promise<number> {
  // By object, which several rows may lead to.
  const wanted = new Map<string, { archive: ArchiveAccess; blocks: Set<number> }>();
  await forEachContent(reader, place, async (extents) => {
    for (const { row, streamOffset, length } of extents) {
      if (row === 0 || length === 0) continue;
      const archive = await reader.archives.open(row);
      const known = wanted.get(archive.object) ?? { archive, blocks: new Set() };
      wanted.set(archive.object, known);
      for (const block of blocksOf(archive, streamOffset, length)) known.blocks.add(block);
    }
  });
  let done = 0;
  for (const { archive, blocks } of [...wanted.values()].sort((a, b) => a.archive.row - b.archive.row)) {
    const sorted = [...blocks].sort((a, b) => a - b);
    for (let at = 0; at < sorted.length; at += TOGETHER) {
      const some = sorted.slice(at, at + TOGETHER);
      await Promise.all(some.map((block) => fetchBlock(fetcher, archive, block)));
      done += some.length;
      progress(done);
    }
  }
  return done;
}

/** A block beyond the archive is damage that reading it tells of. */
function fetchBlock(fetcher: Fetcher, archive: ArchiveAccess, block: number): Promise<void> {
  const offset = archive.blockOffsets?.[block];
  return offset === undefined ? Promise.resolve() : fetcher.fetch(archive, offset, archive.blockLengths![block]!);
}
