import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, vi } from 'vitest';
import { initWithIdentity } from './photos.ts';
import { Sandbox } from './rozen.ts';

/** For the tests of a file: sandboxes with a folder that is backed up into the set `photos`, gone after each test. */
export class PhotoSet {
  #box: Sandbox | null = null;

  constructor() {
    // Many runs of the program: a machine that is busy must not fail them.
    vi.setConfig({ testTimeout: 300_000 });
    afterEach(() => {
      this.#box?.remove();
      this.#box = null;
    });
  }

  get box(): Sandbox {
    if (this.#box === null) throw new Error('no sandbox was begun');
    return this.#box;
  }

  /** The folder. */
  get source(): string {
    return join(this.box.dir, 'photos');
  }

  /** A repository that opens without a passphrase, and an empty folder. */
  begin(): void {
    this.#box = new Sandbox();
    mkdirSync(this.source);
    initWithIdentity(this.#box);
  }

  at(path: string): string {
    return join(this.source, path);
  }

  // biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests look at
  async backup(code = 0, ...options: string[]): Promise<any> {
    await settle();
    return this.box.json(['backup', this.source, '--set', 'photos', ...options], code);
  }
}

/** Past the tick of the clock within which a file is read again. */
export const settle = (): Promise<void> => sleep(60);
