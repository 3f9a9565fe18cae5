// node serve.mjs '{"host": "mirror", "init": {…}, "driver": …, "mountpoint": …, …ServeOptions}': mounts, says `ready`, serves until the end.
const { host: name, init, driver = 'kernel', ...options } = JSON.parse(process.argv[2]);
const host = (await import(`./${name}.mjs`)).createHost(init);
const serve =
  driver === 'kernel'
    ? (await import('../../../../dist/fs/kernel/server.js')).serve
    : (await import('../../../../dist/fs/native/server.js')).serveNative;
try {
  const started = performance.now();
  const server = await serve({ source: 'rozen-test', ...options, host });
  process.stdin.on('data', (line) => {
    const command = String(line).trim();
    if (command === 'exit') process.exit(7);
    if (command === 'throw')
      setImmediate(() => {
        throw new Error('made-up');
      });
    if (command === 'release') host.release();
    if (command.startsWith('invalidate')) host.invalidate({ slot: 0, ino: 1, name: null });
  });
  process.stdin.unref?.();
  const ending = { reason: 'unmounted' };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, async () => {
      Object.assign(ending, { reason: 'signal', signal });
      ending.holders = await server.stop();
    });
  }
  process.on('uncaughtException', (error) => {
    process.stdout.write(`${error.message}\n`);
    process.exit(1);
  });
  process.stdout.write(`ready ${(performance.now() - started).toFixed(0)}\n`);
  await server.closed;
  // `stop` has its answer a moment after `closed`.
  await new Promise(setImmediate);
  process.stdout.write(`${JSON.stringify(ending)}\n`);
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error.code}: ${error.message}${error.hint ? ` (${error.hint})` : ''}\n`);
  process.exit(1);
}
