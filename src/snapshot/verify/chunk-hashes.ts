/** Chunks of a stream held against their content ids, block by block. */
import { Blake3Stream, keyedBlake3 } from '../../archive/crypto/blake3.ts';
import { HASH_SIZE } from '../../archive/format.ts';

/** Columns of chunks, ascending by their offsets; ids lie 32 bytes apart. */
export interface ChunkPlaces {
  offsets: Float64Array;
  lengths: Uint32Array;
  ids: Uint8Array;
}

export class ChunkHashes {
  readonly #chunks: ChunkPlaces;
  readonly #key: Uint8Array;
  readonly #tell: (chunk: number, sound: boolean) => void;
  #next = 0;
  /** Of a chunk that reaches beyond the blocks seen so far. */
  #hasher: Blake3Stream | null = null;
  #broken = false;

  /** `tell` gets each chunk all of whose bytes were there: its number, and whether they are what its id says. */
  constructor(contentIdKey: Uint8Array, chunks: ChunkPlaces, tell: (chunk: number, sound: boolean) => void) {
    this.#key = contentIdKey;
    this.#chunks = chunks;
    this.#tell = tell;
  }

  /** Whether all chunks have ended. */
  get done(): boolean {
    return this.#next >= this.#chunks.offsets.length;
  }

  /** The next block, from `start` to `end` of the stream; null: it is lost, and so are the chunks that lie in it. */
  push(bytes: Buffer | null, start: number, end: number): void {
    const { offsets, lengths, ids } = this.#chunks;
    while (!this.done && offsets[this.#next]! < end) {
      const chunk = this.#next;
      const chunkEnd = offsets[chunk]! + lengths[chunk]!;
      if (bytes === null) this.#broken = true;
      const piece = bytes?.subarray(Math.max(offsets[chunk]!, start) - start, Math.min(chunkEnd, end) - start);
      if (chunkEnd > end) {
        this.#hasher ??= Blake3Stream.keyed(this.#key);
        if (piece !== undefined) this.#hasher.update(piece);
        return;
      }
      if (!this.#broken && piece !== undefined) {
        let id: Buffer;
        if (this.#hasher === null) id = keyedBlake3(this.#key, piece);
        else {
          this.#hasher.update(piece);
          id = this.#hasher.digest();
        }
        this.#tell(chunk, id.compare(ids, chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE) === 0);
      }
      this.#hasher = null;
      this.#broken = false;
      this.#next++;
    }
  }
}
