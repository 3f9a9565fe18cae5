/**
 * A process that stores files is killed at random moments, again and again; nothing that stood in its spool may be lost or
 * sealed again. `ROZEN_KILLS` sets how often (24 by default), `ROZEN_SEED` repeats a run.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { memorySource, openChunkTable, parseHotIndex } from '../../../src/archive/reader.ts';
import { scanArchive } from '../../../src/archive/scan.ts';
import { DIST_PATH, describeFile, names, noise, Place } from './harness.ts';

const MIB = 1024 * 1024;
const KILLS = Number(process.env.ROZEN_KILLS ?? 24);
const SEED = Number(process.env.ROZEN_SEED ?? randomInt(1, 2 ** 31));
const CHILD = fileURLToPath(new URL('./crash-child.mjs', import.meta.url));

let place: Place;
beforeEach(async () => {
  place = await Place.make();
});
afterEach(() => place.remove());

/** Whole DATA frames that stood in the spool after a kill: archive id → offset → the frame's bytes as base64 of its hash. */
type Seen = Map<string, Map<number, { length: number; hash: Buffer }>>;

async function lookAtSpool(seen: Seen): Promise<number> {
  if (!existsSync(place.spool)) return 0;
  let frames = 0;
  for (const entry of readdirSync(place.spool)) {
    const id = /^([0-9a-f]{32})\.roz$/.exec(entry)?.[1];
    if (id === undefined || !existsSync(join(place.spool, `${id}.cbor`))) continue;
    const scan = await scanArchive(memorySource(readFileSync(join(place.spool, entry))));
    const known = seen.get(id) ?? new Map();
    seen.set(id, known);
    for (const { type, offset, length, hash } of scan.frames) {
      if (type !== 'DATA') continue;
      frames++;
      const before = known.get(offset);
      // What an earlier kill left must still be there, byte for byte.
      if (before !== undefined) expect({ length, hash }).toEqual(before);
      known.set(offset, { length, hash });
    }
  }
  return frames;
}

interface Child {
  child: ChildProcess;
  /** The first line that begins with a word; null when the process ended without it. */
  said(word: string): Promise<string | null>;
  /** Resolves when so many bytes are in the spool, or the process has ended. */
  sealed(bytes: number): Promise<void>;
  ended: Promise<number | null>;
}

function start(): Child {
  const child = spawn(process.execPath, [CHILD, DIST_PATH, place.root], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let errors = '';
  const waiting = new Set<() => void>();
  child.stdout.on('data', (data) => {
    output += data;
    for (const check of waiting) check();
  });
  child.stderr.on('data', (data) => {
    errors += data;
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('exit', (code) => {
      for (const check of waiting) check();
      if (code !== null && code !== 0) reject(new Error(errors));
      else resolve(code);
    });
  });
  ended.catch(() => {});
  const find = (test: (line: string) => boolean) =>
    new Promise<string | null>((resolve) => {
      const check = (): void => {
        // The last part is a line that is not whole yet.
        const line = output.split('\n').slice(0, -1).find(test);
        if (line === undefined && child.exitCode === null && child.signalCode === null) return;
        waiting.delete(check);
        resolve(line ?? null);
      };
      waiting.add(check);
      check();
    });
  const said = (word: string) => find((line) => line.startsWith(`${word} `));
  const sealed = async (bytes: number): Promise<void> => {
    await find((line) => line.startsWith('sealed ') && Number(line.slice(7)) >= bytes);
  };
  return { child, said, sealed, ended };
}

describe('kill -9', () => {
  it(`loses nothing that was sealed, ${KILLS} times (seed ${SEED})`, { timeout: 60_000 + KILLS * 5_000 }, async () => {
    let state = SEED;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state % below;
    };
    const files: string[] = [];
    /** About 70 MB that no round before had. */
    const addFiles = (round: number): void => {
      const put = (name: string, size: number): void => {
        files.push(place.put(`round ${round}/${name}`, noise(size, files.length + 1)));
      };
      for (let i = 0; i < 400; i++) put(`small/${i % 9}/${i}`, 500 + random(60_000));
      for (let i = 0; i < 4; i++) put(`middle/${i}`, MIB + random(3 * MIB));
      for (let i = 0; i < 2; i++) put(`large/${i}`, 6 * MIB + random(8 * MIB));
      put('large/own', 30 * MIB);
    };
    addFiles(0);

    const seen: Seen = new Map();
    let inSpool = 0;
    let rounds = 1;
    let interrupted = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const { child, said, sealed, ended } = start();
      if (random(5) === 0) {
        // While it starts or recovers, or whatever it does by then.
        const timer = setTimeout(() => child.kill('SIGKILL'), random(1500));
        await ended;
        clearTimeout(timer);
      } else {
        const line = await said('go');
        if (line !== null && inSpool > 0) {
          expect(JSON.parse(line.slice(3)).recoveredBytes).toBeGreaterThanOrEqual(inSpool);
        }
        await sealed(random(50 * MIB));
        const timer = setTimeout(() => child.kill('SIGKILL'), random(30));
        await ended;
        clearTimeout(timer);
      }
      if (child.signalCode === null) addFiles(rounds++);
      if ((await lookAtSpool(seen)) > 0) interrupted++;
      // What has gone to the store is not recovered any more.
      inSpool = 0;
      for (const [id, frames] of seen) {
        if (!existsSync(join(place.spool, `${id}.cbor`)) || !existsSync(join(place.spool, `${id}.roz`))) continue;
        for (const { length } of frames.values()) inSpool += length;
      }
    }
    const last = start();
    expect(await last.ended).toBe(0);
    expect(readdirSync(place.spool)).toEqual([]);

    // Every whole frame that ever stood in a spool stands in its final archive, where it stood.
    let frames = 0;
    for (const [id, known] of seen) {
      // A spool that held no block yet is begun anew.
      if (known.size === 0) continue;
      const bytes = readFileSync(join(place.storePath, names.dataName(Buffer.from(id, 'hex'))));
      const final = new Map((await scanArchive(memorySource(bytes))).frames.map((frame) => [frame.offset, frame]));
      for (const [offset, { length, hash }] of known) {
        expect(final.get(offset)).toMatchObject({ type: 'DATA', length, hash });
        frames++;
      }
    }
    expect(frames).toBeGreaterThan(0);
    expect(interrupted).toBeGreaterThan(KILLS / 3);

    // No chunk was stored twice, so none was sealed again.
    const { indexKey } = await place.repository.loadSecrets();
    const ids = new Set<string>();
    let chunks = 0;
    for (const name of place.objects('index')) {
      const table = openChunkTable(parseHotIndex(readFileSync(join(place.storePath, name))), indexKey);
      for (let i = 0; i < table.count; i++) ids.add(table.ids.toString('hex', i * 32, (i + 1) * 32));
      chunks += table.count;
    }
    expect(ids.size).toBe(chunks);

    const index = await place.openIndex('fresh');
    expect((await index.sync()).ignored).toEqual([]);
    const writer = await place.openWriter(index);
    const stored = files.map((path) => writer.add(describeFile(path)));
    expect((await writer.finish()).archives).toEqual([]);
    const back = await place.readBack(index, await Promise.all(stored));
    for (const [i, path] of files.entries()) expect(back[i]!.equals(readFileSync(path))).toBe(true);
    await index.close();
  });
});
