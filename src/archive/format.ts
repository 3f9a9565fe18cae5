/**
 * Every number of the archive format (version 1), in the order of docs/FORMAT.md.
 * All integers are little-endian; all lengths are bytes unless a name says otherwise.
 */

export const FORMAT_VERSION = 1;

/* ---- Frames ---------------------------------------------------------------------------------------------- */

/** Frame types. A lower-case first letter marks an ancillary frame: skip it if unknown. */
export const FRAME_TYPES = ['AHDR', 'DATA', 'PAGE', 'CIDX', 'ROOT', 'BIDX', 'AEND'] as const;
export type FrameType = (typeof FRAME_TYPES)[number];

/**
 * Outer header, fixed part:
 *
 *   offset  size  field
 *        0     4  type, ASCII
 *        4    16  archive id
 *       20     4  sequence: 0 for AHDR, then one more for each frame
 *       24     4  body length (sealed: plaintext of the inner header and payload, plus the 16-byte tag)
 *       28     4  length of the CBOR header that follows the fixed part
 *       32    24  nonce (zero when the body is not sealed)
 *       56     …  CBOR header
 *        …    32  header hash: BLAKE3 of everything before it
 *        …     …  body
 *        …    32  block hash: BLAKE3 of everything before it in this frame
 */
export const OUTER_HEADER_SIZE = 56;
export const OUTER_OFFSETS = {
  type: 0,
  archiveId: 4,
  sequence: 20,
  bodyLength: 24,
  cborLength: 28,
  nonce: 32,
} as const;

export const ARCHIVE_ID_SIZE = 16;
export const NONCE_SIZE = 24;
export const HASH_SIZE = 32;
export const TAG_SIZE = 16;
export const KEY_SIZE = 32;
export const SIGNATURE_SIZE = 64;

/**
 * Inner header, sealed in front of the payload of DATA, PAGE, CIDX, ROOT and BIDX:
 *
 *   offset  size  field
 *        0     1  codec
 *        1     3  reserved, zero
 *        4     4  plaintext length
 *        8     4  DATA: offset in this block of the first record that begins in it, NO_RECORD if none; else 0
 *       12    32  BLAKE3 of the plaintext
 */
export const INNER_HEADER_SIZE = 44;
export const INNER_OFFSETS = { codec: 0, plainLength: 4, firstRecord: 8, plainHash: 12 } as const;
export const NO_RECORD = 0xffff_ffff;

export const CODEC_NONE = 0;
export const CODEC_LZ4 = 1;
export const CODEC_ZSTD = 2;

/** A frame without its body and CBOR header: outer header, header hash, block hash. */
export const FRAME_OVERHEAD = OUTER_HEADER_SIZE + HASH_SIZE + HASH_SIZE;

/* ---- Limits (checked before any allocation) -------------------------------------------------------------- */

/** Plaintext of every DATA block but the last of an archive. */
export const BLOCK_SIZE = 256 * 1024;
/** No sealed body is larger; also the limit of a plaintext that a codec may claim, but for the index frames. */
export const MAX_BODY = 1024 * 1024;
/** Index frames (CIDX, BIDX, ROOT) of the largest archive. */
export const MAX_INDEX_BODY = 64 * 1024 * 1024;
export const MAX_CBOR_HEADER = 128 * 1024;
export const MAX_ARCHIVE_SIZE = 8 * 1024 ** 3 + 256 * 1024 ** 2;
/** The stream of a data archive ends here at the latest. */
export const MAX_STREAM = 8 * 1024 ** 3;
/** Files of this size or more begin at a block boundary of the stream. */
export const ALIGN_FROM = 4 * 1024 * 1024;
/** A block of such a file is compressed in parts of so much plaintext: a reader of a few bytes decodes no more than one or two. */
export const PART_SIZE = 64 * 1024;
/** Chunks of one data archive: their table (44 bytes each) stays within MAX_INDEX_BODY. */
export const MAX_CHUNKS = 1_500_000;
/** No chunk is longer, whatever chunker made it. */
export const MAX_CHUNK = 16 * 1024 * 1024;

/* ---- Trailer --------------------------------------------------------------------------------------------- */

/** One suffix read of this many bytes opens an archive. */
export const SUFFIX_READ = 256 * 1024;

/**
 * Body of AEND (not sealed, so that anyone can scrub), fixed:
 *
 *   offset  size  field
 *        0     8  file offset of CIDX (0: none)
 *        8     8  file offset of ROOT (0: none)
 *       16     8  file offset of BIDX
 *       24     4  frame length of CIDX
 *       28     4  frame length of ROOT
 *       32     4  frame length of BIDX
 *       36     4  frames before AEND
 *       40    32  Merkle root over the block hashes of those frames
 *       72    16  writer id
 *       88    32  block hash of CIDX (zeros: none), so that a hot index can be checked without the blocks
 *      120    64  Ed25519 signature by the writer over (DOMAIN_ARCHIVE, 0x00, repository id, BLAKE3(AHDR), this body before the signature)
 */
export const AEND_BODY_SIZE = 184;
export const AEND_OFFSETS = {
  cidxOffset: 0,
  rootOffset: 8,
  bidxOffset: 16,
  cidxLength: 24,
  rootLength: 28,
  bidxLength: 32,
  frames: 36,
  merkleRoot: 40,
  writerId: 72,
  cidxHash: 88,
  signature: 120,
} as const;
/** The last bytes of every sealed archive. */
export const AEND_FRAME_SIZE = FRAME_OVERHEAD + AEND_BODY_SIZE;

/** Domain bytes of the Merkle tree (RFC 6962 §2.1). */
export const MERKLE_LEAF = 0x00;
export const MERKLE_NODE = 0x01;

/** Domain string of the writer's signature in AEND. */
export const DOMAIN_ARCHIVE = 'rozen 1 archive trailer';

/* ---- Archive header -------------------------------------------------------------------------------------- */

export const KIND_DATA = 1;
export const KIND_TREE = 2;
export type ArchiveKind = typeof KIND_DATA | typeof KIND_TREE;

/** Incompatible flags that this version understands (none yet). */
export const KNOWN_INCOMPATIBLE = 0;
/** Names of the incompatible flag bits from 0: reserved, so that this version can say what it lacks. */
export const INCOMPATIBLE_FEATURES = [
  'zstd dictionaries',
  'inline extents',
  'delta extents',
  'parity frames',
  'a second whole-archive copy',
] as const;
/** Compatible flag: the archive holds heads of media files, and is kept where it can be read at once. */
export const COMPATIBLE_HEADS = 1;
/** An age file around a key: about 200 bytes for each X25519 recipient, 1.8 KB for each post-quantum one. */
export const MAX_ENVELOPE = 60 * 1024;

/* ---- Key derivation contexts (BLAKE3 derive_key) --------------------------------------------------------- */

export const CONTEXT = {
  commitment: 'rozen 1 2026 archive key commitment',
  blockKey: 'rozen 1 2026 archive block key',
  recordKey: 'rozen 1 2026 snapshot record key',
  chunkIndexKey: 'rozen 1 2026 chunk index key',
  contentIdKey: 'rozen 1 2026 content id key',
  chunkerKey: 'rozen 1 2026 chunker key',
  setTagKey: 'rozen 1 2026 set tag key',
} as const;

/* ---- Records in the stream of a data archive ------------------------------------------------------------- */

/** type 4, body length 4, content length 4. */
export const RECORD_HEADER_SIZE = 12;
export const LINK_ID_SIZE = 16;
export const MAX_RECORD_BODY = 16 * 1024 * 1024;
/** Content of one FCNT, or zeros of one PAD_. */
export const MAX_RECORD_CONTENT = 64 * 1024 * 1024;

/* ---- Content-defined chunking ---------------------------------------------------------------------------- */

export const CHUNK_MIN = 128 * 1024;
export const CHUNK_AVG = 512 * 1024;
export const CHUNK_MAX = 2 * 1024 * 1024;
/** The first chunk of a media file ends here. */
export const MEDIA_HEAD = 128 * 1024;

/* ---- Trees ----------------------------------------------------------------------------------------------- */

/** A leaf page is closed near this many bytes of columns, before compression. */
export const PAGE_TARGET = 64 * 1024;
/** A decoded page is never larger (one row may hold an xattr value of 64 KiB). */
export const MAX_PAGE = 512 * 1024;
/** A snapshot whose walk would touch more tree archives is written afresh. */
export const MAX_TREE_ARCHIVES = 64;
export const ROOT_INODE = 1;
/** Inode numbers are below this: 40 bits, so that slot and inode share a 64-bit node id. */
export const MAX_INODE = 2 ** 40;
