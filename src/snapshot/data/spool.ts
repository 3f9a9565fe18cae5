/**
 * Archives on their way to the store, on this machine. For each one, in a folder that only this writer uses:
 *
 *   <id>.cbor  the archive's key and what a later run needs to go on; synced before the first frame, removed last
 *   <id>.roz   sealed bytes, exactly as they will stand in the store
 *   <id>.rix   the hot index object; written before the store may take the .roz away
 *
 * Crash states: no .cbor: nothing can open the rest, it is removed. A .roz without a tail: its whole frames stay, what follows
 * is cut off, writing goes on. A .roz with its tail: it is sealed, and only has to be stored. No .roz but a .rix: the store
 * has the data, the index is missing.
 */
import {
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { asMap, decodeCbor, encodeCbor, field } from '../../archive/cbor.ts';
import { ARCHIVE_ID_SIZE, BLOCK_SIZE, KEY_SIZE } from '../../archive/format.ts';
import { openFrame } from '../../archive/frame.ts';
import { holdsHeads } from '../../archive/header.ts';
import { deriveArchiveKeys } from '../../archive/keys.ts';
import type { RangeSource } from '../../archive/reader.ts';
import { type ScanResult, scanArchive, scanStream, streamFrames } from '../../archive/scan.ts';
import type { ArchiveSink } from '../../archive/writer.ts';
import { RozenError } from '../../errors.ts';
import { makeFolders } from '../../posix/make-folders.ts';
import { ChunkColumns } from './chunk-columns.ts';

/** Sealed bytes are pushed to the disk in the background after this many: a power cut costs no more. */
const SYNC_EVERY = 64 * 1024 * 1024;

export interface SpoolState {
  id: Buffer;
  /** The archive's 32-byte key. */
  key: Buffer;
  /** Number of the config whose recipients can open the archive. */
  config: number;
  /** The archive of one large file. */
  own: boolean;
}

/** The files of one archive; the sink that its writer appends to. */
export class Spool implements ArchiveSink, RangeSource {
  readonly state: SpoolState;
  readonly path: string;
  readonly #folder: string;
  readonly #name: string;
  readonly #fd: number;
  #size: number;
  #unsynced = 0;
  #syncing = false;
  #closed = false;
  #syncError: Error | null = null;

  private constructor(folder: string, state: SpoolState, fd: number) {
    this.#folder = folder;
    this.#name = state.id.toString('hex');
    this.state = state;
    this.path = join(folder, `${this.#name}.roz`);
    this.#fd = fd;
    this.#size = fstatSync(fd).size;
  }

  /** Makes the files of a new archive; its key is safe on disk when this returns. */
  static create(folder: string, state: SpoolState): Spool {
    const name = state.id.toString('hex');
    const bytes = encodeCbor({ id: state.id, key: state.key, config: state.config, own: state.own });
    writeNew(join(folder, `${name}.cbor`), bytes);
    bytes.fill(0);
    const fd = openSync(join(folder, `${name}.roz`), 'wx+', 0o600);
    syncFolder(folder);
    return new Spool(folder, state, fd);
  }

  static reopen(folder: string, state: SpoolState): Spool {
    return new Spool(folder, state, openSync(join(folder, `${state.id.toString('hex')}.roz`), 'r+'));
  }

  append(bytes: Uint8Array): void {
    if (this.#syncError !== null) throw this.#syncError;
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#size + done);
    }
    this.#size += bytes.length;
    this.#unsynced += bytes.length;
    if (this.#unsynced >= SYNC_EVERY && !this.#syncing) this.#syncSoon();
  }

  readBack(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    let got = 0;
    while (got < length) {
      const n = readSync(this.#fd, bytes, got, length - got, offset + got);
      if (n === 0) throw new RozenError('io', `${this.path} ends at ${offset + got}`);
      got += n;
    }
    return bytes;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return this.readBack(offset, length);
  }

  async suffix(length: number): Promise<{ bytes: Buffer; size: number }> {
    const wanted = Math.min(length, this.#size);
    return { bytes: this.readBack(this.#size - wanted, wanted), size: this.#size };
  }

  truncate(size: number): void {
    ftruncateSync(this.#fd, size);
    fdatasyncSync(this.#fd);
    this.#size = size;
  }

  /** The archive is sealed: keeps its index object, and closes the file for good. */
  async seal(hotIndex: Uint8Array): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      fdatasync(this.#fd, (error) => (error === null ? resolve() : reject(error)));
    });
    const path = join(this.#folder, `${this.#name}.rix`);
    rmSync(path, { force: true });
    writeNew(path, hotIndex);
    syncFolder(this.#folder);
    this.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // A background sync that still runs must not meet another file under the same number.
    if (!this.#syncing) closeSync(this.#fd);
  }

  /** The store has it all: nothing is left here. */
  remove(): void {
    this.close();
    removeSpool(this.#folder, this.#name);
  }

  #syncSoon(): void {
    this.#syncing = true;
    this.#unsynced = 0;
    fdatasync(this.#fd, (error) => {
      this.#syncing = false;
      if (this.#closed) closeSync(this.#fd);
      if (error !== null) this.#syncError = error;
    });
  }
}

export function removeSpool(folder: string, name: string): void {
  for (const ending of ['roz', 'roz.upload', 'rix', 'cbor']) rmSync(join(folder, `${name}.${ending}`), { force: true });
}

export function writeNew(path: string, bytes: Uint8Array): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

export function syncFolder(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } catch {
    // Some file systems cannot sync a folder.
  } finally {
    closeSync(fd);
  }
}

/** What a crashed run left of one archive. */
export type Recovered =
  /** Goes on: `scan` for `ArchiveWriter.resume`, the chunks that are whole, the plaintext length of the last block. */
  | { found: 'open'; spool: Spool; scan: ScanResult; chunks: ChunkColumns; lastPlainLength: number; sealed: number }
  /** Whole, with its tail; perhaps in the store already. `heads`: it holds heads of media files. */
  | { found: 'sealed'; spool: Spool; sealed: number; heads: boolean }
  /** The store took the file; `hotIndex` is still to be put. */
  | { found: 'taken'; id: Buffer; hotIndex: Buffer; remove(): void };

/** Looks through the folder (made if absent), cuts torn tails off, removes what can never be opened. */
export async function recoverSpools(folder: string): Promise<Recovered[]> {
  makeFolders(folder);
  const names = new Set<string>();
  for (const entry of readdirSync(folder)) {
    const match = /^([0-9a-f]{32})\.(cbor|roz|rix)$/.exec(entry);
    if (match !== null) names.add(match[1]!);
  }
  const recovered: Recovered[] = [];
  for (const name of [...names].sort()) {
    const one = await recoverSpool(folder, name);
    if (one === null) removeSpool(folder, name);
    else recovered.push(one);
  }
  return recovered;
}

async function recoverSpool(folder: string, name: string): Promise<Recovered | null> {
  const state = readState(folder, name);
  if (state === null) return null;
  if (!existsSync(join(folder, `${name}.roz`))) {
    const path = join(folder, `${name}.rix`);
    if (!existsSync(path)) return null;
    return { found: 'taken', id: state.id, hotIndex: readFileSync(path), remove: () => removeSpool(folder, name) };
  }
  const spool = Spool.reopen(folder, state);
  const scan = await scanArchive(spool);
  if (!scan.torn)
    return { found: 'sealed', spool, sealed: scan.size, heads: scan.header !== null && holdsHeads(scan.header) };
  const frames = streamFrames(scan);
  const last = frames.at(-1);
  if (scan.header === null || !scan.header.id.equals(state.id) || last === undefined) {
    spool.close();
    return null;
  }
  const end = last.offset + last.length;
  if (end < scan.size) spool.truncate(end);
  const { block, record } = deriveArchiveKeys(state.key, scan.header.commitment);
  record.fill(0);
  const chunks = new ChunkColumns();
  // Below, nothing reads beyond the frames that stay.
  for await (const event of scanStream(spool, { ...scan, size: end }, { key: block, frames })) {
    if (event.event === 'chunk') chunks.add(event.id, 0, event);
  }
  const context = { archiveId: state.id, key: block, headerHash: scan.header.headerHash };
  const bytes = spool.readBack(last.offset, last.length);
  const lastPlainLength = openFrame(context, bytes, { type: 'DATA', sequence: last.sequence }).length;
  block.fill(0);
  return { found: 'open', spool, scan, chunks, lastPlainLength, sealed: end };
}

/** Null when the file is absent or was not whole before the crash: then no frame follows it. */
function readState(folder: string, name: string): SpoolState | null {
  const path = join(folder, `${name}.cbor`);
  if (!existsSync(path)) return null;
  const bytes = readFileSync(path);
  try {
    const map = asMap(decodeCbor(bytes, { what: path }), path);
    const state: SpoolState = {
      id: field.bytes(map, 'id', ARCHIVE_ID_SIZE),
      key: Buffer.from(field.bytes(map, 'key', KEY_SIZE)),
      config: field.uint(map, 'config'),
      own: map.own === true,
    };
    return state.id.toString('hex') === name ? state : null;
  } catch (error) {
    if (error instanceof RozenError && error.code === 'corrupt') return null;
    throw error;
  } finally {
    bytes.fill(0);
  }
}

/** A stream can go on only after whole blocks; a short one was its end. */
export function canGoOn(lastPlainLength: number): boolean {
  return lastPlainLength === BLOCK_SIZE;
}
