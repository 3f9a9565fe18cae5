// node test/conformance/peers.mjs [WORK]: the conformance program over Rozen (both drivers), restic mount and squashfuse, those
// that are installed; prints the table and the lists of docs/CONFORMANCE.md. As root: owners, devices and ACLs need it.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const work = process.argv[2] ?? mkdtempSync(join(tmpdir(), 'rozen-conformance-'));
const source = join(work, 'source');
mkdirSync(work, { recursive: true });
const installed = (name) => spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
const sh = (script, env = {}) =>
  execFileSync('sh', ['-c', script], {
    cwd: work,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
const mounted = (path) => execFileSync('cat', ['/proc/self/mountinfo']).toString().includes(` ${path} `);

async function until(condition) {
  for (let i = 0; i < 600 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 100));
}

const rozen = `"${process.execPath}" "${join(here, '../../bin/rozen.js')}"`;
const env = {
  ROZEN_REPOSITORY: join(work, 'rozen'),
  ROZEN_PASSWORD: 'conformance',
  XDG_STATE_HOME: join(work, 'state'),
};
const rozenBy = (driver) => ({
  async run(check) {
    sh(`${rozen} -q mount --allow-other --driver ${driver} mnt`, env);
    await check(join(work, 'mnt/snapshots/c/latest/'));
    sh(`${rozen} -q umount mnt`, env);
  },
});
const tools = {
  rozen: {
    make: () => sh(`${rozen} -q init && ${rozen} -q backup source --set c`, env),
    ...rozenBy('kernel'),
  },
  'rozen, fuse-native': rozenBy('fuse-native'),
  'restic mount': {
    needs: 'restic',
    make: () =>
      // Exit code 3: the path beyond PATH_MAX was left out.
      sh('restic -q init && cd source && { restic -q backup . 2>/dev/null || test $? = 3; }', {
        RESTIC_REPOSITORY: join(work, 'restic'),
        RESTIC_PASSWORD: 'x',
      }),
    async run(check) {
      const restic = { RESTIC_REPOSITORY: join(work, 'restic'), RESTIC_PASSWORD: 'x' };
      const child = spawn('restic', ['-q', 'mount', '--allow-other', 'mnt'], {
        cwd: work,
        env: { ...process.env, ...restic },
        stdio: 'ignore',
      });
      await until(() => mounted(join(work, 'mnt')));
      const [name] = readdirSync(join(work, 'mnt/snapshots'));
      await check(join(work, 'mnt/snapshots', name));
      sh('umount mnt || umount -l mnt');
      child.kill();
    },
  },
  squashfuse: {
    needs: 'mksquashfs',
    make: () => sh('mksquashfs source image.squashfs -comp zstd -no-progress -quiet'),
    async run(check) {
      sh('squashfuse -o ro,allow_other,default_permissions image.squashfs mnt');
      await until(() => mounted(join(work, 'mnt')));
      await check(join(work, 'mnt'));
      sh('umount mnt || umount -l mnt');
    },
  },
};

execFileSync(process.execPath, [join(here, 'make.mjs'), source, '--small']);
mkdirSync(join(work, 'mnt'), { recursive: true });
const results = {};
try {
  for (const [name, tool] of Object.entries(tools)) {
    if (tool.needs !== undefined && !installed(tool.needs)) continue;
    tool.make?.();
    await tool.run(async (mount) => {
      const { stdout } = spawnSync(process.execPath, [join(here, 'run.mjs'), source, mount, '--json'], {
        encoding: 'utf8',
        maxBuffer: 2 ** 26,
      });
      results[name] = JSON.parse(stdout);
    });
  }
} finally {
  if (mounted(join(work, 'mnt'))) sh('umount -l mnt');
  if (process.argv[2] === undefined) rmSync(work, { recursive: true, force: true });
}

const names = Object.keys(results);
const groups = [...new Set(results[names[0]].map((result) => result.group))];
const count = (name, outcome, group) =>
  results[name].filter((result) => result.outcome === outcome && (group === undefined || result.group === group))
    .length;
const cell = (name, group) =>
  `${count(name, 'pass', group)} / ${count(name, 'pass', group) + count(name, 'fail', group)}`;
const lines = [`| passed / checked | ${names.join(' | ')} |`, `|---|${names.map(() => '---:|').join('')}`];
for (const group of groups) lines.push(`| ${group} | ${names.map((name) => cell(name, group)).join(' | ')} |`);
lines.push(`| all | ${names.map((name) => cell(name)).join(' | ')} |`);
for (const name of names) {
  const failed = results[name].filter((result) => result.outcome === 'fail');
  lines.push('', `${name}: ${failed.length === 0 ? 'nothing fails' : 'what fails'}`, '');
  for (const { group, title, why } of failed) lines.push(`- ${group}: ${title} (${why})`);
}
process.stdout.write(`${lines.join('\n')}\n`);
