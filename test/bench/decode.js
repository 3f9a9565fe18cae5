/**
 * What the cores of this machine decode without FUSE: decode.js REPOSITORY IDENTITY_FILE PATH reads, deciphers and decompresses each block
 * of a file of the newest snapshot once, in one thread per core, by the code that the readers of a mount use. Prints seconds.
 */
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { openFrame } from '../../dist/archive/frame.js';
import { blocksOf, sealContext } from '../../dist/cache/blocks.js';
import { DiskAhead } from '../../dist/cache/disk-ahead.js';
import { readFrame } from '../../dist/cache/frames.js';
import { openRepository } from '../../dist/repository/repository.js';
import { fileExtents } from '../../dist/snapshot/view/content.js';
import { listSnapshots } from '../../dist/snapshot/view/listing.js';
import { openPlace, SnapshotOpener } from '../../dist/snapshot/view/place.js';
import { LocalStore } from '../../dist/store/local.js';

/** As many blocks in a row as a reader of a mount decodes ahead. */
const GROUP = 4;

if (isMainThread) {
  const [repo, identityFile, path] = process.argv.slice(2);
  const repository = await openRepository({
    store: new LocalStore(repo),
    credentials: { identityFile },
    need: 'read',
  });
  const [snapshot] = (await listSnapshots(repository)).sort((a, b) => b.sequence - a.sequence);
  const opener = new SnapshotOpener(repository);
  const { reader, attributes } = await openPlace(opener, snapshot, Buffer.from(path));
  const archives = new Map();
  const blocks = [];
  const seen = new Set();
  for (const { row, streamOffset, length } of await fileExtents(reader, attributes)) {
    if (row === 0) continue;
    if (!archives.has(row)) archives.set(row, await reader.archives.open(row));
    for (const block of blocksOf(archives.get(row), streamOffset, length)) {
      if (!seen.has(`${row}:${block}`)) blocks.push([row, block]);
      seen.add(`${row}:${block}`);
    }
  }
  const threads = availableParallelism();
  const workers = Array.from(
    { length: threads },
    (_, thread) => new Worker(new URL(import.meta.url), { workerData: { archives, blocks, thread, threads } }),
  );
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  const start = process.hrtime.bigint();
  for (const worker of workers) worker.postMessage('go');
  const bytes = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  if (bytes.reduce((sum, n) => sum + n, 0) < attributes.size) throw new Error(`only ${bytes} bytes were decoded`);
  process.stdout.write(`${seconds}\n`);
  process.exit(0);
}

const { archives, blocks, thread, threads } = workerData;
const disk = new DiskAhead();
const targets = Array.from({ length: GROUP }, () => Buffer.alloc(256 * 1024));
parentPort.postMessage('ready');
await once(parentPort, 'message');
let decoded = 0;
for (let group = thread * GROUP; group < blocks.length; group += threads * GROUP) {
  for (let i = 0; i < GROUP && group + i < blocks.length; i++) {
    const [row, block] = blocks[group + i];
    const access = archives.get(row);
    disk.sequential(access, block);
    disk.tell();
    const frame = readFrame(access, access.blockOffsets[block], access.blockLengths[block]);
    const expect = { type: 'DATA', sequence: block + 1, tagOnly: true };
    decoded += openFrame(sealContext(access), frame, expect, targets[i]).length;
  }
}
parentPort.postMessage(decoded);
