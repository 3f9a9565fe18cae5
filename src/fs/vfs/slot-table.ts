/**
 * Which slot a snapshot has on this machine, and which number a set: recorded for good, so that node numbers (st_ino, NFS
 * handles) stay the same from mount to mount. A text file that only grows, one line per number:
 *
 *   snapshot <slot> <snapshot id, 32 hex>
 *   set <number> <name as a JSON string>
 *
 * A torn last line (a crash) is skipped. Two mounts at once take turns by a lock file beside it.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { RozenError } from '../../errors.ts';
import { lockFile } from '../../posix/lock.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { MAX_SLOT, SETS_LIMIT } from './nodes.ts';

const LOCK_WAIT_MS = 5_000;

export class SlotTable {
  readonly #path: string | null;
  readonly #slots = new Map<string, number>();
  readonly #sets = new Map<string, number>();
  /** What is taken already: of two lines with one number the first counts. */
  readonly #taken = new Set<string>();
  #nextSlot = 1;
  #nextSet = 0;

  /** `path` null: numbers that are kept for this mount only. */
  constructor(path: string | null) {
    this.#path = path;
    if (path !== null) this.#read();
  }

  slotOf(snapshotId: string): number | undefined {
    return this.#slots.get(snapshotId);
  }

  setNumber(name: string): number | undefined {
    return this.#sets.get(name);
  }

  /** Gives a number to each snapshot and set that has none, in the given order. Durable when it returns. */
  async assign(wanted: { snapshots: readonly string[]; sets: readonly string[] }): Promise<void> {
    if (this.#complete(wanted)) return;
    if (this.#path === null) {
      this.assignHere(wanted);
      return;
    }
    makeFolders(dirname(this.#path));
    const unlock = await lockFile(`${this.#path}.lock`, { wait: LOCK_WAIT_MS });
    try {
      // Another mount may have added lines meanwhile.
      const torn = this.#read();
      const lines = this.#add(wanted);
      if (lines.length > 0) append(this.#path, `${torn ? '\n' : ''}${lines.join('\n')}\n`);
    } finally {
      unlock();
    }
  }

  /** As `assign`, for this mount only. */
  assignHere(wanted: { snapshots: readonly string[]; sets: readonly string[] }): void {
    this.#add(wanted);
  }

  #complete(wanted: { snapshots: readonly string[]; sets: readonly string[] }): boolean {
    return wanted.snapshots.every((id) => this.#slots.has(id)) && wanted.sets.every((name) => this.#sets.has(name));
  }

  #add(wanted: { snapshots: readonly string[]; sets: readonly string[] }): string[] {
    const lines: string[] = [];
    for (const name of wanted.sets) {
      if (this.#sets.has(name)) continue;
      if (this.#nextSet >= SETS_LIMIT) throw new RozenError('unsupported', 'more sets than a mount can number');
      this.#sets.set(name, this.#nextSet);
      this.#take(`set ${this.#nextSet}`);
      lines.push(`set ${this.#nextSet++} ${JSON.stringify(name)}`);
    }
    for (const id of wanted.snapshots) {
      if (this.#slots.has(id)) continue;
      if (this.#nextSlot >= MAX_SLOT) throw new RozenError('unsupported', 'more snapshots than a mount can number');
      this.#slots.set(id, this.#nextSlot);
      this.#take(`snapshot ${this.#nextSlot}`);
      lines.push(`snapshot ${this.#nextSlot++} ${id}`);
    }
    return lines;
  }

  /** Takes in the file. True when its last line is torn. */
  #read(): boolean {
    let text: string;
    try {
      text = readFileSync(this.#path!, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
    const end = text.lastIndexOf('\n') + 1;
    for (const line of text.slice(0, end).split('\n')) {
      const snapshot = /^snapshot ([0-9]{1,7}) ([0-9a-f]{32})$/.exec(line);
      const set = /^set ([0-9]{1,8}) (".*")$/.exec(line);
      if (snapshot !== null) this.#takeSlot(Number(snapshot[1]), snapshot[2]!);
      else if (set !== null) this.#takeSet(Number(set[1]), set[2]!);
    }
    return end < text.length;
  }

  #takeSlot(slot: number, id: string): void {
    if (slot < 1 || slot >= MAX_SLOT) return;
    if (!this.#slots.has(id) && this.#take(`snapshot ${slot}`)) this.#slots.set(id, slot);
    this.#nextSlot = Math.max(this.#nextSlot, slot + 1);
  }

  #takeSet(number: number, json: string): void {
    if (number >= SETS_LIMIT) return;
    let name: unknown;
    try {
      name = JSON.parse(json);
    } catch {
      return;
    }
    if (typeof name === 'string' && !this.#sets.has(name) && this.#take(`set ${number}`)) this.#sets.set(name, number);
    this.#nextSet = Math.max(this.#nextSet, number + 1);
  }

  #take(number: string): boolean {
    if (this.#taken.has(number)) return false;
    this.#taken.add(number);
    return true;
  }
}

function append(path: string, text: string): void {
  const fd = openSync(path, 'a', 0o600);
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
