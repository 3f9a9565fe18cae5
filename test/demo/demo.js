/**
 * `npm run demo`: the main job on real files of this machine, each command shown as it would be typed.
 * Everything happens in one temporary folder, which is removed at the end.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const project = join(dirname(fileURLToPath(import.meta.url)), '../..');
const work = mkdtempSync(join(tmpdir(), 'rozen-demo-'));
const env = {
  ...process.env,
  ROZEN_REPOSITORY: join(work, 'repository'),
  ROZEN_PASSWORD: 'a passphrase for the demo only',
  XDG_STATE_HOME: join(work, 'state'),
  XDG_CACHE_HOME: join(work, 'cache'),
};
const mountpoint = join(work, 'mnt');
mkdirSync(mountpoint);

/** Real folders that every machine with Node has; the first three that exist. */
const source = [
  '/usr/share/doc',
  '/usr/share/zoneinfo',
  '/usr/share/perl',
  '/usr/include',
  join(project, 'node_modules'),
]
  .filter((dir) => existsSync(dir))
  .slice(0, 3);

const say = (text) => console.log(`\n\x1b[1m# ${text}\x1b[0m`);

function shell(command, { shown = command, ok = [0] } = {}) {
  console.log(`\x1b[36m$ ${shown.replaceAll(work, '$DEMO')}\x1b[0m`);
  const start = Date.now();
  const result = spawnSync('sh', ['-c', command], { env, stdio: ['ignore', 'inherit', 'inherit'], cwd: work });
  console.log(`\x1b[2m  (${((Date.now() - start) / 1000).toFixed(2)} s)\x1b[0m`);
  if (!ok.includes(result.status ?? -1)) {
    throw new Error(`the command ended with ${result.status ?? result.signal}`);
  }
}

const rozen = (args) =>
  shell(`"${process.execPath}" "${join(project, 'bin/rozen.js')}" ${args}`, { shown: `rozen ${args}` });

function mountable() {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

let mounted = false;
try {
  say('A new repository: keys are made, a fingerprint is printed');
  rozen('init');
  say(`Back up real files: ${source.join(', ')}`);
  rozen(`backup ${source.join(' ')} --set demo`);
  say('Once more: nothing changed, so no snapshot is written');
  rozen(`backup ${source.join(' ')} --set demo`);
  rozen('snapshots');
  if (mountable()) {
    say('Mount everything, read-only');
    rozen(`mount ${mountpoint}`);
    mounted = true;
    shell(`ls -l ${mountpoint} ${mountpoint}/snapshots/demo`);
    shell(`ls -l ${mountpoint}/snapshots/demo/latest${source[0]} | head -8`);
    say('Copy out with cp, compare with the source');
    shell(
      `mkdir -p ${work}/copy && cp -a ${mountpoint}/snapshots/demo/latest${source[0]} ${work}/copy/out && diff -r --no-dereference ${source[0]} ${work}/copy/out && echo "diff: no difference"`,
    );
    for (const dir of source) {
      shell(`diff -r --no-dereference ${dir} ${mountpoint}/snapshots/demo/latest${dir} && echo "diff: no difference"`);
    }
    shell(`cat ${mountpoint}/.rozen/status`);
    say('Unmount');
    rozen(`umount ${mountpoint}`);
    mounted = false;
  } else {
    say(
      'No mount: /dev/fuse is missing here, or closed to this user (try: sudo chmod 666 /dev/fuse). The rest goes on.',
    );
  }
  say('Restore without a mount, compare again');
  rozen(`restore demo@latest --target ${work}/restored`);
  shell(`diff -r --no-dereference ${source[0]} ${work}/restored${source[0]} && echo "diff: no difference"`);
  say('Verify: every block is read, decrypted and checked');
  rozen('verify --read-data');
  say('That was all of it: backed up, mounted, compared, restored and verified.');
} catch (error) {
  console.error(`\nThe demo failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  if (mounted)
    spawnSync(process.execPath, [join(project, 'bin/rozen.js'), 'umount', mountpoint], { env, stdio: 'inherit' });
  rmSync(work, { recursive: true, force: true });
}
