#!/usr/bin/env node
/**
 * What a repository in a bucket costs when each request takes its time: the test server with latency, a mount of the built
 * command line, counted requests.
 *
 *   npm run build && node test/bench/remote.js [--latency 50] [--big MB] [--small FILES] [--keep]
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    latency: { type: 'string', default: '50' },
    big: { type: 'string', default: '512' },
    small: { type: 'string', default: '1000' },
    keep: { type: 'boolean', default: false },
  },
});
const project = fileURLToPath(new URL('../..', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'rozen-bench-remote-'));
const log = join(dir, 'requests.log');
const mountpoint = join(dir, 'mnt');
const MIB = 1024 * 1024;
const ROUNDS = 5;
for (const name of ['mnt', 'home', 'source', 'source/small', 'out']) mkdirSync(join(dir, name));

const server = spawn(
  process.execPath,
  [join(project, 'test/s3/serve.mjs'), '--dir', join(dir, 'objects'), '--latency', values.latency, '--log', log],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
const access = JSON.parse(String((await once(server.stdout, 'data'))[0]));
const env = {
  ...process.env,
  HOME: join(dir, 'home'),
  XDG_STATE_HOME: join(dir, 'home/state'),
  XDG_CACHE_HOME: join(dir, 'home/cache'),
  XDG_CONFIG_HOME: join(dir, 'home/config'),
  ROZEN_REPOSITORY: `s3:${access.endpoint}/test/bench`,
  AWS_ACCESS_KEY_ID: access.accessKeyId,
  AWS_SECRET_ACCESS_KEY: access.secretAccessKey,
  AWS_EC2_METADATA_DISABLED: 'true',
};

function rozen(...args) {
  const result = spawnSync(process.execPath, [join(project, 'bin/rozen.js'), ...args], { env, encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`rozen ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
}

/** Requests of the server since the last call, by operation. */
let seen = 0;
function requests() {
  const text = readFileSync(log, 'utf8');
  const counts = {};
  for (const line of text.slice(seen).split('\n')) {
    if (line === '') continue;
    const { operation } = JSON.parse(line);
    counts[operation] = (counts[operation] ?? 0) + 1;
  }
  seen = text.length;
  return JSON.stringify(counts);
}

const rows = [];
async function measure(name, work) {
  requests();
  const started = performance.now();
  const more = await work();
  const seconds = (performance.now() - started) / 1000;
  rows.push([name, seconds.toFixed(2), more?.(seconds) ?? '', requests()]);
  console.log(rows.at(-1).join('  |  '));
}

const perSecond = (bytes) => (seconds) => `${(bytes / 1e6 / seconds).toFixed(0)} MB/s`;
const dropCaches = () => {
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  } catch {
    // Only root may; a fresh mount has no pages in the kernel anyway.
  }
};

/** 16 range-GETs at once of the largest object, of `size` bytes each, without Rozen. */
async function parallelGets(size) {
  const { S3Store } = await import('../../dist/store/s3.js');
  const { parseS3Place } = await import('../../dist/store/s3-place.js');
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: access.accessKeyId, AWS_SECRET_ACCESS_KEY: access.secretAccessKey });
  const store = new S3Store(parseS3Place(env.ROZEN_REPOSITORY, {}));
  let largest = { name: '', size: 0 };
  for await (const info of store.list('data/')) if (info.size > largest.size) largest = info;
  const started = performance.now();
  let next = 0;
  const worker = async () => {
    while (next < largest.size) {
      const at = next;
      next += size;
      await store.getRange(largest.name, at, Math.min(size, largest.size - at));
    }
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  return largest.size / 1e6 / ((performance.now() - started) / 1000);
}

function readWhole(path) {
  const fd = openSync(path, 'r');
  const buffer = Buffer.alloc(MIB);
  const hash = createHash('sha1');
  let total = 0;
  for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) {
    total += read;
    if (total % (16 * MIB) < MIB) hash.update(buffer.subarray(0, read));
  }
  closeSync(fd);
  return total;
}

try {
  writeFileSync(join(dir, 'home/password'), 'bench\n');
  env.ROZEN_PASSWORD = 'bench';
  const noise = randomBytes(32 * 1024);
  for (let i = 0; i < Number(values.small); i++) {
    const size = 1000 + ((i * 7919) % 19_000);
    const bytes = Buffer.concat([randomBytes(size / 2), noise.subarray(0, size / 2)]);
    writeFileSync(join(dir, 'source/small', `file-${i}.txt`), bytes);
  }
  const big = join(dir, 'source/big.bin');
  const fd = openSync(big, 'w');
  for (let i = 0; i < Number(values.big); i++) writeFileSync(fd, randomBytes(MIB));
  closeSync(fd);
  rozen('init');
  rozen('backup', join(dir, 'source'), '--set', 'bench');
  rozen('key', 'export', join(dir, 'home/identity.txt'));
  delete env.ROZEN_PASSWORD;
  env.ROZEN_IDENTITY_FILE = join(dir, 'home/identity.txt');
  const latest = join(mountpoint, 'snapshots/bench/latest');
  const ls = (place) => execFileSync('ls', [place]);
  // As the backup left it: the repository's keys and configs, and nothing of the snapshot.
  const [cache, kept] = [join(dir, 'home/cache'), join(dir, 'home/cache-kept')];
  cpSync(cache, kept, { recursive: true });
  const times = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (round > 0) {
      rozen('umount', mountpoint);
      rmSync(cache, { recursive: true });
      cpSync(kept, cache, { recursive: true });
    }
    await measure('mount to first ls, cold cache', () => {
      rozen('mount', mountpoint);
      ls(`${latest}/`);
      return (seconds) => void times.push(seconds);
    });
  }
  console.log(`median of ${ROUNDS}: ${times.sort((a, b) => a - b)[ROUNDS >> 1].toFixed(3)} s`);
  await measure('first small file', () => void readFileSync(join(latest, 'small/file-500.txt')));
  await measure(`cp -r of ${values.small} small files`, () => {
    execFileSync('cp', ['-r', join(latest, 'small'), join(dir, 'out/small')]);
  });
  execFileSync('diff', ['-r', join(dir, 'source/small'), join(dir, 'out/small')]);
  await measure('sequential read of the large file', () => {
    const total = readWhole(join(latest, 'big.bin'));
    if (total !== statSync(big).size) throw new Error(`${total} bytes`);
    return perSecond(total);
  });
  console.log(readFileSync(join(mountpoint, '.rozen/status'), 'utf8'));
  rozen('umount', mountpoint);
  dropCaches();
  await measure('mount to first ls, warm cache', async () => {
    rozen('mount', mountpoint);
    ls(`${latest}/`);
  });
  await measure('sequential read again', () => perSecond(readWhole(join(latest, 'big.bin'))));
  rozen('umount', mountpoint);
  for (const size of [1, 8]) {
    await measure(`16 range-GETs of ${size} MiB at once, without Rozen`, async () => {
      const speed = await parallelGets(size * MIB);
      return () => `${speed.toFixed(0)} MB/s`;
    });
  }
  const bytes = statSync(big).size;
  await measure('restore', () => {
    rozen('restore', 'latest', '--target', join(dir, 'out/restored'));
    return perSecond(bytes);
  });
  execFileSync('diff', ['-r', join(dir, 'source'), join(dir, 'out/restored')]);
  await measure('verify', () => void rozen('verify'));
  await measure('verify --read-data', () => {
    rozen('verify', '--read-data');
    return perSecond(bytes);
  });
} finally {
  spawnSync('umount', ['-l', mountpoint], { stdio: 'ignore' });
  server.kill();
  if (!values.keep) rmSync(dir, { recursive: true, force: true });
}
