import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProcesses, must, until } from './measure.js';

const rozen = join(dirname(fileURLToPath(import.meta.url)), '../../bin/rozen.js');
const installed = (name) => spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
const foundIn = (dir) => {
  try {
    return readdirSync(dir).length > 0;
  } catch {
    return false;
  }
};

/**
 * One contestant: `init`, `backup`, `restore` are shell commands; `mount` comes back when the tree `view` can be listed;
 * `server()` finds the process that serves it (after the mount was timed: it looks at all processes). What a tool cannot do is left out.
 */

export function rozenTool(work, node = process.execPath) {
  const repo = join(work, 'rozen');
  const identity = join(work, 'identity.txt');
  const env = {
    ROZEN_REPOSITORY: repo,
    ROZEN_IDENTITY_FILE: identity,
    XDG_STATE_HOME: join(work, 'state'),
    XDG_CACHE_HOME: join(work, 'cache'),
  };
  const run = `"${node}" "${rozen}"`;
  const mountpoint = join(work, 'mnt-rozen');
  return {
    name: 'rozen',
    repo,
    identity,
    async init() {
      await must(
        `age-keygen -o ${identity} 2>/dev/null && ${run} init ${repo} --recipient "$(age-keygen -y ${identity})"`,
        env,
      );
    },
    backup: (source) => must(`${run} -q backup ${source} --set bench`, env),
    restore: (target) => must(`${run} -q restore bench@latest --target ${target}`, env),
    async mount() {
      mkdirSync(mountpoint, { recursive: true });
      await must(`${run} -q mount ${mountpoint} && ls ${mountpoint}/snapshots/bench/latest/`, env);
      return {
        view: join(mountpoint, 'snapshots/bench/latest'),
        server: () => findProcesses('rozen mount', mountpoint)[0],
      };
    },
    unmount: () => must(`${run} -q umount ${mountpoint}`, env),
  };
}

export function resticTool(work) {
  if (!installed('restic')) return null;
  const repo = join(work, 'restic');
  const env = { RESTIC_REPOSITORY: repo, RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: join(work, 'restic-cache') };
  const mountpoint = join(work, 'mnt-restic');
  let server;
  return {
    name: 'restic',
    repo,
    init: () => must('restic init -q', env),
    backup: (source) => must(`cd ${source} && restic backup -q .`, env),
    restore: (target) => must(`restic restore -q latest --target ${target}`, env),
    async mount() {
      mkdirSync(mountpoint, { recursive: true });
      server = spawn('restic', ['mount', '-q', mountpoint], { env: { ...process.env, ...env }, stdio: 'ignore' });
      const view = join(mountpoint, 'snapshots/latest');
      await until(() => foundIn(view), 60, 'restic mount');
      return { view, server: () => server.pid };
    },
    unmount: () => must(`fusermount3 -u ${mountpoint} || umount ${mountpoint}`),
  };
}

export function borgTool(work) {
  if (!installed('borg')) return null;
  const repo = join(work, 'borg');
  const env = { BORG_REPO: repo, BORG_PASSPHRASE: 'bench', BORG_BASE_DIR: join(work, 'borg-base') };
  const mountpoint = join(work, 'mnt-borg');
  let count = 0;
  return {
    name: 'borg',
    repo,
    init: () => must('borg init -e repokey', env),
    backup: (source) => must(`cd ${source} && borg create -C zstd,3 ::a${count++} .`, env),
    restore: (target) => must(`mkdir -p ${target} && cd ${target} && borg extract ::a0`, env),
    async mount() {
      mkdirSync(mountpoint, { recursive: true });
      await must(`borg mount ::a${count - 1} ${mountpoint}`, env);
      await until(() => foundIn(mountpoint), 60, 'borg mount');
      return { view: mountpoint, server: () => findProcesses('borg', mountpoint)[0] };
    },
    unmount: () => must(`borg umount ${mountpoint}`, env),
  };
}

export function squashfuseTool(work) {
  if (!installed('squashfuse') || !installed('mksquashfs')) return null;
  const repo = join(work, 'squash.sqfs');
  const mountpoint = join(work, 'mnt-squash');
  return {
    name: 'squashfuse',
    repo,
    init: async () => {},
    backup: async (source) => {
      if (existsSync(repo)) return null;
      return must(`mksquashfs ${source} ${repo} -comp zstd -Xcompression-level 3 -quiet -no-progress`);
    },
    restore: (target) => must(`unsquashfs -q -n -d ${target} ${repo}`),
    async mount() {
      mkdirSync(mountpoint, { recursive: true });
      await must(`squashfuse ${repo} ${mountpoint}`);
      await until(() => foundIn(mountpoint), 60, 'squashfuse');
      return { view: mountpoint, server: () => findProcesses('squashfuse', mountpoint)[0] };
    },
    unmount: () => must(`fusermount3 -u ${mountpoint} || umount ${mountpoint}`),
  };
}

/** The files themselves, for the measurements of reading. */
export function nativeTool(source) {
  return { name: 'native', mount: async () => ({ view: source, server: () => undefined }), unmount: async () => {} };
}
