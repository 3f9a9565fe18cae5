import { RozenError } from '../errors.ts';
import { escapeControl } from './display.ts';
import { EXIT } from './exit.ts';

/** Pieces are collected up to this many bytes, so that a listing of a million names is not a million writes. */
const GATHER = 64 * 1024;

/** stdout (results) and stderr (everything else) of one command. */
export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly isTerminal: boolean;
  #pending: (string | Uint8Array)[] = [];
  #pendingSize = 0;
  #closed = false;
  #failure: Error | null = null;
  /** Called before a message is written, so that a progress bar can step aside. */
  beforeMessage: (() => void) | null = null;

  constructor(options: { json: boolean; quiet: boolean; survivesClosedOutput: boolean }) {
    this.json = options.json;
    this.quiet = options.quiet;
    this.isTerminal = process.stdout.isTTY === true;
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') {
        this.#closed = true;
        if (!options.survivesClosedOutput) process.exit(EXIT.closedOutput);
      } else {
        this.#failure ??= error;
        this.#closed = true;
      }
    });
    process.stderr.on('error', () => {});
  }

  /** One line of result. Bytes go out as they are; on a terminal the caller has made them printable. */
  line(text: string | Uint8Array): void {
    this.write(text);
    this.write('\n');
  }

  write(piece: string | Uint8Array): void {
    this.#pending.push(piece);
    this.#pendingSize += piece.length;
  }

  /** One JSON document. Numbers that are no safe integers, and bigints, become strings. */
  document(value: unknown): void {
    this.line(JSON.stringify(value, jsonValue, 2));
  }

  /** One JSON object on one line. */
  object(value: unknown): void {
    this.line(JSON.stringify(value, jsonValue));
  }

  /** True when enough is gathered: flush then. Ask in every loop that prints. */
  get full(): boolean {
    return this.#pendingSize >= GATHER;
  }

  async flush(): Promise<void> {
    if (this.#pendingSize > 0) {
      const bytes = Buffer.concat(
        this.#pending.map((piece) => (typeof piece === 'string' ? Buffer.from(piece) : piece)),
      );
      this.#pending = [];
      this.#pendingSize = 0;
      await this.send(bytes);
    }
    if (this.#failure !== null) {
      throw new RozenError('io', `writing to stdout failed: ${this.#failure.message}`, { cause: this.#failure });
    }
  }

  /** Writes bytes at once and waits until stdout has taken them. */
  async send(bytes: Uint8Array): Promise<void> {
    if (this.#closed || bytes.length === 0) return;
    await new Promise<void>((resolve) => {
      process.stdout.write(bytes, () => resolve());
    });
  }

  /** A message for a person, to stderr; not with --quiet. */
  message(text: string): void {
    if (this.quiet) return;
    this.#toStderr(escapeControl(text));
  }

  /** Something that a person should know even with --quiet. */
  warning(text: string): void {
    this.#toStderr(`rozen: ${escapeControl(text)}`);
  }

  /** Several lines, already fit for a terminal. */
  raw(text: string): void {
    this.#toStderr(text);
  }

  #toStderr(text: string): void {
    this.beforeMessage?.();
    process.stderr.write(`${text}\n`);
  }
}

function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (
    value !== null &&
    typeof value === 'object' &&
    'type' in value &&
    (value as { type: unknown }).type === 'Buffer'
  ) {
    return Buffer.from((value as unknown as { data: number[] }).data).toString('hex');
  }
  return value;
}
