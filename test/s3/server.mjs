/**
 * A small S3 server for tests: signatures are really checked, objects survive kill -9, faults are made on purpose, requests counted.
 * It is trusted because the store contract passes on it and on a real server alike (npm run test:s3).
 */

import { once } from 'node:events';
import { appendFileSync, createReadStream, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Objects } from './objects.mjs';
import { answer, errorAnswer, operationOf } from './operations.mjs';
import { S3Error } from './s3-error.mjs';
import { checkPayload, checkSignature } from './sigv4.mjs';

export const CREDENTIALS = { accessKeyId: 'testaccesskey', secretAccessKey: 'testsecretkey0000000000000000' };

/** Each is seen by a client as something else:
 * 403           refused, for good
 * 500, 503     an error answer, nothing done
 * reset        the connection is closed, nothing done
 * lost         all is done, the answer never comes: the connection is closed
 * stall        nothing comes for ever (until the client gives up)
 * cut          half of the body, then the connection is closed
 * flip         one bit of the body is wrong
 */
/** What passes when the request is made again. */
export const FAULTS = ['500', '503', 'reset', 'lost', 'stall', 'cut', 'flip'];

export async function startS3(options = {}) {
  const server = new S3Server(options);
  await server.listen(options.port ?? 0);
  return server;
}

class S3Server {
  #http;
  #ownDir = null;
  #random;
  #sockets = new Set();

  constructor(options) {
    const { dir, buckets = [], region = 'us-east-1', keys, latency = 0, seed = 1, restoreMs = 0, clock } = options;
    if (dir === undefined) this.#ownDir = mkdtempSync(join(tmpdir(), 'rozen-s3-'));
    this.objects = new Objects(dir ?? this.#ownDir, clock);
    for (const name of buckets) if (!this.objects.buckets.has(name)) this.objects.makeBucket(name);
    this.region = region;
    this.keys = keys ?? { [CREDENTIALS.accessKeyId]: CREDENTIALS.secretAccessKey };
    /** Milliseconds before each request is looked at. */
    this.latency = latency;
    this.restoreMs = restoreMs;
    /** Code of the error that RestoreObject answers with; null when it works. */
    this.thawRefusal = null;
    /** The server's clock is so many milliseconds ahead. */
    this.skew = 0;
    /** {operation, key, status, range, bytes} of every request. */
    this.requests = [];
    /** Faults to make, in order: {kind, times?, operation?, match?(request)}. */
    this.faults = [];
    /** Any of `kinds` at this rate. */
    /** File that gets a line of JSON for each request that was answered. */
    this.log = options.log;
    this.chaos = { rate: options.faultRate ?? 0, kinds: options.faultKinds ?? FAULTS };
    this.#random = mulberry32(seed);
    this.#http = createServer((request, response) => this.#handle(request, response));
    this.#http.keepAliveTimeout = 60_000;
    this.#http.on('connection', (socket) => {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  async listen(port) {
    await new Promise((done, failed) => {
      this.#http.once('error', failed);
      this.#http.listen(port, '127.0.0.1', done);
    });
    this.port = this.#http.address().port;
    this.endpoint = `http://127.0.0.1:${this.port}`;
  }

  /** How many requests of these operations came, all when none is named. */
  count(...operations) {
    return this.requests.filter(({ operation }) => operations.length === 0 || operations.includes(operation)).length;
  }

  reset() {
    this.requests = [];
  }

  async close() {
    const closed = new Promise((done) => this.#http.close(done));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    if (this.#ownDir !== null) rmSync(this.#ownDir, { recursive: true, force: true });
  }

  async #handle(request, response) {
    request.on('error', () => {});
    response.on('error', () => {});
    const url = new URL(request.url, 'http://host');
    const [, bucket = '', ...rest] = url.pathname.split('/');
    const asked = {
      method: request.method,
      headers: request.headers,
      bucket: decodeURIComponent(bucket),
      key: decodeURIComponent(rest.join('/')),
      query: url.searchParams,
      objects: this.objects,
      restoreMs: this.restoreMs,
      thawRefusal: this.thawRefusal,
    };
    asked.operation = operationOf(asked);
    const note = { operation: asked.operation, key: asked.key, status: 0, range: request.headers.range, bytes: 0 };
    if (asked.query.has('partNumber')) note.part = Number(asked.query.get('partNumber'));
    this.requests.push(note);
    const fault = this.#fault(asked);
    const body = await readBody(request).catch(() => null);
    if (body === null) return;
    if (this.latency > 0) await delay(this.latency);
    if (fault === 'stall') return;
    if (fault === 'reset') return request.socket.destroy();
    let result;
    try {
      if (fault === '403') throw new S3Error(403, 'AccessDenied', 'Access Denied');
      if (fault === '500')
        throw new S3Error(500, 'InternalError', 'We encountered an internal error. Please try again.');
      if (fault === '503') throw new S3Error(503, 'SlowDown', 'Please reduce your request rate.');
      checkSignature({ ...asked, url: request.url, keys: this.keys, region: this.region, now: Date.now() + this.skew });
      checkPayload(request.headers, body);
      result = answer({ ...asked, body });
    } catch (error) {
      if (!(error instanceof S3Error)) {
        console.error(error);
        result = errorAnswer({ status: 500, code: 'InternalError', message: String(error) }, url.pathname);
      } else result = errorAnswer(error, url.pathname);
    }
    note.status = result.status;
    if (this.log !== undefined) appendFileSync(this.log, `${JSON.stringify(note)}\n`);
    if (fault === 'lost') return request.socket.destroy();
    try {
      await this.#send(request, response, { result, fault, note });
    } catch {
      request.socket.destroy();
    }
  }

  async #send(request, response, { result, fault, note }) {
    const headers = { date: new Date(Date.now() + this.skew).toUTCString(), ...result.headers };
    if (result.version === undefined) {
      const text = Buffer.from(result.body ?? '');
      const silent = request.method === 'HEAD' || result.status === 204;
      if (!silent) headers['content-length'] = text.length;
      note.bytes = silent ? 0 : text.length;
      response.writeHead(result.status, headers);
      if (silent || fault !== 'cut') return response.end(silent ? undefined : text);
      response.write(text.subarray(0, text.length >> 1), () => request.socket.destroy());
      return;
    }
    const length = result.to - result.from;
    note.bytes = length;
    response.writeHead(result.status, headers);
    const until = fault === 'cut' ? result.from + (length >> 1) : result.to;
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    let flipAt = fault === 'flip' ? Math.floor(this.#random() * length) : -1;
    for await (const piece of this.#pieces(result.version, result.from, until)) {
      if (flipAt >= 0 && flipAt < piece.length) piece[flipAt] ^= 1;
      flipAt -= piece.length;
      if (!response.write(piece)) await once(response, 'drain', { signal: gone.signal });
    }
    if (fault === 'cut') request.socket.destroy();
    else response.end();
  }

  async *#pieces({ segments }, from, to) {
    let at = 0;
    for (const { file, size } of segments) {
      const start = Math.max(0, from - at);
      const end = Math.min(size, to - at);
      if (start < end)
        yield* createReadStream(join(this.objects.dir, 'bodies', file), {
          start,
          end: end - 1,
          highWaterMark: 256 * 1024,
        });
      at += size;
    }
  }

  #fault(asked) {
    const i = this.faults.findIndex(
      ({ operation, match }) => (operation === undefined || operation === asked.operation) && (match?.(asked) ?? true),
    );
    if (i >= 0) {
      const fault = this.faults[i];
      fault.times = (fault.times ?? 1) - 1;
      if (fault.times <= 0) this.faults.splice(i, 1);
      return fault.kind;
    }
    const { rate, kinds } = this.chaos;
    return rate > 0 && this.#random() < rate ? kinds[Math.floor(this.#random() * kinds.length)] : null;
  }
}

async function readBody(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** Small seeded generator, so that a run with faults can be repeated. */
function mulberry32(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
