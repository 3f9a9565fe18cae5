/** `kill -9` of the client, of the server and of both, in the middle of an upload: the next run sends what is missing, nothing else. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endServer, startServer, useBucket } from '../s3/bucket.ts';
import { noise } from './odd-tree.ts';
import { Sandbox, until } from './rozen.ts';

const MIB = 1024 * 1024;
let sandbox: Sandbox;
let server: Awaited<ReturnType<typeof startServer>>;
let port: string;

const place = (...parts: string[]) => join(sandbox.dir, ...parts);
const args = ['backup', '--set', 's'];

/** Each request has to wait, so that a kill finds parts that are there and parts that are not. */
const serve = () => startServer('--port', port, '--dir', place('s3'), '--log', place('requests'), '--latency', '150');

beforeAll(async () => {
  sandbox = new Sandbox();
  port = '0';
  server = await serve();
  port = new URL(server.access.endpoint).port;
  useBucket(sandbox, server.access, 'test/crash');
  mkdirSync(place('source'));
  for (let i = 0; i < 9; i++) writeFileSync(place('source', `file ${i}`), noise(16 * MIB, i));
  args.splice(1, 0, place('source'));
  sandbox.ok(['init']);
});
afterAll(async () => {
  await endServer(server.child);
  sandbox.remove();
});

/** Numbers of the parts that the server has acknowledged, as it will know them after a restart. */
function kept(): number[] {
  const folder = place('s3', 'uploads');
  const [name] = existsSync(folder) ? readdirSync(folder) : [];
  if (name === undefined) return [];
  return (JSON.parse(readFileSync(join(folder, name), 'utf8')) as { parts: { number: number }[] }).parts.map(
    (part) => part.number,
  );
}

interface Logged {
  operation: string;
  status: number;
  part?: number;
}

/** What was asked since this was called last. */
function requests(): Logged[] {
  if (!existsSync(place('requests'))) return [];
  const lines = readFileSync(place('requests'), 'utf8').trim().split('\n');
  rmSync(place('requests'));
  return lines.map((line) => JSON.parse(line) as Logged);
}

const parts = (all: Logged[]) =>
  all.filter(({ operation, status }) => operation === 'UploadPart' && status === 200).map(({ part }) => part!);

/** Backs up until the server has so many parts; then `end` kills. */
async function interrupt(atLeast: number, end: (client: ReturnType<Sandbox['start']>) => Promise<void>): Promise<void> {
  const client = sandbox.start(args);
  const ended = new Promise((done) => client.once('exit', done));
  await until(() => kept().length >= atLeast, `${atLeast} parts`, 120);
  await end(client);
  client.kill('SIGKILL');
  await ended;
}

const journal = () =>
  readdirSync(place('state'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.roz.upload'));

test('a killed backup goes on with the parts that are there', async () => {
  await interrupt(2, async (client) => {
    client.kill('SIGKILL');
    await endServer(server.child, 'SIGKILL');
  });
  const first = kept();
  expect(first.length).toBeGreaterThanOrEqual(2);
  expect(journal()).toHaveLength(1);
  server = await serve();
  requests();

  await interrupt(first.length + 1, async (client) => {
    client.kill('SIGKILL');
  });
  // What the client had sent is taken in to its end, before anything is counted.
  await endServer(server.child);
  const again = requests();
  server = await serve();
  expect(again.filter(({ operation }) => operation === 'CreateMultipartUpload')).toEqual([]);
  expect(parts(again).filter((part) => first.includes(part))).toEqual([]);

  // Without the journal the server is asked.
  const second = kept();
  rmSync(place('state', journal()[0]!));
  // A server that dies and comes back while the client waits costs the parts that were under way.
  const client = sandbox.start(args);
  let said = '';
  client.stderr.on('data', (text) => {
    said += text;
  });
  const ended = new Promise((done) => client.once('close', done));
  await until(() => kept().length > second.length, 'one more part', 120);
  await endServer(server.child, 'SIGKILL');
  const third = kept();
  server = await serve();
  expect(await ended, said).toBe(0);
  const last = requests();
  expect(last.filter(({ operation }) => operation === 'CreateMultipartUpload')).toEqual([]);
  expect(last.some(({ operation }) => operation === 'ListMultipartUploads')).toBe(true);
  expect(parts(last).filter((part) => second.includes(part))).toEqual([]);
  // Kept before the restart: not sent again by the client that lived through it, but for the one whose answer the kill cut off.
  const twice = third.filter((part) => parts(last).filter((one) => one === part).length > 1);
  expect(twice.length).toBeLessThanOrEqual(1);

  expect(journal()).toEqual([]);
  expect(readdirSync(place('s3', 'uploads'))).toEqual([]);
  sandbox.ok(['verify', '--read-data']);
  expect(sandbox.json(['snapshots'])).toHaveLength(1);
}, 400_000);
