import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const project = join(dirname(fileURLToPath(import.meta.url)), '../..');
export const isRoot = process.getuid?.() === 0;
const NOBODY = 65534;

/** Why no mount can be tested here, or null. On CI that is a failure, not a skip. */
export function mountObstacle(): string | null {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return null;
  } catch {
    if (process.env.CI === 'true')
      throw new Error('/dev/fuse is missing or closed, and CI=true: the mount tests must run');
    return '/dev/fuse is missing or closed';
  }
}

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A temporary home for one user of the built command line: folders, identity file, environment. */
export class Sandbox {
  readonly dir: string;
  readonly repo: string;
  readonly mountpoint: string;
  readonly env: Record<string, string>;
  /** The program: the checkout's own, or a copy where another user cannot look into the checkout. */
  private readonly program: string;
  private readonly uid: number | undefined;

  constructor(user: 'self' | 'nobody' = 'self') {
    this.dir = mkdtempSync(join(tmpdir(), 'rozen-e2e-'));
    this.repo = join(this.dir, 'repo');
    this.mountpoint = join(this.dir, 'mnt');
    this.uid = user === 'nobody' ? NOBODY : undefined;
    this.program = join(project, 'bin/rozen.js');
    for (const name of ['mnt', 'state', 'cache', 'home', 'tmp']) mkdirSync(join(this.dir, name));
    if (this.uid !== undefined) {
      for (const name of ['', 'mnt', 'state', 'cache', 'home', 'tmp']) chownSync(join(this.dir, name), NOBODY, NOBODY);
      chmodSync('/dev/fuse', 0o666);
      this.program = readableByOthers(this.program) ? this.program : copyProgram(join(this.dir, 'program'));
    }
    const { PATH = '/usr/bin:/bin' } = process.env;
    this.env = {
      PATH,
      HOME: join(this.dir, 'home'),
      TMPDIR: join(this.dir, 'tmp'),
      TZ: 'UTC',
      XDG_STATE_HOME: join(this.dir, 'state'),
      XDG_CACHE_HOME: join(this.dir, 'cache'),
      XDG_CONFIG_HOME: join(this.dir, 'home'),
      ROZEN_REPOSITORY: this.repo,
      ROZEN_PASSWORD: 'correct horse battery staple',
    };
  }

  /** Put before a program, to run it as this sandbox's user. */
  get prefix(): string[] {
    return this.uid === undefined ? [] : ['setpriv', `--reuid=${this.uid}`, `--regid=${this.uid}`, '--clear-groups'];
  }

  private command(args: string[]): [string, string[]] {
    const words = [...this.prefix, process.execPath, this.program, ...args];
    return [words[0]!, words.slice(1)];
  }

  /** What another program prints when this sandbox's user runs it. */
  shell(script: string): string {
    const words = [...this.prefix, 'sh', '-c', script];
    return execFileSync(words[0]!, words.slice(1), {
      cwd: this.dir,
      env: this.env,
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
  }

  /** Runs a command to its end, whatever its exit code. */
  run(args: string[], options: { env?: Record<string, string>; input?: string; timeout?: number } = {}): Result {
    const [file, argv] = this.command(args);
    const result = spawnSync(file, argv, {
      cwd: this.dir,
      env: { ...this.env, ...options.env },
      encoding: 'utf8',
      input: options.input ?? '',
      timeout: options.timeout ?? 120_000,
      maxBuffer: 1 << 28,
    });
    if (result.error) throw result.error;
    return { code: result.status, stdout: result.stdout, stderr: result.stderr };
  }

  /** Runs a command that must end with `code` (0 if not said). */
  ok(args: string[], code = 0, env: Record<string, string> = {}): Result {
    const result = this.run(args, { env });
    if (result.code !== code) {
      throw new Error(`rozen ${args.join(' ')}: exit ${result.code}, not ${code}\n${result.stdout}${result.stderr}`);
    }
    return result;
  }

  /** The `--json` document of a command. */
  // biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests look at
  json(args: string[], code = 0): any {
    const { stdout } = this.ok(['--json', ...args], code);
    const lines = stdout.trim().split('\n');
    return lines.length === 1 ? JSON.parse(lines[0]!) : tryWhole(stdout, lines);
  }

  /** Starts a command and leaves it running. */
  start(args: string[], env: Record<string, string> = {}) {
    const [file, argv] = this.command(args);
    return spawn(file, argv, { cwd: this.dir, env: { ...this.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  mount(...options: string[]): string {
    this.ok(['mount', ...options, this.mountpoint]);
    return this.mountpoint;
  }

  unmount(): void {
    if (isMounted(this.mountpoint)) this.ok(['umount', this.mountpoint]);
  }

  remove(): void {
    if (isMounted(this.mountpoint)) spawnSync('umount', ['-l', this.mountpoint]);
    execFileSync('chmod', ['-R', 'u+rwX', this.dir], { stdio: 'ignore' });
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function tryWhole(stdout: string, lines: string[]): unknown {
  try {
    return JSON.parse(stdout);
  } catch {
    return lines.map((line) => JSON.parse(line));
  }
}

export function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4] === path);
}

/** Waits for a condition, looked at every 10 ms. */
export async function until(condition: () => boolean, what: string, seconds = 20): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${seconds} s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function readableByOthers(path: string): boolean {
  return (
    spawnSync('setpriv', [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', 'test', '-r', path]).status === 0
  );
}

function copyProgram(to: string): string {
  for (const name of ['bin', 'bundle', 'package.json', 'prices.toml', 'node_modules']) {
    if (existsSync(join(project, name)))
      cpSync(join(project, name), join(to, name), { recursive: true, dereference: false });
  }
  execFileSync('chmod', ['-R', 'a+rX', to]);
  return join(to, 'bin/rozen.js');
}
