/** An archive on its way into the store, in a file of this machine. */
import { closeSync, fsyncSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import type { ArchiveSink } from '../../archive/writer.ts';
import { RozenError } from '../../errors.ts';

/** Frames are gathered to writes of this size. */
const BUFFER = 1024 * 1024;

export class ArchiveFile implements ArchiveSink {
  readonly path: string;
  #fd: number;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;

  /** Makes the file, replacing one that a crash left. */
  constructor(path: string) {
    this.path = path;
    rmSync(path, { force: true });
    this.#fd = openSync(path, 'wx+', 0o600);
  }

  append(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes >= BUFFER) this.#write();
  }

  readBack(offset: number, length: number): Uint8Array {
    this.#write();
    const bytes = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const got = readSync(this.#fd, bytes, done, length - done, offset + done);
      if (got === 0) throw new RozenError('io', `${this.path} ends too early`);
      done += got;
    }
    return bytes;
  }

  /** Makes what was appended durable. The file stays open until `remove`. */
  sync(): void {
    this.#write();
    fsyncSync(this.#fd);
  }

  /** Closes and removes the file; calling it twice does nothing. */
  remove(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
    rmSync(this.path, { force: true });
  }

  #write(): void {
    const bytes = Buffer.concat(this.#waiting);
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
  }
}
