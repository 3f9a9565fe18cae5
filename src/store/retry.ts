import { setTimeout as delay } from 'node:timers/promises';
import { RozenError } from '../errors.ts';
import { fileSize } from './file-size.ts';
import type {
  ColdState,
  Keeping,
  ObjectInfo,
  ObjectStore,
  PutFileOptions,
  ThawTier,
  Unfinished,
} from './object-store.ts';

export interface RetryOptions {
  /** Calls in all, the first included. */
  attempts?: number;
  /** Pause before the second call; doubles each time, with jitter, up to `maxDelayMs`. */
  firstDelayMs?: number;
  maxDelayMs?: number;
  sleep?: (milliseconds: number) => Promise<unknown>;
  onRetry?: (error: RozenError, name: string) => void;
}

const DEFAULTS: Required<RetryOptions> = {
  attempts: 6,
  firstDelayMs: 200,
  maxDelayMs: 15_000,
  sleep: delay,
  onRetry: () => {},
};

/** Calls until it works; throws what may not be repeated, and the last error when the attempts are used up. */
export async function repeat<T>(
  call: (attempt: number) => Promise<T>,
  name: string,
  options: RetryOptions = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call(attempt);
    } catch (error) {
      await pause(error, { name, attempt, options: { ...DEFAULTS, ...options } });
    }
  }
}

/** Throws what may not be repeated. */
async function pause(
  error: unknown,
  { name, attempt, options }: { name: string; attempt: number; options: Required<RetryOptions> },
): Promise<void> {
  const { attempts, firstDelayMs, maxDelayMs, sleep, onRetry } = options;
  if (!(error instanceof RozenError) || !error.retryable || attempt >= attempts) throw error;
  onRetry(error, name);
  const longest = Math.min(maxDelayMs, firstDelayMs * 2 ** (attempt - 1));
  await sleep(longest * (0.5 + Math.random() / 2));
}

/**
 * Repeats calls whose error says `retryable`. A create that failed in an unknown state may have succeeded: when a later
 * try meets `exists`, the object's bytes decide.
 */
export class RetryStore implements ObjectStore {
  readonly inner: ObjectStore;
  readonly #options: Required<RetryOptions>;

  constructor(inner: ObjectStore, options: RetryOptions = {}) {
    this.inner = inner;
    this.#options = { ...DEFAULTS, ...options };
  }

  get location(): string {
    return this.inner.location;
  }

  prepare(): Promise<void> {
    return this.#repeat('', () => this.inner.prepare());
  }

  get(name: string, limit?: number): Promise<Buffer> {
    return this.#repeat(name, () => this.inner.get(name, limit));
  }

  getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer> {
    return this.#repeat(name, () => this.inner.getRange(name, offset, length, target));
  }

  getSuffix(name: string, length: number): Promise<{ bytes: Buffer; size: number }> {
    return this.#repeat(name, () => this.inner.getSuffix(name, length));
  }

  put(name: string, bytes: Uint8Array): Promise<void> {
    return this.#repeat(name, async (attempt) => {
      try {
        await this.inner.put(name, bytes);
      } catch (error) {
        if (attempt === 1 || !isExists(error)) throw error;
        const stored = await this.inner.get(name);
        if (!stored.equals(bytes)) throw error;
        await this.inner.retain([name]);
      }
    });
  }

  /** A repeated `putFile` trusts size alone: its names hold random ids, so nobody else writes them. */
  putFile(name: string, path: string, options?: PutFileOptions): Promise<void> {
    let size: number | null = null;
    return this.#repeat(name, async (attempt) => {
      size ??= await fileSize(path);
      try {
        await this.inner.putFile(name, path, options);
      } catch (error) {
        if (attempt === 1 || !isExists(error)) throw error;
        if ((await this.inner.stat(name))?.size !== size) throw error;
        await this.inner.retain([name]);
      }
    });
  }

  stat(name: string): Promise<{ size: number; modified: number } | null> {
    return this.#repeat(name, () => this.inner.stat(name));
  }

  coldState(name: string): Promise<ColdState | null> {
    return this.#repeat(name, () => this.inner.coldState(name));
  }

  /** A request whose answer was lost is made again: the second one finds that it was asked for before. */
  thaw(name: string, request: { tier: ThawTier; days: number }): Promise<void> {
    return this.#repeat(name, () => this.inner.thaw(name, request));
  }

  /** A listing that breaks off goes on after the last name that came. */
  async *list(prefix: string, options: { after?: string } = {}): AsyncIterable<ObjectInfo> {
    let after = options.after;
    for (let attempt = 1; ; attempt++) {
      try {
        for await (const info of this.inner.list(prefix, after === undefined ? {} : { after })) {
          after = info.name;
          attempt = 1;
          yield info;
        }
        return;
      } catch (error) {
        await pause(error, { name: prefix, attempt, options: this.#options });
      }
    }
  }

  delete(name: string): Promise<void> {
    return this.#repeat(name, () => this.inner.delete(name));
  }

  localPath(name: string): string | null {
    return this.inner.localPath(name);
  }

  keep(keeping: Keeping): void {
    this.inner.keep(keeping);
  }

  cannotKeep(keeping: Keeping): Promise<RozenError | null> {
    return this.#repeat('', () => this.inner.cannotKeep(keeping));
  }

  retain(names: readonly string[]): Promise<void> {
    return this.#repeat('', () => this.inner.retain(names));
  }

  lockedUntil(name: string): Promise<number | null> {
    return this.#repeat(name, () => this.inner.lockedUntil(name));
  }

  /** Not begun anew in the middle: what was given would be given again. */
  unfinished(): AsyncIterable<Unfinished> {
    return this.inner.unfinished();
  }

  abandon(unfinished: Unfinished): Promise<boolean> {
    return this.#repeat(unfinished.name, () => this.inner.abandon(unfinished));
  }

  #repeat<T>(name: string, call: (attempt: number) => Promise<T>): Promise<T> {
    return repeat(call, name, this.#options);
  }
}

function isExists(error: unknown): boolean {
  return error instanceof RozenError && error.code === 'exists';
}
