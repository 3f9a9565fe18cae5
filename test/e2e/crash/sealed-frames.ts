/** What stands sealed on disk: in the spool of a run that was killed, and in the archives of the store. */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { openChunkTable, parseHotIndex, type RangeSource } from '../../../src/archive/reader.ts';
import { type ScannedFrame, scanArchive, streamFrames } from '../../../src/archive/scan.ts';

/** Archive id in hex → sequence → the whole DATA frame of that number. `hash` is its block hash, which fits its bytes. */
export type Ledger = Map<string, Map<number, Pick<ScannedFrame, 'offset' | 'length' | 'hash'>>>;

/** Files below `folder` whose name ends so, as paths; none when the folder is absent. */
export function filesBelow(folder: string, ending: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  } catch (error) {
    // A killed run may not have come so far; a running one may remove what is being listed.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .filter((name) => name.endsWith(ending))
    .sort()
    .map((name) => join(folder, name));
}

/** The id that an archive's file is named by. */
export function idOf(path: string): string {
  const id = /([0-9a-f]{32})\.[a-z]+$/.exec(path)?.[1];
  if (id === undefined) throw new Error(`${path} is not named by an archive`);
  return id;
}

/** The whole DATA frames of a file, from its front; `torn` as the scan says. */
export async function framesOf(path: string): Promise<{ frames: ScannedFrame[]; torn: boolean; size: number }> {
  const fd = openSync(path, 'r');
  try {
    const { size } = fstatSync(fd);
    const read = async (offset: number, length: number): Promise<Buffer> => {
      const bytes = Buffer.allocUnsafe(length);
      let done = 0;
      while (done < length) {
        const got = readSync(fd, bytes, done, length - done, offset + done);
        if (got === 0) throw new Error(`${path} ends at ${offset + done}`);
        done += got;
      }
      return bytes;
    };
    const source: RangeSource = {
      read,
      suffix: async (length) => ({ bytes: await read(Math.max(0, size - length), Math.min(size, length)), size }),
    };
    const scan = await scanArchive(source);
    return { frames: streamFrames(scan), torn: scan.torn, size };
  } finally {
    closeSync(fd);
  }
}

/** Notes every whole frame of these files; one that was noted before must be the same still. Returns how many it saw. */
export async function note(ledger: Ledger, paths: readonly string[]): Promise<number> {
  let seen = 0;
  for (const path of paths) {
    const known: Map<number, Pick<ScannedFrame, 'offset' | 'length' | 'hash'>> = ledger.get(idOf(path)) ?? new Map();
    ledger.set(idOf(path), known);
    for (const { sequence, offset, length, hash } of (await framesOf(path)).frames) {
      const before = known.get(sequence);
      if (before !== undefined && !(before.offset === offset && before.length === length && before.hash.equals(hash))) {
        throw new Error(`${path}: block ${sequence} was sealed a second time`);
      }
      known.set(sequence, { offset, length, hash });
      seen++;
    }
  }
  return seen;
}

/** Every noted frame must stand in the final archives, byte-equal and where it stood. Returns how many did. */
export async function mustStand(ledger: Ledger, archives: readonly string[]): Promise<number> {
  const paths = new Map(archives.map((path) => [idOf(path), path]));
  let stood = 0;
  for (const [id, known] of ledger) {
    if (known.size === 0) continue;
    const path = paths.get(id);
    if (path === undefined) throw new Error(`archive ${id} had ${known.size} sealed blocks and was not stored`);
    const final = new Map((await framesOf(path)).frames.map((frame) => [frame.sequence, frame]));
    for (const [sequence, { offset, length, hash }] of known) {
      const frame = final.get(sequence);
      if (frame === undefined || frame.offset !== offset || frame.length !== length || !frame.hash.equals(hash)) {
        throw new Error(`${path}: sealed block ${sequence} is not where it was`);
      }
      stood++;
    }
  }
  return stood;
}

/** All archives' chunk tables together: how many chunks and bytes; throws when a chunk was stored twice. */
export function chunksOnce(indexes: readonly string[], indexKey: Uint8Array): { chunks: number; bytes: number } {
  const owner = new Map<string, string>();
  let bytes = 0;
  for (const path of indexes) {
    const table = openChunkTable(parseHotIndex(readFileSync(path)), indexKey);
    for (let row = 0; row < table.count; row++) {
      const id = `${table.ids.toString('latin1', row * 32, row * 32 + 32)}${table.ordinals[row]}`;
      const other = owner.get(id);
      if (other !== undefined) throw new Error(`chunk ${row} of ${path} is stored in ${other} too`);
      owner.set(id, path);
      bytes += table.lengths[row]!;
    }
  }
  return { chunks: owner.size, bytes };
}
