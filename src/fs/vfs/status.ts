/** The text of `.rozen/status`, and the errors in it. */
import type { SlotCounters } from '../../cache/slots.ts';

/** An error as the status shows it: the same message is counted, not repeated. */
export interface LogLine {
  /** Milliseconds since 1970 of the first and the last time. */
  first: number;
  last: number;
  count: number;
  message: string;
}

/** What only the main thread knows; posted whenever it changes. */
export interface StatusFacts {
  location: string;
  fingerprint: string;
  readers: number;
  archives: number;
  /** Of a remote store: the folder of the block cache and what it may hold, bytes; null without a cache. Undefined: read in place. */
  cache?: { folder: string; budget: number } | null;
  log: LogLine[];
}

export interface StatusNumbers {
  since: number;
  sets: number;
  snapshots: number;
  slots: { slots: number; slotSize: number };
  blocks: SlotCounters;
  requests: number;
  bytesRead: number;
  pagesDecoded: number;
  /** Reads that less than a block was decoded for. */
  partsDecoded: number;
  partsShared: number;
  partsFailed: number;
  framesRead: number;
  sealedBytes: number;
  misses: number;
  cacheHits: number;
  fetchedFrames: number;
  storeRequests: number;
  requestsAhead: number;
  fetchedBytes: number;
  failedRequests: number;
  cacheBytes: number;
}

const LOG_LINES = 40;
const REPEAT_MS = 60_000;

export function renderStatus(facts: StatusFacts, numbers: StatusNumbers): string {
  const { blocks } = numbers;
  const asked = blocks.decodes - blocks.ahead + blocks.hits;
  const rate = asked === 0 ? '-' : `${((100 * blocks.hits) / asked).toFixed(1)} %`;
  const rows: [string, string][] = [
    ['repository', facts.location],
    ['fingerprint', facts.fingerprint],
    ['mounted', new Date(numbers.since).toISOString()],
    ['snapshots', `${numbers.snapshots} in ${numbers.sets} ${numbers.sets === 1 ? 'set' : 'sets'}`],
    ['readers', `${facts.readers}`],
    ['requests', `${numbers.requests}`],
    ['bytes read', `${numbers.bytesRead}`],
    ['archives open', `${facts.archives}`],
    ['block memory', `${numbers.slots.slots} x ${numbers.slots.slotSize / 1024} KiB`],
    ['blocks decoded', `${blocks.decodes} (${blocks.ahead} ahead)`],
    ['parts of blocks', `${numbers.partsDecoded} (${numbers.partsShared} for another reader)`],
    ['block hit rate', rate],
    ['blocks waited for', `${blocks.waits}`],
    ['blocks failed', `${blocks.failures + numbers.partsFailed}`],
    ['pages decoded', `${numbers.pagesDecoded}`],
    ['blocks fetched', `${numbers.framesRead} (${numbers.sealedBytes} bytes)`],
    ['misses', `${numbers.misses}`],
    ...remoteRows(facts, numbers),
    ['errors', facts.log.length === 0 ? 'none' : `${facts.log.reduce((sum, line) => sum + line.count, 0)}`],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(18)} ${value}`);
  for (const line of [...facts.log].reverse()) {
    const times = line.count === 1 ? '' : ` (${line.count} times since ${new Date(line.first).toISOString()})`;
    lines.push(`  ${new Date(line.last).toISOString()} ${line.message}${times}`);
  }
  return `${lines.join('\n')}\n`;
}

function remoteRows({ cache }: StatusFacts, numbers: StatusNumbers): [string, string][] {
  if (cache === undefined) return [];
  const { cacheHits: hits, fetchedFrames: fetched } = numbers;
  const rate = hits + fetched === 0 ? '-' : `${((100 * hits) / (hits + fetched)).toFixed(1)} %`;
  const size = cache === null ? 'none' : `${numbers.cacheBytes} of ${cache.budget} bytes in ${cache.folder}`;
  return [
    ['cache', size],
    ['cache hit rate', rate],
    ['store requests', `${numbers.storeRequests} (${numbers.requestsAhead} ahead), ${numbers.fetchedBytes} bytes`],
    ['requests failed', `${numbers.failedRequests}`],
  ];
}

/** Errors of the mount. The same message within a minute is counted only. */
export class ErrorLog {
  readonly lines: LogLine[] = [];
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** True when the message is new, or a minute has gone since it was last said: then it is worth a line in a log. */
  add(message: string): boolean {
    const time = this.#now();
    const text = message.replaceAll(/[\r\n]+/g, ' ').slice(0, 300);
    const index = this.lines.findIndex((line) => line.message === text);
    if (index < 0) {
      this.lines.push({ first: time, last: time, count: 1, message: text });
      if (this.lines.length > LOG_LINES) this.lines.shift();
      return true;
    }
    const line = this.lines[index]!;
    line.count++;
    if (time - line.last < REPEAT_MS) return false;
    line.last = time;
    this.lines.splice(index, 1);
    this.lines.push(line);
    return true;
  }
}
