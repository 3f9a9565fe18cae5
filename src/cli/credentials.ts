import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { RozenError } from '../errors.ts';
import { reasonOf } from '../posix/reason.ts';
import { askNewPassphrase, askPassphrase, canPrompt } from './prompt.ts';

/** Where the key comes from, in the order in which a source wins. */
export interface CredentialOptions {
  identity?: string | undefined;
  passwordFile?: string | undefined;
  /** From the configuration of this repository; the environment wins over it. */
  configured?: { identity?: string; passwordFile?: string; passwordCommand?: string } | undefined;
}

/** What `openRepository` takes. */
export interface Credentials {
  identityFile?: string;
  passphrase?: () => Promise<string>;
  /** The passphrase is asked for on the terminal. */
  asks?: boolean;
}

/**
 * Chooses one source: --identity, --password-file, ROZEN_IDENTITY_FILE, ROZEN_PASSWORD, ROZEN_PASSWORD_COMMAND, the
 * configuration, the terminal. Nothing is read, run or asked before the passphrase is really needed.
 */
export function chooseCredentials(options: CredentialOptions, env: NodeJS.ProcessEnv = process.env): Credentials {
  if (options.identity !== undefined) return { identityFile: options.identity };
  const passwordFile = options.passwordFile;
  if (passwordFile !== undefined) return { passphrase: once(() => passphraseFromFile(passwordFile)) };
  if (env.ROZEN_IDENTITY_FILE) return { identityFile: env.ROZEN_IDENTITY_FILE };
  const password = env.ROZEN_PASSWORD;
  if (password !== undefined && password !== '') return { passphrase: async () => password };
  const command = env.ROZEN_PASSWORD_COMMAND;
  if (command) return { passphrase: once(() => passphraseFromCommand(command)) };
  const configured = options.configured ?? {};
  if (configured.identity !== undefined) return { identityFile: configured.identity };
  const configuredFile = configured.passwordFile;
  if (configuredFile !== undefined) return { passphrase: once(() => passphraseFromFile(configuredFile)) };
  const configuredCommand = configured.passwordCommand;
  if (configuredCommand !== undefined) return { passphrase: once(() => passphraseFromCommand(configuredCommand)) };
  // Without a terminal nobody can be asked: a write-only machine in a cron job must not fail for that.
  return canPrompt() ? { passphrase: once(() => askPassphrase('Passphrase', OTHER_WAYS)), asks: true } : {};
}

const OTHER_WAYS =
  'set ROZEN_PASSWORD, ROZEN_PASSWORD_COMMAND or ROZEN_IDENTITY_FILE, or use --password-file or --identity';

/** The passphrase of a new key: --new-password-file, else the same sources for `init`, else asked for twice. */
export function chooseNewPassphrase(
  options: { file?: string | undefined; useEnvironment: boolean; passwordFile?: string | undefined },
  env: NodeJS.ProcessEnv = process.env,
): () => Promise<string> {
  const file = options.file ?? (options.useEnvironment ? options.passwordFile : undefined);
  if (file !== undefined) return once(() => notEmpty(passphraseFromFile(file), file));
  if (options.useEnvironment) {
    const password = env.ROZEN_PASSWORD;
    if (password) return async () => password;
    const command = env.ROZEN_PASSWORD_COMMAND;
    if (command) return once(() => notEmpty(passphraseFromCommand(command), 'ROZEN_PASSWORD_COMMAND'));
  }
  const hint = options.useEnvironment
    ? 'set ROZEN_PASSWORD or ROZEN_PASSWORD_COMMAND, or use --password-file'
    : 'use --new-password-file';
  return once(() => askNewPassphrase('New passphrase', hint));
}

async function notEmpty(passphrase: Promise<string>, source: string): Promise<string> {
  const text = await passphrase;
  if (text === '')
    throw new RozenError('usage', `${source}: the passphrase is empty`, {
      hint: 'an empty passphrase protects nothing',
    });
  return text;
}

/** The first line of the file. */
async function passphraseFromFile(path: string): Promise<string> {
  try {
    return firstLine(readFileSync(path));
  } catch (cause) {
    throw new RozenError('no-key', `${path}: the password file cannot be read: ${reasonOf(cause)}`, {
      hint: 'check --password-file',
      cause,
    });
  }
}

/** Runs the command by /bin/sh; it may talk to the terminal on stdin and stderr. */
async function passphraseFromCommand(command: string): Promise<string> {
  const result = spawnSync('/bin/sh', ['-c', command], { stdio: ['inherit', 'pipe', 'inherit'], maxBuffer: 64 * 1024 });
  if (result.error !== undefined || result.status !== 0) {
    const how = result.signal !== null ? `ended by ${result.signal}` : `exit code ${result.status}`;
    throw new RozenError('no-key', `the password command failed (${result.error?.message ?? how})`, {
      hint: `run it by hand: ${command}`,
    });
  }
  return firstLine(result.stdout);
}

function firstLine(bytes: Buffer): string {
  const end = bytes.indexOf(0x0a);
  const line = end < 0 ? bytes : bytes.subarray(0, end);
  const text = line.toString('utf8').replace(/\r$/, '');
  bytes.fill(0);
  return text;
}

/** One question, however often the answer is needed. */
function once(ask: () => Promise<string>): () => Promise<string> {
  let answer: Promise<string> | undefined;
  return () => {
    answer ??= ask();
    return answer;
  };
}
