import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

/** Writes dirty pages and empties the page, dentry and inode caches; false when this user may not. */
export function dropCaches() {
  spawnSync('sync');
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3\n');
    return true;
  } catch {
    return false;
  }
}

/** Runs a shell command to its end; answers seconds, exit code and the peak resident memory of its process tree in bytes. */
export function timed(command, env = {}) {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint();
    const child = spawn('sh', ['-c', command], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let peak = 0;
    let stderr = '';
    let stdout = '';
    child.stdout.on('data', (d) => {
      if (stdout.length < 1 << 20) stdout += d;
    });
    child.stderr.on('data', (d) => {
      if (stderr.length < 1 << 16) stderr += d;
    });
    const poll = setInterval(() => {
      peak = Math.max(peak, treeMemory(child.pid));
    }, 50);
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(poll);
      resolve({ seconds: Number(process.hrtime.bigint() - start) / 1e9, code, peak, stdout, stderr });
    });
  });
}

/** As `timed`, but a failing command is an error with what it said. */
export async function must(command, env) {
  const result = await timed(command, env);
  if (result.code !== 0) throw new Error(`${command}\nexit ${result.code}\n${result.stderr}${result.stdout}`);
  return result;
}

function children(pid) {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** Peak resident memory (VmHWM) of one process, bytes; 0 when it is gone. */
export function peakMemory(pid) {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

function treeMemory(pid) {
  return Math.max(peakMemory(pid), ...children(pid).map(treeMemory), 0);
}

/** Processes whose command line holds all of `words`. */
export function findProcesses(...words) {
  const found = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
      if (words.every((word) => line.includes(word))) found.push(Number(name));
    } catch {
      // It ended in between.
    }
  }
  return found;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Waits for a condition, looked at every 2 ms; an error after `seconds`. */
export async function until(condition, seconds, what) {
  const end = Date.now() + seconds * 1000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${seconds} s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
