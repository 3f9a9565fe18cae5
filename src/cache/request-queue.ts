/** Requests to a store: so many at once, those that somebody waits for first, each with a deadline. */
import { RozenError } from '../errors.ts';

/** At once, for one process. */
const PARALLEL = 16;
/** Of these kept free of what nobody waits for yet: a reader that comes now must not wait for all of it. */
const RESERVED = 1;
const DEADLINE_MS = 60_000;
/** Requests that nobody waits for: older ones are given up when there are more. */
const MAX_AHEAD = 64;

export interface RequestQueueOptions {
  parallel?: number | undefined;
  /**
   * How long somebody waits for an answer, its turn included, before they are told that the store does not answer. Null:
   * as long as the store itself goes on trying.
   */
  deadlineMs?: number | null | undefined;
}

/** A request that waits for its turn. */
export interface Queued {
  /** Somebody waits for it now. */
  hasten(): void;
}

/** A request ahead of its time that made room for newer ones. */
export class GivenUp extends RozenError {
  constructor() {
    super('interrupted', 'a request ahead of its time was given up');
  }
}

class Request implements Queued {
  state: 'waiting' | 'running' | 'over' = 'waiting';
  readonly send: () => Promise<void>;
  readonly #reject: (error: Error) => void;
  readonly #queue: { hasten(request: Request): void; late(request: Request): Error | null };
  #timer: NodeJS.Timeout | null = null;

  constructor(options: {
    send: () => Promise<void>;
    reject: (error: Error) => void;
    queue: { hasten(request: Request): void; late(request: Request): Error | null };
  }) {
    this.send = options.send;
    this.#reject = options.reject;
    this.#queue = options.queue;
  }

  hasten(): void {
    if (this.state !== 'over') this.#queue.hasten(this);
  }

  startTimer(ms: number | null): void {
    if (ms === null || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      const error = this.#queue.late(this);
      if (error !== null) this.#reject(error);
    }, ms);
    this.#timer.unref();
  }

  end(error?: Error): void {
    this.state = 'over';
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (error !== undefined) this.#reject(error);
  }
}

export class RequestQueue {
  readonly #parallel: number;
  readonly #deadline: number | null;
  readonly #what: string;
  #active = 0;
  readonly #urgent: Request[] = [];
  readonly #ahead: Request[] = [];
  #closed = false;

  /** `what`: the store, for messages. */
  constructor(what: string, options: RequestQueueOptions = {}) {
    this.#what = what;
    this.#parallel = Math.max(2, options.parallel ?? PARALLEL);
    this.#deadline = options.deadlineMs === undefined ? DEADLINE_MS : options.deadlineMs;
  }

  /** Runs `send` when it is its turn. The promise rejects with what it throws, with 'io' at the deadline, or with GivenUp. */
  request<T>(send: () => Promise<T>, ahead = false): { done: Promise<T>; queued: Queued } {
    let request!: Request;
    const done = new Promise<T>((resolve, reject) => {
      request = new Request({ send: () => send().then(resolve, reject), reject, queue: this });
    });
    if (this.#closed) request.end(new GivenUp());
    else if (ahead) {
      this.#ahead.push(request);
      if (this.#ahead.length > MAX_AHEAD) this.#ahead.shift()!.end(new GivenUp());
    } else {
      this.#urgent.push(request);
      request.startTimer(this.#deadline);
    }
    this.#next();
    return { done, queued: request };
  }

  hasten(request: Request): void {
    request.startTimer(this.#deadline);
    const at = this.#ahead.indexOf(request);
    if (at < 0) return;
    this.#ahead.splice(at, 1);
    this.#urgent.push(request);
    this.#next();
  }

  /** At the deadline of a request: its place is free for others, and its answer, if it comes, is for nobody. */
  late(request: Request): Error | null {
    if (request.state === 'over') return null;
    if (request.state === 'running') this.#active--;
    else this.#urgent.splice(this.#urgent.indexOf(request), 1);
    request.state = 'over';
    this.#next();
    return new RozenError('io', `${this.#what}: no answer within ${this.#deadline! / 1000} s`, {
      hint: 'see whether the store can be reached',
      retryable: true,
    });
  }

  /** Nothing more is sent; what waits is given up. */
  close(): void {
    this.#closed = true;
    for (const request of [...this.#urgent.splice(0), ...this.#ahead.splice(0)]) request.end(new GivenUp());
  }

  #next(): void {
    while (this.#active < this.#parallel) {
      const mayAhead = this.#active < this.#parallel - RESERVED;
      const request = this.#urgent.shift() ?? (mayAhead ? this.#ahead.shift() : undefined);
      if (request === undefined) return;
      this.#active++;
      request.state = 'running';
      void request.send().finally(() => {
        if (request.state === 'over') return;
        request.end();
        this.#active--;
        this.#next();
      });
    }
  }
}
