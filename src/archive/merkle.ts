/**
 * The Merkle tree of RFC 6962 §2.1 with BLAKE3 instead of SHA-256. Its entries are the block hashes of all frames before
 * AEND, in order: leaf = H(0x00 ‖ entry), node = H(0x01 ‖ left ‖ right), the left subtree the largest power of two.
 */
import { blake3 } from './crypto/blake3.ts';
import { HASH_SIZE, MERKLE_LEAF, MERKLE_NODE } from './format.ts';

const leafInput = Buffer.alloc(1 + HASH_SIZE, MERKLE_LEAF);
const nodeInput = Buffer.alloc(1 + 2 * HASH_SIZE, MERKLE_NODE);

function leaf(entry: Uint8Array): Buffer {
  leafInput.set(entry, 1);
  return blake3(leafInput);
}

function node(left: Uint8Array, right: Uint8Array): Buffer {
  nodeInput.set(left, 1);
  nodeInput.set(right, 1 + HASH_SIZE);
  return blake3(nodeInput);
}

/** The root over entries that come one after another; holds one hash for each set bit of their count. */
export class MerkleTree {
  /** Roots of complete subtrees, the largest first; their sizes are the set bits of `count`. */
  readonly #complete: Buffer[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds the next entry: 32 bytes. */
  add(entry: Uint8Array): void {
    let hash = leaf(entry);
    for (let size = this.#count; (size & 1) === 1; size >>>= 1) hash = node(this.#complete.pop()!, hash);
    this.#complete.push(hash);
    this.#count++;
  }

  /** The root of what was added so far; more may be added after. The root of nothing is the hash of no bytes. */
  root(): Buffer {
    let root = this.#complete.at(-1);
    if (root === undefined) return blake3(new Uint8Array(0));
    for (let i = this.#complete.length - 2; i >= 0; i--) root = node(this.#complete[i]!, root);
    return Buffer.from(root);
  }
}

export function merkleRoot(entries: Iterable<Uint8Array>): Buffer {
  const tree = new MerkleTree();
  for (const entry of entries) tree.add(entry);
  return tree.root();
}
