/**
 * What a WORM set of many files costs: the first backup, an unchanged one, one renamed file, the top folder renamed.
 * `node test/bench/worm.js [files]`, default 1,000,000. Everything lies in a temporary folder, which is removed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const program = join(dirname(fileURLToPath(import.meta.url)), '../../bin/rozen.js');
const count = Number(process.argv[2] ?? 1_000_000);
const folder = mkdtempSync(join(process.env.ROZEN_BENCH_DIR ?? tmpdir(), 'rozen-worm-'));
const source = join(folder, 'source');
const top = join(source, 'photos');
const env = {
  PATH: process.env.PATH,
  HOME: folder,
  XDG_STATE_HOME: join(folder, 'state'),
  XDG_CACHE_HOME: join(folder, 'cache'),
  XDG_CONFIG_HOME: folder,
  ROZEN_PASSWORD: 'bench',
  ROZEN_REPOSITORY: join(folder, 'repo'),
};

function objects() {
  const found = new Map();
  for (const entry of readdirSync(env.ROZEN_REPOSITORY, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && !path.includes('/.tmp/')) found.set(path, statSync(path).size);
  }
  return found;
}

function backup(what, ...options) {
  const before = objects();
  const args = ['-v', process.execPath, program, '--json', 'backup', source, '--set', 'photos', ...options];
  const started = performance.now();
  const { stdout, stderr, status } = spawnSync('/usr/bin/time', args, { env, encoding: 'utf8', maxBuffer: 1 << 28 });
  const seconds = (performance.now() - started) / 1000;
  if (status !== 0) throw new Error(`${what}: exit ${status}\n${stderr}`);
  const report = JSON.parse(stdout);
  const added = [...objects()].filter(([path]) => !before.has(path));
  const memory = Number(/Maximum resident set size \(kbytes\): (\d+)/.exec(stderr)?.[1]) / 1024;
  const processor = ['User', 'System'].reduce(
    (sum, kind) => sum + Number(new RegExp(`${kind} time \\(seconds\\): ([\\d.]+)`).exec(stderr)?.[1]),
    0,
  );
  const bytes = added.reduce((sum, [, size]) => sum + size, 0);
  const classes = Object.entries(report.classes)
    .map(([name, { files, folders }]) => [name, files + folders])
    .filter(([, total]) => total > 0);
  console.log(
    `${what.padEnd(20)} ${seconds.toFixed(1).padStart(7)} s (processor ${processor.toFixed(1)} s)  ${memory.toFixed(0).padStart(5)} MB  ${(bytes / 1024).toFixed(1).padStart(9)} KiB in ${added.length} objects, ${report.bytesRead} bytes read; ${classes.map(([name, total]) => `${total} ${name}`).join(', ')}${report.worm.moves.length > 0 ? `; ${report.worm.moves.length} moves` : ''}`,
  );
}

try {
  const perFolder = 1000;
  for (let i = 0; i < count; i += perFolder) {
    const album = join(top, `year ${Math.floor(i / 100_000)}`, `album ${i / perFolder}`);
    mkdirSync(album, { recursive: true });
    for (let k = i; k < Math.min(count, i + perFolder); k++) writeFileSync(join(album, `IMG_${k}.jpg`), `photo ${k}\n`);
  }
  execFileSync(process.execPath, [program, 'init'], { env, stdio: 'ignore' });
  backup('first', '--mode', 'worm');
  backup('unchanged');
  renameSync(join(top, 'year 0/album 0/IMG_7.jpg'), join(top, 'year 0/album 0/sunset.jpg'));
  backup('one file renamed');
  renameSync(top, join(source, 'pictures'));
  backup('top folder renamed');
  backup('unchanged');
  backup('rehash 5%', '--rehash', '5');
} finally {
  rmSync(folder, { recursive: true, force: true });
}
