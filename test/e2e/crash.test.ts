/**
 * `kill -9` at moments spread over a whole backup. Everyday: a dozen kills over 60 MB. The full proof is `npm run test:crash`:
 * ROZEN_CRASH_KILLS kills (200) over ROZEN_CRASH_MB (2048) of files; ROZEN_CRASH_SOURCE names folders to take them from, separated by
 * colons; ROZEN_CRASH_SEED repeats the moments of a run. The full proof packs by lz4, which is no part of what is proven and lets
 * 200 rounds end within the hour; the everyday one by the default codec.
 */
import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MARKS, type Moment, type Phase, Proof } from './crash/proof.ts';
import { gather } from './crash/source.ts';

const KILLS = Number(process.env.ROZEN_CRASH_KILLS ?? 12);
const MEGABYTES = Number(process.env.ROZEN_CRASH_MB ?? 60);
const SEED = Number(process.env.ROZEN_CRASH_SEED ?? randomInt(1, 2 ** 31));
const SOURCES = (process.env.ROZEN_CRASH_SOURCE ?? '/usr/lib:/usr/share').split(':');
const FULL = KILLS > 50;
/** Every so many rounds the files are restored and compared; each round reads and verifies all of them. */
const RESTORE_EVERY = FULL ? 100 : 4;
/** Milliseconds for a round, on a slow machine. */
const PATIENCE = 20_000 + MEGABYTES * 150;

const proof = new Proof(FULL ? { archiveSize: '128M', codec: 'lz4' } : { archiveSize: '8M' });
let files = 0;

beforeAll(async () => {
  files = gather(proof.source, SOURCES, MEGABYTES * 1024 * 1024).files;
  await proof.prepare();
}, PATIENCE * 4);
afterAll(() => proof.remove(), 600_000);

test(`${KILLS} kills cost nothing that was sealed (seed ${SEED})`, { timeout: PATIENCE * KILLS }, async () => {
  const random = randomFrom(SEED);
  const { archives, dataBytes } = proof.baseline;
  let { milliseconds } = proof.baseline;
  const phases = new Map<Phase, number>();
  let kills = 0;
  let twice = 0;
  let early = 0;
  let frames = 0;
  let added = 0;
  const started = Date.now();
  const report = (): string => {
    const spread = [...phases].map(([phase, count]) => `${phase} ${count}`).join(', ');
    return (
      `${kills} kills (${twice} of them in the run after a kill as well) of a backup of ${files} files, ${MEGABYTES} MB in ` +
      `${archives} archives: ${frames} sealed blocks stood, none was sealed twice, no chunk stored twice, every ` +
      `verify --read-data clean; at most ${(added / 1e6).toFixed(2)} MB more stored than without a kill. ` +
      `Killed: ${spread}. ${Math.round((Date.now() - started) / 1000)} s, seed ${SEED}`
    );
  };
  while (kills < KILLS) {
    const timed: Moment = { after: (milliseconds * (kills / 2 + random())) / (KILLS / 2) };
    const marked: Moment = {
      mark: MARKS[(kills >> 1) % MARKS.length]!,
      nth: 1,
      delay: Math.max(0, Math.floor(random() * 6) - 3) * 2,
    };
    if (['archive', 'hot index', 'data object', 'index object'].includes(marked.mark)) {
      marked.nth = 1 + Math.floor(random() * archives);
    }
    const moments: Moment[] = [kills % 2 === 0 ? timed : marked];
    if (random() < 0.2) moments.push({ after: milliseconds * random() });
    const round = await proof.round(moments, { restore: kills % RESTORE_EVERY === RESTORE_EVERY - 1 });
    if (round === null) {
      // The machine has become faster than when it was measured: aim earlier.
      milliseconds *= 0.8;
      expect(++early).toBeLessThan(KILLS * 2);
      continue;
    }
    kills++;
    if (round.phases.length > 1) twice++;
    for (const phase of round.phases) phases.set(phase, (phases.get(phase) ?? 0) + 1);
    frames += round.frames;
    added = Math.max(added, round.dataBytes - dataBytes);
    if (FULL && kills % 5 === 0) console.log(report());
  }
  console.log(report());
  expect(phases.size).toBeGreaterThan(3);
  expect(frames).toBeGreaterThan(0);
});

/** Numbers from 0 to below 1 (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
