/**
 * ROOT, the frame that opens a snapshot: where its eight trees begin, and the keys and hashes of every other tree archive
 * that their pages lie in. CBOR; docs/FORMAT-TREES.md.
 */
import { corrupt } from '../../errors.ts';
import { asMap, decodeCbor, encodeCbor, field } from '../cbor.ts';
import { ARCHIVE_ID_SIZE, HASH_SIZE, MAX_ARCHIVE_SIZE, MAX_ENVELOPE, MAX_INDEX_BODY } from '../format.ts';
import { maxFrameLength } from '../frame.ts';
import { MAX_LEVEL } from './page.ts';
import { EMPTY_ROOT, emptyRoots, MAX_ROW, TREE_NAMES, type TreeRoot, type TreeRoots } from './schema.ts';

const ROOT_VERSION = 1;
/** Tree archives that a ROOT may name. */
const MAX_NAMED = 4096;

/** What it takes to open a tree archive and to know that it is the right one. */
export interface TreeArchiveFacts {
  /** Its row in this lineage. */
  row: number;
  id: Buffer;
  /** Bytes. */
  size: number;
  /** BLAKE3 of its AHDR frame. */
  headerHash: Buffer;
  merkleRoot: Buffer;
  /** Its key, as an age file. */
  envelope: Buffer;
}

export interface SnapshotRoot {
  /** The row of the archive that holds this ROOT. */
  row: number;
  roots: TreeRoots;
  /** Every other tree archive that a page of these trees lies in, by row. */
  archives: TreeArchiveFacts[];
}

export function encodeRoot({ row, roots, archives }: SnapshotRoot): Buffer {
  return encodeCbor({
    version: ROOT_VERSION,
    row,
    trees: TREE_NAMES.map((name) => {
      const { row, offset, length, level, count } = roots[name];
      return { row, offset, length, level, count };
    }),
    archives: archives.map(({ row, id, size, headerHash, merkleRoot, envelope }) => {
      return { row, id, size, headerHash, merkleRoot, envelope };
    }),
  });
}

/** Throws 'corrupt' for anything that a writer of this version would not have written. */
export function decodeRoot(bytes: Uint8Array, what = 'ROOT'): SnapshotRoot {
  const map = asMap(decodeCbor(bytes, { what, maxBytes: MAX_INDEX_BODY, maxDepth: 4 }), what);
  const version = field.uint(map, 'version');
  if (version !== ROOT_VERSION) throw corrupt(`${what}: version ${version}`);
  const row = field.uint(map, 'row', MAX_ROW, 1);
  const trees = field.list(map, 'trees', TREE_NAMES.length);
  if (trees.length !== TREE_NAMES.length) throw corrupt(`${what}: ${trees.length} trees`);
  const roots = emptyRoots();
  for (const [i, name] of TREE_NAMES.entries()) roots[name] = decodeTree(trees[i], `${what}: tree ${name}`);
  const archives = field.list(map, 'archives', MAX_NAMED).map((item) => {
    const archive = asMap(item, `${what}: archive`);
    return {
      row: field.uint(archive, 'row', MAX_ROW, 1),
      id: field.bytes(archive, 'id', ARCHIVE_ID_SIZE),
      size: field.uint(archive, 'size', MAX_ARCHIVE_SIZE),
      headerHash: field.bytes(archive, 'headerHash', HASH_SIZE),
      merkleRoot: field.bytes(archive, 'merkleRoot', HASH_SIZE),
      envelope: field.bytes(archive, 'envelope', undefined, MAX_ENVELOPE),
    };
  });
  let previous = 0;
  for (const archive of archives) {
    if (archive.row <= previous || archive.row === row) throw corrupt(`${what}: row ${archive.row} out of place`);
    previous = archive.row;
  }
  return { row, roots, archives };
}

function decodeTree(item: unknown, what: string): TreeRoot {
  const map = asMap(item, what);
  const root: TreeRoot = {
    row: field.uint(map, 'row', MAX_ROW),
    offset: field.uint(map, 'offset', MAX_ARCHIVE_SIZE),
    length: field.uint(map, 'length', maxFrameLength('PAGE')),
    level: field.uint(map, 'level', MAX_LEVEL),
    count: field.uint(map, 'count'),
  };
  const empty = root.row === 0 ? Object.values(root).every((value) => value === 0) : root.length > 0 && root.count > 0;
  if (!empty) throw corrupt(`${what}: neither empty nor a page`);
  return root.row === 0 ? { ...EMPTY_ROOT } : root;
}
