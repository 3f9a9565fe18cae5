import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** Folders for the tests of one file, one each; gone when they are over, whatever modes they have then. */
export class TestFolders {
  readonly #root: string;
  #count = 0;

  constructor(name: string) {
    this.#root = mkdtempSync(join(tmpdir(), `rozen-${name}-`));
    // Some tests are another user's.
    chmodSync(this.#root, 0o755);
    afterAll(() => {
      execFileSync('chmod', ['-R', 'u+rwx', this.#root]);
      rmSync(this.#root, { recursive: true, force: true });
    });
  }

  /** An empty folder. */
  make(): string {
    const path = this.free();
    mkdirSync(path);
    return path;
  }

  /** A path at which there is nothing. */
  free(): string {
    return join(this.#root, String(this.#count++));
  }
}
