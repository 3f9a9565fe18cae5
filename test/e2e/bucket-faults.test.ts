/** Every so many requests fail, each in another way: whatever is done ends, and is right. ROZEN_SOAK=20 for a long run. */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endServer, startServer, useBucket } from '../s3/bucket.ts';
import { compareFolders } from './compare.ts';
import { noise } from './odd-tree.ts';
import { Sandbox } from './rozen.ts';

const ROUNDS = Number(process.env.ROZEN_SOAK ?? 1);
/** A stalled connection is given up after half a minute: only for the long run. */
const KINDS = ['500', '503', 'reset', 'lost', 'cut', 'flip', ...(ROUNDS > 1 ? ['stall'] : [])].join(',');
const SEED = Number(process.env.ROZEN_SEED ?? Math.floor(Math.random() * 2 ** 31));

let sandbox: Sandbox;
let server: Awaited<ReturnType<typeof startServer>>;

beforeAll(async () => {
  sandbox = new Sandbox();
  server = await startServer('--fault-rate', '0.05', '--fault-kinds', KINDS, '--seed', String(SEED));
  useBucket(sandbox, server.access, 'test/faults');
});
afterAll(async () => {
  await endServer(server.child);
  sandbox.remove();
});

/** Several stalls in one command cost half a minute each, which is not a hang. */
function patiently(...args: string[]): void {
  const { code, stderr } = sandbox.run(args, { timeout: 600_000 });
  expect(code, `rozen ${args.join(' ')}: ${stderr}`).toBe(0);
}

test(
  `${ROUNDS} rounds with faults (seed ${SEED})`,
  () => {
    const source = join(sandbox.dir, 'source');
    const target = join(sandbox.dir, 'restored');
    mkdirSync(source);
    // A password is stretched at each command; the work here is that of the store.
    sandbox.ok(['init']);
    const identity = join(sandbox.dir, 'identity.txt');
    sandbox.ok(['key', 'export', '--owner', identity]);
    sandbox.env.ROZEN_IDENTITY_FILE = identity;
    for (let round = 0; round < ROUNDS; round++) {
      const folder = join(source, String(round));
      mkdirSync(folder);
      writeFileSync(join(folder, 'large'), noise(33 * 1024 * 1024, round));
      for (let i = 0; i < 40; i++) writeFileSync(join(folder, `small ${i}`), noise(1000 * i, round * 100 + i));
      patiently('backup', source, '--set', 's', '--archive-size', '20M');
      patiently('verify', '--read-data');
      patiently('restore', 'latest', '--target', target);
      expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
      rmSync(target, { recursive: true });
    }
    expect(sandbox.json(['snapshots'])).toHaveLength(ROUNDS);
  },
  120_000 + ROUNDS * 900_000,
);

test('what lies damaged in the bucket is told by verify, once, and by its file', async () => {
  const box = new Sandbox();
  const objects = join(box.dir, 'objects');
  const quiet = await startServer('--dir', objects);
  try {
    useBucket(box, quiet.access, 'test/damaged');
    const source = join(box.dir, 'source');
    mkdirSync(source);
    writeFileSync(join(source, 'large'), noise(3 * 1024 * 1024));
    box.ok(['init']);
    box.ok(['backup', source, '--set', 's']);
    expect(box.json(['verify', '--read-data'])).toMatchObject({ findings: [] });
    const bodies = join(objects, 'bodies');
    const sizes = readdirSync(bodies).map((name) => ({
      path: join(bodies, name),
      size: statSync(join(bodies, name)).size,
    }));
    const { path } = sizes.reduce((a, b) => (b.size > a.size ? b : a));
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1]! ^= 1;
    writeFileSync(path, bytes);
    const { code, stdout } = box.run(['--json', 'verify', '--read-data']);
    expect(code).not.toBe(0);
    const { findings } = JSON.parse(stdout);
    expect(findings).toMatchObject([{ kind: 'damaged', frame: { type: 'DATA' }, fileCount: 1 }]);
    expect(JSON.stringify(findings[0].files)).toContain('large');
  } finally {
    await endServer(quiet.child);
    box.remove();
  }
});
