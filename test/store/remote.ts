/** A store that says nothing lies on this machine, over a local one: counts its calls, answers late, or not at all. */
import { setTimeout as delay } from 'node:timers/promises';
import { RozenError } from '../../src/errors.ts';
import { CountingStore } from '../../src/store/counting.ts';
import { LocalStore } from '../../src/store/local.ts';
import type { ObjectInfo } from '../../src/store/object-store.ts';

export class RemoteStore extends CountingStore {
  /** Milliseconds before each answer. */
  latency: number;
  /** down: each call fails at once; dead: none is ever answered. */
  network: 'up' | 'down' | 'dead' = 'up';
  /** Calls that are not answered yet, and the most there were. */
  open = 0;
  mostOpen = 0;
  /** Changes bytes on their way. */
  tamper: (name: string, offset: number, bytes: Buffer) => void = () => {};

  constructor(folder: string, latency = 0) {
    super(new LocalStore(folder));
    this.latency = latency;
  }

  override localPath(): null {
    return null;
  }

  override get(name: string, limit?: number): Promise<Buffer> {
    return this.#answer(() => super.get(name, limit));
  }

  override getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer> {
    return this.#answer(async () => {
      const bytes = await super.getRange(name, offset, length, target);
      this.tamper(name, offset, bytes);
      return bytes;
    });
  }

  override getSuffix(name: string, length: number): Promise<{ bytes: Buffer; size: number }> {
    return this.#answer(async () => {
      const answer = await super.getSuffix(name, length);
      this.tamper(name, answer.size - answer.bytes.length, answer.bytes);
      return answer;
    });
  }

  override stat(name: string): Promise<{ size: number; modified: number } | null> {
    return this.#answer(() => super.stat(name));
  }

  override async *list(prefix: string, options?: { after?: string }): AsyncIterable<ObjectInfo> {
    const inner = super.list(prefix, options);
    await this.#answer(() => Promise.resolve());
    yield* inner;
  }

  async #answer<T>(call: () => Promise<T>): Promise<T> {
    this.open++;
    this.mostOpen = Math.max(this.mostOpen, this.open);
    try {
      if (this.network === 'dead') await new Promise(() => {});
      if (this.network === 'down')
        throw new RozenError('io', `${this.location}: the network is down`, { retryable: true });
      if (this.latency > 0) await delay(this.latency);
      return await call();
    } finally {
      this.open--;
    }
  }
}
