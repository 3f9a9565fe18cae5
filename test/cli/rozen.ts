import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const program = join(import.meta.dirname, '../../bin/rozen.js');
export const PASSPHRASE = 'tests only, 7 words or so';

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A home of its own for the built command line. */
export class Home {
  readonly dir = mkdtempSync(join(tmpdir(), 'rozen-cli-'));
  readonly repo = join(this.dir, 'repo');
  readonly env: Record<string, string>;

  constructor() {
    for (const name of ['state', 'cache', 'config']) mkdirSync(join(this.dir, name));
    this.env = {
      PATH: process.env.PATH ?? '/usr/bin:/bin',
      HOME: this.dir,
      TZ: 'UTC',
      XDG_STATE_HOME: join(this.dir, 'state'),
      XDG_CACHE_HOME: join(this.dir, 'cache'),
      XDG_CONFIG_HOME: join(this.dir, 'config'),
    };
  }

  /** Runs without a terminal. `env` undefined values are left out. */
  run(args: string[], options: { env?: Record<string, string | undefined>; input?: string } = {}): Result {
    const env = Object.fromEntries(
      Object.entries({ ...this.env, ...options.env }).filter(([, value]) => value !== undefined),
    );
    // setsid: /dev/tty of whoever runs the tests must not be asked.
    const result = spawnSync('setsid', ['-w', process.execPath, program, ...args], {
      cwd: this.dir,
      env: env as Record<string, string>,
      encoding: 'utf8',
      input: options.input ?? '',
      timeout: 60_000,
      maxBuffer: 1 << 28,
    });
    if (result.error) throw result.error;
    return { code: result.status, stdout: result.stdout, stderr: result.stderr };
  }

  ok(args: string[], env: Record<string, string | undefined> = {}): Result {
    const result = this.run(args, { env });
    if (result.code !== 0)
      throw new Error(`rozen ${args.join(' ')}: exit ${result.code}\n${result.stdout}${result.stderr}`);
    return result;
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/**
 * Runs on a terminal of its own, by script(1). `answers` are typed one after another, each when its word has appeared.
 * The output is all that the terminal showed, echo included.
 */
export async function onTerminal(
  home: Pick<Home, 'dir' | 'env'>,
  args: string[],
  answers: { after: string; type: string }[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; shown: string }> {
  const quoted = [process.execPath, program, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const child = spawn('script', ['-qec', quoted, '/dev/null'], {
    cwd: home.dir,
    env: { ...home.env, SHELL: '/bin/sh', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let shown = '';
  let seen = 0;
  child.stdout.on('data', (bytes: Buffer) => {
    shown += bytes.toString();
    for (let next = answers[0]; next !== undefined; next = answers[0]) {
      const at = shown.indexOf(next.after, seen);
      if (at < 0) break;
      seen = at + next.after.length;
      child.stdin.write(next.type);
      answers.shift();
    }
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, shown };
}
