/** Where the content of a file lies, or of all files below a folder. */
import { retrying, type SnapshotReader } from '../../cache/snapshot-reader.ts';
import { type Attributes, InodeLookup, S_IFMT, S_IFREG } from './attributes.ts';
import { type Extent, fileExtents } from './content.ts';
import { EntryWalk, forEachStep } from './entry-walk.ts';

/** Visits the extents of each regular file, by the trees of `content`; one with several names as often as it has names. */
export async function forEachContent(
  reader: SnapshotReader,
  place: { inode: number; attributes: Attributes; content?: SnapshotReader },
  visit: (extents: readonly Extent[]) => void | Promise<void>,
): Promise<void> {
  const { content = reader } = place;
  const isFile = ({ mode }: Attributes): boolean => (mode & S_IFMT) === S_IFREG;
  if (isFile(place.attributes)) {
    await visit(await fileExtents(content, place.attributes));
    return;
  }
  const inodes = new InodeLookup(reader);
  const walk = new EntryWalk(reader, place.inode, { recursive: true });
  await forEachStep(
    reader,
    () => walk.next(),
    async ({ inode }) => {
      const attributes = await retrying(reader, () => inodes.get(inode));
      if (isFile(attributes)) await visit(await fileExtents(content, attributes));
    },
  );
}
