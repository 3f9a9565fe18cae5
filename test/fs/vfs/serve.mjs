// node serve.mjs '{"store": …, "identityFile": …, "mountpoint": …}': mounts a repository, says `ready MS`, serves until SIGTERM.
const started = performance.now();
const [{ serve }, { openVfsHost }, { openRepository }, { LocalStore }] = await Promise.all([
  import('../../../dist/fs/kernel/server.js'),
  import('../../../dist/fs/vfs/host.js'),
  import('../../../dist/repository/open.js'),
  import('../../../dist/store/local.js'),
]);
const loaded = performance.now();
const { store: folder, identityFile, mountpoint, readers, blockBytes, pollMs, trace } = JSON.parse(process.argv[2]);
const store = new LocalStore(folder);
const repository = await openRepository({ store, credentials: { identityFile }, need: 'read' });
const opened = performance.now();
const host = await openVfsHost({ store, repository, blockBytes, pollMs });
const listed = performance.now();
const server = await serve({ mountpoint, host, source: store.location, readers, trace });
const mounted = performance.now();
const times = { loaded: loaded - started, opened: opened - loaded, listed: listed - opened, mounted: mounted - listed };
process.stdout.write(`ready ${JSON.stringify(times)}\n`);
process.on('SIGUSR2', () => {
  const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
  process.stdout.write(
    `${JSON.stringify({ rss, heapUsed, external, arrayBuffers, blocks: host.blocks(), pinned: host.pinned() })}\n`,
  );
});
process.on('SIGTERM', () => void server.stop());
await server.closed;
process.exit(0);
