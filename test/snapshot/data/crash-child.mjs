// Stores every file of a folder, as a backup would, until it is done or killed. argv: dist, root. Prints `go` and
// what it took over once the writer is open, `sealed` and how much on its way, `done` at the end.
import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [dist, root] = process.argv.slice(2);
const load = (path) => import(new URL(path, pathToFileURL(dist)).href);
const { LocalStore } = await load('store/local.js');
const { openRepository } = await load('repository/repository.js');
const { DedupIndex } = await load('snapshot/data/index.js');
const { DataWriter } = await load('snapshot/data/data-writer.js');
const { lstat } = await load('posix/stat.js');

const repository = await openRepository({ store: new LocalStore(join(root, 'repo')), need: 'write' });
const index = await DedupIndex.open({ repository, path: join(root, 'dedup') });
await index.sync();
const MIB = 1024 * 1024;
const writer = await DataWriter.open({
  repository,
  index,
  spoolDir: join(root, 'spool'),
  workers: 2,
  archiveSize: 24 * MIB,
  overrun: 4 * MIB,
});
process.stdout.write(`go ${JSON.stringify(writer.stats)}\n`);
// Tells how far it is, so that it can be killed there however slow the machine is.
let told = 0;
setInterval(() => {
  if (writer.stats.sealedBytes === told) return;
  told = writer.stats.sealedBytes;
  process.stdout.write(`sealed ${told}\n`);
}, 1).unref();

const files = readdirSync(join(root, 'source'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  .sort();
const stored = [];
for (const path of files) {
  const bytes = Buffer.from(path);
  const { size, dev, ino, mtimeSec, mtimeNs, blocks } = lstat(bytes);
  const file = { path: bytes, folder: Buffer.from(dirname(path)), name: Buffer.from(basename(path)) };
  if (writer.full) await writer.ready();
  stored.push(writer.add({ ...file, size, dev, ino, mtimeSec, mtimeNs, sparse: blocks * 512 < size }));
}
const all = Promise.all(stored);
await writer.finish();
if ((await all).some((file) => file.status !== 'stored')) throw new Error('not everything was stored');
await index.close();
process.stdout.write(`done ${JSON.stringify(writer.stats)}\n`);
