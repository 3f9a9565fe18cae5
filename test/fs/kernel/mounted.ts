import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OwnerMap } from '../../../src/fs/protocol/abi.ts';
import type { Driver } from '../../../src/fs/serving.ts';

const SERVE = new URL('./served/serve.mjs', import.meta.url).pathname;
export const isRoot = process.getuid?.() === 0;

/** Why no mount can be made here, or null. */
export function mountObstacle(): string | null {
  if (!existsSync('/dev/fuse')) return '/dev/fuse is missing';
  if (isRoot) return null;
  try {
    execFileSync('fusermount3', ['-V'], { stdio: 'ignore' });
    return null;
  } catch {
    return 'fusermount3 is not installed';
  }
}

/** A folder that any user may use, for mount points. */
export function workFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'rozen-kernel-'));
  chmodSync(dir, 0o755);
  return dir;
}

export interface Serving {
  host: 'mirror' | 'made-up';
  init: object;
  mountpoint: string;
  /** Default kernel. */
  driver?: Driver;
  /** Run as this user (root only). */
  user?: number;
  readers?: number;
  allowOther?: boolean;
  enforcePermissions?: boolean;
  map?: OwnerMap;
  trace?: boolean;
  keepClearOf?: string[];
  env?: Record<string, string>;
}

const running = new Set<Mounted>();

/** A process that serves a mount. */
export class Mounted {
  readonly dir: string;
  readonly child: ChildProcess;
  output = '';
  errors = '';
  readonly exited: Promise<number | null>;

  constructor({ user, env, ...serving }: Serving) {
    this.dir = serving.mountpoint;
    const args = [process.execPath, SERVE, JSON.stringify(serving)];
    const setpriv = ['setpriv', '--reuid', String(user), '--regid', String(user), '--clear-groups'];
    const command = user === undefined ? args : [...setpriv, ...args];
    this.child = spawn(command[0]!, command.slice(1), {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    this.child.stdout!.on('data', (text) => {
      this.output += String(text);
    });
    this.child.stderr!.on('data', (text) => {
      this.errors += String(text);
    });
    this.exited = new Promise((resolve) => this.child.on('close', (code) => resolve(code)));
    running.add(this);
  }

  get pid(): number {
    return this.child.pid!;
  }

  async ready(): Promise<this> {
    await until(() => this.output.includes('ready') || this.child.exitCode !== null, 'a mount');
    if (!this.output.includes('ready')) throw new Error(`no mount: ${this.errors}`);
    return this;
  }

  command(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  async end(): Promise<number | null> {
    if (this.child.exitCode === null) this.child.kill('SIGTERM');
    return this.exited;
  }
}

export async function serveAt(serving: Serving): Promise<Mounted> {
  // A stale mount exists, though it cannot be looked at.
  if (!existsSync(serving.mountpoint) && !isMounted(serving.mountpoint)) mkdirSync(serving.mountpoint);
  return new Mounted(serving).ready();
}

/** Ends what a test has left. */
export async function endAll(dir: string): Promise<void> {
  for (const mounted of running) {
    if (mounted.child.exitCode === null && mounted.child.signalCode === null) mounted.child.kill('SIGKILL');
    await mounted.exited;
    if (isMounted(mounted.dir)) {
      try {
        execFileSync(isRoot ? 'umount' : 'fusermount3', isRoot ? ['-l', mounted.dir] : ['-uz', mounted.dir]);
      } catch {
        // Another mounted at the same place has done it.
      }
    }
  }
  running.clear();
  rmSync(dir, { recursive: true, force: true });
}

export function isMounted(dir: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${dir} `);
}

export async function until(condition: () => boolean, what: string, seconds = 20): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`no ${what} within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Runs a program while the served process goes on; rejects when it fails. */
export function run(command: string, args: string[], options: { user?: number } = {}): Promise<string> {
  const all =
    options.user === undefined
      ? [command, ...args]
      : [
          'setpriv',
          '--reuid',
          String(options.user),
          '--regid',
          String(options.user),
          '--clear-groups',
          command,
          ...args,
        ];
  return new Promise((resolve, reject) => {
    const child = spawn(all[0]!, all.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.on('data', (text) => {
      output += String(text);
    });
    child.stderr.on('data', (text) => {
      errors += String(text);
    });
    child.on('close', (code) =>
      code === 0 ? resolve(output) : reject(new Error(`${command}: ${code}: ${errors}${output}`)),
    );
  });
}
