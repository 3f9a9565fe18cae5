import { closeSync, openSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { ReadStream, WriteStream } from 'node:tty';
import { RozenError } from '../errors.ts';

const CTRL_C = 0x03;
const CTRL_D = 0x04;
const CTRL_H = 0x08;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const CTRL_U = 0x15;
const CTRL_W = 0x17;
const ESCAPE = 0x1b;
const DELETE = 0x7f;
/** Nobody types more; a pasted file must not fill memory. */
const MAX_PASSPHRASE = 4096;

/** What one byte of input does to the line. Pure, so that a test can type. */
export function typeByte(line: number[], byte: number): 'more' | 'enter' | 'interrupt' | 'end' {
  switch (byte) {
    case CTRL_C:
      return 'interrupt';
    case CTRL_D:
      return line.length === 0 ? 'end' : 'more';
    case RETURN:
    case NEWLINE:
      return 'enter';
    case CTRL_U:
    case CTRL_W:
      line.fill(0);
      line.length = 0;
      return 'more';
    case CTRL_H:
    case DELETE: {
      // One character is one UTF-8 sequence: continuation bytes go with their first byte.
      let last = line.pop();
      while (last !== undefined && last >= 0x80 && last < 0xc0) last = line.pop();
      return 'more';
    }
    case ESCAPE:
      return 'more';
    default:
      if (line.length < MAX_PASSPHRASE && byte >= 0x20) line.push(byte);
      return 'more';
  }
}

/** True when there is a terminal to ask on (stdin and stdout may be redirected). */
export function canPrompt(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r+'));
    return true;
  } catch {
    return false;
  }
}

/**
 * Asks on /dev/tty without echo. The terminal is in raw mode meanwhile, so Ctrl-C arrives as a byte; the mode is put
 * back on every way out. Throws `no-key`, with this hint, without a terminal, `interrupted` on Ctrl-C.
 */
export async function askPassphrase(question: string, hint: string): Promise<string> {
  let fd: number;
  try {
    fd = openSync('/dev/tty', 'r+');
  } catch (cause) {
    throw new RozenError('no-key', 'a passphrase is needed, and there is no terminal to ask on', { hint, cause });
  }
  const input = new ReadStream(fd);
  // A stream of its own descriptor: closing one stream must not close the other's.
  const output = new WriteStream(openSync('/dev/tty', 'w'));
  const line: number[] = [];
  try {
    input.setRawMode(true);
    await writeAll(output, `${question}: `);
    const outcome = await new Promise<'enter' | 'interrupt' | 'end'>((resolve) => {
      input.on('data', (bytes: Buffer) => {
        for (const byte of bytes) {
          const result = typeByte(line, byte);
          if (result !== 'more') {
            resolve(result);
            break;
          }
        }
        bytes.fill(0);
      });
      input.on('end', () => resolve('end'));
      input.on('error', () => resolve('end'));
    });
    await writeAll(output, '\n');
    if (outcome === 'interrupt') throw new RozenError('interrupted', 'interrupted at the passphrase prompt');
    if (outcome === 'end') throw new RozenError('no-key', 'no passphrase was given');
    return Buffer.from(line).toString('utf8');
  } finally {
    line.fill(0);
    if (!input.destroyed) input.setRawMode(false);
    input.destroy();
    output.destroy();
  }
}

/** Asks twice; an empty or mistyped passphrase is asked for again, three times at most. */
export async function askNewPassphrase(question: string, hint: string): Promise<string> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const first = await askPassphrase(question, hint);
    if (first === '') {
      process.stderr.write('rozen: an empty passphrase protects nothing\n');
      continue;
    }
    const second = await askPassphrase('the same again', hint);
    if (first === second) return first;
    process.stderr.write('rozen: the two are not equal\n');
  }
  throw new RozenError('usage', 'no new passphrase after three attempts');
}

/**
 * A question that is answered by yes or no; Enter alone means no. Throws 'usage', with this hint, when there is nobody to ask, and
 * 'interrupted' on Ctrl-C.
 */
export async function confirm(question: string, hint: string): Promise<boolean> {
  if (!process.stdin.isTTY) throw new RozenError('usage', `nobody can be asked: ${question}`, { hint });
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await new Promise<string>((resolve, reject) => {
      terminal.on('SIGINT', () => reject(new RozenError('interrupted', 'interrupted at a question: nothing was done')));
      terminal.on('close', () => resolve(''));
      terminal.question(`${question} [y/N] `, resolve);
    });
    return /^y(?:es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}

function writeAll(stream: WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => stream.write(text, () => resolve()));
}
