// node cache-writer.mjs FOLDER SEED BUDGET: puts values into a cache until it is killed; says so after the first ones.
import { blake3 } from '../../dist/archive/crypto/blake3.js';
import { BlockCache } from '../../dist/cache/block-cache.js';
import { frameKey } from '../../dist/cache/cache-keys.js';

const [folder, seed, budget] = process.argv.slice(2);
const cache = BlockCache.open({ folder, budget: Number(budget) });
const id = Buffer.alloc(16, 100 + Number(seed));
/** As a frame ends with the hash of what is before. */
function filled(size, n) {
  const bytes = Buffer.alloc(size, n);
  bytes.set(blake3(bytes.subarray(0, size - 32)), size - 32);
  return bytes;
}
for (let round = 0; ; round++) {
  const items = Array.from({ length: 10 }, (_, i) => ({
    key: frameKey(id, (round * 10 + i) * 1000),
    bytes: filled(1000 + ((round * 7919 + i * 104_729) % 250_000), i),
    class: 0,
  }));
  await cache.put(items);
  // The machine is for others too.
  await new Promise((resolve) => setTimeout(resolve, 20));
  if (round === 3) process.stdout.write('going\n');
}
