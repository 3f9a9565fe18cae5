import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { RozenError } from '../../src/errors.ts';
import { openStore } from '../../src/store/open.ts';
import { compareFolders } from '../e2e/compare.ts';
import { noise } from '../e2e/odd-tree.ts';
import { Sandbox } from '../e2e/rozen.ts';
import { accessEnvironment, type S3Access, useBucket } from './bucket.ts';

const MIB = 1024 * 1024;
/** Gigabytes over a gateway that shares two cores. */
const PATIENT = { timeout: 1_200_000 };
/** Every so many kills the gateway dies too. */
const GATEWAY_EVERY = 4;

/** A backup whose client is killed again and again, and the gateway at times: it ends, and every byte is there. */
export function killJob(access: S3Access, { kills, mib }: { kills: number; mib: number }): void {
  let sandbox: Sandbox;
  let source: string;

  beforeAll(() => {
    sandbox = new Sandbox();
    useBucket(sandbox, access, `kills-${process.pid}-${Date.now()}/r`);
    Object.assign(process.env, accessEnvironment(access));
    source = join(sandbox.dir, 'source');
    mkdirSync(source);
    const file = noise(8 * MIB);
    for (let i = 0; i * 8 < mib; i++) {
      // Not equal, and not worth the time of making every byte of them anew.
      for (let at = 0; at < file.length; at += 4096) file.writeUInt32LE((i * 2_654_435_761) >>> 0, at);
      writeFileSync(join(source, `file ${i}`), file);
    }
    sandbox.ok(['init']);
  });
  afterAll(() => sandbox.remove());

  const args = () => ['backup', source, '--set', 's', '--archive-size', '96M'];

  /** Bytes that the store has acknowledged, parts of uploads among them. */
  async function acknowledged(): Promise<number> {
    const store = await openStore(sandbox.env.ROZEN_REPOSITORY!);
    let bytes = 0;
    for await (const { size } of store.list('data/')) bytes += size;
    for await (const upload of store.unfinished()) bytes += upload.bytes;
    return bytes;
  }

  test(`${kills} kills of the client, some of them of the gateway too`, async () => {
    let before = 0;
    for (let kill = 1; kill <= kills; kill++) {
      const client = sandbox.start(args());
      const state = { ended: false };
      const ended = new Promise<void>((done) =>
        client.once('exit', () => {
          state.ended = true;
          done();
        }),
      );
      const end = Date.now() + 180_000;
      let now = before;
      while (!state.ended && now <= before) {
        if (Date.now() > end) throw new Error(`kill ${kill}: nothing arrives any more after ${before} bytes`);
        await delay(20);
        now = await acknowledged();
      }
      if (state.ended) throw new Error(`the backup ended before kill ${kill}: give it more to do`);
      const withGateway = kill % GATEWAY_EVERY === 0;
      if (withGateway) ceph('kill-rgw');
      client.kill('SIGKILL');
      await ended;
      if (withGateway) ceph('start');
      const kept = await acknowledged();
      // What was acknowledged survives both.
      expect(kept).toBeGreaterThanOrEqual(now);
      before = kept;
    }
    // And once more under a client that lives through it.
    const client = sandbox.start(args());
    const code = new Promise((done) => client.once('exit', done));
    await delay(500);
    ceph('kill-rgw');
    ceph('start');
    expect(await code).toBe(0);
  }, 1_800_000);

  test('it is whole', async () => {
    const store = await openStore(sandbox.env.ROZEN_REPOSITORY!);
    for await (const { name, bytes, stored } of store.unfinished()) {
      // A gateway that is killed while it joins the parts forgets to take the upload off its list.
      if (!stored) throw new RozenError('internal', `an upload of ${name} was left with ${bytes} bytes`);
      expect((await store.stat(name))?.size).toBe(bytes);
    }
    expect(sandbox.run(['repair', '--older-than', '0'])).toMatchObject({ code: 0 });
    expect(sandbox.json(['snapshots'])).toHaveLength(1);
    expect(sandbox.run(['verify', '--read-data'], PATIENT)).toMatchObject({ code: 0 });
    const target = join(sandbox.dir, 'restored');
    expect(sandbox.run(['restore', 'latest', '--target', target], PATIENT)).toMatchObject({ code: 0 });
    expect(compareFolders(source, target, { folderSizes: false })).toEqual([]);
  }, 1_800_000);
}

function ceph(command: string): void {
  execFileSync('bash', [join(import.meta.dirname, 'ceph.sh'), command], { stdio: ['ignore', 'ignore', 'inherit'] });
}
